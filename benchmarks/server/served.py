"""Start ours or a peer with a model on some cores, wait until it answers rightly, stop it.

Ours runs as ``python -m inference_server`` with its defaults. How each peer is configured stands in its program under
``peers/`` and in the command here. All serve the model as ``bench``; a right answer is within 1e-4 of ONNX Runtime's.
"""

import dataclasses
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.footprint import family
from benchmarks.server import environments, wire
from benchmarks.server.load import Cores, WrongAnswers, on
from benchmarks.server.models import BenchModel
from benchmarks.server.wire import Array, Post
from testbed.paths import ROOT
from testbed.waiting import until

NAME = "bench"
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

    def freeze(self) -> None:
        """Stop its processes where they are: an idle server that polls costs those that are measured nothing."""
        _signal(self.pid, signal.SIGSTOP)

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Let a frozen server go on meanwhile."""
        _signal(self.pid, signal.SIGCONT)
        try:
            yield
        finally:
            self.freeze()


@dataclass(frozen=True)
class Start:
    """What starts a server: a command, its environment, and where it runs."""

    command: list[str | Path]
    environment: Mapping[str, str]
    folder: Path = ROOT


@dataclass(frozen=True)
class Kind:
    """A server that the benchmark knows.

    Attributes:
        start: from the model, the HTTP port and the gRPC port, the number of workers and a folder for files of its own.
        post: the request for the model, in the form that this server takes.
        read: the first output in its answer.
    """

    start: Callable[[BenchModel, int, int, int, Path], Start]
    post: Callable[[BenchModel], Post]
    read: Callable[[bytes], Array]

    def by(self, post: Callable[[BenchModel], Post], read: Callable[[bytes], Array]) -> "Kind":
        """Return the same server, asked in another form."""
        return dataclasses.replace(self, post=post, read=read)


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
                    raise WrongAnswers(f"it ended: {(Path(folder) / 'output').read_text()[-2000:]}")
                check(kind.read(ask(port, post)), model)
                return True

            until(right, "a right answer", timeout=START_SECONDS, every=0.002)
            yield Served(
                process.pid,
                port,
                port if kind.start is _ours else grpc_port,
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
        _signal(process.pid, signal.SIGKILL)
    process.wait()


def _signal(pid: int, number: signal.Signals) -> None:
    for one in family(pid):
        try:
            os.kill(one, number)
        except ProcessLookupError:
            continue  # it went meanwhile


def _oip(model: BenchModel) -> Post:
    return wire.as_json(NAME, model.inputs)


def _ours(model: BenchModel, port: int, _grpc: int, _workers: int, _folder: Path) -> Start:
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "inference_server",
        "--model",
        model.path,
        "--name",
        NAME,
    ]
    return Start([*command, "--host", "127.0.0.1", "--port", str(port)], {"PYTHONPATH": str(ROOT)})


def _starlette(model: BenchModel, port: int, _grpc: int, workers: int, _folder: Path) -> Start:
    python = environments.python("starlette")
    command: list[str | Path] = [
        python,
        "-m",
        "uvicorn",
        "starlette_app:app",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    command += ["--workers", str(workers), "--loop", "uvloop", "--http", "httptools"]
    command += ["--no-access-log", "--log-level", "warning"]
    return Start(command, {"BENCH_MODEL": str(model.path)}, environments.PROGRAMS)


def _mlserver(model: BenchModel, port: int, grpc: int, _workers: int, folder: Path) -> Start:
    settings = {
        "debug": False,
        "parallel_workers": 0,
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": grpc,
        "metrics_endpoint": None,
    }
    served = {
        "name": NAME,
        "implementation": "mlserver_model.OnnxModel",
        "parameters": {"uri": str(model.path), "version": "1"},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(served))
    program = environments.python("mlserver").with_name("mlserver")
    return Start([program, "start", folder], {"PYTHONPATH": str(environments.PROGRAMS)}, folder)


def _kserve(model: BenchModel, port: int, _grpc: int, workers: int, _folder: Path) -> Start:
    command: list[str | Path] = [environments.python("kserve"), "kserve_server.py", "--http_port", str(port)]
    command += ["--workers", str(workers), "--enable_grpc", "false", "--enable_latency_logging", "false"]
    return Start(command, {"BENCH_MODEL": str(model.path)}, environments.PROGRAMS)


def _litserve(model: BenchModel, port: int, _grpc: int, workers: int, _folder: Path) -> Start:
    command: list[str | Path] = [
        environments.python("litserve"),
        "litserve_server.py",
        "--port",
        str(port),
        "--workers",
        str(workers),
    ]
    return Start(command, {"BENCH_MODEL": str(model.path)}, environments.PROGRAMS)


def _bentoml(model: BenchModel, port: int, _grpc: int, workers: int, folder: Path) -> Start:
    program = environments.python("bentoml").with_name("bentoml")
    command: list[str | Path] = [
        program,
        "serve",
        "bentoml_service:Onnx",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    variables = {
        "BENCH_MODEL": str(model.path),
        "BENCH_WORKERS": str(workers),
        "BENTOML_HOME": str(folder),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    return Start(command, variables, environments.PROGRAMS)


def _rows(path: str, *, nested: bool) -> Callable[[BenchModel], Post]:
    """Return how the model's one input is asked about: as rows, or as the one row."""

    def post(model: BenchModel) -> Post:
        (x,) = model.inputs.values()
        return Post(path, json.dumps({"x": (x if nested else x[0]).tolist()}, separators=(",", ":")).encode())

    return post


OURS = Kind(_ours, _oip, wire.from_json)
PEERS = {
    "mlserver": Kind(_mlserver, _oip, wire.from_json),
    "kserve": Kind(_kserve, _oip, wire.from_json),
    "starlette": Kind(_starlette, _oip, wire.from_json),
    "litserve": Kind(
        _litserve, _rows("/predict", nested=False), lambda body: np.asarray(json.loads(body)["y"], "f4")
    ),
    "bentoml": Kind(
        _bentoml, _rows("/infer", nested=True), lambda body: np.asarray(json.loads(body), "f4").ravel()
    ),
}
