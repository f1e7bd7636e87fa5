"""gRPC methods as grpclib wants them, and our errors as gRPC statuses.

Promises: every error leaves as a status with a sentence for the person who reads the pod's Events; what is not foreseen is
logged with its trace and told as INTERNAL, without details. Codes: CSI spec, "Error Scheme".
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from grpclib.server import Stream

from edgemodel.errors import EdgeModelError
from edgemodel.node.csi.holdings import Failed, NotEntitled, NotReady

log = logging.getLogger(__name__)

_Request = TypeVar("_Request", bound=Message)
_Reply = TypeVar("_Reply", bound=Message)

_STATUS = {
    NotEntitled: Status.PERMISSION_DENIED,
    NotReady: Status.ABORTED,  # "operation pending", which the kubelet tries again
    Failed: Status.FAILED_PRECONDITION,
}
_LONGEST = 1024
"""Characters of a message: Kubernetes cuts those of an Event there."""


class Service:
    """Methods of one gRPC service, in the form that ``grpclib.server.Server`` takes."""

    def __init__(self, methods: Mapping[str, Handler]) -> None:
        self._methods = dict(methods)

    def __mapping__(self) -> dict[str, Handler]:
        """Return handlers by path; the name is grpclib's."""
        return self._methods


def unary(
    function: Callable[[_Request], Awaitable[_Reply]], request: type[_Request], reply: type[_Reply]
) -> Handler:
    """Make a handler of one request and one reply from a plain coroutine function."""

    async def serve(stream: Stream[_Request, _Reply]) -> None:
        message = await stream.recv_message()
        if message is None:
            raise GRPCError(Status.INVALID_ARGUMENT, "expected a request, found none")
        try:
            answer = await function(message)
        except (GRPCError, ProtocolError, StreamTerminatedError):
            raise
        except EdgeModelError as error:
            raise status(error) from error
        except Exception as error:
            log.exception("call of %s failed", function.__name__)
            raise GRPCError(
                Status.INTERNAL, "the node agent failed; its log says why, the kubelet tries again"
            ) from error
        await stream.send_message(answer)

    return Handler(serve, Cardinality.UNARY_UNARY, request, reply)


def unimplemented(path: str, reason: str) -> Handler:
    """Make a handler that refuses every call of a method.

    Needed, since what grpclib says to a method it does not know lacks a content type, and grpc-go takes that for UNKNOWN.
    """

    async def refuse(stream: Stream[Empty, Empty]) -> None:
        await stream.recv_message()
        raise GRPCError(Status.UNIMPLEMENTED, f"{path}: {reason}")

    return Handler(
        refuse, Cardinality.UNARY_UNARY, Empty, Empty
    )  # fields of the real request are unknown ones


def status(error: EdgeModelError, about: str = "") -> GRPCError:
    """Return an error as the status that the kubelet shows in the pod's Events."""
    code = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), Status.INTERNAL)
    text = error.message if code is not Status.FAILED_PRECONDITION else str(error)
    return GRPCError(code, (about + text)[:_LONGEST])
