"""The gRPC side of the Open Inference Protocol, with health and reflection: methods, statuses, deadlines.

Translates and nothing else: what is true of a model is asked of the data plane. Promises a status for every call; an
error is that of `errors.py`, by one table, without a traceback. Methods are those of Triton's service; what needs a
shared memory or streams of inferences is UNIMPLEMENTED. A client's `grpc-timeout` is the request's
deadline, and its leaving cancels the request.
"""

import logging
from collections.abc import Awaitable, Callable

from google.protobuf.message import DecodeError

from inference_server.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    ExecutionFailed,
    HeaderTooLarge,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    NotReady,
    Overloaded,
    RequestError,
    UnsupportedEncoding,
)
from inference_server.grpc import reflection as grpc_reflection
from inference_server.grpc.health import SERVICE as HEALTH_SERVICE
from inference_server.grpc.health import Health
from inference_server.grpc.messages import (
    OK_HEAD,
    OK_TRAILERS,
    PREFIX_BYTES,
    Code,
    error_alone,
    error_trailers,
    frame_message,
    next_size,
    open_message,
    read_timeout,
    whole_message,
)
from inference_server.grpc.repository import Answer, GrpcRepository
from inference_server.http.repository import Repository
from inference_server.http2.calls import Accepted
from inference_server.http2.headers import RequestHead, literal
from inference_server.http2.stream import Stream
from inference_server.messages import Call
from inference_server.oip import grpc as oip_grpc
from inference_server.oip import grpc_documents as oip_grpc_documents
from inference_server.oip.grpc_heads import Heads
from inference_server.proto import inference_pb2 as pb
from inference_server.serving.dataplane import SERVER_NAME, SERVER_VERSION, DataPlane

logger = logging.getLogger(__name__)

PROTOCOL = "grpc"
SERVICE = "inference.GRPCInferenceService"
EXTENSIONS = ("model_configuration", "parameters", "statistics")

# The nearest of an error's classes counts.
CODES: dict[type[RequestError], Code] = {
    RequestError: Code.UNKNOWN,
    InvalidRequest: Code.INVALID_ARGUMENT,
    NotFound: Code.NOT_FOUND,
    MethodNotAllowed: Code.UNIMPLEMENTED,
    BodyTooLarge: Code.RESOURCE_EXHAUSTED,
    UnsupportedEncoding: Code.UNIMPLEMENTED,
    HeaderTooLarge: Code.RESOURCE_EXHAUSTED,
    ExecutionFailed: Code.INTERNAL,
    NotReady: Code.UNAVAILABLE,
    Overloaded: Code.RESOURCE_EXHAUSTED,
    DeadlineExceeded: Code.DEADLINE_EXCEEDED,
}

# Questions of reflection and health are names.
_SMALL_BYTES = 64 * 1024
_INFER = f"/{SERVICE}/ModelInfer"
_NO_REPOSITORY = "the models of this server are given at its start; it has no repository to load from"
_NOT_GRPC = literal([(b":status", b"415"), (b"content-type", b"text/plain")])
_NOT_POST = literal([(b":status", b"405"), (b"allow", b"POST"), (b"content-type", b"text/plain")])
_CACHED = {
    "": OK_TRAILERS,
    **{
        outcome: literal([(b"grpc-status", b"0"), (b"edgemodel-cache", outcome.encode())])
        for outcome in ("hit", "miss", "shared")
    },
}

Unary = Callable[[bytes], bytes]
Streaming = Callable[["_Method", Stream], Awaitable[None]]


class _Method(Accepted):
    """A call's headers, understood. Shared by calls with equal headers."""

    __slots__ = ("cache", "encoding", "path", "refusal", "run", "status", "timeout", "trace")

    def __init__(self, max_bytes: int, at_once: bool = False) -> None:
        super().__init__(max_bytes, at_once)
        self.path = ""
        self.run: Streaming | None = None
        self.refusal: tuple[Code, str] | None = None
        self.status: bytes | None = None  # header block of an answer that is not even gRPC
        self.encoding = b"identity"
        self.timeout: float | None = None
        self.trace = ""
        self.cache = True


