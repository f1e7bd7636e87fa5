"""The HTTP side of the Open Inference Protocol: methods, headers and status codes.

Translates and nothing else: what is true of a model is asked of the data plane. Promises an answer for
every request; an error is `{"error": "…"}` without a traceback. What is spoken is written down in
docs/reference/inference-protocol.md.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping

import orjson

from inference_server.errors import (
    ExecutionFailed,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    NotReady,
    RequestError,
    UnsupportedEncoding,
)
from inference_server.http import content_encoding
from inference_server.http import repository as http_repository
from inference_server.http.messages import Buffer, Request, Response
from inference_server.http.paths import Target, parse_target
from inference_server.http.repository import Repository
from inference_server.messages import Call, InferenceRequest, InferenceResponse, ModelMetadata
from inference_server.oip import documents as oip_documents
from inference_server.oip.json import Encoded, decode_request, encode_response
from inference_server.oip.layouts import Layouts
from inference_server.serving.dataplane import EXTENSIONS, SERVER_NAME, SERVER_VERSION, DataPlane

logger = logging.getLogger(__name__)

PROTOCOL = "http"
HTTP_EXTENSIONS = ("binary_tensor_data", "model_configuration", "parameters", "statistics")
_CACHED = {
    "": (),
    **{outcome: ((b"Edgemodel-Cache", outcome.encode()),) for outcome in ("hit", "miss", "shared")},
}
_RETRY_AFTER = (b"Retry-After", b"1")
_ACCEPTS = (b"Accept-Encoding", content_encoding.ACCEPTED)
_OCTETS = b"application/octet-stream"

# How many bytes of a body are JSON, the rest being binary data.
_JSON_LENGTH = b"inference-header-content-length"
_LOOKED_AT = frozenset(
    {_JSON_LENGTH, b"accept", b"accept-encoding", b"cache-control", b"content-encoding", b"traceparent"}
)
# Headers with which a request may be answered at once.
_PLAIN = frozenset({_JSON_LENGTH, b"accept", b"accept-encoding", b"content-length"})
# A response shorter than that is not worth encoding: it fits one packet as it is.
_ENCODED_BYTES = 1024
# What takes longer than handing it to another thread, and would hold up all other connections.
_THREADED_BYTES = 16 * 1024


class HttpApi:
    """Answers HTTP requests from a data plane.

    Args:
        dataplane: What knows the models.
        max_body_bytes: Most bytes of a body after decoding its Content-Encoding.
        repository: Loads and unloads models; None where there is nothing to load from.
    """

    looks_at = _LOOKED_AT

    def __init__(
        self, dataplane: DataPlane, max_body_bytes: int, repository: Repository | None = None
    ) -> None:
        self._dataplane = dataplane
        self._repository = repository
        self._max_body_bytes = max_body_bytes
        self._targets: dict[bytes, Target] = {}
        self._layouts = Layouts()
        # One body at a time grows in another thread, so that the memory of decoded bodies is that of one.
        self._decoding = asyncio.Lock()
        self._get: dict[str, Callable[[Target], Response]] = {
            "server": self._server,
            "live": self._live,
            "ready": self._ready,
            "openapi.json": self._openapi,
            "stats": self._all_statistics,
            "model": self._model,
            "model-ready": self._model_ready,
            "model-config": self._config,
            "model-stats": self._statistics,
            "model-golden": self._golden,
        }

    def tensors_at(self, headers: Mapping[bytes, bytes]) -> int:
        """Return where in a body binary data begins; 0 when there is none, or nobody can tell."""
        length = headers.get(_JSON_LENGTH, b"")
        return int(length) if length.isdigit() and len(length) < 16 else 0

    def at_once(self, request: Request) -> Response | None:
        """Answer an inference that is computed sooner than anything could be waited for; None for any other request."""
        target, headers, body = self._targets.get(request.target), request.headers, request.body
        if (
            target is None
            or target.operation != "model-infer"
            or request.method != "POST"
            or len(body) > _THREADED_BYTES
            or not _PLAIN.issuperset(headers)
        ):
            return None
        try:
            exchange = _Exchange(body, _header_length(headers), self._layouts)
        except RequestError:
            return None  # nobody has counted it
        try:
            encoded = self._dataplane.infer_at_once(
                PROTOCOL, target.model, target.version, exchange.decode, exchange.encode
            )
            if encoded is None:
                return None
            response = _inferred(encoded, ())
            if (accepted := headers.get(b"accept-encoding")) and (encoding := _encoding(response, accepted)):
                _apply(response, encoding, content_encoding.encode(encoding, response.body))
        except RequestError as error:
            return self._error(error)
        except Exception:  # noqa: BLE001 — `handle` meets it again, and says what it is
            return None
        return response

    async def handle(self, request: Request) -> Response:
        """Answer a complete request."""
        try:
            target = self._target(request.target)
            _check_method(request.method, target)
            if target.operation == "model-infer":
                response = await self._infer(target, request)
            elif target.operation.startswith("repository-"):
                response = await self._repository_request(target, request)
            elif target.operation == "metrics":
                response = self._metrics(request)
            else:
                response = self._get[target.operation](target)
            if accepted := request.headers.get(b"accept-encoding"):
                await _encode(response, accepted)
        except RequestError as error:
            return self._error(error)
        except Exception:
            logger.exception("request failed unexpectedly")
            return self._error(ExecutionFailed("internal error; the server's log has the details"))
        return response

    def refuse(self, request: Request | None, error: RequestError) -> Response:
        """Answer a request of which only the head, or not even that, was read."""
        try:
            target = self._target(request.target) if request is not None else None
        except RequestError:
            target = None
        if target is not None and target.operation == "model-infer":
            self._dataplane.count_refusal(PROTOCOL, str(error.status), target.model)
        return self._error(error)

    def _target(self, raw: bytes) -> Target:
        if (known := self._targets.get(raw)) is not None:
            return known
        target = parse_target(raw)
        # Few spellings of few paths; the bound is for a client that makes queries up.
        if (not target.model or target.model in self._dataplane.names) and len(self._targets) < 64:
            self._targets[raw] = target
        return target

    async def _infer(self, target: Target, request: Request) -> Response:
        headers, body = request.headers, request.body
        header_length: int | None = None
        if _JSON_LENGTH in headers or b"content-encoding" in headers:
            try:
                header_length = _header_length(headers)
                if b"content-encoding" in headers:
                    body = await self._decode_content(headers[b"content-encoding"], body)
            except RequestError as error:
                self._dataplane.count_refusal(PROTOCOL, str(error.status), target.model)
                raise
        call = Call(
            PROTOCOL,
            target.model,
            target.version,
            trace=headers.get(b"traceparent", b"").decode("latin-1"),
            cache=not _refuses_cache(headers.get(b"cache-control", b"")),
        )
        exchange = _Exchange(body, header_length, self._layouts)
        del body  # a decoded one is in nobody's account: it lives until the arrays are made
        encoded = await self._dataplane.infer(call, exchange.decode, exchange.encode)
        return _inferred(encoded, _CACHED[call.cached])

    async def _decode_content(self, header: bytes, body: Buffer) -> Buffer:
        """Return what a body encodes."""
        encoding = content_encoding.encoding_of(header)
        if encoding == content_encoding.IDENTITY:
            return body
        if len(body) <= _THREADED_BYTES:
            return content_encoding.decode(encoding, body, self._max_body_bytes)
        async with self._decoding:
            return await asyncio.to_thread(content_encoding.decode, encoding, body, self._max_body_bytes)

    def _server(self, _: Target) -> Response:
        repository = ("model_repository",) if self._repository is not None else ()
        return _json(
            200,
            {
                "name": SERVER_NAME,
                "version": SERVER_VERSION,
                "extensions": (*HTTP_EXTENSIONS, *EXTENSIONS, *repository),
            },
        )

    async def _repository_request(self, target: Target, request: Request) -> Response:
        if self._repository is None:
            raise NotFound("model repository: this server has none; start it with --model-repository")
        body = request.body
        if b"content-encoding" in request.headers:
            body = await self._decode_content(request.headers[b"content-encoding"], body)
        operation = target.operation.removeprefix("repository-")
        return Response(
            200, (await http_repository.answer(self._repository, operation, target.model, bytes(body)),)
        )

    def _live(self, _: Target) -> Response:
        alive = self._dataplane.watchdog.alive
        return _json(200 if alive else 503, {"live": alive})

    def _ready(self, _: Target) -> Response:
        ready = self._dataplane.ready
        return _json(200 if ready else 503, {"ready": ready})

    def _metrics(self, request: Request) -> Response:
        body, content_type = self._dataplane.metrics.exposition(request.headers.get(b"accept", b""))
        return Response(200, (body,), content_type.encode("ascii"))

    def _openapi(self, _: Target) -> Response:
        from inference_server.http import openapi  # few ever ask for it

        models = [slot.metadata for slot in self._dataplane.slots]
        return _json(200, openapi.document(models, SERVER_VERSION))

    def _model(self, target: Target) -> Response:
        metadata = self._dataplane.metadata(target.model, target.version)
        return Response(200, (oip_documents.encode_metadata(metadata),))

    def _model_ready(self, target: Target) -> Response:
        ready = self._dataplane.model_ready(target.model, target.version)
        return _json(200 if ready else 503, {"name": target.model, "ready": ready})

    def _config(self, target: Target) -> Response:
        metadata = self._dataplane.metadata(target.model, target.version)
        return Response(200, (oip_documents.encode_config(metadata),))

    def _statistics(self, target: Target) -> Response:
        slot = self._dataplane.slot(target.model, target.version)
        return Response(200, (oip_documents.encode_statistics([(slot.metadata, slot.statistics.whole())]),))

    def _all_statistics(self, _: Target) -> Response:
        models = [(slot.metadata, slot.statistics.whole()) for slot in self._dataplane.slots]
        return Response(200, (oip_documents.encode_statistics(models),))

    def _golden(self, target: Target) -> Response:
        golden = self._dataplane.golden(target.model, target.version)
        return Response(200, (oip_documents.encode_golden(golden),))

    def _error(self, error: RequestError) -> Response:
        response = _json(error.status, {"error": str(error)})
        if isinstance(error, MethodNotAllowed):
            response.headers = ((b"Allow", error.allow.encode("ascii")),)
        elif isinstance(error, NotReady):
            response.headers = (_RETRY_AFTER,)
        elif isinstance(error, UnsupportedEncoding):
            response.headers = (_ACCEPTS,)
        return response


class _Exchange:
    """One inference: remembers between decoding and encoding how the client wants its outputs."""

    __slots__ = ("_binary", "_body", "_header_length", "_layouts")

    def __init__(self, body: Buffer, header_length: int | None, layouts: Layouts) -> None:
        self._layouts = layouts
        self._body: Buffer = body
        self._header_length = header_length
        self._binary: frozenset[str] = frozenset()

    def decode(self, model: ModelMetadata) -> InferenceRequest:
        decoded = decode_request(self._body, model, self._header_length, self._layouts)
        self._body = b""  # what of it is still needed, the arrays hold
        self._binary = decoded.binary
        return decoded.request

    def encode(self, response: InferenceResponse) -> Encoded:
        return encode_response(response, self._binary)


def _inferred(encoded: Encoded, headers: tuple[tuple[bytes, bytes], ...]) -> Response:
    if encoded.header_length is None:
        return Response(200, encoded.body, headers=headers)
    length = b"%d" % encoded.header_length
    return Response(200, encoded.body, _OCTETS, ((b"Inference-Header-Content-Length", length), *headers))


async def _encode(response: Response, accepted: bytes) -> None:
    """Encode a response's body if it is large and the client prefers that."""
    encoding = _encoding(response, accepted)
    if not encoding:
        return
    if sum(map(len, response.body)) <= _THREADED_BYTES:
        body = content_encoding.encode(encoding, response.body)
    else:
        body = await asyncio.to_thread(content_encoding.encode, encoding, response.body)
    _apply(response, encoding, body)


