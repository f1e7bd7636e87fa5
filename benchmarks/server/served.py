"""Start a server with a model on some cores, wait until it answers rightly, stop it.

A right answer is within 1e-4 of ONNX Runtime's in this process.
"""

import http.client
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.footprint import family
from benchmarks.server.kinds import Kind
from benchmarks.server.load import Cores, WrongAnswers, on
from benchmarks.server.models import BenchModel
from benchmarks.server.wire import Array, Post
from testbed.waiting import until

START_SECONDS = 90.0
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Served:
    """A server that answers.

    Attributes:
        pid: of its first process.
        port: of HTTP.
        grpc_port: of gRPC; the same one for ours.
        seconds: from exec to its first right answer.
    """

    pid: int
    port: int
    grpc_port: int
    seconds: float


@contextmanager
def serve(
    kind: Kind, model: BenchModel, cores: Cores, environment: Mapping[str, str] | None = None
) -> Iterator[Served]:
    """Run a server for as long as the context lasts.

    Args:
        kind: which.
        model: what it serves.
        cores: where it runs.
        environment: more variables.

    Raises:
        NotInTime: it did not answer rightly; the message says what it answered.
        WrongAnswers: it ended, or refuses the request.
    """
    port, grpc_port = free_port(), free_port()
    post = kind.post(model)
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        (Path(folder) / "output").open("w+") as output,
    ):
        start = kind.start(model, port, grpc_port, cores.workers, Path(folder))
        began = time.monotonic()
        process = subprocess.Popen(
            on(cores.server, start.command),
            cwd=start.folder,
            env={**os.environ, **start.environment, **(environment or {})},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:

            def right() -> bool:
                if process.poll() is not None:
                    told = (Path(folder) / "output").read_text().strip()
                    raise WrongAnswers(f"it ended: {told[-400:]}")
                check(kind.read(ask(port, post)), model)
                kind.whole(port, cores.workers)
                return True

            until(right, "a right answer", timeout=START_SECONDS, every=0.002)
            yield Served(
                process.pid,
                port,
                port if kind.one_port else grpc_port,
                time.monotonic() - began,
            )
        finally:
            _stop(process)


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def check(answer: Array, model: BenchModel) -> None:
    """Hold an answer, flat, to ONNX Runtime's own.

    Raises:
        AssertionError: they differ; the message says where.
    """
    np.testing.assert_allclose(answer, model.expected, rtol=TOLERANCE, atol=TOLERANCE)


def ask(port: int, post: Post) -> bytes:
    """Send one request on a connection of its own; return the body of its answer.

    Raises:
        AssertionError: no connection, or an answer other than 200; the message has its first words.
        WrongAnswers: 400, so that asking again is of no use.
    """
    status, _, body = exchange(port, post)
    if status == 400:
        raise WrongAnswers(f"expected 200, found 400: {body[:500]!r}")
    assert status == 200, f"expected 200, found {status}: {body[:500]!r}"
    return body


def exchange(port: int, post: Post) -> tuple[int, dict[str, str], bytes]:
    """Send one request on a connection of its own; return status, headers (lower case) and body.

    Raises:
        AssertionError: nobody answers.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", post.path, post.body, dict(post.headers))
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise AssertionError(f"no answer: {error!r}") from error
    finally:
        connection.close()


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and its children, whether or not it ends them itself."""
    if process.poll() is None:
        for pid in family(process.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it went meanwhile
    process.wait()
