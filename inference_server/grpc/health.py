"""grpc.health.v1: the readiness of the server for clients and load balancers that ask by gRPC.

Promises the same word as `/v2/health/ready`, for the whole server ("") and for the inference service.
"""

import asyncio
from collections.abc import Callable

from inference_server.errors import NotFound
from inference_server.http2.stream import Stream
from inference_server.proto import health_pb2

SERVICE = "grpc.health.v1.Health"
# How late a watcher may learn of a change; a model that is there stays there, so this is about the end of a process.
_LOOK_SECONDS = 0.25

Status = health_pb2.HealthCheckResponse.ServingStatus


class Health:
    """Answers for the services named.

    Args:
        ready: Whether requests should be sent here.
        services: Names that may be asked for beside "".
    """

    def __init__(self, ready: Callable[[], bool], services: tuple[str, ...]) -> None:
        self._ready = ready
        self._services = ("", *services)

    def check(self, message: bytes) -> bytes:
        """Answer `Check`.

        Raises:
            NotFound: No such service.
        """
        name = health_pb2.HealthCheckRequest.FromString(message).service
        if name not in self._services:
            raise NotFound(f"service {name[:100]!r}: expected one of {', '.join(map(repr, self._services))}")
        return self._message(name)

    async def watch(self, message: bytes, stream: Stream, frame: Callable[[bytes], bytes]) -> None:
        """Answer `Watch`: now, and again at each change, until the client leaves."""
        name = health_pb2.HealthCheckRequest.FromString(message).service
        last = b""
        while True:
            if (now := self._message(name)) != last:
                last = now
                stream.send(frame(now))
            await asyncio.sleep(_LOOK_SECONDS)

    def _message(self, name: str) -> bytes:
        if name not in self._services:
            status = Status.SERVICE_UNKNOWN
        else:
            status = Status.SERVING if self._ready() else Status.NOT_SERVING
        return health_pb2.HealthCheckResponse(status=status).SerializeToString()
