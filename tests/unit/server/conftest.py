"""A server of this process on loopback, with a model that is a Python function."""

import asyncio
import functools
import threading
from contextlib import asynccontextmanager

import numpy as np
import pytest
import uvloop

from inference_server.grpc.api import GrpcApi
from inference_server.http.api import HttpApi
from inference_server.http.connection import HttpConnection
from inference_server.http.peers import Peers
from inference_server.http2.connection import Http2Connection
from inference_server.messages import ModelMetadata
from inference_server.serving.dataplane import DataPlane
from inference_server.serving.result_cache import ResultCache
from inference_server.telemetry.metrics import Metrics
from inference_server.tensors import TensorSpec


def pytest_asyncio_loop_factories(config, item):
    """The loops that a test may ask for by name: the server's own is uvloop. A test that asks for none gets the first."""
    both = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    marker = item.get_closest_marker("asyncio")
    return both if marker is not None and "loop_factories" in marker.kwargs else {"asyncio": both["asyncio"]}


async def until(condition):
    """Wait for a condition, at most ten seconds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 — other threads and the kernel set no asyncio.Event
            await asyncio.sleep(0.001)


class Doubler:
    """y = 2x; can be made to wait or to fail."""

    metadata = ModelMetadata("m", "1", (TensorSpec("x", "FP32", (-1,)),), (TensorSpec("y", "FP32", (-1,)),))
    digest = "sha256:" + "d" * 64
    load_seconds = 0.5
    memory_bytes = 4096

    def __init__(self):
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Event()
        self.failure = None
        self.runs = 0
        self.taken = lambda array: None  # is called with each input

    def run(self, outputs, inputs):
        self.runs += 1
        self.taken(inputs["x"])
        self.entered.set()
        assert self.go.wait(5)
        if self.failure is not None:
            raise self.failure
        return [np.asarray(inputs["x"] * 2) for _ in outputs]


class Client:
    """One raw connection."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes):
        self.writer.write(data)
        await self.writer.drain()

    async def receive(self):
        """Return `(status, headers, body)` of the next answer."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        first, *lines = head.decode().rstrip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        body = await asyncio.wait_for(self.reader.readexactly(int(headers.get("content-length", 0))), 10)
        return int(first.split()[1]), headers, body

    async def closed(self):
        """Whether the server ends the connection, with nothing more to read."""
        try:
            return await asyncio.wait_for(self.reader.read(1), 2) == b""
        except ConnectionResetError:
            return True


class Loopback:
    """The parts of a running server, and connections to it."""

    def __init__(self, model, max_body_bytes, cache_bytes=0, exemplars=False):
        self.model = model
        metrics = Metrics(exemplars=exemplars)
        cache = ResultCache(cache_bytes, 0, metrics) if cache_bytes else None
        self.dataplane = DataPlane(metrics, cache=cache)
        self.dataplane.announce("m", "1")
        self.peers = Peers(
            HttpApi(self.dataplane, max_body_bytes),
            max_body_bytes,
            date=b"today",
            http2=functools.partial(Http2Connection.take_over, GrpcApi(self.dataplane, max_body_bytes)),
        )
        self.port = 0
        self._writers = []

    async def connect(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers.append(writer)
        return Client(reader, writer)

    async def ask(self, method, target, body=b"", headers=""):
        """One request on a connection of its own."""
        client = await self.connect()
        await client.send(
            f"{method} {target} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        return await client.receive()

    def sample(self, name, **labels):
        return self.dataplane.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def loopback():
    """A factory of running servers: `async with loopback() as server`."""

    @asynccontextmanager
    async def start(*, loaded=True, max_body_bytes=4096, **options):
        server = Loopback(Doubler(), max_body_bytes, **options)
        if loaded:
            server.dataplane.add(server.model)
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(lambda: HttpConnection(server.peers, loop), "127.0.0.1", 0)
        server.port = listener.sockets[0].getsockname()[1]
        try:
            yield server
        finally:
            server.model.go.set()
            listener.close()
            for writer in server._writers:
                writer.close()
            for connection in tuple(server.peers.connections):
                connection.abort()
            for writer in server._writers:
                try:
                    await writer.wait_closed()
                except ConnectionError:
                    continue
            await server.dataplane.close()
            await listener.wait_closed()

    return start
