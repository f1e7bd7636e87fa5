"""Answers kept for questions that come again, byte for byte.

Promises: an answer is given again only for the same model (name, version and artifact digest), the same outputs
in the same order and inputs of the same names, types, shapes and bytes (`request_key`); -0.0 and 0.0 differ, and
so do two NaNs of different bits. Ids, headers and parameters of a request play no part. Memory is bounded, an
answer is at most `ttl` old, an error is never kept, and equal questions that come while one is being computed
wait for that one. Where nobody stated a digest, one load of the model is the identity: nothing outlives it.

It is not for models that are random on purpose: they would repeat themselves. Off unless `--cache-bytes` is set.
"""

import asyncio
import itertools
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

import numpy as np

from inference_server.errors import DeadlineExceeded, Overloaded
from inference_server.messages import InferenceRequest
from inference_server.telemetry.metrics import Metrics
from inference_server.tensors import Array

CacheOutcome = Literal["hit", "miss", "shared"]
Compute = Callable[[], Awaitable[list[Array]]]

# What one entry takes beside its arrays' bytes: key, dictionary slot, entry; then array objects.
ENTRY_BYTES = 512
_ARRAY_BYTES = 128
_STRING_BYTES = 56
# Hashing runs at about 1 GB/s: from here on it would hold up the loop for longer than a thread hop costs.
_HASH_IN_THREAD_BYTES = 256 * 1024

# Below this a copy is cheaper than a view of bytes.
_COPIED_BYTES = 16 * 1024

_loads = itertools.count(1)


def request_key(scope: bytes, request: InferenceRequest) -> bytes:
    """Return 32 bytes that stand for a question.

    Args:
        scope: Who is asked: model, version and artifact.
        request: The question; its id and timeout are not looked at.

    The lengths of all parts come first, so that no two questions have the same stream of bytes. Strings count as their
    UTF-8. BLAKE2b (RFC 7693): a collision cannot be searched for.
    """
    parts: list[bytes | memoryview] = [scope, "\0".join(request.outputs).encode()]
    for name in sorted(request.inputs):
        array = request.inputs[name]
        parts += (name.encode(), array.dtype.str.encode(), repr(array.shape).encode())
        if array.dtype.hasobject:
            parts += [
                value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
                for value in array.reshape(-1)
            ]
        elif array.nbytes < _COPIED_BYTES:
            parts.append(array.tobytes())
        else:
            parts.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    state = blake2b(b"".join([len(part).to_bytes(8, "little") for part in parts]), digest_size=32)
    for part in parts:
        state.update(part)
    return state.digest()


def answer_bytes(arrays: list[Array]) -> int:
    """Return the memory that keeping these arrays takes, overhead included."""
    return ENTRY_BYTES + sum(_array_bytes(array) for array in arrays)


def _array_bytes(array: Array) -> int:
    size = int(array.nbytes) + _ARRAY_BYTES
    if array.dtype.hasobject:
        size += sum(_STRING_BYTES + 4 * len(value) for value in array.reshape(-1))
    return size


@dataclass(frozen=True, slots=True)
class _Entry:
    arrays: list[Array]
    size: int
    kept: float
    scope: bytes


