"""A hundred thousand bad requests: does the server answer each as it should, keep its memory, and serve others meanwhile?

Four clients send, as fast as they are answered, every kind of ``tests.server.bad_requests`` in turn, and now and then do to
a connection what ``_ON_CONNECTIONS`` lists: claim 10 GB, never finish, hang up, send rubbish. Two hundred connections that
have sent part of a request stay open all the while. Beside them a good client sends at a steady rate (open loop); it must
get all its answers. Its latency is compared with what it is beside four clients that send good requests as fast as they
are answered, since a server that is kept busy is slower for everybody, whoever keeps it busy.
"""

import asyncio
import contextlib
import json
import os
import random
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.figures import Report
from benchmarks.memory import resident
from testbed.paths import ROOT
from tests.server.bad_requests import BAD, BODY_BYTES, GOOD, INFER
from tests.server.onnx_models import mlp, save

Others = TypeVar("Others")

REQUESTS = 100_000
WARM_UP = 10_000
CLIENTS = 4
RATE = 50.0
RUN_SECONDS = 8
PEER_SECONDS = 20
UNFINISHED = 200
EVERY = 100
"""Requests between two acts on a connection."""
PATIENCE = 20.0


class Server:
    """The real process, and what it logs."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.pid, self._log = process.pid, log
        end = time.monotonic() + PATIENCE
        while not (self.port and '"ready"' in self.log):
            if time.monotonic() > end:
                raise RuntimeError(f"not ready in {PATIENCE:g} s: {self.log}")
            time.sleep(0.05)
        self._sockets = 0
        self._sockets = self.connections()  # what it has without a client

    @property
    def log(self) -> str:
        """All lines so far."""
        return self._log.read_text(errors="replace")

    @property
    def port(self) -> int:
        """Where it listens; 0 before it does."""
        events = (json.loads(line) for line in self.log.splitlines() if line.startswith("{"))
        return next((int(one["port"]) for one in events if one["event"] == "listening"), 0)

    def memory(self) -> float:
        """Resident memory in MB (10^6 bytes)."""
        return resident([self.pid])

    def connections(self) -> int:
        """Connections that are open."""
        found = -self._sockets
        for link in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found += str(link.readlink()).startswith("socket:")
        return found


@contextmanager
def served() -> Iterator[Server]:
    """Run a server of the small perceptron."""
    with tempfile.TemporaryDirectory(prefix="hostile-") as name, (Path(name) / "log").open("wb") as log:
        model = save(mlp(), Path(name) / "m.onnx")  # type: ignore[no-untyped-call]
        command = [sys.executable, "-m", "inference_server", "--model", str(model), "--host", "127.0.0.1"]
        command += ["--port", "0", "--max-body-bytes", str(BODY_BYTES)]
        process = subprocess.Popen(command, stderr=log, cwd=ROOT)
        try:
            yield Server(process, Path(log.name))
        finally:
            process.kill()
            process.wait()


class Client:
    """Sends bad requests over one connection after another and notes every answer that is not the right one."""

    def __init__(self, port: int, first: int) -> None:
        self.port, self.turn = port, first
        self.wrong: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self._writer: asyncio.StreamWriter | None = None

    async def send(self, count: int) -> None:
        """Send so many requests."""
        for number in range(count):
            bad = BAD[self.turn % len(BAD)]
            self.turn += 1
            try:
                status, message = await asyncio.wait_for(self._exchange(bad.content), PATIENCE)
            except (OSError, EOFError, TimeoutError) as error:
                self.wrong[f"{bad.name}: {type(error).__name__} {error}"] += 1
                self._close()
                continue
            self.statuses[status] += 1
            if status != bad.status or bad.words not in message or "Traceback" in message:
                self.wrong[f"{bad.name}: {status} {message[:200]}"] += 1
            if number % EVERY == 0:
                act = _ON_CONNECTIONS[(self.turn // EVERY) % len(_ON_CONNECTIONS)]
                with contextlib.suppress(OSError, EOFError):  # the server may end any of them at once
                    await asyncio.wait_for(act(self.port), PATIENCE)
        self._close()

    async def _exchange(self, content: bytes) -> tuple[int, str]:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writer.write(content)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        message = (await self._reader.readexactly(length)).decode("utf-8")
        if "\r\nconnection: close" in head:
            self._close()
        return int(head.split()[1]), message

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None


# --- what is done to a connection; the server answers, or ends it ---


async def _ten_gigabytes(port: int) -> None:
    """Send a body as if it had 10 GB, until the server no longer takes it."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000000\r\n\r\n".encode())
    try:
        for _ in range(16):
            writer.write(bytes(65536))
            await writer.drain()
    finally:
        writer.transport.abort()


