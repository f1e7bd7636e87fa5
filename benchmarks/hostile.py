"""A hundred thousand bad requests: does the server answer each as it should, keep its memory, and serve others meanwhile?

Two clients of HTTP and two of gRPC send, as fast as they are answered, every kind of ``tests.server.bad_requests`` and
``bad_calls`` in turn, and now and then do bad things to a connection (``benchmarks.hostile_clients``). Two hundred
connections that have sent part of a request stay open all the while. Beside them a good client sends at a steady rate
(open loop); it must get all its answers. Its latency is compared with what it is beside four clients that send good
requests as fast as they are answered, since a server that is kept busy is slower for everybody, whoever keeps it busy.
"""

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.figures import Report
from benchmarks.hostile_clients import (
    GRPC_ACTS,
    HTTP_ACTS,
    PATIENCE,
    Act,
    GrpcClient,
    HttpClient,
    mixed,
    unfinished,
    worn_in,
)
from benchmarks.memory import resident
from testbed.paths import ROOT
from tests.server.bad_calls import BAD_CALLS
from tests.server.bad_requests import BAD, BODY_BYTES
from tests.server.onnx_models import mlp, save

Others = TypeVar("Others")

REQUESTS = 100_000
WARM_UP = 10_000
CLIENTS = 4
RATE = 50.0
RUN_SECONDS = 8
PEER_SECONDS = 30
FAULTS = {"grpc 2", "grpc 13", "grpc 14", "grpc 15"}
"""UNKNOWN, INTERNAL, UNAVAILABLE, DATA_LOSS."""


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


async def attack(port: int, count: int) -> list[HttpClient | GrpcClient]:
    """Send so many bad requests, shared out among the clients."""
    clients = mixed(port, CLIENTS)
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


async def _wear(server: Server) -> tuple[Good, Good, list[HttpClient | GrpcClient], float]:
    """Return good clients beside good ones and beside bad ones, the bad ones, and what memory grew meanwhile in MB."""
    rate = ("--rate", str(RATE))
    among_good, many = Good(server.port, *rate), Good(server.port, "--concurrency", str(CLIENTS))
    await beside(many, beside(among_good, asyncio.sleep(PEER_SECONDS)))
    # Until allocators and caches have the size that the worst of it needs.
    await worn_in(server.port)
    await attack(server.port, WARM_UP)
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
        report.add("server_rss_when_ready", server.memory(), "MB")
        among_good, among_bad, clients, growth = asyncio.run(_wear(server))
        log = server.log
        report.add("server_rss_at_the_end", server.memory(), "MB")
    report.notes["seconds"] = round(time.monotonic() - began, 1)
    wrong = sum((client.wrong for client in clients), Counter[str]())
    outcomes = sum((client.outcomes for client in clients), Counter[str]())
    report.add("server_bad_requests_sent", outcomes.total(), "", ">=", REQUESTS)
    report.add("server_bad_requests_answered_wrongly", wrong.total(), "", "<=", 0)
    faults = sum(count for outcome, count in outcomes.items() if outcome.startswith("5") or outcome in FAULTS)
    report.add("server_bad_requests_blamed_on_itself", faults, "", "<=", 0)
    report.add("server_tracebacks_over_bad_requests", log.count("Traceback"), "", "<=", 0)
    report.add("server_rss_growth_over_bad_requests", growth, "MB", "<=", 2)
    report.add("server_good_requests_beside_bad", among_bad.answered, "")
    report.add("server_good_requests_failed_beside_bad", among_bad.failures, "", "<=", 0)
    report.add("good_p99_beside_bad", among_bad.latency("p99"), "ms")
    report.add("good_p99_beside_good", among_good.latency("p99"), "ms")
    worse = among_bad.latency("p99") / among_good.latency("p99")
    report.add("server_good_p99_beside_bad_by_beside_good", worse, "x", "<=", 2)
    report.add("good_p50_beside_bad", among_bad.latency("p50"), "ms")
    report.add("good_p50_beside_good", among_good.latency("p50"), "ms")
    report.notes["outcomes"] = dict(sorted(outcomes.items()))
    report.notes["wrong"] = dict(wrong.most_common(20))
    report.notes["kinds"] = [*(bad.name for bad in BAD), *(bad.name for bad in BAD_CALLS)] + [
        _words(act) for act in (*HTTP_ACTS, *GRPC_ACTS)
    ]
    return report.finish()


def _words(act: Act) -> str:
    return act.__name__.strip("_").replace("_", " ")