class ResultCache:
    """The answers of all models of a server: one bound on their memory, least recently used first out.

    Args:
        most_bytes: Memory that all answers may take together.
        ttl: Seconds that an answer may be given again; 0 for as long as there is room.
        metrics: Where to count.
        clock: Seconds that only grow.

    Attributes:
        most_bytes: As above.
    """

    def __init__(
        self, most_bytes: int, ttl: float, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.most_bytes = most_bytes
        self._ttl = ttl
        self._metrics = metrics
        self._clock = clock
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._bytes = 0

    def of(self, name: str, version: str, digest: str) -> "ModelResults":
        """Return the part of the cache that belongs to one loaded model.

        Args:
            name: Name of the model.
            version: Its version.
            digest: Digest of its artifact's manifest; "" makes a part that no other load ever shares.
        """
        identity = digest or f"load {next(_loads)}"
        scope = f"{name}\0{version}\0{identity}".encode()
        hits = self._metrics.cache_hits.labels(name, version)
        misses = self._metrics.cache_misses.labels(name, version)
        return ModelResults(self, scope, hits.inc, misses.inc)

    def find(self, key: bytes) -> list[Array] | None:
        """Return a kept answer that is young enough, and note that it was used."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._ttl and self._clock() - entry.kept > self._ttl:
            self._remove(key)
            return None
        self._entries.move_to_end(key)
        return entry.arrays

    def keep(self, key: bytes, scope: bytes, arrays: list[Array]) -> None:
        """Keep an answer; others go for it. One that is larger than the whole cache is not kept."""
        size = answer_bytes(arrays)
        if size > self.most_bytes:
            return
        self._remove(key)
        # A slice of a batch would keep the whole batch in memory.
        own = [array if array.base is None else array.copy() for array in arrays]
        for array in own:
            array.flags.writeable = False
        self._entries[key] = _Entry(own, size, self._clock(), scope)
        self._bytes += size
        while self._bytes > self.most_bytes:
            self._remove(next(iter(self._entries)))
        self._metrics.cache_bytes.set(self._bytes)

    def drop(self, scope: bytes) -> None:
        """Forget every answer of one model."""
        for key in [key for key, entry in self._entries.items() if entry.scope == scope]:
            self._remove(key)

    def _remove(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry.size
            self._metrics.cache_bytes.set(self._bytes)


class ModelResults:
    """The answers of one loaded model."""

    def __init__(
        self, cache: ResultCache, scope: bytes, hit: Callable[[], None], miss: Callable[[], None]
    ) -> None:
        self._cache = cache
        self._scope = scope
        self._hit = hit
        self._miss = miss
        self._flights: dict[bytes, asyncio.Future[list[Array]]] = {}
        self._closed = False

    async def answer(
        self, request: InferenceRequest, compute: Compute, deadline: float | None = None
    ) -> tuple[list[Array], CacheOutcome]:
        """Return the outputs, computed or kept, and where they come from.

        Args:
            request: The question.
            compute: Computes it; called at most once.
            deadline: Moment of `time.monotonic()` after which nobody waits for the answer.

        Raises:
            DeadlineExceeded: It passed while another request computed the same.
            RequestError: As `compute` raises it, whoever's `compute` it was.
        """
        key = await self._key(request)
        while True:
            if (kept := self._cache.find(key)) is not None:
                self._hit()
                return kept, "hit"
            if (flight := self._flights.get(key)) is None:
                break
            if (arrays := await _landed(flight, deadline)) is not None:
                self._hit()
                return arrays, "shared"
        self._miss()
        return await self._fly(key, compute), "miss"

    def close(self) -> None:
        """Forget all answers and keep no further one: the model is being replaced or unloaded."""
        self._closed = True
        self._cache.drop(self._scope)

    async def _key(self, request: InferenceRequest) -> bytes:
        if sum(array.nbytes for array in request.inputs.values()) < _HASH_IN_THREAD_BYTES:
            return request_key(self._scope, request)
        # hashlib lets go of the GIL meanwhile.
        return await asyncio.get_running_loop().run_in_executor(None, request_key, self._scope, request)

    async def _fly(self, key: bytes, compute: Compute) -> list[Array]:
        """Compute for all who ask the same meanwhile."""
        flight: asyncio.Future[list[Array]] = asyncio.get_running_loop().create_future()
        self._flights[key] = flight
        try:
            arrays = await compute()
        except (asyncio.CancelledError, DeadlineExceeded, Overloaded):
            # Says something of this request, not of the question: one of those who wait computes in its place.
            flight.cancel()
            raise
        except BaseException as error:
            flight.set_exception(error)
            flight.exception()  # with nobody waiting it is not "never retrieved"
            raise
        else:
            if not self._closed:
                self._cache.keep(key, self._scope, arrays)
            flight.set_result(arrays)
            return arrays
        finally:
            del self._flights[key]


async def _landed(flight: "asyncio.Future[list[Array]]", deadline: float | None) -> list[Array] | None:
    """Wait for another's computation; None when that one was given up and somebody else has to compute.

    Raises:
        DeadlineExceeded: It takes too long for who waits.
        RequestError: It failed.
    """
    timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
    await asyncio.wait((flight,), timeout=timeout)  # unlike `await flight`, being cancelled leaves it alone
    if not flight.done():
        raise DeadlineExceeded("the deadline passed while an equal request was being computed")
    if flight.cancelled():
        return None
    return flight.result()
