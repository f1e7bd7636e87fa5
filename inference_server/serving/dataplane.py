"""The data plane: the one implementation of the Open Inference Protocol behind every protocol.

A protocol's adapter hands in a decode and an encode function and gets bytes or a `RequestError` back; names,
versions, readiness, metrics and error classes are decided here, once. It knows neither HTTP nor JSON. Several models
are served side by side by name, each in one version; how one is computed is its `ModelSlot`'s.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol, TypeVar

from inference_server.engine.plan import Plan
from inference_server.errors import ExecutionFailed, NotFound, NotReady, Overloaded, RequestError
from inference_server.host.watchdog import Watchdog
from inference_server.messages import (
    ABSENT,
    Call,
    GoldenResult,
    InferenceRequest,
    InferenceResponse,
    ModelMetadata,
)
from inference_server.serving.model_slot import ModelSlot, ServedModel
from inference_server.serving.scheduler import MOST_WAITING, Scheduler
from inference_server.telemetry.metrics import Metrics
from inference_server.telemetry.outcomes import Outcomes
from inference_server.tensors import Array

if TYPE_CHECKING:
    # What is off by default is imported by who switches it on: hashlib and random take 2 MB.
    from inference_server.serving.result_cache import ResultCache
    from inference_server.telemetry.observer import Observer

logger = logging.getLogger(__name__)

SERVER_NAME = "edgemodel-inference-server"
SERVER_VERSION = "1"
EXTENSIONS: tuple[str, ...] = ()

# Status of a request whose client left before the answer, as nginx counts it.
CLIENT_GONE = "499"

# Decoded inputs in memory at a time. A JSON number of two bytes becomes one of eight: a 32 MiB body, 128 MiB.
DECODED_BYTES = 256 * 1024 * 1024
# What a string object takes beside its pointer in the array.
_OBJECT_BYTES = 56
_SHOWN = 100

Encoded = TypeVar("Encoded")


class Unloaded(Protocol):
    """What the data plane needs of a place from which models are loaded (`inference_server.serving.repository`)."""

    def version(self, name: str) -> str | None:
        """Return the version of a model that a request may have loaded, None for one that it may not."""

    def want(self, name: str) -> None:
        """Have a model loaded because a request came for it; raises `NotReady` when that is of no use now."""


class DataPlane:
    """Serves models by name and version.

    Args:
        metrics: Where to count.
        decoded_bytes: Most memory that the inputs of all requests may take together.
        most_waiting: Most requests that may wait for each model.
        cache: Where answers are kept; None for nowhere.

    Attributes:
        observer: Who is told of each request that ended; None for nobody.
        unloaded: Where models come from that are not loaded now; None for nowhere.
        watchdog: Who looks at runs that do not come back.
    """

    def __init__(
        self,
        metrics: Metrics,
        decoded_bytes: int = DECODED_BYTES,
        most_waiting: int = MOST_WAITING,
        *,
        cache: "ResultCache | None" = None,
    ) -> None:
        self.metrics = metrics
        self.draining = False
        self.unloaded: Unloaded | None = None
        self.watchdog = Watchdog(metrics)
        self.observer: Observer | None = None
        self._cache = cache
        self._share = 1.0
        self._slots: dict[str, ModelSlot] = {}
        self._loading: dict[str, str] = {}
        self._most_decoded_bytes = decoded_bytes
        self._most_waiting = most_waiting
        self._decoded_bytes = 0
        self._outcomes = Outcomes(metrics)

    def announce(self, name: str, version: str) -> None:
        """Say that this model is being loaded: it is known, and the server is not ready before it is added."""
        self._loading[name] = version

    def add(self, model: ServedModel, plan: Plan | None = None, golden: GoldenResult = ABSENT) -> ModelSlot:
        """Answer with this model from now on, whatever came of its golden samples.

        Args:
            model: Loaded and warmed up; it is served by the name and version in its metadata.
            plan: How to compute it; None for one run at a time and no batches.
            golden: What came of its golden samples.

        Raises:
            ValueError: A model of this name is being served; remove it first.
        """
        name = model.metadata.name
        if name in self._slots:
            raise ValueError(f"model {name!r} is being served already; remove it first")
        slot = self._slots[name] = ModelSlot(
            model, plan or Plan(), golden, self.metrics, self._most_waiting, self._most_decoded_bytes
        )
        if self._cache is not None:
            slot.results = self._cache.of(*slot.labels, model.digest)
        self._loading.pop(name, None)
        slot.scheduler.slow_down(self._share)
        return slot

    def divide(self, processes: int) -> None:
        """Keep to one part of each bound, for so many processes serve together. Nothing may be served yet."""
        self._most_decoded_bytes = max(1, self._most_decoded_bytes // processes)
        self._most_waiting = max(1, self._most_waiting // processes)
        if self._cache is not None:
            self._cache.most_bytes //= processes

    def slow_down(self, share: float) -> None:
        """Let models compute only this share of the time, from above 0 to 1: the machine is hot."""
        self._share = share
        for slot in self._slots.values():
            slot.scheduler.slow_down(share)

    async def remove(self, name: str) -> None:
        """Refuse new requests for a model, finish those it has, and let it go. Nothing happens if there is no such model."""
        self._loading.pop(name, None)
        if (slot := self._slots.pop(name, None)) is not None:
            if slot.results is not None:
                slot.results.close()
            await slot.close()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the models that are served or being loaded."""
        return (*self._slots, *(name for name in self._loading if name not in self._slots))

    @property
    def slots(self) -> Iterable[ModelSlot]:
        """The models that are served."""
        return self._slots.values()

    @property
    def idle(self) -> bool:
        """Whether no inference is under way, and the machine is not so hot that models rest."""
        for slot in self._slots.values():
            if slot.under_way[0]:
                return False
        return self._share >= 1

    @property
    def ready(self) -> bool:
        """Whether new requests should be sent here: all models that were announced are there, and nothing ends."""
        return (bool(self._slots) or self.unloaded is not None) and not self._loading and not self.draining

    def model_ready(self, name: str, version: str | None) -> bool:
        """Whether requests for this model should be sent here.

        Raises:
            NotFound: This server does not have it.
        """
        self.check_model(name, version)
        return name in self._slots and not self.draining

    def check_model(self, name: str, version: str | None) -> None:
        """Accept a model's name and version as the client wrote them.

        Raises:
            NotFound: This server does not have it.
        """
        slot = self._slots.get(name)
        served = slot.metadata.version if slot is not None else self._loading.get(name)
        if served is None and self.unloaded is not None:
            served = self.unloaded.version(name)
        if served is None:
            raise NotFound(f"model {name[:_SHOWN]!r}: expected {self._known()}")
        if version is not None and version != served:
            raise NotFound(f"version {version[:_SHOWN]!r} of model {name!r}: expected {served!r}")

    def slot(self, name: str, version: str | None) -> ModelSlot:
        """Return what serves the model of this name and version.

        Raises:
            NotFound: This server does not have it.
            NotReady: It is still being loaded.
        """
        slot = self._slots.get(name)
        if slot is None or (version is not None and version != slot.metadata.version):
            self.check_model(name, version)
            if self.unloaded is not None and name not in self._loading:
                self.unloaded.want(name)
            raise NotReady(f"model {name!r} is being loaded; try again shortly")
        return slot

    def metadata(self, name: str, version: str | None) -> ModelMetadata:
        """Return what a client may know about a model.

        Raises:
            NotFound: This server does not have it.
            NotReady: It is still being loaded.
        """
        return self.slot(name, version).metadata

    def golden(self, name: str, version: str | None) -> GoldenResult:
        """Return what came of the golden samples of a model that is served.

        Raises:
            NotFound: This server does not have it.
            NotReady: It is still being loaded, or its samples are being run.
        """
        return self.slot(name, version).golden

    async def answer(self, model: ServedModel, request: InferenceRequest) -> list[Array]:
        """Compute what no client asked for, as if one had; it is in no count of requests.

        Raises:
            RequestError: As `infer`.
        """
        held = self._hold(request)
        # A thread of its own and no executor's: one that hangs must not keep the process when it is to end.
        scheduler = Scheduler(model.run, Plan(), _Uncounted())
        try:
            return await scheduler.compute(request, None)
        finally:
            scheduler.abandon()
            self._decoded_bytes -= held

    async def infer(
        self,
        call: Call,
        decode: Callable[[ModelMetadata], InferenceRequest],
        encode: Callable[[InferenceResponse], Encoded],
    ) -> Encoded:
        """Answer one inference request and count it.

        Args:
            call: Which model, by when, for whom.
            decode: Makes the request; raises `RequestError`.
            encode: Makes the protocol's answer.

        Raises:
            RequestError: With a status and a message for the client; nothing else escapes but cancellation.
        """
        if not call.received:
            call.received = time.monotonic()
        code = "200"
        held = 0
        slot = None
        request = None
        arrays: list[Array] = []
        try:
            slot = self.slot(call.model, call.version)
            slot.under_way[0] += 1
            slot.used = call.received
            slot.scheduler.check_door(call.deadline)
            request = decode(slot.metadata)
            decoded = time.monotonic()
            held = self._hold(request)
            arrays = await slot.answer(call, request)
            computed = time.monotonic()
            answer = encode(slot.response(request, arrays))
            now = time.monotonic()
            total = now - call.received
            slot.statistics.answered(total, decoded - call.received, now - computed, time.time())
            if call.began and (request.timeout is not None or call.deadline is not None):
                slot.scheduler.written(now - call.began - call.computed)
        except RequestError as error:
            code = str(error.status)
            raise
        except asyncio.CancelledError:
            code = CLIENT_GONE
            raise
        except MemoryError:
            code = str(NotReady.status)
            raise NotReady("out of memory for this request; send a smaller batch or try later") from None
        except Exception:
            # The one place where a bug of ours becomes a typed error: logged whole, told without detail.
            code = str(ExecutionFailed.status)
            logger.exception("inference failed unexpectedly")
            raise ExecutionFailed("internal error; the server's log has the details") from None
        else:
            return answer
        finally:
            self._decoded_bytes -= held
            if slot is not None:
                if code != "200":
                    slot.statistics.failed(time.monotonic() - call.received, time.time())
                slot.under_way[0] -= 1
                labels = slot.labels
            else:
                labels = ("", "") if code == "404" else self._labels(call.model)
            seconds = time.monotonic() - call.received
            self._outcomes.count(call.protocol, code, labels, seconds, call.trace)
            if self.observer is not None:
                self.observer.ended(call, code, labels[1], seconds, request, arrays)

    def infer_at_once(
        self,
        protocol: str,
        model: str,
        version: str | None,
        decode: Callable[[ModelMetadata], InferenceRequest],
        encode: Callable[[InferenceResponse], Encoded],
    ) -> Encoded | None:
        """Answer an inference request that is computed sooner than anything could be waited for, and count it.

        Args:
            protocol: As in `Call`.
            model: Name of the model as the client wrote it.
            version: Version as the client wrote it; None for whichever is served.
            decode: As in `infer`; the request is a small one.
            encode: As in `infer`.

        Returns:
            None, and nothing is counted, for what may have to wait, or of which more is to be told: `infer` it.

        Raises:
            RequestError: As `infer`, and counted. What else is raised is not, and `infer` meets it again.
        """
        slot = self._slots.get(model)
        if slot is None or not slot.scheduler.prompt or slot.results is not None or self.observer is not None:
            return None
        if version is not None and version != slot.metadata.version:
            return None
        slot.used = received = time.monotonic()
        try:
            request = decode(slot.metadata)
            decoded = time.monotonic()
            if request.timeout is not None:
                return None
            arrays = slot.scheduler.at_once(request)
            if arrays is None:
                return None
            computed = time.monotonic()
            answer = encode(slot.response(request, arrays))
        except RequestError as error:
            seconds = time.monotonic() - received
            slot.statistics.failed(seconds, time.time())
            self._outcomes.count(protocol, str(error.status), slot.labels, seconds)
            raise
        now = time.monotonic()
        slot.statistics.answered(now - received, decoded - received, now - computed, time.time())
        self._outcomes.count(protocol, "200", slot.labels, now - received)
        return answer

    def count_refusal(self, protocol: str, code: str, model: str) -> None:
        """Count an inference request that was refused undecoded (too large, wrong encoding).

        Args:
            protocol: As in `Call`.
            code: Status it was refused with.
            model: Name of the model as the client wrote it.
        """
        self._outcomes.count(protocol, code, self._labels(model), None)

    async def close(self) -> None:
        """Let no further inference start; what waits is dropped."""
        for slot in tuple(self._slots.values()):
            slot.abandon()

    def _known(self) -> str:
        names = [repr(name[:_SHOWN]) for name in self.names]
        if len(names) == 1:
            return f"{names[0]}, the only model of this server"
        return f"one of {', '.join(names[:20])}" if names else "none: this server has no model now"

    def _hold(self, request: InferenceRequest) -> int:
        """Count the memory of a decoded request; one that is larger than the bound by itself is served when it is alone."""
        size = 0
        for array in request.inputs.values():
            size += _memory(array)
        if self._decoded_bytes and self._decoded_bytes + size > self._most_decoded_bytes:
            raise Overloaded("too many large requests at the same time; try again shortly")
        self._decoded_bytes += size
        return size

    def _labels(self, name: str) -> tuple[str, str]:
        """Return model and version as labels, empty for what this server does not have."""
        if (slot := self._slots.get(name)) is not None:
            return slot.labels
        return (name, self._loading[name]) if name in self._loading else ("", "")


class _Uncounted:
    """A watcher of runs that no client asked for."""

    def ran(self, rows: int, seconds: float) -> None:
        """Count nothing."""

    def waited(self, seconds: float) -> None:
        """Count nothing."""


def _memory(array: Array) -> int:
    return int(array.nbytes) + (int(array.size) * _OBJECT_BYTES if array.dtype.hasobject else 0)