class GrpcApi:
    """Answers gRPC calls from a data plane.

    Args:
        dataplane: What is served.
        max_message_bytes: Largest message accepted, compressed and not.
        repository: Loads and unloads models; None where there is nothing to load from.
    """

    def __init__(
        self, dataplane: DataPlane, max_message_bytes: int, repository: Repository | None = None
    ) -> None:
        self._dataplane = dataplane
        self._limit = max_message_bytes
        self._heads = Heads()
        health = Health(lambda: dataplane.ready, (SERVICE,))
        self._health = health
        extensions = (*EXTENSIONS, "model_repository") if repository is not None else EXTENSIONS
        unary: dict[str, Unary] = {
            f"/{SERVICE}/ServerLive": lambda _: pb.ServerLiveResponse(
                live=dataplane.watchdog.alive
            ).SerializeToString(),
            f"/{SERVICE}/ServerReady": lambda _: pb.ServerReadyResponse(
                ready=dataplane.ready
            ).SerializeToString(),
            f"/{SERVICE}/ServerMetadata": lambda _: pb.ServerMetadataResponse(
                name=SERVER_NAME, version=SERVER_VERSION, extensions=extensions
            ).SerializeToString(),
            f"/{SERVICE}/ModelReady": self._model_ready,
            f"/{SERVICE}/ModelMetadata": self._model_metadata,
            f"/{SERVICE}/ModelConfig": self._model_config,
            f"/{SERVICE}/ModelStatistics": self._model_statistics,
            f"/{HEALTH_SERVICE}/Check": health.check,
        }
        self._methods: dict[str, Streaming] = {
            path: _answering(answer, self._limit) for path, answer in unary.items()
        }
        self._methods[_INFER] = self._infer
        if repository is not None:
            for name, answer in GrpcRepository(repository).methods.items():
                self._methods[f"/{SERVICE}/{name}"] = _answering_later(answer, self._limit)
        self._streams: dict[str, Streaming] = {
            f"/{HEALTH_SERVICE}/Watch": self._watch,
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": self._reflect,
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": self._reflect,
        }

    # --- http2.calls.Calls ---

    def accept(self, head: RequestHead) -> Accepted:
        """Judge the headers of a call."""
        content_type = head.fields.get(b"content-type", b"")
        path = head.path.decode("utf-8", "replace")
        method = _Method(self._limit + PREFIX_BYTES)
        method.path = path
        if head.method != b"POST":
            return _at_once(method, status=_NOT_POST)
        if content_type.partition(b";")[0].partition(b"+")[0] != b"application/grpc":
            return _at_once(method, status=_NOT_GRPC)
        if content_type.partition(b"+")[2] not in (b"", b"proto"):
            return _at_once(
                method, refusal=(Code.UNIMPLEMENTED, "content-type: expected application/grpc+proto")
            )
        if path in self._streams:
            method = _Method(_SMALL_BYTES, at_once=path != f"/{HEALTH_SERVICE}/Watch")
            method.path, method.run = path, self._streams[path]
        elif path in self._methods:
            method.run = self._methods[path]
            if path != _INFER:
                method.max_bytes = min(method.max_bytes, _SMALL_BYTES)
        elif path.startswith(f"/{SERVICE}/Repository"):
            return _at_once(method, refusal=(Code.UNIMPLEMENTED, _NO_REPOSITORY))
        else:
            message = f"method {path[:100]!r}: not one that this server has; reflection lists its services"
            return _at_once(method, refusal=(Code.UNIMPLEMENTED, message))
        fields = head.fields
        method.encoding = fields.get(b"grpc-encoding", b"identity")
        method.trace = fields.get(b"traceparent", b"").decode("ascii", "replace")
        control = fields.get(b"cache-control", b"").lower()
        method.cache = b"no-cache" not in control and b"no-store" not in control
        if (timeout := fields.get(b"grpc-timeout")) is not None:
            try:
                method.timeout = read_timeout(timeout)
            except InvalidRequest as error:
                return _at_once(method, refusal=(Code.INVALID_ARGUMENT, str(error)))
        return method

    async def answer(self, stream: Stream) -> None:
        """Answer a call."""
        method = stream.accepted
        assert isinstance(method, _Method)
        if method.status is not None:
            stream.begin(method.status)
            stream.finish(b"this port speaks gRPC over HTTP/2, and HTTP/1.1\n")
            return
        if method.refusal is not None or method.run is None:
            stream.end(error_alone(*(method.refusal or (Code.UNIMPLEMENTED, ""))))
            return
        try:
            await method.run(method, stream)
        except RequestError as error:
            self._fail(stream, error)
        except DecodeError:
            self._fail(stream, InvalidRequest(f"message: not one of {method.path}"))
        except Exception:
            # The one place where a bug of ours becomes a status: logged whole, told without detail.
            logger.exception("call failed unexpectedly")
            self._fail(stream, ExecutionFailed("internal error; the server's log has the details"))

    def refuse(self, stream: Stream, error: RequestError) -> None:
        """Answer a call that was not read to its end."""
        method = stream.accepted
        assert isinstance(method, _Method)
        if method.path == _INFER:
            self._count(error)
        self._fail(stream, error)

    # --- methods ---

    async def _infer(self, method: _Method, stream: Stream) -> None:
        try:
            inference = oip_grpc.Inference(
                whole_message(stream.body, method.encoding, self._limit), self._heads
            )
        except RequestError as error:
            self._count(error)
            raise
        deadline = None if method.timeout is None else stream.since + method.timeout
        call = Call(PROTOCOL, inference.model, inference.version, deadline, method.trace, method.cache)
        reply = await self._dataplane.infer(call, inference.decode, inference.encode)
        stream.answer(OK_HEAD, frame_message(*reply), _CACHED[call.cached])

    def _model_ready(self, message: bytes) -> bytes:
        request = pb.ModelReadyRequest.FromString(message)
        ready = self._dataplane.model_ready(request.name, request.version or None)
        return pb.ModelReadyResponse(ready=ready).SerializeToString()

    def _model_metadata(self, message: bytes) -> bytes:
        request = pb.ModelMetadataRequest.FromString(message)
        return oip_grpc_documents.encode_metadata(
            self._dataplane.metadata(request.name, request.version or None)
        )

    def _model_config(self, message: bytes) -> bytes:
        request = pb.ModelConfigRequest.FromString(message)
        return oip_grpc_documents.encode_config(
            self._dataplane.metadata(request.name, request.version or None)
        )

    def _model_statistics(self, message: bytes) -> bytes:
        request = pb.ModelStatisticsRequest.FromString(message)
        if request.name:
            slots = [self._dataplane.slot(request.name, request.version or None)]
        else:
            slots = list(self._dataplane.slots)
        return oip_grpc_documents.encode_statistics(
            (slot.metadata, slot.statistics.whole()) for slot in slots
        )

    async def _watch(self, method: _Method, stream: Stream) -> None:
        message = bytes(whole_message(stream.body, method.encoding, _SMALL_BYTES))
        stream.begin(OK_HEAD)
        await self._health.watch(message, stream, frame_message)

    async def _reflect(self, method: _Method, stream: Stream) -> None:
        stream.begin(OK_HEAD)
        while True:
            size = next_size(stream.body, _SMALL_BYTES)
            if size is not None and len(stream.body) >= PREFIX_BYTES + size:
                if stream.queue:  # answers that nobody reads do not pile up
                    await stream.changed()
                    continue
                body = bytes(stream.body[: PREFIX_BYTES + size])
                stream.take(len(body))
                message = open_message(
                    body[0], memoryview(body)[PREFIX_BYTES:], method.encoding, _SMALL_BYTES
                )
                stream.send(frame_message(grpc_reflection.answer(bytes(message))))
            elif stream.ended:
                if stream.body:
                    raise InvalidRequest("request: expected whole messages")
                stream.end(OK_TRAILERS)
                return
            else:
                await stream.changed()

    # --- errors ---

    def _fail(self, stream: Stream, error: RequestError) -> None:
        code = next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)
        if stream.begun:
            stream.end(error_trailers(code, str(error)))
        else:
            stream.end(error_alone(code, str(error)))

    def _count(self, error: RequestError) -> None:
        """Count an inference that was refused before its model's name was known: the only one there is, or none."""
        names = self._dataplane.names
        self._dataplane.count_refusal(PROTOCOL, str(error.status), names[0] if len(names) == 1 else "")


def _answering(answer: Unary, limit: int) -> Streaming:
    async def run(method: _Method, stream: Stream) -> None:
        message = bytes(whole_message(stream.body, method.encoding, limit))
        stream.answer(OK_HEAD, frame_message(answer(message)), OK_TRAILERS)

    return run


def _answering_later(answer: Answer, limit: int) -> Streaming:
    async def run(method: _Method, stream: Stream) -> None:
        message = bytes(whole_message(stream.body, method.encoding, limit))
        stream.answer(OK_HEAD, frame_message(await answer(message)), OK_TRAILERS)

    return run


def _at_once(
    method: _Method, *, refusal: tuple[Code, str] | None = None, status: bytes | None = None
) -> _Method:
    method.at_once, method.refusal, method.status = True, refusal, status
    return method
