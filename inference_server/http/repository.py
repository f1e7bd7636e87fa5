"""Triton's model repository extension over HTTP: list, load and unload models by name.

Source: Triton Inference Server, "Model Repository Extension". `POST /v2/repository/index` answers a JSON list;
`…/models/M/load` and `…/unload` answer an empty object once it is done. Parameters that would load something else than
what the folder holds are refused, not ignored.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Protocol

import orjson

from inference_server.errors import InvalidRequest

if TYPE_CHECKING:
    from inference_server.serving.repository import IndexEntry

OPERATIONS = frozenset({"index", "load", "unload"})


class Repository(Protocol):
    """What is asked of `inference_server.serving.repository.ModelRepository`."""

    async def index(self, *, only_ready: bool = False) -> "list[IndexEntry]":
        """Return what the folder holds now."""

    async def load(self, name: str) -> None:
        """Load a model, or load it again."""

    async def unload(self, name: str) -> None:
        """Unload a model, and leave it so."""


async def answer(repository: Repository, operation: str, model: str, body: bytes | memoryview) -> bytes:
    """Do what a request asks and return the JSON of its answer.

    Args:
        repository: The models.
        operation: One of `OPERATIONS`.
        model: Name of the model, "" for the index.
        body: JSON, or nothing.

    Raises:
        InvalidRequest: The body is not the extension's, or the model cannot be loaded.
        NotFound: There is no such model.
    """
    document = _document(body)
    if operation == "index":
        entries = await repository.index(only_ready=_flag(document, "ready"))
        return orjson.dumps([asdict(entry) for entry in entries])
    parameters = document.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise InvalidRequest("parameters: expected an object")
    if operation == "load":
        if parameters:
            raise InvalidRequest(
                f"parameters.{str(next(iter(parameters)))[:60]}: expected none; a model is what its folder holds"
            )
        await repository.load(model)
    else:
        await repository.unload(model)
    return b"{}"


def _document(body: bytes | memoryview) -> dict[str, object]:
    if not body:
        return {}
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"body: expected JSON or nothing: {error}") from None
    if not isinstance(document, dict):
        raise InvalidRequest("body: expected a JSON object or nothing")
    return document


def _flag(document: dict[str, object], name: str) -> bool:
    value = document.get(name, False)
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name}: expected true or false")
    return value
