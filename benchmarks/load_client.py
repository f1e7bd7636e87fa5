"""What ``edgemodel bench`` itself costs for each request, against a server that only answers: what it can measure at all.

Peers on the same server, in the same rounds: wrk, in C, which has no open loop; httpx, with which the client would be as
easy to write. By gRPC the peer is h2, with no socket at all: the least that a client takes which leaves HTTP/2 to it. All
have 16 connections, which stay open, and send one input of 64 floats, by HTTP as JSON. What counts is the processor time
that the client takes for a request; its inverse is what one core can send.
"""

import asyncio
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import uvloop
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived
from h2.settings import SettingCodes

from benchmarks.figures import Report
from benchmarks.null_server import grpc_answer
from edgemodel.loadtest import inputs
from edgemodel.loadtest.body import as_json
from edgemodel.loadtest.by_grpc import ByGrpc
from edgemodel.loadtest.by_http import ByHttp
from edgemodel.loadtest.loop import measured
from edgemodel.loadtest.metadata import Input
from edgemodel.loadtest.result import Closed, Extent, Open
from edgemodel.loadtest.target import Target
from testbed.paths import ROOT

ROUNDS = 5
SECONDS = 1.5
CONNECTIONS = 16
PATH = "/v2/models/m/infer"
RATE = 1000.0
HTTPX_REQUESTS = 40
"""Of each connection."""
H2_REQUESTS = 2000
TENSORS = inputs.drawn([Input("x", "FP32", (1, 64))], seed=1)


@contextmanager
def null_server() -> Iterator[str]:
    """Run the server in a process of its own; yield its URL."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.null_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def ours(url: str, load: Closed | Open) -> float:
    """Return the µs of processor time for a request of ours."""
    target = Target.parse(url)
    by = ByGrpc(target, "m", None) if target.grpc else ByHttp(target, "m", None, binary=False)
    request = by.inference(TENSORS)
    before = time.process_time()
    outcome = measured(target, [request], load, Extent(0, SECONDS))
    if outcome.errors:
        raise RuntimeError(f"expected no errors, found {outcome.errors}: {outcome.examples}")
    return 1e6 * (time.process_time() - before) / outcome.latency.count


def with_h2(_: str) -> float:
    """Return the µs of processor time that h2 takes to make the bytes of a call and to read those of its answer."""
    message = bytes(300)  # as long as what ours sends
    heads = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", ByGrpc.inferring),
        (":authority", "m"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]
    client = H2Connection(H2Configuration(validate_outbound_headers=False, validate_inbound_headers=False))
    server = H2Connection(H2Configuration(client_side=False))
    client.initiate_connection()
    server.initiate_connection()
    server.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1})
    server.increment_flow_control_window(2**30)
    client.receive_data(server.data_to_send())
    client.data_to_send()
    before = time.process_time()
    for _number in range(H2_REQUESTS):
        stream = client.get_next_available_stream_id()
        client.send_headers(stream, heads)
        client.send_data(stream, message, end_stream=True)
        client.data_to_send()
        for event in client.receive_data(grpc_answer(stream)):
            if isinstance(event, DataReceived):
                client.acknowledge_received_data(event.flow_controlled_length, stream)
    return 1e6 * (time.process_time() - before) / H2_REQUESTS


def with_httpx(url: str) -> float:
    """Return the µs of processor time for a request of httpx."""
    content = as_json(TENSORS).content

    async def run() -> float:
        async with httpx.AsyncClient() as client:

            async def one() -> None:
                for _ in range(HTTPX_REQUESTS):
                    answer = await client.post(url + PATH, content=content)
                    answer.raise_for_status()

            await asyncio.gather(*(one() for _ in range(CONNECTIONS)))  # connected
            before = time.process_time()
            await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
            return 1e6 * (time.process_time() - before) / (HTTPX_REQUESTS * CONNECTIONS)

    return uvloop.run(run())


def with_wrk(url: str) -> float:
    """Return the µs of processor time for a request of wrk, which sends a GET."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS:.0f}s", url + PATH]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    count = re.search(r"(\d+) requests in", told)
    assert count is not None, told
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return 1e6 * used / int(count[1])


def run() -> bool:
    """Run the benchmark; True when every goal is met."""
    report = Report("load_client")
    ways: dict[str, Callable[[str], float]] = {
        "ours": lambda url: ours(url, Closed(CONNECTIONS)),
        "ours_open_loop": lambda url: ours(url, Open(RATE)),
        "ours_grpc": lambda url: ours(url.replace("http", "grpc"), Closed(CONNECTIONS)),
        "httpx": with_httpx,
        "wrk": with_wrk,
        "h2": with_h2,
    }
    found: dict[str, list[float]] = {way: [] for way in ways}
    report.notes["load_before"] = os.getloadavg()
    with null_server() as url:
        for _ in range(ROUNDS):
            for way, measure in ways.items():
                found[way].append(measure(url))
    each = {way: statistics.median(values) for way, values in found.items()}
    report.add("client_requests_one_core_can_send", 1e6 / each["ours"], "1/s", ">=", 15_000)
    report.add("client_cpu_of_httpx", each["httpx"] / each["ours"], "x", ">=", 5)
    report.add("client_cpu_of_h2", each["h2"] / each["ours_grpc"], "x", ">=", 2)
    for way, microseconds in each.items():
        report.add(f"cpu_per_request_{way}", microseconds, "µs")
    report.notes["rounds"] = found
    return report.finish()
