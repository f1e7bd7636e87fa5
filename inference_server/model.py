"""One ONNX model in memory: loaded, warmed up, and run.

Promises that a failed load is one of the six `LoadError`s with words for a person, that external data stays
mapped from its file (pages are shared between replicas on a node and reclaimable) except for what ONNX
Runtime prepacks for speed, and that `run` releases the GIL while it computes. It neither schedules nor
measures requests.

The only module that imports onnxruntime.
"""

import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from inference_server.cgroup import memory_limit
from inference_server.errors import (
    ExecutionFailed,
    InvalidRequest,
    LoadError,
    ModelLoadFailed,
    NotReady,
    OutOfMemory,
    UnsupportedOpset,
)
from inference_server.messages import ModelMetadata
from inference_server.model_directory import ModelFiles
from inference_server.onnx_file import check_external_data
from inference_server.tensors import DYNAMIC, NUMPY_TYPES, Array, TensorSpec

logger = logging.getLogger(__name__)

_ORT_TYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
}

# What onnxruntime writes; pinned by tests/unit/server/test_model.py.
_OPSET = re.compile(
    r"Opset (?P<found>\d+) is under development.*?for domain (?P<domain>\S+) is till opset (?P<known>\d+)",
    re.S,
)
_IR_VERSION = re.compile(
    r"Unsupported model IR version: (?P<found>\d+), max supported IR version: (?P<known>\d+)"
)
_OPERATOR = re.compile(
    r"No Op registered for (?P<op>\S+) with domain_version of"
    r"|(?P<fatal>\S+?)\(-?\d+\) is not a registered function/op"
)
_MEMORY = re.compile(r"bad_alloc|Failed to allocate memory|out of memory", re.I)
_NOISE = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : |^Load model from .*? failed:|/onnxruntime_src/\S+:\d+ |\n"
)


class Model:
    """A loaded model.

    Attributes:
        metadata: Name, version, inputs and outputs.
        digest: Digest of the artifact's manifest, or "".
        load_seconds: Time the load and the warm-up took.
        memory_bytes: Growth of this process's resident memory over load and warm-up; shared pages included.
    """

    def __init__(self, files: ModelFiles, threads: int) -> None:
        """Load and warm up.

        Args:
            files: What to load.
            threads: Threads that one inference may use.

        Raises:
            LoadError: The model cannot be served.
        """
        started, resident = time.monotonic(), _resident_bytes()
        check_memory(files, memory_limit())
        check_external_data(files)
        self._session = _open_session(files, threads)
        # The inner session's `run` is what the public one calls after looking at every argument again, at twice the price.
        self._run = getattr(self._session, "_sess", self._session).run
        self.metadata = ModelMetadata(
            files.name,
            files.version,
            tuple(_spec(node, "input") for node in self._session.get_inputs()),
            tuple(_spec(node, "output") for node in self._session.get_outputs()),
        )
        self.digest = files.digest
        self._warm_up()
        self.load_seconds = time.monotonic() - started
        self.memory_bytes = max(0, _resident_bytes() - resident)

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Array]) -> list[Array]:
        """Return the named outputs for these inputs. Blocks; call it from a worker thread.

        Raises:
            InvalidRequest: The shapes do not fit together (sizes that the model leaves open but relates).
            NotReady: There is no memory for this request now.
            ExecutionFailed: The model failed; the log has ONNX Runtime's words.
        """
        try:
            result: list[Array] = self._run(outputs, inputs, None)
        except InvalidArgument as error:
            raise InvalidRequest(f"inputs: the model refuses them: {_plain(error)}") from None
        except MemoryError:
            raise NotReady("out of memory for this request; send a smaller batch or try later") from None
        except Exception as error:  # noqa: BLE001 — onnxruntime's exceptions share no base class; typed here, once
            if _MEMORY.search(str(error)):
                raise NotReady("out of memory for this request; send a smaller batch or try later") from None
            logger.warning("model execution failed", extra={"fields": {"error": str(error)[:2000]}})
            raise ExecutionFailed(f"the model failed on this input: {_plain(error)}") from None
        return result

    def _warm_up(self) -> None:
        """Run once on zeros: the first client does not pay for allocations and lazy initialisation."""
        inputs = {
            spec.name: np.zeros(
                [1 if size == DYNAMIC else size for size in spec.shape], NUMPY_TYPES[spec.datatype]
            )
            for spec in self.metadata.inputs
        }
        for spec in self.metadata.inputs:
            if spec.datatype == "BYTES":
                inputs[spec.name].fill("")
        try:
            self.run([spec.name for spec in self.metadata.outputs], inputs)
        except (InvalidRequest, ExecutionFailed, NotReady) as error:
            # Zeros of size 1 are a guess: a model may rightly refuse them.
            logger.warning("warm-up failed; serving all the same", extra={"fields": {"error": str(error)}})


