"""The agent's part alone, between two sockets: what it passes on, what it holds, and what it does when a side is odd."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from edgemodel.gateway.routes import Route, Server
from edgemodel.gateway.shadow import MAX_HELD, Shadow
from edgemodel.gateway.shadow_comparison import Outcome
from edgemodel.gateway.shadow_metrics import ShadowMetrics

DIGEST = "sha256:" + "2" * 64
ROUTE = Route(
    "vision",
    "detector",
    20001,
    candidate=(Server("new", "10.42.0.2", 8080),),
    shadow_percent=50,
    shadow=50,
    candidate_digest=DIGEST,
)
JSON = b'{"outputs": [{"name": "y", "datatype": "INT64", "shape": [1], "data": [7]}]}'
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Between:
    """An agent, what stands for HAProxy in front of the pods, and the heads that it was shown."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry = CollectorRegistry()
        self.shadow = Shadow(str(folder), ShadowMetrics(self.registry), copy_seconds=0.2)
        self.answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(JSON), JSON)
        self.of_candidate = b"HTTP/1.1 200 OK\r\nx-edgemodel-server: new\r\n\r\n" + JSON
        self.silent = False
        self.heads: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def pods(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        if self.silent:
            return
        await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        writer.write(self.of_candidate if b"x-edgemodel-part" in head else self.answer)
        writer.close()

    async def ask(self, body: bytes = b"{}", route: str = "vision.detector") -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(self.folder / "shadow.sock"))
        head = f"POST /v2/infer HTTP/1.1\r\nx-edgemodel-route: {route}\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""  # an end without a word, all the same
        finally:
            writer.close()

    def counted(self, outcome: Outcome) -> float:
        labels = {"namespace": "vision", "name": "detector", "digest": DIGEST, "outcome": outcome}
        found = self.registry.get_sample_value("edgemodel_gateway_shadow_requests_total", labels)
        return found or 0.0


@pytest.fixture
async def between() -> AsyncIterator[Between]:
    folder = Path(tempfile.mkdtemp(prefix="shadow-"))  # the path of a Unix socket is short
    made = Between(folder)
    server = await asyncio.start_unix_server(made.pods, str(folder / "shadowed.sock"))
    made.shadow.follow([ROUTE])
    await made.shadow.start()
    yield made
    await made.shadow.stop()
    server.close()
    for writer in made.writers:
        writer.transport.abort()
    await asyncio.sleep(0)
    shutil.rmtree(folder)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(1.5):
        while not true():  # noqa: ASYNC110 - no event to wait for
            await asyncio.sleep(0.005)


async def test_an_answer_is_passed_on_byte_by_byte_and_the_request_copied_afterwards(
    between: Between,
) -> None:
    assert await between.ask() == between.answer
    await until(lambda: between.counted("agree") == 1)
    first, copy = between.heads
    assert b"x-edgemodel-part" not in first
    assert copy == first.replace(b"connection", b"x-edgemodel-part: candidate\r\nconnection")
    assert between.shadow.held == 0


async def test_a_spare_that_answers_for_the_candidate_is_not_the_candidate(between: Between) -> None:
    between.of_candidate = between.of_candidate.replace(b"new", b"spare-old")
    await between.ask()
    await until(lambda: between.counted("unanswered") == 1)


async def test_of_a_model_without_a_candidate_nothing_is_copied(between: Between) -> None:
    assert await between.ask(route="vision.other") == between.answer
    assert len(between.heads) == 1
    between.shadow.follow([])
    assert await between.ask() == between.answer
    assert len(between.heads) == 2


async def test_what_the_pods_do_not_answer_is_not_answered(between: Between) -> None:
    between.answer = b""
    assert await between.ask() == b""
    assert between.shadow.held == 0


async def test_what_is_held_is_bounded_however_much_comes(between: Between) -> None:
    between.silent = True
    body = b"x" * (1 << 20)
    asked = [asyncio.ensure_future(between.ask(body)) for _ in range(40)]
    await until(lambda: len(between.heads) == 40)
    assert 0 < between.shadow.held <= MAX_HELD
    assert between.counted("dropped") >= 28
    for one in asked:
        one.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    await between.shadow.stop()
    assert between.shadow.held == 0


@pytest.mark.parametrize(
    "said", [b"", b"\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n"]
)
async def test_what_is_no_request_that_was_drawn_gets_no_answer(between: Between, said: bytes) -> None:
    reader, writer = await asyncio.open_unix_connection(str(between.folder / "shadow.sock"))
    writer.write(said)
    writer.write_eof()
    try:
        assert await reader.read() == b""
    except ConnectionResetError:
        pass
    finally:
        writer.close()
    assert between.heads == []


async def test_it_says_that_it_lives(between: Between) -> None:
    reader, writer = await asyncio.open_unix_connection(str(between.folder / "shadow.sock"))
    writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()
