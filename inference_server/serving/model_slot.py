"""One served model: its plan, its threads, its golden result and its metrics.

Promises that what it was given is answered or refused with a `RequestError`, and that after `close` the model is let go
once the last run has ended. Names, versions and the count of requests are the data plane's.
"""

import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from inference_server.engine.plan import Plan
from inference_server.messages import Call, GoldenResult, InferenceRequest, InferenceResponse, ModelMetadata
from inference_server.serving.inline_scheduler import InlineScheduler
from inference_server.serving.request_queue import Batch
from inference_server.serving.scheduler import Scheduler
from inference_server.telemetry.metrics import Metrics
from inference_server.telemetry.statistics import ModelStatistics
from inference_server.tensors import NUMPY_TYPES, Array, TensorSpec

if TYPE_CHECKING:
    from inference_server.serving.result_cache import ModelResults


class ServedModel(Protocol):
    """What the data plane needs of a model (`inference_server.engine.model.Model`)."""

    @property
    def metadata(self) -> ModelMetadata:
        """Name, version, inputs and outputs."""

    @property
    def digest(self) -> str:
        """Digest of the artifact's manifest, or ""."""

    @property
    def load_seconds(self) -> float:
        """Time the load took."""

    @property
    def memory_bytes(self) -> int:
        """Resident memory the load added."""

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Array]) -> list[Array]:
        """Compute; blocks."""


class ModelSlot:
    """A model that is being served.

    Args:
        model: Loaded and warmed up.
        plan: How to compute it.
        golden: What came of its golden samples.
        metrics: Where to count.
        most_waiting: Most requests that may wait.
        most_bytes: Most bytes of one tensor, and of all inputs and outputs of a request as far as its rows tell.

    Attributes:
        under_way: Requests received and not yet answered, as the one number in it; the data plane counts.
        used: Moment of `time.monotonic()` of the last request.
        results: Its kept answers; None where none are kept.
        longest_run: Seconds that its longest run took, calibration's included.
    """

    def __init__(
        self,
        model: ServedModel,
        plan: Plan,
        golden: GoldenResult,
        metrics: Metrics,
        most_waiting: int,
        most_bytes: int,
    ) -> None:
        self.model = model
        self.metadata = replace(
            model.metadata,
            inputs=tuple(_capped(spec, plan, most_bytes) for spec in model.metadata.inputs),
            parameters={**model.metadata.parameters, **_parameters(plan)},
        )
        self.plan = plan
        self.golden = golden
        self.output_specs = {spec.name: spec for spec in model.metadata.outputs}
        self.labels = (model.metadata.name, model.metadata.version)
        self._metrics = metrics
        self.statistics = ModelStatistics(self.labels, metrics.board)
        self.under_way = metrics.inflight.labels(*self.labels).cells
        self._compute_duration = metrics.compute_duration.labels(*self.labels)
        self._queue_duration = metrics.queue_duration.labels(*self.labels)
        self._batch_size = metrics.batch_size.labels(*self.labels)
        kind = InlineScheduler if plan.inline else Scheduler
        self.scheduler: Scheduler = kind(model.run, plan, self, most_waiting)
        self._show()
        self.used = time.monotonic()
        self.longest_run = max((seconds for _, seconds in plan.costs), default=0.0)
        self.results: ModelResults | None = None

    @property
    def running(self) -> tuple[Batch, ...]:
        """Runs that are under way."""
        return self.scheduler.running

    def answer(self, call: Call, request: InferenceRequest) -> Coroutine[Any, Any, list[Array]]:
        """Return, when awaited, the outputs that were asked for, computed or kept.

        Raises:
            RequestError: The model refuses or fails, or there is no time or memory for it.
        """
        deadline = call.deadline
        if request.timeout is not None:
            own = call.received + request.timeout
            deadline = own if deadline is None else min(own, deadline)
        if self.results is None or not call.cache:
            return self.scheduler.compute(request, deadline, call)
        return self._answer_or_keep(self.results, call, request, deadline)

    def response(self, request: InferenceRequest, arrays: Sequence[Array]) -> InferenceResponse:
        """Return the response to a request whose outputs these are."""
        specs = self.output_specs
        outputs = tuple([(specs[name], array) for name, array in zip(request.outputs, arrays, strict=True)])
        return InferenceResponse(*self.labels, request.id, outputs)

    async def _answer_or_keep(
        self, results: "ModelResults", call: Call, request: InferenceRequest, deadline: float | None
    ) -> list[Array]:
        arrays, call.cached = await results.answer(
            request, lambda: self.scheduler.compute(request, deadline, call), deadline
        )
        return arrays

    async def close(self) -> None:
        """Take no further request, and return when the last one has ended; then its gauges go."""
        await self.scheduler.close()
        metrics = self._metrics
        for gauge in (metrics.batch_size_limit, metrics.compute_threads, metrics.compute_inline):
            gauge.remove(*self.labels)
        for level in (metrics.load_duration, metrics.memory, metrics.compute_sessions, metrics.inflight):
            level.remove(*self.labels)
        metrics.info.remove(*self.labels, self.model.digest)
        for outcome in ("Pass", "Fail"):
            metrics.golden.remove(*self.labels, outcome)

    def abandon(self) -> None:
        """Take no further request; what waits is dropped, what computes is left alone."""
        self.scheduler.abandon()

    def ran(self, rows: int, seconds: float) -> None:
        """Count a run (for `Scheduler`)."""
        self._compute_duration.observe(seconds)
        self._batch_size.observe(rows)
        self.statistics.ran(rows, seconds)
        if seconds > self.longest_run:
            self.longest_run = seconds

    def waited(self, seconds: float) -> None:
        """Count a request's wait (for `Scheduler`)."""
        self._queue_duration.observe(seconds)
        self.statistics.queue.add(seconds)

    def _show(self) -> None:
        metrics, labels, plan = self._metrics, self.labels, self.plan
        metrics.load_duration.labels(*labels).set(self.model.load_seconds)
        metrics.memory.labels(*labels).set(self.model.memory_bytes)
        metrics.info.labels(*labels, self.model.digest).set(1)
        metrics.batch_size_limit.labels(*labels).set(plan.batch_rows)
        metrics.compute_threads.labels(*labels).set(plan.threads)
        metrics.compute_sessions.labels(*labels).set(plan.sessions)
        metrics.compute_inline.labels(*labels).set(plan.inline)
        failed = self.golden.total - self.golden.passed
        if self.golden.outcome == "Fail":
            failed = max(failed, 1)  # samples that cannot be read have no number
        for outcome, count in (("Pass", self.golden.passed), ("Fail", failed)):
            metrics.golden.labels(*labels, outcome).set(count)


def _capped(spec: TensorSpec, plan: Plan, most_bytes: int) -> TensorSpec:
    """Return an input with the bounds that memory sets."""
    return replace(
        spec,
        most_elements=max(1, most_bytes // NUMPY_TYPES[spec.datatype].itemsize),
        most_rows=max(1, most_bytes // plan.row_bytes) if plan.row_bytes else 0,
    )


def _parameters(plan: Plan) -> dict[str, str | int | float | bool]:
    """Return what clients are told of how a model is computed."""
    return {
        "batchable": plan.batchable,
        "max_batch_size": plan.batch_rows,
        "max_queue_delay_microseconds": round(plan.queue_delay * 1e6),
        "threads": plan.threads,
        "sessions": plan.sessions,
        "inline": plan.inline,
        "processes": plan.processes,
    }
