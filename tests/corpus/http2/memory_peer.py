"""An HTTP/2 connection of the inference server in memory: what a peer sends goes in, what it would read comes out."""

import asyncio
import re

from hpack import Decoder

from inference_server.grpc.api import GrpcApi
from inference_server.http.api import HttpApi
from inference_server.http.peers import Peers
from inference_server.http2 import frames as h2
from inference_server.http2.connection import Http2Connection
from inference_server.serving.dataplane import DataPlane
from inference_server.telemetry.metrics import Metrics

BODY_BYTES = 4096


class Wire(asyncio.Transport):
    """The kernel's end of a connection."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.ended = False

    def write(self, data):
        assert not self.ended
        self.written += data

    def is_closing(self):
        return self.ended

    def close(self):
        self.ended = True

    abort = close

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass


class MemoryPeer:
    """One server without a model, for many connections one after the other; use within a running loop."""

    def __init__(self) -> None:
        plane = DataPlane(Metrics())
        plane.announce("m", "1")
        self.peers = Peers(HttpApi(plane, BODY_BYTES), BODY_BYTES)
        self._calls = GrpcApi(plane, BODY_BYTES)

    async def play(self, sent: bytes, pieces: list[int] = ()) -> set[str]:
        """Send bytes after the preface, in pieces of these sizes; return in words all that became of the connection.

        Raises:
            AssertionError: Memory is still held, or what was written is no HTTP/2.
        """
        connection, wire = Http2Connection(self.peers, self._calls, asyncio.get_running_loop()), Wire()
        connection.connection_made(wire)
        rest = h2.PREFACE + sent
        for size in (*pieces, len(rest)):
            connection.data_received(rest[:size])
            rest = rest[size:]
            await asyncio.sleep(0)
        for _ in range(3):
            await asyncio.sleep(0)
        said = outcome(bytes(wire.written))
        connection.connection_lost(None)
        await asyncio.sleep(0)
        assert self.peers.held_bytes == 0
        assert not self.peers.connections
        return said


def outcome(written: bytes) -> set[str]:
    """Return what a server said, numbers and names aside: the word of its goodbye, resets, statuses."""
    said, decoder, at = set(), Decoder(), 0
    while at < len(written):
        high, low, kind, _, _ = h2.HEAD.unpack_from(written, at)
        payload = written[at + h2.HEAD_BYTES : at + h2.HEAD_BYTES + (high << 16 | low)]
        at += h2.HEAD_BYTES + (high << 16 | low)
        if kind == h2.GOAWAY:
            code, text = h2.ErrorCode(h2.WORD.unpack_from(payload, 4)[0]), payload[8:].decode()
            said.add(f"goaway {code.name} {text}")
        elif kind == h2.RST_STREAM:
            said.add(f"reset {h2.ErrorCode(h2.WORD.unpack(payload)[0]).name}")
        elif kind == h2.HEADERS:
            headers = dict(decoder.decode(payload))
            said.add(
                f"status {headers.get('grpc-status', headers.get(':status'))} {headers.get('grpc-message', '')}"
            )
    assert at == len(written)
    return {
        re.sub(r"(method|found|unexpected|name|value of header) .*(?=:|$)|[0-9]+", "_", one) for one in said
    }
