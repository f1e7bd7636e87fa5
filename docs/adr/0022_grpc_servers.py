# ruff: noqa: T201
"""What a gRPC call costs behind three servers: CPU time of the server a call, and its memory. For ADR 22.

Usage: ``python docs/adr/0022_grpc_servers.py [CALLS]`` with the server and dev extras. Each server echoes one message of 300
bytes, the size of a ModelInfer of 64 floats, in a process of its own; a client of a few lines keeps 1 and then 16
connections busy with one call each. CPU time is compared because it does not depend on what else runs.
"""

import asyncio
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]
METHOD = "/inference.GRPCInferenceService/ModelInfer"
MESSAGE = b"m" * 300


async def by_grpcio(port: int) -> None:
    """Serve with grpc.aio."""
    import grpc

    async def echo(request: bytes, _: object) -> bytes:
        return request

    service, name = METHOD[1:].split("/")
    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler(service, {name: grpc.unary_unary_rpc_method_handler(echo)})
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


async def by_grpclib(port: int) -> None:
    """Serve with grpclib, on h2."""
    from grpclib.const import Cardinality, Handler
    from grpclib.encoding.base import CodecBase
    from grpclib.server import Server

    class Bytes(CodecBase):
        __content_subtype__ = "proto"

        def encode(self, message: bytes, _: object) -> bytes:
            return message

        def decode(self, data: bytes, _: object) -> bytes:
            return data

    async def echo(stream) -> None:
        await stream.send_message(await stream.recv_message())

    class Echo:
        def __mapping__(self) -> dict:
            return {METHOD: Handler(echo, Cardinality.UNARY_UNARY, bytes, bytes)}

    server = Server([Echo()], codec=Bytes())
    await server.start("127.0.0.1", port)
    await server.wait_closed()


async def by_ours(port: int) -> None:
    """Serve with inference_server.http2.connection."""
    from inference_server.grpc.messages import OK_HEAD, OK_TRAILERS
    from inference_server.http.peers import Peers
    from inference_server.http2.calls import Accepted
    from inference_server.http2.connection import Http2Connection

    class Echo:
        def accept(self, _: object) -> Accepted:
            return Accepted(1 << 20)

        async def answer(self, stream) -> None:
            stream.answer(OK_HEAD, bytes(stream.body), OK_TRAILERS)

    loop = asyncio.get_running_loop()
    peers = Peers(None, 1 << 20)
    server = await loop.create_server(lambda: Http2Connection(peers, Echo(), loop), "127.0.0.1", port)
    await server.serve_forever()


SERVERS = {"grpc.aio": by_grpcio, "grpclib": by_grpclib, "ours": by_ours}


def serve(name: str, port: int) -> None:
    """Be one of the servers."""
    import uvloop

    (asyncio.run if name == "grpc.aio" else uvloop.run)(SERVERS[name](port))


class Caller(asyncio.Protocol):
    """One connection that has one call under way at a time."""

    def __init__(self, left: list[int], done: asyncio.Future) -> None:
        from inference_server.grpc.messages import frame_message
        from inference_server.http2 import frames as h2
        from inference_server.http2.headers import literal

        self._h2, self._left, self._done = h2, left, done
        self._stream, self._rest, self._unread = 1, b"", 0
        fields = {":method": "POST", ":scheme": "http", ":path": METHOD, ":authority": "x"}
        fields |= {"te": "trailers", "content-type": "application/grpc", "user-agent": "grpc-python/1.85"}
        self._block = literal((name.encode(), value.encode()) for name, value in fields.items())
        self._message = frame_message(MESSAGE)

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin, with the first call."""
        self._transport = transport
        transport.write(self._h2.PREFACE + self._h2.settings_frame({}))
        self._call()

    def _call(self) -> None:
        if self._left[0] <= 0:
            if not self._done.done():
                self._done.set_result(None)
            return
        self._left[0] -= 1
        h2 = self._h2
        head = h2.frame(h2.HEADERS, h2.END_HEADERS, self._stream, self._block)
        self._transport.write(head + h2.frame(h2.DATA, h2.END_STREAM, self._stream, self._message))
        self._stream += 2

    def data_received(self, data: bytes) -> None:
        """Read answers; each is followed by the next call."""
        h2, data, at = self._h2, self._rest + data, 0
        while len(data) - at >= h2.HEAD_BYTES:
            high, low, kind, flags, _ = h2.HEAD.unpack_from(data, at)
            end = at + h2.HEAD_BYTES + (high << 16 | low)
            if end > len(data):
                break
            payload, at = data[at + h2.HEAD_BYTES : end], end
            if kind == h2.SETTINGS and not flags & h2.ACK:
                self._transport.write(h2.frame(h2.SETTINGS, h2.ACK, 0))
            elif kind == h2.PING and not flags & h2.ACK:
                self._transport.write(h2.frame(h2.PING, h2.ACK, 0, payload))
            elif kind == h2.DATA:
                self._unread += len(payload)
                if self._unread > 20_000:
                    self._transport.write(h2.window_frame(0, self._unread))
                    self._unread = 0
            elif kind == h2.HEADERS and flags & h2.END_STREAM:
                self._call()
        self._rest = data[at:]


async def call(port: int, connections: int, calls: int) -> None:
    """Make so many calls."""
    loop, left, ends = asyncio.get_running_loop(), [calls], []
    for _ in range(connections):
        ends.append(loop.create_future())
        await loop.create_connection(lambda: Caller(left, ends[-1]), "127.0.0.1", port)
    await asyncio.gather(*ends)


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measured(name: str, calls: int) -> str:
    """Return a row of the table."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    process = subprocess.Popen([sys.executable, __file__, name, str(port)])
    try:
        end = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
        cells = []
        for connections in (1, 16):
            asyncio.run(call(port, connections, calls // 10))
            rounds = []
            for _ in range(3):
                before = cpu_seconds(process.pid)
                asyncio.run(call(port, connections, calls))
                rounds.append((cpu_seconds(process.pid) - before) / calls * 1e6)
            cells.append(f"{sorted(rounds)[1]:.0f} µs")
        status = Path(f"/proc/{process.pid}/status").read_text()
        resident = int(status.partition("VmRSS:")[2].split()[0]) / 1024
        return f"| {name} | {cells[0]} | {cells[1]} | {resident:.0f} MiB |"
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    if len(sys.argv) == 3:
        serve(sys.argv[1], int(sys.argv[2]))
    else:
        number = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
        print("| | 1 connection | 16 connections | memory |\n|---|---|---|---|")
        for server in SERVERS:
            print(measured(server, number))
