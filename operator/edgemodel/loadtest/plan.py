"""From a model's name to requests that its server takes: asks for the metadata, makes inputs, and tries one request.

Promises that a load begins only when the server has answered one of its requests well; that all requests together take
no more than 64 MiB unless one alone does.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from edgemodel.errors import Stalled, Transient
from edgemodel.loadtest import inputs, metadata
from edgemodel.loadtest.body import Tensor
from edgemodel.loadtest.by_http import ByHttp
from edgemodel.loadtest.connection import Answer
from edgemodel.loadtest.loop import ask
from edgemodel.loadtest.target import Target

if TYPE_CHECKING:
    from edgemodel.loadtest.by_grpc import ByGrpc

METADATA_BYTES = 1024 * 1024
_MOST_BYTES = 64 * 1024 * 1024
_MAY_PASS = {f"HTTP {status}" for status in (429, 502, 503, 504)} | {
    f"gRPC {status}" for status in ("RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "UNAVAILABLE")
}
_UNSUITED = ("HTTP 400", "gRPC INVALID_ARGUMENT")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What requests are to hold.

    Attributes:
        model: its name.
        version: of it; None leaves it to the server.
        shapes: of inputs, by name, where the model leaves sizes open.
        values: made up, or as they are in ``given``.
        given: the inputs of each request.
        binary: send and ask for binary tensor data, which gRPC does anyway.
        distinct: different requests to make, which are sent in turn.
    """

    model: str
    version: str | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    values: Literal["random", "zeros", "given"] = "random"
    given: Sequence[Sequence[Tensor]] = ()
    binary: bool = False
    distinct: int = 16


async def prepare(target: Target, wanted: Wanted, patience: float) -> list[bytes]:
    """Return requests, of which the server has answered the first.

    Raises:
        Stalled: ``InvalidSpec``; the server refuses it, a size is missing, or what gRPC needs is not installed.
        Transient: the server does not answer.
    """
    by = _by(target, wanted)
    requests = [by.inference(one) for one in wanted.given]
    if wanted.values != "given":
        answer = await _ask(target, by.metadata(), patience, METADATA_BYTES)
        if answer.failure:
            raise _refused(by.asking, answer)
        requests = _made(by, metadata.sized(by.read(answer.body).inputs, wanted.shapes), wanted)
    answer = await _ask(target, requests[0], patience, 1000)
    if answer.failure:
        raise _refused(by.inferring, answer)
    return requests


def _by(target: Target, wanted: Wanted) -> "ByHttp | ByGrpc":
    if not target.grpc:
        return ByHttp(target, wanted.model, wanted.version, binary=wanted.binary)
    try:
        from edgemodel.loadtest.by_grpc import ByGrpc
    except ImportError as error:
        raise Stalled("InvalidSpec", f"gRPC needs {error.name}: install edgemodel[grpc]") from None
    return ByGrpc(target, wanted.model, wanted.version)


def _made(by: "ByHttp | ByGrpc", sized: Sequence[metadata.Input], wanted: Wanted) -> list[bytes]:
    if wanted.values == "zeros":
        return [by.inference(inputs.zeros(sized))]
    requests = [by.inference(inputs.drawn(sized, seed=1))]
    most = min(wanted.distinct, _MOST_BYTES // len(requests[0]))
    return requests + [by.inference(inputs.drawn(sized, seed)) for seed in range(2, most + 1)]


async def _ask(target: Target, request: bytes, patience: float, keep: int) -> Answer:
    where = f"{target.host}:{target.port}"
    try:
        return await ask(target, request, patience, keep)
    except TimeoutError:
        raise Transient("TransferFailed", f"{where}: no answer within {patience:g} s") from None
    except OSError as error:
        words = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise Transient("TransferFailed", f"{where}: {words}") from None


def _refused(what: str, answer: Answer) -> Stalled | Transient:
    words = (
        f"{what}: expected an answer, found {answer.failure}: {answer.body[:500].decode(errors='replace')}"
    )
    if answer.failure in _MAY_PASS:
        return Transient("TransferFailed", words)
    if answer.failure in _UNSUITED:
        words += " (made-up inputs may not suit the model: --shape, --data FILE)"
    return Stalled("InvalidSpec", words)


def prepared(target: Target, wanted: Wanted, patience: float) -> list[bytes]:
    """Do the same in an event loop of its own."""
    return asyncio.run(prepare(target, wanted, patience))
