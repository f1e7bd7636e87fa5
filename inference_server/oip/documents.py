"""JSON documents about the server and its models: metadata, configuration, statistics, golden samples.

Pure: values → bytes. Sources: the Open Inference Protocol for metadata; Triton's extensions for configuration and
statistics (`docs/protocol/extension_model_configuration.md`, `extension_statistics.md`), of which this server fills
in what it has.
"""

from collections.abc import Iterable
from typing import Any

import orjson

from inference_server.messages import GoldenResult, ModelMetadata
from inference_server.telemetry.statistics import ModelStatistics, Tally
from inference_server.tensors import TensorSpec

PLATFORM = "onnxruntime_onnx"
BACKEND = "onnxruntime"


def encode_metadata(model: ModelMetadata) -> bytes:
    """Return the body of the model metadata endpoint."""
    document: dict[str, Any] = {
        "name": model.name,
        "versions": [model.version],
        "platform": PLATFORM,
        "inputs": [_tensor(spec) for spec in model.inputs],
        "outputs": [_tensor(spec) for spec in model.outputs],
    }
    if model.parameters:
        document["parameters"] = dict(model.parameters)
    return orjson.dumps(document)


def encode_config(model: ModelMetadata) -> bytes:
    """Return the body of Triton's model configuration endpoint.

    As in Triton, shapes are without their first axis where requests are computed in batches (`max_batch_size` over 0),
    and whole where they are not.
    """
    batch = batch_rows(model)
    versions = {"specific": {"versions": [int(model.version)]}} if model.version.isdecimal() else {}
    return orjson.dumps(
        {
            "name": model.name,
            "platform": PLATFORM,
            "backend": BACKEND,
            "version_policy": versions,
            "max_batch_size": batch,
            "input": [_configured(spec, batch) for spec in model.inputs],
            "output": [_configured(spec, batch) for spec in model.outputs],
        }
    )


def batch_rows(model: ModelMetadata) -> int:
    """Return Triton's `max_batch_size`: most rows of a batch, 0 for a model whose requests are computed one by one."""
    rows = int(model.parameters.get("max_batch_size", 0)) if model.parameters.get("batchable") else 0
    return rows if rows > 1 else 0


def encode_statistics(models: Iterable[tuple[ModelMetadata, ModelStatistics]]) -> bytes:
    """Return the body of Triton's statistics endpoint."""
    return orjson.dumps({"model_stats": [_statistics(*model) for model in models]})


def encode_golden(result: GoldenResult) -> bytes:
    """Return the body of the golden samples endpoint, which is this server's own."""
    return orjson.dumps(result)


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": spec.shape}


def _configured(spec: TensorSpec, batch: int) -> dict[str, Any]:
    datatype = "STRING" if spec.datatype == "BYTES" else spec.datatype
    return {
        "name": spec.name,
        "data_type": f"TYPE_{datatype}",
        "dims": spec.shape[1:] if batch else spec.shape,
    }


def _statistics(model: ModelMetadata, sums: ModelStatistics) -> dict[str, Any]:
    durations = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
    return {
        "name": model.name,
        "version": model.version,
        "last_inference": int(sums.last * 1000),
        "inference_count": sums.rows,
        "execution_count": sums.compute_infer.count,
        "inference_stats": {name: _tally(getattr(sums, name)) for name in durations},
        "batch_stats": [
            {"batch_size": rows, "compute_infer": _tally(tally)}
            for rows, tally in sorted(sums.batches.items())
        ],
    }


def _tally(tally: Tally) -> dict[str, int]:
    return {"count": tally.count, "ns": round(tally.seconds * 1e9)}
