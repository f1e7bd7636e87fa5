"""A server that answers every request at once with the same small answer: what is left is the cost of the client.

It takes a connection for gRPC's where that begins with HTTP/2's preface, and of its frames looks at those that end a call.
"""

import asyncio
import sys
from typing import cast

import httptools
import uvloop

from inference_server.grpc.messages import OK_HEAD, OK_TRAILERS, frame_message
from inference_server.http2 import frames as h2

_BODY = b'{"model_name":"m","outputs":[{"name":"y","datatype":"FP32","shape":[1,10],"data":[0,1,2,3,4,5,6,7,8,9]}]}'
_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: keep-alive\r\n\r\n%s"
    % (len(_BODY), _BODY)
)
_MESSAGE = frame_message(bytes(60))
_SETTINGS = h2.settings_frame({h2.INITIAL_WINDOW_SIZE: h2.MAX_WINDOW})


def grpc_answer(stream: int) -> bytes:
    """Return the frames of an answer by gRPC."""
    return (
        h2.frame(h2.HEADERS, h2.END_HEADERS, stream, OK_HEAD)
        + h2.frame(h2.DATA, 0, stream, _MESSAGE)
        + h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream, OK_TRAILERS)
    )


class _Connection(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        if data.startswith(h2.PREFACE):
            calls = _Calls(self.transport)
            self.transport.set_protocol(calls)
            self.transport.write(_SETTINGS)
            calls.data_received(data[len(h2.PREFACE) :])
        else:
            self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        self.transport.write(_ANSWER)


class _Calls(asyncio.Protocol):
    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.rest = b""

    def data_received(self, data: bytes) -> None:
        data = self.rest + data
        while len(data) >= h2.HEAD_BYTES:
            high, low, kind, flags, stream = h2.HEAD.unpack_from(data)
            ends = h2.HEAD_BYTES + (high << 16 | low)
            if len(data) < ends:
                break
            data = data[ends:]
            if kind == h2.DATA and flags & h2.END_STREAM:
                self.transport.write(h2.window_frame(0, ends - h2.HEAD_BYTES) + grpc_answer(stream))
        self.rest = data


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(_serve())
