"""What the gateway costs and what it gains: against plain HAProxy, against kube-proxy's way, and how soon it follows pods.

- Cost: wrk on loopback, small POSTs, one thread of each HAProxy; the pods are a third HAProxy that answers by itself. Peer:
  HAProxy with the least configuration that passes requests on. Rounds alternate, the median of the rounds counts.
- Gain: requests at a steady rate, whatever the answers' pace, over kept connections to three pods of which one takes ten
  times as long; pods answer one request at a time. As the gateway is by itself, and with maxInflightPerPod 1. The seconds
  in which the gateway finds the slow pod are a figure of their own; both are let run as long before they are measured. Peer:
  what kube-proxy does, a pod for each connection in turn, as a TCP proxy that does that.
- Following: from the API server's word of a pod to HAProxy's server, over a hundred pods that come and go under load.
"""

import asyncio
import os
import random
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.figures import Report
from edgemodel.gateway import runtime
from edgemodel.gateway.configuration import Place, files
from edgemodel.gateway.pace import FULL
from edgemodel.gateway.routes import Route, Server
from tests.gateway.clients import Client, Load, answering, free_port, until
from tests.gateway.site import Pod, Site, made

ROUNDS = 24
WRK_SECONDS = 1
RATE, SECONDS, CONNECTIONS = 150.0, 20.0, 48
FIRST_SECONDS = 6.0
QUICK, SLOW = 0.004, 0.040
CHANGES = 100
_SCRIPT = """\
wrk.method = "POST"
wrk.body = '{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}'
wrk.headers["Content-Type"] = "application/json"
"""
_ANSWER = (
    '{"model_name":"m","model_version":"1","outputs":[{"name":"y","shape":[1],"datatype":"FP32","data":[1]}]}'
)
_TIMEOUTS = "timeout connect 1s\n    timeout client 60s\n    timeout server 60s"