def _open_session(files: ModelFiles, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Spinning buys microseconds with a whole core; on two cores the HTTP side needs it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        # By path, never by bytes: that is what maps external data instead of copying it.
        return ort.InferenceSession(str(files.entry), options, providers=["CPUExecutionProvider"])
    except MemoryError:
        raise _out_of_memory(files, memory_limit()) from None
    except Exception as error:  # noqa: BLE001 — onnxruntime's exceptions share no base class; typed here, once
        raise _load_error(files, error) from None


def _load_error(files: ModelFiles, error: Exception) -> LoadError:
    """Return the typed form of what onnxruntime raised while loading."""
    text, name, runtime = str(error), files.entry.name, f"onnxruntime {ort.__version__}"
    if match := _OPSET.search(text):
        return UnsupportedOpset(
            f"{name}: needs opset {match['found']} of domain {match['domain']}; "
            f"{runtime} knows up to {match['known']}: export the model with an older opset, or use a newer server"
        )
    if match := _IR_VERSION.search(text):
        return UnsupportedOpset(
            f"{name}: has ONNX IR version {match['found']}; {runtime} knows up to {match['known']}: "
            "export the model with an older onnx release, or use a newer server"
        )
    if match := _OPERATOR.search(text):
        return UnsupportedOpset(
            f"{name}: needs the operator {match['op'] or match['fatal']}, which {runtime} does not have: "
            "export the model with standard operators, or use a newer server"
        )
    if _MEMORY.search(text):
        return _out_of_memory(files, memory_limit())
    return ModelLoadFailed(
        f"{name}: {runtime} cannot load it: {_plain(error)} "
        "Check the file with onnx.checker, export and publish it again"
    )


def check_memory(files: ModelFiles, limit: int | None) -> None:
    """Refuse a model that is sure not to fit, in words, before the kernel kills the process without any.

    Args:
        files: The model; weights in files of their own are not counted, they are mapped.
        limit: Bytes this process may use, None for no limit.

    Raises:
        OutOfMemory: The ONNX file alone is as large as the limit.
    """
    if limit is not None and files.entry.stat().st_size >= limit:
        raise _out_of_memory(files, limit)


def _out_of_memory(files: ModelFiles, limit: int | None) -> OutOfMemory:
    allowed = "no limit set" if limit is None else f"limit of {limit} bytes"
    return OutOfMemory(
        f"{files.entry.name}: does not fit in memory (file of {files.entry.stat().st_size} bytes, {allowed}): "
        "raise the memory limit, or use a smaller or quantised model"
    )


def _spec(node: ort.NodeArg, what: str) -> TensorSpec:
    element = node.type.removeprefix("tensor(").removesuffix(")")
    datatype = _ORT_TYPES.get(element)
    if datatype is None:
        raise ModelLoadFailed(
            f"{what} {node.name!r}: expected a tensor of {', '.join(sorted(_ORT_TYPES))}, found {node.type}; "
            "export the model with plain tensors at its border"
        )
    shape = tuple(size if isinstance(size, int) and size >= 0 else DYNAMIC for size in node.shape)
    return TensorSpec(node.name, datatype, shape)


def _plain(error: Exception) -> str:
    """Return onnxruntime's message without its build paths and status codes, as one line."""
    text = str(error)
    for _ in range(3):
        text = _NOISE.sub(lambda match: " " if match[0] == "\n" else "", text)
    return text.strip()[:600]


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")  # 16 KiB on a Raspberry Pi 5
