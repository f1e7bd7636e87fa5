"""What a client may ask about a model by gRPC: metadata, configuration and statistics as protobuf messages.

Pure. The same facts as `documents` gives as JSON. Sources: grpc_predict_v2.proto; Triton's model_config.proto and
`docs/protocol/extension_statistics.md`.
"""

from collections.abc import Iterable

from inference_server.messages import ModelMetadata
from inference_server.oip.documents import BACKEND, PLATFORM, batch_rows
from inference_server.proto import inference_pb2 as pb
from inference_server.telemetry.statistics import ModelStatistics, Tally
from inference_server.tensors import TensorSpec


def encode_metadata(model: ModelMetadata) -> bytes:
    """Return a ModelMetadataResponse."""
    reply = pb.ModelMetadataResponse(name=model.name, versions=[model.version], platform=PLATFORM)
    for specs, tensors in ((model.inputs, reply.inputs), (model.outputs, reply.outputs)):
        for spec in specs:
            tensors.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
    return reply.SerializeToString()


def encode_config(model: ModelMetadata) -> bytes:
    """Return a ModelConfigResponse.

    As in Triton, shapes are without their first axis where requests are computed in batches.
    """
    batch = batch_rows(model)
    skipped = 1 if batch else 0
    config = pb.ModelConfig(name=model.name, platform=PLATFORM, backend=BACKEND, max_batch_size=batch)
    for spec in model.inputs:
        config.input.add(name=spec.name, data_type=_data_type(spec), dims=spec.shape[skipped:])
    for spec in model.outputs:
        config.output.add(name=spec.name, data_type=_data_type(spec), dims=spec.shape[skipped:])
    return pb.ModelConfigResponse(config=config).SerializeToString()


def encode_statistics(models: Iterable[tuple[ModelMetadata, ModelStatistics]]) -> bytes:
    """Return a ModelStatisticsResponse."""
    return pb.ModelStatisticsResponse(
        model_stats=[_statistics(*model) for model in models]
    ).SerializeToString()


def _data_type(spec: TensorSpec) -> int:
    name = "STRING" if spec.datatype == "BYTES" else spec.datatype
    return pb.DataType.Value(f"TYPE_{name}")


def _statistics(model: ModelMetadata, sums: ModelStatistics) -> pb.ModelStatistics:
    return pb.ModelStatistics(
        name=model.name,
        version=model.version,
        last_inference=int(sums.last * 1000),
        inference_count=sums.rows,
        execution_count=sums.compute_infer.count,
        inference_stats=pb.InferStatistics(
            success=_tally(sums.success),
            fail=_tally(sums.fail),
            queue=_tally(sums.queue),
            compute_input=_tally(sums.compute_input),
            compute_infer=_tally(sums.compute_infer),
            compute_output=_tally(sums.compute_output),
        ),
        batch_stats=[
            pb.InferBatchStatistics(batch_size=rows, compute_infer=_tally(tally))
            for rows, tally in sorted(sums.batches.items())
        ],
    )


def _tally(tally: Tally) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=tally.count, ns=round(tally.seconds * 1e9))
