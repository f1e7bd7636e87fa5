"""One served model: its plan, its threads, its golden result and its metrics.

Promises that what it was given is answered or refused with a `RequestError`, and that after `close` the model is let go
once the last run has ended. Names, versions and the count of requests are the data plane's.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from inference_server.errors import NotFound
from inference_server.messages import Call, GoldenResult, InferenceRequest, ModelMetadata
from inference_server.metrics import Metrics
from inference_server.plan import Plan
from inference_server.result_cache import ModelResults
from inference_server.tensors import Array
from inference_server.watchdog import RunWatch


class ServedModel(Protocol):
    """What the data plane needs of a model (`inference_server.model.Model`)."""

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

    def run(self, outputs: Sequence[str], inputs: dict[str, Array]) -> list[Array]:
        """Compute; blocks."""


class ModelSlot:
    """A model that is being served.

    Args:
        model: Loaded and warmed up.
        plan: How to compute it.
        golden: What came of its golden samples.
        metrics: Where to count.

    Attributes:
        used: Moment of `time.monotonic()` of the last request.
        results: Its kept answers; None where none are kept.
        watch: Who looks at its runs.
    """

    def __init__(self, model: ServedModel, plan: Plan, golden: GoldenResult, metrics: Metrics) -> None:
        self.model = model
        self.metadata = model.metadata
        self.plan = plan
        self.golden = golden
        self.output_specs = {spec.name: spec for spec in model.metadata.outputs}
        self._threads = ThreadPoolExecutor(plan.sessions, thread_name_prefix="compute")
        self.labels = (model.metadata.name, model.metadata.version)
        self.inflight = metrics.inflight.labels(*self.labels)
        self._compute_duration = metrics.compute_duration.labels(*self.labels)
        self._closed = False
        self.used = time.monotonic()
        self.results: ModelResults | None = None
        self.watch: RunWatch
        self._show(metrics, self.labels)

    async def answer(self, call: Call, request: InferenceRequest) -> list[Array]:
        """Return the outputs that were asked for, computed or kept.

        Raises:
            RequestError: As `compute`.
        """
        if self.results is None or not call.cache:
            return await self.compute(call, request)
        deadline = call.deadline
        if request.timeout is not None:
            deadline = min(deadline or math.inf, call.received + request.timeout)
        arrays, call.cached = await self.results.answer(
            request, lambda: self.compute(call, request), deadline
        )
        return arrays

    async def compute(self, call: Call, request: InferenceRequest) -> list[Array]:
        """Return the outputs that were asked for.

        Raises:
            RequestError: The model refuses or fails, or there is no time or memory for it.
        """
        call.decoded = time.monotonic()
        if self._closed:
            raise NotFound(f"model {self.metadata.name!r}: it has just been unloaded")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._timed_run, call, request)

    async def close(self) -> None:
        """Take no further request, and return when the last one has ended."""
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown)

    def abandon(self) -> None:
        """Take no further request; what waits is dropped, what computes is left alone."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _timed_run(self, call: Call, request: InferenceRequest) -> list[Array]:
        call.began = started = time.monotonic()
        call.rows = 1
        self.watch.begin(call.rows)
        try:
            return self.model.run(request.outputs, dict(request.inputs))
        finally:
            self.watch.end()
            call.computed = time.monotonic() - started
            self._compute_duration.observe(call.computed)

    def _show(self, metrics: Metrics, labels: tuple[str, str]) -> None:
        metrics.load_duration.labels(*labels).set(self.model.load_seconds)
        metrics.memory.labels(*labels).set(self.model.memory_bytes)
        metrics.info.labels(*labels, self.model.digest).set(1)
        failed = self.golden.total - self.golden.passed
        if self.golden.outcome == "Fail":
            failed = max(failed, 1)  # samples that cannot be read have no number
        for outcome, count in (("Pass", self.golden.passed), ("Fail", failed)):
            metrics.golden.labels(*labels, outcome).set(count)
