"""From a model's name to requests that its server takes: asks for the metadata, makes inputs, and tries one request.

Promises that a load begins only when the server has answered one of its requests with 200; that all requests together take
no more than 64 MiB unless one alone does.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from edgemodel.errors import Stalled, Transient
from edgemodel.loadtest import inputs, metadata
from edgemodel.loadtest.body import Body, Tensor, as_binary, as_json
from edgemodel.loadtest.connection import Answer
from edgemodel.loadtest.loop import ask
from edgemodel.loadtest.target import Target, model_path

METADATA_BYTES = 1024 * 1024
_MOST_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Wanted:
    """What requests are to hold.

    Attributes:
        model: its name in the path.
        version: in the path; None leaves it to the server.
        shapes: of inputs, by name, where the model leaves sizes open.
        values: made up, or as they are in ``given``.
        given: the inputs of each request.
        binary: send and ask for binary tensor data.
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
        Stalled: ``InvalidSpec``; the server refuses it, or a size is missing.
        Transient: the server does not answer.
    """
    path = model_path(wanted.model, wanted.version)
    bodies = [as_binary(one) if wanted.binary else as_json(one) for one in wanted.given]
    if wanted.values != "given":
        answer = await _ask(target, target.request("GET", path), patience, METADATA_BYTES)
        if answer.status != 200:
            raise _refused(f"GET {target.path}{path}", answer)
        bodies = _made(metadata.parse(answer.body), wanted)
    requests = [target.request("POST", f"{path}/infer", one.content, one.headers) for one in bodies]
    answer = await _ask(target, requests[0], patience, 1000)
    if answer.status != 200:
        raise _refused(f"POST {target.path}{path}/infer", answer)
    return requests


def _made(model: metadata.Metadata, wanted: Wanted) -> list[Body]:
    sized = metadata.sized(model.inputs, wanted.shapes)
    encode = as_binary if wanted.binary else as_json
    if wanted.values == "zeros":
        return [encode(inputs.zeros(sized))]
    bodies = [encode(inputs.drawn(sized, seed=1))]
    most = min(wanted.distinct, _MOST_BYTES // max(1, len(bodies[0].content)))
    bodies += [encode(inputs.drawn(sized, seed)) for seed in range(2, most + 1)]
    return bodies


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
    words = f"{what}: expected 200, found {answer.status}: {answer.body[:500].decode(errors='replace')}"
    if answer.status in (429, 502, 503, 504):
        return Transient("TransferFailed", words)
    if answer.status == 400:
        words += " (made-up inputs may not suit the model: --shape, --data FILE)"
    return Stalled("InvalidSpec", words)


def prepared(target: Target, wanted: Wanted, patience: float) -> list[bytes]:
    """Do the same in an event loop of its own."""
    return asyncio.run(prepare(target, wanted, patience))
