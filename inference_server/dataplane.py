"""The data plane: the one implementation of the Open Inference Protocol behind every protocol.

A protocol's adapter hands in a decode and an encode function and gets bytes or a `RequestError` back; names,
versions, readiness, metrics and error classes are decided here, once. It knows neither HTTP nor JSON.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from inference_server.errors import ExecutionFailed, NotFound, NotReady, RequestError
from inference_server.messages import (
    ABSENT,
    GoldenResult,
    InferenceRequest,
    InferenceResponse,
    ModelMetadata,
)
from inference_server.metrics import Metrics
from inference_server.tensors import Array

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

Encoded = TypeVar("Encoded")


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


class DataPlane:
    """Serves one model by name and version.

    Args:
        name: Name of the model, known before it is loaded.
        version: Its version.
        threads: Number of inferences that may compute at the same time.
        metrics: Where to count.
        decoded_bytes: Most memory that the inputs of all requests may take together.
    """

    def __init__(
        self, name: str, version: str, threads: int, metrics: Metrics, decoded_bytes: int = DECODED_BYTES
    ) -> None:
        self.name = name
        self.version = version
        self.metrics = metrics
        self.draining = False
        self._model: ServedModel | None = None
        self._golden = ABSENT
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="compute")
        self._inflight = metrics.inflight.labels(name, version)
        self._compute_duration = metrics.compute_duration.labels(name, version)
        self._most_decoded_bytes = decoded_bytes
        self._decoded_bytes = 0
        self._codes: dict[tuple[str, str, str, str], _Outcome] = {}

    def serve(self, model: ServedModel, golden: GoldenResult = ABSENT) -> None:
        """Answer with this model from now on, whatever came of its golden samples."""
        labels = (self.name, self.version)
        self.metrics.load_duration.labels(*labels).set(model.load_seconds)
        self.metrics.memory.labels(*labels).set(model.memory_bytes)
        self.metrics.info.labels(*labels, model.digest).set(1)
        failed = golden.total - golden.passed
        if golden.outcome == "Fail":
            failed = max(failed, 1)  # samples that cannot be read have no number
        for outcome, count in (("Pass", golden.passed), ("Fail", failed)):
            self.metrics.golden.labels(*labels, outcome).set(count)
        self._golden = golden
        self._model = model

    @property
    def ready(self) -> bool:
        """Whether new requests should be sent here."""
        return self._model is not None and not self.draining

    def check_model(self, name: str, version: str | None) -> None:
        """Accept a model's name and version as the client wrote them.

        Raises:
            NotFound: This server has another one.
        """
        if name != self.name:
            raise NotFound(f"model {name[:100]!r}: expected {self.name!r}, the only model of this server")
        if version is not None and version != self.version:
            raise NotFound(f"version {version[:100]!r} of model {self.name!r}: expected {self.version!r}")

    def model(self, name: str, version: str | None) -> ServedModel:
        """Return the model of this name and version.

        Raises:
            NotFound: This server has another one.
            NotReady: It is still being loaded.
        """
        self.check_model(name, version)
        if self._model is None:
            raise NotReady(f"model {self.name!r} is being loaded; try again shortly")
        return self._model

    def golden(self, name: str, version: str | None) -> GoldenResult:
        """Return what came of the golden samples of the model that is served.

        Raises:
            NotFound: This server has another one.
            NotReady: It is still being loaded, or its samples are being run.
        """
        self.model(name, version)
        return self._golden

    async def answer(self, model: ServedModel, request: InferenceRequest) -> list[Array]:
        """Compute what no client asked for, as if one had; it is in no count of requests.

        Raises:
            RequestError: As `infer`.
        """
        held = self._hold(request)
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, model.run, request.outputs, dict(request.inputs)
            )
        finally:
            self._decoded_bytes -= held

    async def infer(
        self,
        protocol: str,
        name: str,
        version: str | None,
        decode: Callable[[ModelMetadata], InferenceRequest],
        encode: Callable[[InferenceResponse], Encoded],
    ) -> Encoded:
        """Answer one inference request and count it.

        Args:
            protocol: Label for metrics, "http" or "grpc".
            name: Model name as the client wrote it.
            version: Version as the client wrote it, None for the one that is served.
            decode: Makes the request; raises `RequestError`.
            encode: Makes the protocol's answer.

        Raises:
            RequestError: With a status and a message for the client; nothing else escapes but cancellation.
        """
        started = time.perf_counter()
        code = "200"
        held = 0
        self._inflight.inc()
        try:
            model = self.model(name, version)
            request = decode(model.metadata)
            held = self._hold(request)
            arrays = await self._compute(model, request)
            specs = {spec.name: spec for spec in model.metadata.outputs}
            outputs = tuple(
                (specs[output], array) for output, array in zip(request.outputs, arrays, strict=True)
            )
            return encode(InferenceResponse(self.name, self.version, request.id, outputs))
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
        finally:
            self._decoded_bytes -= held
            self._inflight.dec()
            known = code != str(NotFound.status)
            self._count(protocol, code, known, time.perf_counter() - started)

    def count_refusal(self, protocol: str, code: str) -> None:
        """Count an inference request that was refused undecoded (too large, wrong encoding)."""
        self._count(protocol, code, True, None)

    async def close(self) -> None:
        """Let no further inference start; what waits for a thread is dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _hold(self, request: InferenceRequest) -> int:
        """Count the memory of a decoded request; one that is larger than the bound by itself is served when it is alone."""
        size = sum(_memory(array) for array in request.inputs.values())
        if self._decoded_bytes and self._decoded_bytes + size > self._most_decoded_bytes:
            raise NotReady("too many large requests at the same time; try again shortly")
        self._decoded_bytes += size
        return size

    def _compute(self, model: ServedModel, request: InferenceRequest) -> Awaitable[list[Array]]:
        return asyncio.get_running_loop().run_in_executor(self._threads, self._timed_run, model, request)

    def _timed_run(self, model: ServedModel, request: InferenceRequest) -> list[Array]:
        started = time.perf_counter()
        try:
            return model.run(request.outputs, dict(request.inputs))
        finally:
            self._compute_duration.observe(time.perf_counter() - started)

    def _count(self, protocol: str, code: str, known: bool, seconds: float | None) -> None:
        model, version = (self.name, self.version) if known else ("", "")
        key = (protocol, code, model, version)
        outcome = self._codes.get(key)
        if outcome is None:
            # Looking a labelled child up costs more than the increment: keep it.
            outcome = self._codes[key] = _Outcome(self.metrics, model, version, protocol, code)
        outcome.count(seconds)


def _memory(array: Array) -> int:
    return int(array.nbytes) + (int(array.size) * _OBJECT_BYTES if array.dtype.hasobject else 0)


class _Outcome:
    """The counter and the histogram for requests of one protocol, code and model."""

    def __init__(self, metrics: Metrics, model: str, version: str, protocol: str, code: str) -> None:
        self._requests = metrics.requests.labels(model, version, protocol, code)
        self._duration = metrics.request_duration.labels(model, version, protocol)

    def count(self, seconds: float | None) -> None:
        self._requests.inc()
        if seconds is not None:
            self._duration.observe(seconds)
