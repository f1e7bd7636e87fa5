"""Load: wrk for HTTP, h2load for gRPC, a client of ours where requests come at a rate of their own; and processor time.

wrk and h2load send one request at a time on each connection and cost a few microseconds a request. They sit on cores of
their own (``Cores``). An answer other than 2xx, a broken connection or a timeout ends the measurement with an error.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.figures import Report
from benchmarks.footprint import family
from benchmarks.server.wire import Post, framed
from testbed.paths import ROOT

_SCRIPT = """\
local file = io.open("{body}", "rb")
wrk.method = "POST"
wrk.path = "{path}"
wrk.body = file:read("*a")
file:close()
{headers}
done = function(summary, latency, requests)
  local bad = summary.errors
  io.stderr:write(string.format(
    '{{"requests":%d,"microseconds":%d,"refused":%d,"broken":%d,"p50":%f,"p99":%f}}\\n',
    summary.requests, summary.duration, bad.status, bad.connect + bad.read + bad.write + bad.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Cores:
    """Which cores the server and the client may use.

    Attributes:
        name: part of the names of figures.
        server: numbers of cores.
        client: numbers of cores.
        workers: processes of a server that takes several.
    """

    name: str
    server: frozenset[int]
    client: frozenset[int]
    workers: int = 1


ONE = Cores("one_core", frozenset({0}), frozenset({1}))
TWO = Cores("two_cores", frozenset({0, 1}), frozenset({0, 1}), workers=2)
FREE = Cores("free", frozenset({0, 1}), frozenset({0, 1}))


@dataclass(frozen=True)
class Measured:
    """What came of a closed loop.

    Attributes:
        rate: answers a second.
        p50: latency in microseconds.
        p99: latency in microseconds.
        cpu: microseconds of processor that the server used for each answer.
    """

    rate: float
    p50: float
    p99: float
    cpu: float


class WrongAnswers(RuntimeError):
    """A measurement in which not every request was answered well."""


def on(cores: frozenset[int], command: Sequence[str | Path]) -> list[str]:
    """Return a command held to some cores."""
    return ["taskset", "-c", ",".join(map(str, sorted(cores))), *map(str, command)]


def used(pid: int) -> float:
    """Return the seconds of processor that a process and its children have used (proc(5), stat)."""
    total = 0
    for one in family(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def closed_loop(
    pid: int, port: int, post: Post, cores: Cores, connections: int, seconds: float, *, allow: bool = False
) -> Measured:
    """Ask again as soon as an answer has come, on each of some connections, by wrk.

    Args:
        pid: of the server, for its processor time.
        port: of the server.
        post: the request.
        cores: where wrk runs.
        connections: at a time.
        seconds: whole ones are what wrk knows.
        allow: take refusals (4xx, 5xx) for answers.

    Raises:
        WrongAnswers: not every answer was 2xx.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        body, script = Path(folder) / "body", Path(folder) / "post.lua"
        body.write_bytes(post.body)
        headers = "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in post.headers.items())
        script.write_text(_SCRIPT.format(body=body, path=post.path, headers=headers))
        wrk: list[str | Path] = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{max(1, round(seconds))}s",
            "--timeout",
            "30s",
            "-s",
            script,
        ]
        before = used(pid)
        done = subprocess.run(
            on(cores.client, [*wrk, f"http://127.0.0.1:{port}"]), capture_output=True, text=True, check=True
        )
        cpu = used(pid) - before
    told = json.loads(done.stderr.splitlines()[-1])
    if told["broken"] or (told["refused"] and not allow) or not told["requests"]:
        raise WrongAnswers(f"{connections} connections to {post.path}: {done.stderr.strip()}")
    return Measured(
        told["requests"] / told["microseconds"] * 1e6, told["p50"], told["p99"], cpu * 1e6 / told["requests"]
    )


def grpc_closed_loop(
    pid: int, port: int, message: bytes, answer_bytes: int, cores: Cores, connections: int, seconds: float
) -> Measured:
    """Do as ``closed_loop`` for gRPC by h2load: one stream at a time on each connection.

    Args:
        pid: of the server.
        port: of the server.
        message: ``ModelInferRequest``.
        answer_bytes: length of the right answer's message; gRPC's errors come without one, and as 200.
        cores: where h2load runs.
        connections: at a time.
        seconds: whole ones.

    Raises:
        WrongAnswers: not every answer was 2xx and of the right length.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        body, log = Path(folder) / "body", Path(folder) / "log"
        body.write_bytes(framed(message))
        command = ["h2load", "-t1", f"-c{connections}", "-m1", f"-D{max(1, round(seconds))}"]
        command += ["-d", str(body), f"--log-file={log}", "-H", "content-type: application/grpc"]
        command += [
            "-H",
            "te: trailers",
            f"http://127.0.0.1:{port}/inference.GRPCInferenceService/ModelInfer",
        ]
        before = used(pid)
        told = subprocess.run(on(cores.client, command), capture_output=True, text=True, check=True).stdout
        cpu = used(pid) - before
        took = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines())
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", told)
    counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", told)
    data = re.search(r"\((\d+)\) data", told)
    if rate is None or counts is None or data is None or not took:
        raise WrongAnswers(f"expected h2load's summary, found: {told}")
    succeeded, *bad = map(int, counts.groups())
    # At the end of the time each connection may have an answer that came in part.
    missing = succeeded * (answer_bytes + 5) - int(data[1])
    if any(bad) or missing > connections * (answer_bytes + 5):
        raise WrongAnswers(f"{connections} connections: {missing} bytes of answers are missing: {told}")
    return Measured(
        float(rate[1]), took[len(took) // 2], took[int(0.99 * len(took))], cpu * 1e6 / max(1, succeeded)
    )


@dataclass(frozen=True)
class Phase:
    """Some seconds of requests at a mean rate, whatever the pace of the answers.

    Attributes:
        rate: requests a second.
        seconds: of all of it.
        paced: they come at even distances, as constant-rate generators send them (wrk2, k6); otherwise by chance, as those
            of many independent clients do (Poisson).
    """

    rate: float
    seconds: float
    paced: bool = False


@dataclass(frozen=True)
class Answer:
    """One request of an open loop.

    Attributes:
        due: second at which it was to be sent.
        took: seconds from then until its answer was whole, however long it waited in the client.
        status: HTTP's; 0 for a broken connection.
    """

    due: float
    took: float
    status: int


def open_loop(port: int, post: Post, cores: Cores, phases: Sequence[Phase], connections: int) -> list[Answer]:
    """Send requests when they are due, phase by phase; return all answers in the order of their dues."""
    asked = {
        "port": port,
        "path": post.path,
        "body": post.body.decode(),
        "phases": [asdict(phase) for phase in phases],
        "connections": connections,
    }
    done = subprocess.run(
        on(cores.client, [sys.executable, "-m", "benchmarks.server.open_loop"]),
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'hack'}"},
        timeout=sum(phase.seconds for phase in phases) + 60,
    )
    return sorted((Answer(*one) for one in json.loads(done.stdout)), key=lambda answer: answer.due)


def state(report: Report, name: str, rounds: Sequence[Measured]) -> None:
    """Add what the rounds of one measurement came to, without goals: medians of rate, latencies and processor time."""
    report.notes[f"{name}_measured"] = {
        attribute: round(statistics.median(getattr(one, attribute) for one in rounds), 1)
        for attribute in ("rate", "p50", "p99", "cpu")
    }