@contextmanager
def haproxy(folder: Path, text: dict[str, str]) -> Iterator[int]:
    """Run HAProxy on a configuration, in one process; yield its id."""
    folder.mkdir(exist_ok=True)
    for name, content in text.items():
        (folder / name).write_text(content)
    process = subprocess.Popen(
        ["haproxy", "-db", "-f", str(folder / "haproxy.cfg")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def pods_configuration(ports: Sequence[int]) -> str:
    binds = "".join(f"    bind 127.0.0.1:{port}\n" for port in ports)
    return f"""\
global
    nbthread 1
defaults
    mode http
    {_TIMEOUTS}
frontend pods
{binds}    http-request return status 200 content-type application/json string '{_ANSWER}'
"""


def plain_configuration(port: int, pods: Sequence[int]) -> str:
    servers = "".join(f"    server s{pod} 127.0.0.1:{pod}\n" for pod in pods)
    return f"""\
global
    nbthread 1
defaults
    mode http
    {_TIMEOUTS}
listen plain
    bind 127.0.0.1:{port}
{servers}"""


def by_connection_configuration(port: int, pods: Sequence[Pod], pod_port: int) -> str:
    servers = "".join(f"    server {pod.name} {pod.address}:{pod_port}\n" for pod in pods)
    return f"""\
global
    nbthread 1
defaults
    mode tcp
    {_TIMEOUTS}
listen connections
    bind 127.0.0.1:{port}
    balance roundrobin
{servers}"""


def wrk(script: Path, port: int, connections: int, seconds: int) -> tuple[float, float]:
    """Return requests a second, and the median latency in ms.

    Raises:
        RuntimeError: an answer was missing or not 2xx.
    """
    told = subprocess.run(
        [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            "--latency",
            "-s",
            str(script),
            f"http://127.0.0.1:{port}/v2",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    if "Non-2xx" in told or "Socket errors" in told:
        raise RuntimeError(told)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", told)
    median = re.search(r"50%\s+([\d.]+)(us|ms|s)", told)
    assert rate is not None, told
    assert median is not None, told
    return float(rate[1]), float(median[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[median[2]]


def used(process: int) -> float:
    """Return the seconds of processor that a process has used (proc(5), stat)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cost(report: Report) -> None:
    """Measure throughput and added latency, beside plain HAProxy."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, ExitStack() as stack:
        folder = Path(name)
        script = folder / "post.lua"
        script.write_text(_SCRIPT)
        pods = [free_port() for _ in range(3)]
        plain, ours = free_port(), free_port()
        stack.enter_context(haproxy(folder / "pods", {"haproxy.cfg": pods_configuration(pods)}))
        processes = {
            "plain": stack.enter_context(
                haproxy(folder / "plain", {"haproxy.cfg": plain_configuration(plain, pods)})
            )
        }
        place = Place(str(folder / "ours"), http_port=free_port(), metrics_port=free_port(), threads=1)
        route = Route(
            "vision", "detector", ours, tuple(Server(f"pod-{port}", "127.0.0.1", port) for port in pods)
        )
        processes["ours"] = stack.enter_context(haproxy(folder / "ours", files((route,), place)))
        time.sleep(1.0)  # all of them listen
        ways = {"direct": pods[0], "plain": plain, "ours": ours}
        rates: dict[str, list[float]] = {way: [] for way in ways}
        medians: dict[str, list[float]] = {way: [] for way in ways}
        each: dict[str, list[float]] = {way: [] for way in processes}
        for number in range(ROUNDS):
            for way, port in list(ways.items())[:: 1 if number % 2 else -1]:
                before = used(processes[way]) if way in processes else 0.0
                rates[way].append(wrk(script, port, 32, WRK_SECONDS)[0])
                if way in processes:
                    took = used(processes[way]) - before
                    each[way].append(1e6 * took / (rates[way][-1] * WRK_SECONDS))
                medians[way].append(wrk(script, port, 1, WRK_SECONDS)[1])
    ratios = [ours / plain for ours, plain in zip(rates["ours"], rates["plain"], strict=True)]
    added = [ours - direct for ours, direct in zip(medians["ours"], medians["direct"], strict=True)]
    plain_added = [one - direct for one, direct in zip(medians["plain"], medians["direct"], strict=True)]
    report.add("gateway_throughput_of_plain_haproxy", 100 * statistics.median(ratios), "%", ">=", 90)
    report.add("gateway_added_p50", statistics.median(added), "ms", "<=", 0.3)
    report.add("plain_haproxy_added_p50", statistics.median(plain_added), "ms")
    report.add("gateway_requests", statistics.median(rates["ours"]), "1/s")
    report.add("plain_haproxy_requests", statistics.median(rates["plain"]), "1/s")
    for way, found in each.items():
        report.add(f"processor_time_per_request_of_{way}", statistics.median(found), "µs")
    report.notes["rounds"] = {"rates": rates, "medians_ms": medians}


async def latencies(port: int) -> tuple[list[float], list[float]]:
    """Return how long requests took from when each was due, in ms, of the first seconds and of those after.

    They come at a steady mean rate.
    """
    free: asyncio.LifoQueue[Client] = asyncio.LifoQueue()
    clients = [Client(port) for _ in range(CONNECTIONS)]
    for client in clients:
        await client.ask()  # connected, in turn
    random.Random(1).shuffle(clients)
    for client in clients:
        free.put_nowait(client)
    first: list[float] = []
    found: list[float] = []

    async def one(due: float) -> None:
        client = await free.get()
        answer = await client.ask()
        assert answer.status == 200, answer
        (first if due < began + FIRST_SECONDS else found).append(1000 * (time.perf_counter() - due))
        free.put_nowait(client)

    arrivals = random.Random(2)
    due = began = time.perf_counter()
    end = began + FIRST_SECONDS + SECONDS
    async with asyncio.TaskGroup() as group:
        while due < end:
            due += arrivals.expovariate(RATE)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(one(due))
    return sorted(first), sorted(found)


async def gain(report: Report) -> None:
    """Measure the tail where one of three pods is slow."""
    async with made() as site:
        pods = [await site.pod() for _ in range(3)]
        port, connections = site.model(), free_port()
        folder = site.settings.state_folder / "peer"
        async with site.running():
            await answering(port)
            text = by_connection_configuration(connections, pods, site.pod_port)
            with haproxy(folder, {"haproxy.cfg": text}):
                await answering(connections)
                for pod, seconds in zip(pods, (QUICK, QUICK, SLOW), strict=True):
                    pod.seconds = seconds
                (_, theirs), (first, ours) = await latencies(connections), await latencies(port)
                reloads = site.changes("reload")
                site.model(traffic={"maxInflightPerPod": 1})
                await until(lambda: site.changes("reload") > reloads, "the limit")
                _, queued = await latencies(port)
    p99 = {
        way: one[int(0.99 * len(one))] for way, one in (("ours", ours), ("one", queued), ("theirs", theirs))
    }
    report.add(
        "slow_pod_p99_of_kube_proxy_by_ours_with_one_request_a_pod",
        p99["theirs"] / p99["one"],
        "times",
        ">=",
        5,
    )
    report.add("slow_pod_p99_of_kube_proxy_by_ours", p99["theirs"] / p99["ours"], "times", ">=", 5)
    report.add("slow_pod_p99_ours_while_it_is_found", first[int(0.99 * len(first))], "ms")
    for name, found in (("ours", ours), ("ours_with_one_request_a_pod", queued), ("by_connection", theirs)):
        report.add(f"slow_pod_p50_{name}", found[len(found) // 2], "ms")
        report.add(f"slow_pod_p99_{name}", found[int(0.99 * len(found))], "ms")


async def following(report: Report) -> None:
    """Measure how soon HAProxy knows of pods that come and go."""
    async with made() as site:
        await site.pod()
        port = site.model()
        async with site.running():
            await answering(port)
            found: list[float] = []
            async with Load(port, clients=2) as load:
                for _ in range(CHANGES // 2):
                    pod = await site.pod(ready=False)
                    began = time.perf_counter()
                    pod.show()
                    found.append(await _until(site, pod, began, weight=FULL))
                    began = time.perf_counter()
                    pod.show(going=True)
                    found.append(await _until(site, pod, began, weight=0))
                    pod.kill()
                    pod.remove()
            report.notes["wrong_answers_meanwhile"] = len(load.wrong)
            report.notes["answers_meanwhile"] = load.total
    found.sort()
    report.add("pod_change_to_effect_p50", found[len(found) // 2], "ms")
    report.add("pod_change_to_effect_p99", found[int(0.99 * len(found))], "ms", "<=", 500)
    report.add("failed_requests_while_pods_change", len(load.wrong), "requests", "<=", 0)


async def _until(site: Site, pod: Pod, began: float, *, weight: int) -> float:
    """Wait until HAProxy has the pod's server, up and with that weight; return the ms since ``began``."""
    async with asyncio.timeout(10):
        while True:
            told = await runtime.ask(
                site.gateway.place.runtime_socket, "show servers state vision.detector.active"
            )
            for fields in (line.split() for line in told.splitlines()):
                # Management Guide 2.6: name, operational state, administrative state, weight of the user.
                if fields[3:4] and fields[3].startswith(f"{pod.name}_"):
                    up = fields[5] != "0" and fields[6] == "0"
                    if up and int(fields[7]) == weight:
                        return 1000 * (time.perf_counter() - began)
            await asyncio.sleep(0.002)


def run() -> bool:
    """Run all three."""
    if shutil.which("haproxy") is None or shutil.which("wrk") is None:
        raise SystemExit("haproxy and wrk are needed: hack/install-tools installs them")
    report = Report("gateway")
    report.notes["load_before"] = os.getloadavg()
    cost(report)
    asyncio.run(gain(report))
    asyncio.run(following(report))
    return report.finish()
