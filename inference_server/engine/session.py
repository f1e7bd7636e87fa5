"""Opens sessions of ONNX Runtime: threads, execution providers by preference, memory.

Promises a session or a `LoadError` in words. A provider that this build or machine lacks is passed over with a line in the
log, and the CPU is what remains. `low_memory` keeps weights in the mapped file: nothing is prepacked and no arena keeps what
runs have used (docs/reference/inference-server.md states the price).
"""

import ctypes
import logging
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnxruntime as ort

from inference_server.engine.onnx_errors import load_error, plain
from inference_server.errors import LoadError, ModelLoadFailed
from inference_server.files.model_directory import ModelFiles
from inference_server.host.cgroup import memory_limit
from inference_server.tensors import NUMPY_TYPES, Array

logger = logging.getLogger(__name__)

CPU = "CPUExecutionProvider"
_SUFFIX = "ExecutionProvider"
_BF16, _ONNX_BF16 = "tensor(bfloat16)", 16


def choose_providers(wanted: Sequence[str], available: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the providers to try in order, the CPU last, and those that were wanted and are not available.

    Args:
        wanted: Names as in `CUDAExecutionProvider`, or short and in any case: `cuda`.
        available: What this build of ONNX Runtime has.
    """
    known = {name.removesuffix(_SUFFIX).lower(): name for name in available}
    found, missing = [], []
    for name in wanted:
        provider = known.get(name.strip().removesuffix(_SUFFIX).lower())
        if provider is None:
            missing.append(name.strip())
        elif provider not in found:
            found.append(provider)
    if CPU in found:
        found = found[: found.index(CPU)]
    return [*found, CPU], missing


def open_session(
    files: ModelFiles, threads: int, providers: Sequence[str] = (), low_memory: bool = False
) -> ort.InferenceSession:
    """Return a session on the first providers that take the model.

    Args:
        files: What to load.
        threads: Threads that one run may use.
        providers: Preferred first; the CPU need not be named.
        low_memory: Spend time to save memory.

    Raises:
        LoadError: ONNX Runtime refuses the model.
    """
    wanted, missing = choose_providers(providers, ort.get_available_providers())
    if missing:
        logger.warning(
            "execution providers are not in this build and passed over",
            extra={"fields": {"missing": missing, "available": ort.get_available_providers()}},
        )
    while True:
        try:
            session = _open(files, _options(threads, low_memory), wanted)
        except Exception as error:  # noqa: BLE001 — onnxruntime's exceptions share no base class; typed here, once
            if len(wanted) == 1:
                raise _typed(files, error) from None
            fields = {"provider": wanted[0], "error": plain(error)}
            logger.warning("execution provider failed and is passed over", extra={"fields": fields})
            wanted = wanted[1:]
            continue
        used = session.get_providers()
        if unused := [name for name in wanted if name not in used]:
            # What a provider's own libraries lack is told by ONNX Runtime on stderr, if at all.
            logger.warning(
                "execution providers do not work here", extra={"fields": {"unused": unused, "used": used}}
            )
        return session


def runner(session: ort.InferenceSession) -> Callable[..., list[Array]]:
    """Return what computes, of `(outputs, inputs, run_options)`, the named outputs.

    Raises:
        ModelLoadFailed: The model takes BF16 and strings together.
    """
    # The inner session's methods are what the public one's call after checking every argument again: 9 µs instead of 17.
    inner = getattr(session, "_sess", session)
    types = {node.name: node.type for node in session.get_inputs()}
    if _BF16 not in {*types.values(), *(node.type for node in session.get_outputs())}:
        plain: Callable[..., list[Array]] = inner.run
        return plain
    if texts := [name for name, kind in types.items() if kind == "tensor(string)"]:
        raise ModelLoadFailed(
            f"input {texts[0]!r}: ONNX Runtime's Python has no strings in models with BF16; "
            "export the model with FP32 at its border"
        )

    def run(
        outputs: Sequence[str], inputs: Mapping[str, Array], options: ort.RunOptions | None
    ) -> list[Array]:
        values = {name: _value(array, types[name]) for name, array in inputs.items()}
        feeds = {name: value._ortvalue for name, value in values.items()}  # noqa: SLF001 — as with `_sess`
        found = inner.run_with_ort_values(feeds, outputs, options)
        # By index: the end of its iterator is an exception of C++, 45 µs.
        return [_array(found[index]) for index in range(len(outputs))]

    return run


def _value(array: Array, kind: str) -> ort.OrtValue:
    if kind != _BF16:
        return ort.OrtValue.ortvalue_from_numpy(array)
    # In row order: of the array it takes the address and the shape alone.
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(np.asarray(array, order="C"), _ONNX_BF16)


def _array(value: ort.OrtValue) -> Array:
    # Copied: what a model hands through lies in its input, and does not keep it.
    if value.data_type() != _BF16:
        array: Array = value.numpy().copy()
        return array
    shape, numpy_type = value.shape(), NUMPY_TYPES["BF16"]
    raw = ctypes.string_at(value.data_ptr(), math.prod(shape) * numpy_type.itemsize)
    return np.frombuffer(raw, numpy_type).reshape(shape)


def _open(files: ModelFiles, options: ort.SessionOptions, providers: Sequence[str]) -> ort.InferenceSession:
    # By path, never by bytes: that is what maps external data instead of copying it.
    return ort.InferenceSession(str(files.entry), options, providers=list(providers), enable_fallback=0)


def _options(threads: int, low_memory: bool) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # What fails is raised, and logged by whoever asked, as JSON; ONNX Runtime would write it to stderr once more.
    options.log_severity_level = 4
    # Spinning buys microseconds with a whole core; on two cores the HTTP side needs it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    if low_memory:
        # Prepacked weights are a second copy, on the heap.
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.enable_cpu_mem_arena = False
    return options


def _typed(files: ModelFiles, error: Exception) -> LoadError:
    return load_error(files.entry.name, ort.__version__, files.entry.stat().st_size, memory_limit(), error)