async def _chunks_without_end(port: int) -> None:
    """Send chunks until they are more than a body may have."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    try:
        for _ in range(BODY_BYTES // 65536 + 1):
            writer.write(b"10000\r\n" + bytes(65536) + b"\r\n")
            await writer.drain()
        await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.transport.abort()


async def _half_closed(port: int) -> None:
    """Send a whole request and the end of the stream with it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(GOOD)
    writer.write_eof()
    await reader.read()
    writer.close()


async def _hung_up(port: int) -> None:
    """Send half of a request, and reset the connection."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(GOOD[:300])
    await writer.drain()
    plain: socket.socket = writer.get_extra_info("socket")
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _gone_before_the_answer(port: int) -> None:
    """Ask, and leave."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(GOOD)
    await writer.drain()
    writer.transport.abort()


async def _never_reads(port: int) -> None:
    """Send hundreds of requests at once and read no answer."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(GOOD * 300)
    await asyncio.sleep(0.01)
    writer.transport.abort()


async def _rubbish(port: int) -> None:
    """Send random bytes, the beginning of a TLS handshake, a request to upgrade."""
    source = random.Random(port)
    upgrade = b"GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + bytes(1000)
    for rubbish in (source.randbytes(2000), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", upgrade):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(rubbish)
        await asyncio.sleep(0.005)
        writer.transport.abort()


_ON_CONNECTIONS: tuple[Callable[[int], Awaitable[None]], ...] = (
    _ten_gigabytes,
    _chunks_without_end,
    _half_closed,
    _hung_up,
    _gone_before_the_answer,
    _never_reads,
    _rubbish,
)


@contextlib.asynccontextmanager
async def unfinished(port: int) -> AsyncIterator[None]:
    """Keep connections open that have sent nothing, part of a head, or part of a body."""
    parts = (b"", b"POST ", f"POST {INFER} HTTP/1.1\r\nContent-Length: 100\r\n\r\n{{".encode())
    writers = []
    for number in range(UNFINISHED):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(parts[number % len(parts)])
        writers.append(writer)
    try:
        yield
    finally:
        for writer in writers:
            writer.transport.abort()


async def attack(port: int, count: int) -> list[Client]:
    """Send so many bad requests, shared out among the clients."""
    clients = [Client(port, number * len(BAD) // CLIENTS) for number in range(CLIENTS)]
    async with unfinished(port):
        await asyncio.gather(*(client.send(count // CLIENTS) for client in clients))
    return clients


class Good:
    """Good clients in processes of their own, by ``edgemodel bench``, one run after the other until told to stop."""

    def __init__(self, port: int, *load: str) -> None:
        self._load = ("bench", f"http://127.0.0.1:{port}", "--model", "m", "--warm-up", "0", *load)
        self.runs: list[dict[str, Any]] = []
        self.stopping = False

    async def go_on(self) -> None:
        """Run until told to stop; the run under way then is let end."""
        while not self.stopping:
            words = (*self._load, "--duration", str(RUN_SECONDS), "--output", "json")
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "edgemodel", *words, stdout=subprocess.PIPE, cwd=ROOT
            )
            told, _ = await asyncio.wait_for(process.communicate(), RUN_SECONDS + 3 * PATIENCE)
            (run,) = json.loads(told)["loads"]
            self.runs.append(run)

    @property
    def answered(self) -> int:
        """How many got their answer."""
        return sum(run["answered"] for run in self.runs)

    @property
    def failures(self) -> int:
        """How many did not."""
        return sum(sum(run["errors"].values()) for run in self.runs)

    def latency(self, name: str) -> float:
        """Return the median of the runs' percentiles of this name, in ms."""
        return float(statistics.median(run["latencyMs"][name] for run in self.runs))


