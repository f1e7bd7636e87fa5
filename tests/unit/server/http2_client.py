"""A client of HTTP/2 that sends exactly what a test tells it to, and reads frames one by one."""

import asyncio
from dataclasses import dataclass

from hpack import Decoder

from inference_server.grpc.messages import frame_message
from inference_server.http2 import frames as h2
from inference_server.http2.headers import literal
from inference_server.proto import inference_pb2 as pb

INFER = "/inference.GRPCInferenceService/ModelInfer"
LIVE = "/inference.GRPCInferenceService/ServerLive"
CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
REFLECT = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"


def request_headers(path=LIVE, method="POST", **more):
    """A call's headers; a keyword's underscores become hyphens."""
    fields = {":method": method, ":scheme": "http", ":path": path, ":authority": "x", "te": "trailers"}
    fields |= {"content-type": "application/grpc"}
    fields |= {name.replace("_", "-"): value for name, value in more.items()}
    return literal((name.encode(), value.encode()) for name, value in fields.items() if value is not None)


def infer_message(values, model="m", **fields):
    """A framed ModelInferRequest for the doubler of `conftest`."""
    request = pb.ModelInferRequest(model_name=model, **fields)
    entry = request.inputs.add(name="x", datatype="FP32", shape=[len(values)])
    entry.contents.fp32_contents.extend(values)
    return frame_message(request.SerializeToString())


@dataclass
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes


@dataclass
class Answer:
    """What came of one stream: all its headers, its data, and the code of a reset."""

    headers: dict
    data: bytes
    reset: int | None = None

    @property
    def status(self):
        return int(self.headers["grpc-status"])


class Http2Client:
    """One connection to a server of `conftest.loopback`."""

    def __init__(self, client):
        self._client = client
        self._decoder = Decoder()
        self.next_stream = 1

    @classmethod
    async def connect(cls, server, settings=None, first=b""):
        client = cls(await server.connect())
        await client.send(h2.PREFACE + h2.settings_frame(settings or {}) + first)
        return client

    async def send(self, data):
        await self._client.send(data)

    async def frame(self):
        """The next frame."""
        head = await asyncio.wait_for(self._client.reader.readexactly(h2.HEAD_BYTES), 2)
        high, low, kind, flags, stream = h2.HEAD.unpack(head)
        payload = await asyncio.wait_for(self._client.reader.readexactly(high << 16 | low), 2)
        return Frame(kind, flags, stream, payload)

    async def until(self, kind, stream=None, ack=None):
        """The next frame of a kind; others are dropped, in order."""
        while True:
            found = await self.frame()
            if found.kind != kind or (stream is not None and found.stream != stream):
                continue
            if ack is None or bool(found.flags & h2.ACK) == ack:
                return found

    async def call(self, path=LIVE, message=b"\0\0\0\0\0", ends=True, **headers):
        """Begin a call with a whole message; return its stream."""
        stream = self.next_stream
        self.next_stream += 2
        block = request_headers(path, **headers)
        flags = h2.END_STREAM if ends else 0
        frames = [h2.frame(h2.HEADERS, h2.END_HEADERS, stream, block)]
        step = h2.DEFAULT_FRAME_BYTES
        for start in range(0, max(len(message), 1), step):
            last = start + step >= len(message)
            frames.append(h2.frame(h2.DATA, flags if last else 0, stream, message[start : start + step]))
        await self.send(b"".join(frames))
        return stream

    async def answer(self, stream):
        """What the server says on a stream until it ends it."""
        answer = Answer({}, b"")
        while True:
            found = await self.frame()
            if found.stream != stream:
                continue
            if found.kind == h2.RST_STREAM:
                answer.reset = h2.WORD.unpack(found.payload)[0]
                return answer
            if found.kind == h2.HEADERS:
                answer.headers |= dict(self._decoder.decode(found.payload))
            elif found.kind == h2.DATA:
                answer.data += found.payload
            if found.flags & h2.END_STREAM and found.kind in (h2.HEADERS, h2.DATA):
                return answer

    async def goaway(self):
        """The code of the server's goodbye, after which it closes."""
        found = await self.until(h2.GOAWAY)
        code = h2.WORD.unpack_from(found.payload, 4)[0]
        assert await self._client.closed()
        return code

    def leave(self):
        self._client.writer.transport.abort()
