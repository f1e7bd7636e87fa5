"""The server's Prometheus metrics: their names, labels and buckets, in one place.

The names are a contract (`docs/reference/metrics.md`, pinned by `tests/golden/server_metrics.txt`). Labels
are bounded: `model` and `version` are those the server holds, or "" for a request that named something
else. Where several processes serve together, each tells the numbers of all.
"""

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.process_collector import ProcessCollector

from inference_server.telemetry.tallies import Counts, Distributions, Levels, Longest

if TYPE_CHECKING:
    # Only servers of several processes have one.
    from inference_server.telemetry.board import Board

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# From a tiny model on a fast core (100 µs) to a detector on a slow one (tens of seconds).
_SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
# The whole way of a request in finer steps, of a third at most: a rollout compares 99th percentiles, and cannot tell two
# apart that lie in one bucket.
REQUEST_SECONDS = (
    *(
        float(f"{step}e{power}")
        for power in range(-4, 1)
        for step in ("1", "1.2", "1.5", "2", "2.5", "3", "4", "5", "6", "8")
    ),
    10.0, 15.0, 20.0, 30.0,
)  # fmt: skip
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_MODEL = ("model", "version")


class Metrics:
    """All metrics of one server, in a registry of their own.

    Args:
        exemplars: Whether trace ids go with the latency histogram, for scrapers that ask for OpenMetrics.
        board: Where the numbers of several processes are; None where one serves alone.

    Attributes:
        board: As above.
    """

    def __init__(self, *, exemplars: bool = False, board: "Board | None" = None) -> None:
        self.exemplars = exemplars
        self.board = board
        self.registry = CollectorRegistry()
        if board is None:
            # CPU and memory of the process, under the names every Prometheus client library uses.
            ProcessCollector(registry=self.registry)
        else:
            from inference_server.telemetry.process_family import ProcessFamily

            ProcessFamily(lambda: board.pids, self.registry)
        self.requests = Counts(
            "inference_requests",
            "Inference requests answered, by status code.",
            (*_MODEL, "protocol", "code"),
            registry=self.registry,
            board=board,
        )
        self.request_duration = Distributions(
            "inference_request_duration_seconds",
            "Time from a complete request to its complete response, decoding and encoding included.",
            (*_MODEL, "protocol"),
            buckets=REQUEST_SECONDS,
            registry=self.registry,
            board=board,
        )
        self.compute_duration = Distributions(
            "inference_compute_duration_seconds",
            "Time of each run, in ONNX Runtime and in joining and parting its requests.",
            _MODEL,
            buckets=_SECONDS,
            registry=self.registry,
            board=board,
        )
        self.queue_duration = Distributions(
            "inference_queue_duration_seconds",
            "Time from a decoded request to the beginning of the run that computes it.",
            _MODEL,
            buckets=_SECONDS,
            registry=self.registry,
            board=board,
        )
        self.batch_size = Distributions(
            "inference_batch_size",
            "Rows of each run; 1 where the first axis is no batch axis.",
            _MODEL,
            buckets=_ROWS,
            registry=self.registry,
            board=board,
        )
        self.batch_size_limit = Gauge(
            "inference_batch_size_limit",
            "Most rows of a run that several requests share; 1 for none.",
            _MODEL,
            registry=self.registry,
        )
        self.compute_threads = Gauge(
            "inference_compute_threads",
            "Threads that one run uses.",
            _MODEL,
            registry=self.registry,
        )
        self.compute_sessions = Levels(
            "inference_compute_sessions",
            "Runs that may be under way at the same time.",
            _MODEL,
            registry=self.registry,
            board=board,
        )
        self.compute_inline = Gauge(
            "inference_compute_inline",
            "1 when runs are so short that the event loop's own thread computes them, else 0.",
            _MODEL,
            registry=self.registry,
        )
        self.inflight = Levels(
            "inference_inflight_requests",
            "Inference requests received and not yet answered.",
            _MODEL,
            registry=self.registry,
            board=board,
        )
        self.load_duration = Longest(
            "inference_model_load_duration_seconds",
            "Time the load and warm-up of the model took.",
            _MODEL,
            registry=self.registry,
            board=board,
        )
        self.memory = Levels(
            "inference_model_memory_bytes",
            "Growth of resident memory while the model was loaded and warmed up, shared pages included.",
            _MODEL,
            registry=self.registry,
            board=board,
        )
        self.golden = Gauge(
            "inference_golden_samples",
            "Golden samples of the model by what came of them before it was ready: Pass or Fail.",
            (*_MODEL, "outcome"),
            registry=self.registry,
        )
        self.info = Gauge(
            "inference_model_info",
            "Always 1; the labels say which artifact is served.",
            (*_MODEL, "digest"),
            registry=self.registry,
        )

        self.cache_hits = Counts(
            "inference_cache_hits",
            "Requests answered from the result cache, or by an equal request that was being computed.",
            _MODEL,
            registry=self.registry,
            board=board,
        )
        self.cache_misses = Counts(
            "inference_cache_misses",
            "Requests looked up in the result cache and computed.",
            _MODEL,
            registry=self.registry,
            board=board,
        )
        self.cache_bytes = Levels(
            "inference_cache_bytes",
            "Memory that the result cache takes, of all models together.",
            (),
            registry=self.registry,
            board=board,
        ).labels()
        self.thermal = Gauge(
            "inference_thermal_celsius",
            "Temperature of the machine's thermal zones.",
            ("zone",),
            registry=self.registry,
        )
        self.concurrency_ratio = Gauge(
            "inference_concurrency_limit_ratio",
            "Share of the time in which models may compute: less than 1 while the machine is hot.",
            registry=self.registry,
        )
        self.concurrency_ratio.set(1)
        self.stuck_runs = Levels(
            "inference_stuck_runs",
            "Runs that take so much longer than any before that the server calls itself dead.",
            (),
            registry=self.registry,
            board=board,
        ).labels()
        self.processes = Levels(
            "inference_processes",
            "Processes of this server that answer now.",
            (),
            registry=self.registry,
            board=board,
        ).labels()
        self.log_dropped = Counts(
            "inference_request_log_dropped",
            "Lines of the request log that nobody read in time.",
            (),
            registry=self.registry,
            board=board,
        ).labels()

    def render(self) -> bytes:
        """Return all metrics in Prometheus text format."""
        return generate_latest(self.registry)

    def exposition(self, accept: bytes) -> tuple[bytes, str]:
        """Return all metrics as a scraper wants them, and their content type.

        Args:
            accept: Its `Accept` header. OpenMetrics, for which Prometheus asks, is spoken only where there are exemplars:
                the classic format cannot carry them, and is read by every tool.
        """
        if self.exemplars and b"application/openmetrics-text" in accept:
            text: bytes = openmetrics.generate_latest(self.registry)  # type: ignore[no-untyped-call]
            return text, openmetrics.CONTENT_TYPE_LATEST
        return self.render(), CONTENT_TYPE
