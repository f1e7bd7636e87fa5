"""What copies of requests cost: time of the requests that are copied, time and memory of the gateway's agent.

One client asks, one request after the other, over a kept connection; the pods are an HAProxy that answers by itself. Rounds
of requests that are copied, all of them, alternate with rounds by a path that is not: the difference is the way by the
agent, which is a process of its own. Then many clients ask at once, to see what the agent takes when it drops copies.
"""

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from benchmarks.figures import Report
from benchmarks.gateway import haproxy
from edgemodel.rollout.shadow import Copies, read_copies
from tests.gateway.clients import Client, Load, answering, free_port
from tests.gateway.site import ONE, TWO, Site, made

ROUNDS, REQUESTS = 8, 400
CLIENTS, SECONDS = 16, 5.0
COPIED, UNCOPIED = "/v2/models/m/infer", "/v2/models/m/infer/not"
_TICKS = os.sysconf("SC_CLK_TCK")
_SCORES = json.dumps([round(1 / (number + 2), 6) for number in range(100)])
_ANSWER = (
    f'{{"model_name":"m","outputs":[{{"name":"y","shape":[1,100],"datatype":"FP32","data":{_SCORES}}}]}}'
)
_REQUEST = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP32", "data": [0.5] * 64}]}
).encode()


def pods(port: int) -> str:
    """Return the configuration of an HAProxy that answers as a pod of each version would."""
    return f"""\
global
    nbthread 1
defaults
    mode http
    timeout connect 1s
    timeout client 60s
    timeout server 60s
frontend pods
    bind 127.0.2.1:{port}
    bind 127.0.2.2:{port}
    http-request return status 200 content-type application/json string '{_ANSWER}'
"""


@contextmanager
def agent(site: Site, folder: Path) -> Iterator[int]:
    """Run the gateway as its image does; yield the agent's process id."""
    settings = folder / "settings.json"
    told = site.settings.model_copy(update={"port": free_port(), "host": "127.0.0.1", "log_level": "error"})
    site.settings = told
    settings.write_text(told.model_dump_json(by_alias=True))
    command = [sys.executable, "-m", "edgemodel", "gateway", "--settings", str(settings)]
    process = subprocess.Popen(
        [*command, "--api-server", site.server.url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def used(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident(pid: int) -> float:
    """Return a process's resident memory in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def counted(site: Site) -> Copies:
    """Return what the agent counted."""
    url = f"http://127.0.0.1:{site.settings.port}/metrics"
    with urllib.request.urlopen(url, timeout=5) as answer:
        return sum(read_copies(answer.read().decode()).copies.values(), Copies())


async def asked(client: Client, path: str, number: int) -> float:
    """Ask so many times; return the median latency in ms."""
    took = []
    for _ in range(number):
        began = time.perf_counter()
        answer = await client.ask(path, body=_REQUEST)
        took.append(time.perf_counter() - began)
        assert answer.status == 200, answer
    return 1000 * statistics.median(took)


async def compared(site: Site, number: int) -> None:
    """Wait until so many copies were compared."""
    async with asyncio.timeout(20):
        while counted(site).compared < number:  # noqa: ASYNC110 - asked of another process
            await asyncio.sleep(0.05)


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[Site, int]]:
    """Yield a site with a pod of each version, and the agent's process id."""
    with ExitStack() as stack:
        async with made() as site:
            stack.enter_context(haproxy(folder / "pods", {"haproxy.cfg": pods(site.pod_port)}))
            pid = stack.enter_context(agent(site, folder))
            for number, version in ((1, ONE), (2, TWO)):
                pod = site.silent_pod(f"detector-{number}", f"127.0.2.{number}", version)
                pod.show()
            yield site, pid


async def measure(report: Report, folder: Path) -> None:
    """Measure everything."""
    async with running(folder) as (site, pid):
        port = site.model()
        await answering(port)
        before = resident(pid)
        site.model(candidate=TWO, traffic={"shadow": {"percent": 100}})
        client = await answering(port)
        async with asyncio.timeout(30):
            while not counted(site).compared:
                await asked(client, COPIED, 10)
        alone: list[float] = []
        with_copies: list[float] = []
        spent = copies = 0.0
        for _ in range(ROUNDS):
            cpu, done = used(pid), counted(site).compared
            with_copies.append(await asked(client, COPIED, REQUESTS))
            await compared(site, done + REQUESTS)
            spent += used(pid) - cpu
            copies += counted(site).compared - done
            # A path that is not copied is asked of the same pods by the same connection.
            alone.append(await asked(client, UNCOPIED, REQUESTS))
        found = counted(site)
        assert found.differ == found.failed == found.unanswered == 0, found
        report.add(
            "copied_request_added_p50",
            statistics.median(with_copies) - statistics.median(alone),
            "ms",
            "<=",
            2,
        )
        report.add("p50_without", statistics.median(alone), "ms")
        report.add("agent_cpu_for_each_copied_request", 1000 * spent / copies, "ms", "<=", 2)
        cpu, began = used(pid), time.perf_counter()
        async with Load(port, CLIENTS) as load:
            await asyncio.sleep(SECONDS)
        seconds = time.perf_counter() - began
        assert load.wrong == [], load.wrong[:3]
        report.add("requests_a_second_all_copied", load.total / seconds, "requests/s")
        report.add("agent_cpu_all_copied", 100 * (used(pid) - cpu) / seconds, "% of a core")
        report.add("agent_rss_before", before, "MB")
        report.add("agent_rss_added_by_copies", resident(pid) - before, "MB", "<=", 24)
        report.notes["copies"] = f"{found.compared} of one client; then of {CLIENTS} clients: {counted(site)}"


def run() -> bool:
    """Run the benchmark."""
    report = Report("shadow")
    folder = Path(tempfile.mkdtemp(prefix="shadow-"))
    try:
        asyncio.run(measure(report, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return report.finish()