def _encoding(response: Response, accepted: bytes) -> str:
    """Return how to encode a response's body; "" for not at all."""
    if sum(map(len, response.body)) < _ENCODED_BYTES:
        return ""
    encoding = content_encoding.preferred(accepted)
    return "" if encoding == content_encoding.IDENTITY else encoding


def _apply(response: Response, encoding: str, body: bytes) -> None:
    response.body = (body,)
    response.headers += ((b"Content-Encoding", encoding.encode("ascii")), (b"Vary", b"Accept-Encoding"))


def _header_length(headers: Mapping[bytes, bytes]) -> int | None:
    raw = headers.get(_JSON_LENGTH)
    if raw is None:
        return None
    if not raw.isdigit() or len(raw) > 15:
        raise InvalidRequest(
            f"Inference-Header-Content-Length: expected a number of bytes, found {raw[:20].decode('ascii', 'replace')!r}"
        )
    return int(raw)


def _refuses_cache(header: bytes) -> bool:
    return bool(header) and any(
        directive.strip() in (b"no-cache", b"no-store") for directive in header.lower().split(b",")
    )


def _check_method(method: str, target: Target) -> None:
    posted = target.operation == "model-infer" or target.operation.startswith("repository-")
    allowed = ("POST",) if posted else ("GET", "HEAD")
    if method not in allowed:
        raise MethodNotAllowed(f"method {method}: expected {' or '.join(allowed)}", ", ".join(allowed))


def _json(status: int, document: object) -> Response:
    return Response(status, (orjson.dumps(document),))
