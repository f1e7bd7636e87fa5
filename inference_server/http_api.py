"""The HTTP side of the Open Inference Protocol: paths, methods, headers and status codes.

Translates and nothing else: what is true of a model is asked of the data plane. Promises an answer for
every request; an error is `{"error": "…"}` without a traceback. Paths are those of the protocol's REST
specification, `/v2/models/…/golden` and `/metrics`.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

import orjson

from inference_server import http_repository, oip_json
from inference_server.dataplane import EXTENSIONS, SERVER_NAME, SERVER_VERSION, DataPlane
from inference_server.errors import (
    ExecutionFailed,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    NotReady,
    RequestError,
    UnsupportedEncoding,
)
from inference_server.http_connection import Request, Response
from inference_server.http_repository import Repository
from inference_server.messages import Call

logger = logging.getLogger(__name__)

PROTOCOL = "http"
_RETRY_AFTER = (b"Retry-After", b"1")
_CACHED = {
    "": (),
    **{outcome: ((b"Edgemodel-Cache", outcome.encode()),) for outcome in ("hit", "miss", "shared")},
}
# Triton's binary tensor extension announces itself with this header.
_BINARY = b"inference-header-content-length"


@dataclass(frozen=True, slots=True)
class _Target:
    """A request target taken apart: which operation, on which model."""

    operation: str
    model: str = ""
    version: str | None = None


def parse_target(target: bytes) -> _Target:
    """Return what a request target addresses.

    Args:
        target: The target as it came in the request line; the query is ignored.

    Raises:
        NotFound: No path of the protocol.
        InvalidRequest: The path is not UTF-8.
    """
    path = target.partition(b"?")[0]
    if not path.startswith(b"/") and b"://" in path:  # absolute form, as proxies send it
        path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
    try:
        # Split first: an escaped slash belongs to a name.
        parts = [unquote_to_bytes(part).decode("utf-8") for part in path.split(b"/")]
    except UnicodeDecodeError:
        raise InvalidRequest("path: expected UTF-8") from None
    match parts:
        case ["", "v2"]:
            return _Target("server")
        case ["", "v2", "health", ("live" | "ready") as state]:
            return _Target(state)
        case ["", "v2", "repository", "index"]:
            return _Target("repository-index")
        case ["", "v2", "repository", "models", model, ("load" | "unload") as operation]:
            return _Target(f"repository-{operation}", model)
        case ["", "metrics"]:
            return _Target("metrics")
        case ["", "v2", "models", model]:
            return _Target("model", model)
        case ["", "v2", "models", model, ("ready" | "infer" | "golden") as operation]:
            return _Target(f"model-{operation}", model)
        case ["", "v2", "models", model, "versions", version]:
            return _Target("model", model, version)
        case ["", "v2", "models", model, "versions", version, ("ready" | "infer" | "golden") as operation]:
            return _Target(f"model-{operation}", model, version)
    shown = path[:100].decode("ascii", "replace")
    raise NotFound(f"path {shown!r}: expected one of the Open Inference Protocol v2 (/v2/…) or /metrics")


class HttpApi:
    """Answers HTTP requests from a data plane."""

    def __init__(self, dataplane: DataPlane, repository: Repository | None = None) -> None:
        self._dataplane = dataplane
        self._repository = repository
        self._targets: dict[bytes, _Target] = {}
        self._get: dict[str, Callable[[_Target], Response]] = {
            "server": self._server,
            "live": self._live,
            "ready": self._ready,
            "model": self._model,
            "model-ready": self._model_ready,
            "model-golden": self._golden,
        }

    async def handle(self, request: Request) -> Response:
        """Answer a complete request."""
        try:
            target = self._target(request.target)
            _check_method(request.method, target)
            if target.operation == "model-infer":
                return await self._infer(target, request)
            if target.operation.startswith("repository-"):
                return await self._repository_request(target, request)
            if target.operation == "metrics":
                return self._metrics(request)
            return self._get[target.operation](target)
        except RequestError as error:
            return self._error(error)
        except Exception:
            logger.exception("request failed unexpectedly")
            return self._error(ExecutionFailed("internal error; the server's log has the details"))

    def refuse(self, request: Request | None, error: RequestError) -> Response:
        """Answer a request of which only the head, or not even that, was read."""
        try:
            target = self._target(request.target) if request is not None else None
        except RequestError:
            target = None
        if target is not None and target.operation == "model-infer":
            self._dataplane.count_refusal(PROTOCOL, str(error.status), target.model)
        return self._error(error)

    def _target(self, raw: bytes) -> _Target:
        if (known := self._targets.get(raw)) is not None:
            return known
        target = parse_target(raw)
        # Few spellings of few paths; the bound is for a client that makes queries up.
        if (not target.model or target.model in self._dataplane.names) and len(self._targets) < 64:
            self._targets[raw] = target
        return target

    async def _infer(self, target: _Target, request: Request) -> Response:
        if request.headers.get(b"content-encoding", b"identity").lower() != b"identity":
            error: RequestError = UnsupportedEncoding(
                "Content-Encoding: expected none; send the JSON uncompressed"
            )
        elif _BINARY in request.headers:
            error = InvalidRequest(
                "Inference-Header-Content-Length: binary tensors are not supported; send JSON"
            )
        else:
            call = _call(target, request)
            body = await self._dataplane.infer(
                call,
                lambda model: oip_json.decode_request(request.body, model),
                oip_json.encode_response,
            )
            return Response(200, body, headers=_CACHED[call.cached])
        self._dataplane.count_refusal(PROTOCOL, str(error.status), target.model)
        raise error

    def _server(self, _: _Target) -> Response:
        return _json(200, {"name": SERVER_NAME, "version": SERVER_VERSION, "extensions": EXTENSIONS})

    async def _repository_request(self, target: _Target, request: Request) -> Response:
        if self._repository is None:
            raise NotFound("model repository: this server has none; start it with --model-repository")
        operation = target.operation.removeprefix("repository-")
        return Response(
            200, await http_repository.answer(self._repository, operation, target.model, request.body)
        )

    def _live(self, _: _Target) -> Response:
        alive = self._dataplane.watchdog.alive
        return _json(200 if alive else 503, {"live": alive})

    def _ready(self, _: _Target) -> Response:
        ready = self._dataplane.ready
        return _json(200 if ready else 503, {"ready": ready})

    def _metrics(self, request: Request) -> Response:
        body, content_type = self._dataplane.metrics.exposition(request.headers.get(b"accept", b""))
        return Response(200, body, content_type.encode("ascii"))

    def _model(self, target: _Target) -> Response:
        return Response(200, oip_json.encode_metadata(self._dataplane.metadata(target.model, target.version)))

    def _model_ready(self, target: _Target) -> Response:
        ready = self._dataplane.model_ready(target.model, target.version)
        return _json(200 if ready else 503, {"name": target.model, "ready": ready})

    def _golden(self, target: _Target) -> Response:
        return Response(200, oip_json.encode_golden(self._dataplane.golden(target.model, target.version)))

    def _error(self, error: RequestError) -> Response:
        response = _json(error.status, {"error": str(error)})
        if isinstance(error, MethodNotAllowed):
            response.headers = ((b"Allow", error.allow.encode("ascii")),)
        elif isinstance(error, NotReady):
            response.headers = (_RETRY_AFTER,)
        return response


def _check_method(method: str, target: _Target) -> None:
    posted = target.operation == "model-infer" or target.operation.startswith("repository-")
    allowed = ("POST",) if posted else ("GET", "HEAD")
    if method not in allowed:
        raise MethodNotAllowed(f"method {method}: expected {' or '.join(allowed)}", ", ".join(allowed))


def _call(target: _Target, request: Request) -> Call:
    wishes = request.headers.get(b"cache-control", b"").lower()
    return Call(
        PROTOCOL,
        target.model,
        target.version,
        trace=request.headers.get(b"traceparent", b"").decode("ascii", "replace"),
        cache=b"no-cache" not in wishes and b"no-store" not in wishes,
    )


def _json(status: int, document: object) -> Response:
    return Response(status, orjson.dumps(document))