async def beside(good: Good, others: Awaitable[Others]) -> Others:
    """Let good clients go on for as long as the others are at it; return what came of the others."""
    going = asyncio.create_task(good.go_on())
    try:
        return await others
    finally:
        good.stopping = True
        await going


async def _wear(server: Server) -> tuple[Good, Good, list[Client], float]:
    """Return good clients beside good ones and beside bad ones, the bad ones, and what memory grew meanwhile in MB."""
    await attack(server.port, WARM_UP)  # until allocators and caches have their size
    rate = ("--rate", str(RATE))
    among_good, many = Good(server.port, *rate), Good(server.port, "--concurrency", str(CLIENTS))
    await beside(many, beside(among_good, asyncio.sleep(PEER_SECONDS)))
    await _settled(server)
    before = server.memory()
    among_bad = Good(server.port, *rate)
    clients = await beside(among_bad, attack(server.port, REQUESTS))
    await _settled(server)
    return among_good, among_bad, clients, server.memory() - before


async def _settled(server: Server) -> None:
    """Wait until every connection of ours is gone."""
    async with asyncio.timeout(PATIENCE):
        while server.connections():  # noqa: ASYNC110 - the state of another process
            await asyncio.sleep(0.1)


def run() -> bool:
    """Run the benchmark; True when every goal is met."""
    report = Report("hostile")
    report.notes["load_before"] = os.getloadavg()
    began = time.monotonic()
    with served() as server:
        among_good, among_bad, clients, growth = asyncio.run(_wear(server))
        log = server.log
        report.add("server_rss", server.memory(), "MB")
    report.notes["seconds"] = round(time.monotonic() - began, 1)
    wrong = sum((client.wrong for client in clients), Counter[str]())
    statuses = sum((client.statuses for client in clients), Counter[int]())
    report.add("bad_requests", sum(statuses.values()), "", ">=", REQUESTS)
    report.add("wrong_answers_to_bad_requests", wrong.total(), "", "<=", 0)
    report.add("status_5xx", sum(n for status, n in statuses.items() if status >= 500), "", "<=", 0)
    report.add("tracebacks_in_the_log", log.count("Traceback"), "", "<=", 0)
    report.add("rss_growth_over_bad_requests", growth, "MB", "<=", 2)
    report.add("good_requests_beside", among_bad.answered, "")
    report.add("good_requests_failed", among_bad.failures, "", "<=", 0)
    report.add("good_p99_beside_bad", among_bad.latency("p99"), "ms")
    report.add("good_p99_beside_good", among_good.latency("p99"), "ms")
    worse = among_bad.latency("p99") / among_good.latency("p99")
    report.add("good_p99_beside_bad_by_beside_good", worse, "x", "<=", 2)
    report.add("good_p50_beside_bad", among_bad.latency("p50"), "ms")
    report.add("good_p50_beside_good", among_good.latency("p50"), "ms")
    report.notes["statuses"] = {str(status): count for status, count in sorted(statuses.items())}
    report.notes["wrong"] = dict(wrong.most_common(20))
    report.notes["kinds"] = [bad.name for bad in BAD] + [_words(act) for act in _ON_CONNECTIONS]
    return report.finish()


def _words(act: Callable[[int], Awaitable[None]]) -> str:
    return act.__name__.strip("_").replace("_", " ")
