"""Opens sessions of ONNX Runtime: threads, execution providers by preference, memory.

Promises a session or a `LoadError` in words. A provider that this build or machine lacks is passed over with a line in the
log, and the CPU is what remains. `low_memory` keeps weights in the mapped file: nothing is prepacked and no arena keeps what
runs have used (docs/reference/inference-server.md states the price).
"""

import logging
from collections.abc import Sequence

import onnxruntime as ort

from inference_server.engine.onnx_errors import load_error, plain
from inference_server.errors import LoadError
from inference_server.files.model_directory import ModelFiles
from inference_server.host.cgroup import memory_limit

logger = logging.getLogger(__name__)

CPU = "CPUExecutionProvider"
_SUFFIX = "ExecutionProvider"


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
