"""What the server can be told: a flag, or the environment variable of the same name; the flag wins.

Promises a complete, checked `Settings`, or `InvalidSettings` that names the flag or variable. Reads no file.
"""

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference_server import values
from inference_server.errors import InvalidSettings

# Kubernetes injects `<SERVICE>_PORT=tcp://10.0.0.1:80` for every Service of the namespace; a Service called
# "edgemodel" would otherwise hand this server an address as its port.
_SERVICE_LINK = re.compile(r"^(tcp|udp|sctp)://")

DEFAULT_TERMINATION_LOG = Path("/dev/termination-log")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a running server needs to know.

    Attributes:
        model: Model directory or plain `.onnx` file; None where `model_repository` is given.
        model_repository: Folder of model directories, served side by side; None where `model` is given.
        repository_memory_bytes: Most memory that all models of the repository may take together, as measured while they
            were loaded; None for no bound.
        name: Model name in URLs; None takes it from `model.json`, then from the file or directory name.
        version: Model version in URLs; None takes it from `model.json`, then "1".
        digest: Manifest digest of the artifact, for `inference_model_info`; None takes it from `model.json`.
        host: Address to listen on; "" is every address, IPv4 and IPv6.
        port: TCP port; 0 lets the kernel choose.
        threads: Threads that one run uses; None lets calibration choose.
        sessions: Runs at the same time; None lets calibration choose.
        max_batch_size: Most rows of a run that several requests share; None lets calibration choose.
        max_queue_delay: Most seconds that a request waits for others to share its run.
        max_queue_size: Most requests that wait for a model.
        processes: Processes that serve the model at the same port; None for as many as pay.
        busy_poll: Most seconds that the event loop is kept awake for the next request after an answer; 0 for none.
        no_calibration: Measure nothing: no batches, one run at a time on all CPUs.
        providers: Execution providers of ONNX Runtime, the preferred one first.
        memory_mode: "standard", or "low" to keep weights in their file.
        max_body_bytes: Largest request body accepted.
        drain_delay: Seconds of full service after SIGTERM while readiness already says no.
        drain_timeout: Seconds that requests in flight get after that.
        golden_timeout: Seconds that the golden samples may take together before the server is ready.
        cache_bytes: Most memory of the result cache; 0 keeps no answers.
        cache_ttl: Seconds that an answer may be given again; 0 for as long as there is room.
        request_log: Share of the requests that went well that is logged, beside failed ones; None logs none at all.
        exemplars: Whether trace ids go with the latency histogram.
        termination_log: Where the reason of a failed start is left, if the file exists.
        log_level: Name of a level of the standard library's logging.
    """

    model: Path | None = None
    model_repository: Path | None = None
    repository_memory_bytes: int | None = None
    name: str | None = None
    version: str | None = None
    digest: str | None = None
    host: str = ""
    port: int = 8080
    threads: int | None = None
    sessions: int | None = None
    max_batch_size: int | None = None
    max_queue_delay: float = 0.001
    max_queue_size: int = 1024
    processes: int | None = 1
    busy_poll: float = 0.0002
    no_calibration: bool = False
    providers: tuple[str, ...] = ()
    memory_mode: str = "standard"
    max_body_bytes: int = 32 * 1024 * 1024
    drain_delay: float = 5.0
    drain_timeout: float = 20.0
    golden_timeout: float = 60.0
    cache_bytes: int = 0
    cache_ttl: float = 60.0
    request_log: float | None = None
    exemplars: bool = False
    termination_log: Path = DEFAULT_TERMINATION_LOG
    log_level: str = "INFO"


@dataclass(frozen=True, slots=True)
class _Option:
    field: str
    flag: str
    variable: str
    convert: Callable[[str], Any]
    metavar: str
    help: str
    bare: str | None = None  # what the flag means without a value; None: it needs one


OPTIONS = (
    _Option("model", "--model", "EDGEMODEL_MODEL", Path, "PATH", "model directory or .onnx file (required)"),
    _Option(
        "model_repository",
        "--model-repository",
        "EDGEMODEL_MODEL_REPOSITORY",
        Path,
        "DIR",
        "instead of --model: serve each model directory in this one, and load and unload at run time",
    ),
    _Option(
        "repository_memory_bytes",
        "--repository-memory-bytes",
        "EDGEMODEL_REPOSITORY_MEMORY_BYTES",
        values.whole(1, 1 << 50),
        "BYTES",
        "unload the least recently used models of the repository beyond this (no bound)",
    ),
    _Option("name", "--name", "EDGEMODEL_MODEL_NAME", values.text, "NAME", "model name in URLs"),
    _Option(
        "version", "--model-version", "EDGEMODEL_MODEL_VERSION", values.text, "V", "model version in URLs"
    ),
    _Option(
        "digest", "--digest", "EDGEMODEL_DIGEST", values.digest, "DIGEST", "digest of the artifact's manifest"
    ),
    _Option("host", "--host", "EDGEMODEL_HOST", str, "ADDRESS", "address to listen on (all)"),
    _Option("port", "--port", "EDGEMODEL_PORT", values.whole(0, 65535), "PORT", "port to listen on (8080)"),
    _Option(
        "threads",
        "--threads",
        "EDGEMODEL_THREADS",
        values.whole(1, 1024),
        "N",
        "threads of one run (calibrated, up to the CPU limit)",
    ),
    _Option(
        "sessions",
        "--sessions",
        "EDGEMODEL_SESSIONS",
        values.whole(1, 1024),
        "N",
        "runs at the same time (calibrated)",
    ),
    _Option(
        "max_batch_size",
        "--max-batch-size",
        "EDGEMODEL_MAX_BATCH_SIZE",
        values.whole(1, 65536),
        "ROWS",
        "most rows of a run that several requests share; 1: none do (calibrated, up to 64)",
    ),
    _Option(
        "max_queue_delay",
        "--max-queue-delay",
        "EDGEMODEL_MAX_QUEUE_DELAY",
        values.short_seconds,
        "SECONDS",
        "longest wait of an idle session for more requests, where that answers all sooner; 0: never (0.001)",
    ),
    _Option(
        "max_queue_size",
        "--max-queue-size",
        "EDGEMODEL_MAX_QUEUE_SIZE",
        values.whole(1, 1_000_000),
        "N",
        "most requests that wait for a model; more are refused with 503 (1024)",
    ),
    _Option(
        "processes",
        "--processes",
        "EDGEMODEL_PROCESSES",
        values.processes,
        "N|auto",
        "processes at the same port, for models so small that one core's reading and writing limits them; auto: one for "
        "each whole CPU where that pays (1)",
    ),
    _Option(
        "busy_poll",
        "--busy-poll",
        "EDGEMODEL_BUSY_POLL",
        values.short_seconds,
        "SECONDS",
        "stay awake for so long after an answer where the next request tends to come at once; 0: never (0.0002)",
    ),
    _Option(
        "no_calibration",
        "--no-calibration",
        "EDGEMODEL_NO_CALIBRATION",
        values.truth,
        "true|false",
        "measure nothing at start: no batches, one run at a time on all CPUs (false)",
        bare="true",
    ),
    _Option(
        "providers",
        "--providers",
        "EDGEMODEL_PROVIDERS",
        values.providers,
        "NAMES",
        "execution providers of ONNX Runtime by preference, as in cuda,cpu; those it lacks are passed over (cpu)",
    ),
    _Option(
        "memory_mode",
        "--memory-mode",
        "EDGEMODEL_MEMORY_MODE",
        values.memory_mode,
        "MODE",
        "standard, or low: weights stay in their file, runs are slower (standard)",
    ),
    _Option(
        "max_body_bytes",
        "--max-body-bytes",
        "EDGEMODEL_MAX_BODY_BYTES",
        values.whole(1024, 1 << 40),
        "BYTES",
        "largest request body (33554432); parsing JSON takes up to 20 times as much memory for a moment",
    ),
    _Option(
        "drain_delay",
        "--drain-delay",
        "EDGEMODEL_DRAIN_DELAY",
        values.seconds,
        "SECONDS",
        "go on serving for so long after SIGTERM, not ready (5)",
    ),
    _Option(
        "drain_timeout",
        "--drain-timeout",
        "EDGEMODEL_DRAIN_TIMEOUT",
        values.seconds,
        "SECONDS",
        "then let requests in flight finish for so long (20)",
    ),
    _Option(
        "golden_timeout",
        "--golden-timeout",
        "EDGEMODEL_GOLDEN_TIMEOUT",
        values.seconds,
        "SECONDS",
        "golden samples that take longer fail (60)",
    ),
    _Option(
        "cache_bytes",
        "--cache-bytes",
        "EDGEMODEL_CACHE_BYTES",
        values.whole(0, 1 << 50),
        "BYTES",
        "memory for answers that are given again to equal requests (0: off)",
    ),
    _Option(
        "cache_ttl",
        "--cache-ttl",
        "EDGEMODEL_CACHE_TTL",
        values.seconds,
        "SECONDS",
        "give an answer again for so long, 0 for as long as there is room (60)",
    ),
    _Option(
        "request_log",
        "--request-log",
        "EDGEMODEL_REQUEST_LOG",
        values.share,
        "SHARE",
        "log this share of the requests to stdout, and those that failed; 0 only those (off)",
    ),
    _Option(
        "exemplars",
        "--exemplars",
        "EDGEMODEL_EXEMPLARS",
        values.truth,
        "BOOL",
        "show trace ids beside latencies to scrapers that ask for OpenMetrics (false)",
    ),
    _Option(
        "termination_log",
        "--termination-log",
        "EDGEMODEL_TERMINATION_LOG",
        Path,
        "FILE",
        "where the reason of a failed start is left, if the file exists (/dev/termination-log)",
    ),
    _Option(
        "log_level",
        "--log-level",
        "EDGEMODEL_LOG_LEVEL",
        values.level,
        "LEVEL",
        "debug, info, warning or error (info)",
    ),
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m inference_server",
        description="Serve one ONNX model over the Open Inference Protocol v2 (HTTP).",
        epilog="Exit codes: 0 drained, 2 settings, 3 cannot listen, 70 stuck, 10 ModelLoadFailed, 11 UnsupportedOpset, "
        "12 MissingExternalData, 13 AmbiguousModelFile, 14 ModelFileNotFound, 15 OutOfMemory.",
        allow_abbrev=False,
    )
    for option in OPTIONS:
        parser.add_argument(
            option.flag,
            dest=option.field,
            metavar=option.metavar,
            nargs=None if option.bare is None else "?",
            const=option.bare,
            help=f"{option.help} [env {option.variable}]".replace("%", "%%"),
        )
    return parser


def find_termination_log(arguments: Sequence[str], environment: Mapping[str, str]) -> Path:
    """Return where to leave the reason of a failed start, even if other settings are wrong.

    Raises:
        SystemExit: As `read_settings` does.
    """
    given = _parser().parse_args(arguments).termination_log
    return Path(given or environment.get("EDGEMODEL_TERMINATION_LOG") or DEFAULT_TERMINATION_LOG)


def read_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Return the settings of this process.

    Args:
        arguments: Command line without the program's name.
        environment: Environment variables; an empty value counts as unset.

    Raises:
        InvalidSettings: A value is out of its range, or the model is not given.
        SystemExit: `--help`, or an unknown flag (exit code 2, as argparse does).
    """
    given = vars(_parser().parse_args(arguments))
    found: dict[str, Any] = {}
    for option in OPTIONS:
        source, raw = option.flag, given[option.field]
        if raw is None:
            source, raw = option.variable, environment.get(option.variable) or None
            if raw is not None and option.field == "port" and _SERVICE_LINK.match(raw):
                raw = None
        if raw is None:
            continue
        try:
            found[option.field] = option.convert(raw)
        except ValueError as error:
            raise InvalidSettings(f"{source}: expected {error}, found {raw!r}") from None
    if "model" not in found and "model_repository" not in found:
        raise InvalidSettings(
            "--model: expected a model directory or an .onnx file, found nothing; set it or EDGEMODEL_MODEL"
        )
    if "model" in found and "model_repository" in found:
        raise InvalidSettings("--model-repository: expected nothing beside --model; give one of the two")
    if "model_repository" in found and (found.get("processes") or 1) > 1:
        raise InvalidSettings(
            "--processes: expected 1 beside --model-repository, whose models are loaded and unloaded in one process; serve "
            "one model with --model, or leave --processes out"
        )
    return Settings(**found)
