"""One ONNX model in memory: loaded, warmed up, and run.

Promises that a failed load is one of the six `LoadError`s with words for a person, that external data stays
mapped from its file (pages are shared between replicas on a node and reclaimable) except for what ONNX
Runtime prepacks for speed, and that `run` releases the GIL while it computes. It neither schedules nor
measures requests.

With `session` the only module that imports onnxruntime.
"""

import logging
import time
from collections.abc import Mapping, Sequence

import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from inference_server.engine.example_inputs import example, open_sizes
from inference_server.engine.onnx_errors import is_about_memory, out_of_memory, plain
from inference_server.engine.session import open_session, runner
from inference_server.errors import ExecutionFailed, InvalidRequest, ModelLoadFailed, NotReady, RequestError
from inference_server.files.model_directory import ModelFiles
from inference_server.files.onnx_file import check_external_data, has_loops
from inference_server.host.cgroup import memory_limit
from inference_server.host.resident import give_back, resident_bytes
from inference_server.messages import ModelMetadata
from inference_server.tensors import DYNAMIC, Array, TensorSpec

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
    "bfloat16": "BF16",
    "string": "BYTES",
}


class Model:
    """A loaded model.

    Attributes:
        metadata: Name, version, inputs and outputs; the parameters are providers and memory mode.
        digest: Digest of the artifact's manifest, or "".
        threads: Threads that one run uses.
        open_size: A size with which the model runs for axes that it leaves open; None when none was found.
        has_loops: Whether what it computes depends on values, so that the size of a request does not tell its price.
        load_seconds: Time the load and the warm-up took.
        memory_bytes: Growth of this process's resident memory from before the load until `measure` was last called; shared
            pages included.
    """

    def __init__(
        self, files: ModelFiles, threads: int, *, providers: Sequence[str] = (), low_memory: bool = False
    ) -> None:
        """Load and warm up.

        Args:
            files: What to load.
            threads: Threads that one inference may use.
            providers: Execution providers, the preferred one first; the CPU is what remains.
            low_memory: Keep weights in their file, at a price in time.

        Raises:
            LoadError: The model cannot be served.
        """
        started = time.monotonic()
        give_back()
        self._resident_before = resident_bytes()
        check_memory(files, memory_limit())
        check_external_data(files)
        self.has_loops = has_loops(files)
        self._files, self._providers, self._low_memory = files, tuple(providers), low_memory
        self._open(threads)
        session = self._session
        self.metadata = ModelMetadata(
            files.name,
            files.version,
            tuple(_spec(node, "input") for node in session.get_inputs()),
            tuple(_spec(node, "output") for node in session.get_outputs()),
            {
                "providers": ",".join(session.get_providers()),
                "memory_mode": "low" if low_memory else "standard",
            },
        )
        self.digest = files.digest
        self._output_names = [spec.name for spec in self.metadata.outputs]
        self.open_size = self._warm_up()
        self.load_seconds = time.monotonic() - started
        self.memory_bytes = max(0, resident_bytes() - self._resident_before)

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Array]) -> list[Array]:
        """Return the named outputs for these inputs. Blocks; any number of threads may call it at the same time.

        Raises:
            InvalidRequest: The shapes do not fit together (sizes that the model leaves open but relates).
            NotReady: There is no memory for this request now.
            ExecutionFailed: The model failed; the log has ONNX Runtime's words.
        """
        try:
            result: list[Array] = self._run(outputs, inputs, self._run_options)
        except Exception as error:  # noqa: BLE001 — onnxruntime's exceptions share no base class; typed here, once
            typed = _typed(error)
            if isinstance(typed, ExecutionFailed):
                logger.warning("model execution failed", extra={"fields": {"error": str(error)[:2000]}})
            raise typed from None
        return result

    def reopen(self, threads: int) -> None:
        """Use so many threads a run from now on. Nothing may be running; the old session goes before the new one comes.

        Raises:
            LoadError: The model cannot be loaded again.
        """
        del self._session, self._run
        self._open(threads)

    def trim(self) -> None:
        """Give back to the kernel what loading and measuring have left, and be warm all the same. Nothing may be running."""
        try:
            if self.open_size is not None and not self._low_memory:
                # The arena would keep what the largest batch took, for ever.
                shrink = ort.RunOptions()
                shrink.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
                self._run(self._output_names, example(self.metadata.inputs, 1, self.open_size), shrink)
            give_back()
            if self.open_size is not None:
                self._run(self._output_names, example(self.metadata.inputs, 1, self.open_size), None)
        except Exception as error:  # noqa: BLE001 — as in `run`; what ran before runs again, but for memory
            logger.warning("memory was not given back", extra={"fields": {"error": plain(error)}})
        self.memory_bytes = max(0, resident_bytes() - self._resident_before)

    def _open(self, threads: int) -> None:
        self._session = open_session(self._files, threads, self._providers, self._low_memory)
        self._run = runner(self._session)
        # With none, each run would make its own.
        self._run_options = ort.RunOptions()
        self.threads = threads

    def _warm_up(self) -> int | None:
        """Run once on zeros: the first client does not pay for allocations and lazy initialisation."""
        inputs, told = self.metadata.inputs, ""
        for size in open_sizes(inputs):
            try:
                self._run(self._output_names, example(inputs, 1, size), None)
            except Exception as error:  # noqa: BLE001 — as in `run`
                told = str(_typed(error))
            else:
                return size
        # Sizes of open axes are guesses: a model may rightly refuse them all.
        logger.warning("warm-up failed; serving all the same", extra={"fields": {"error": told}})
        return None


def _typed(error: Exception) -> RequestError:
    """Return what a client is told of an error of ONNX Runtime."""
    if isinstance(error, InvalidArgument):
        return InvalidRequest(f"inputs: the model refuses them: {plain(error)}")
    if is_about_memory(error):
        return NotReady("out of memory for this request; send a smaller batch or try later")
    return ExecutionFailed(f"the model failed on this input: {plain(error)}")


def check_memory(files: ModelFiles, limit: int | None) -> None:
    """Refuse a model that is sure not to fit, in words, before the kernel kills the process without any.

    Args:
        files: The model; weights in files of their own are not counted, they are mapped.
        limit: Bytes this process may use, None for no limit.

    Raises:
        OutOfMemory: The ONNX file alone is as large as the limit.
    """
    if limit is not None and files.entry.stat().st_size >= limit:
        raise out_of_memory(files.entry.name, files.entry.stat().st_size, limit)


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
