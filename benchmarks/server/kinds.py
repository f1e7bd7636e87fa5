"""The servers that are compared: how each is started with a model, how it is asked, and what its answer holds.

Ours runs as ``python -m inference_server`` with its defaults; with ``--processes 2`` where a small model has two cores, for
the peers that take workers run two there as well. How each peer is configured stands in its program under
``peers/`` and in the command here. All serve the model as ``bench``.
"""

import dataclasses
import json
import sys
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.server import environments, wire
from benchmarks.server.models import BenchModel
from benchmarks.server.wire import Array, Post
from testbed.paths import ROOT

NAME = "bench"


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
        one_port: it answers gRPC on the port of HTTP.
        whole: raises AssertionError while fewer than so many of its processes answer at a port: a connection stays with the
            process that accepted it.
    """

    start: Callable[[BenchModel, int, int, int, Path], Start]
    post: Callable[[BenchModel], Post]
    read: Callable[[bytes], Array]
    one_port: bool = False
    whole: Callable[[int, int], None] = lambda _port, _workers: None

    def by(self, post: Callable[[BenchModel], Post], read: Callable[[bytes], Array]) -> "Kind":
        """Return the same server, asked in another form."""
        return dataclasses.replace(self, post=post, read=read)


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


def _ours_by_processes(model: BenchModel, port: int, grpc: int, workers: int, folder: Path) -> Start:
    start = _ours(model, port, grpc, workers, folder)
    return dataclasses.replace(start, command=[*start.command, "--processes", str(workers)])


def _all_processes(port: int, workers: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    assert f"inference_processes {workers}.0" in text, f"expected {workers} processes that answer"


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


OURS = Kind(_ours, _oip, wire.from_json, one_port=True)
SPREAD = dataclasses.replace(OURS, start=_ours_by_processes, whole=_all_processes)
"""Ours with as many processes as the peers have workers."""
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
