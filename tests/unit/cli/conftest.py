"""Runs the command line in a thread against a registry simulator, and compares what it prints with golden files."""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgemodel.artifact.keys import PrivateKey
from edgemodel.cli.main import main
from tests.simulators.registry import RegistrySimulator

GOLDEN = Path(__file__).parents[2] / "golden"


@dataclass
class Done:
    """What a command left."""

    code: int
    out: str
    err: str


@dataclass
class Keys:
    """A key pair on disk."""

    prefix: Path
    private: Path
    public: Path


Run = Callable[..., Awaitable[Done]]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the machine's user reaches a test."""
    for name in (
        "DOCKER_CONFIG",
        "SOURCE_DATE_EPOCH",
        "COSIGN_PASSWORD",
        "EDGEMODEL_PASSWORD",
        "EDGEMODEL_TOKEN",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    async def run(*words: object) -> Done:
        def call() -> int:
            try:
                return main([str(word) for word in words])
            except SystemExit as left:
                return int(left.code or 0)

        code = await asyncio.to_thread(call)
        printed = capsys.readouterr()
        return Done(code, printed.out, printed.err)

    return run


@pytest.fixture
async def simulator():
    async with RegistrySimulator() as simulator:
        yield simulator


@pytest.fixture
def model(tmp_path: Path) -> Path:
    weights = np.random.default_rng(1).standard_normal((600, 600)).astype(np.float32)
    graph = helper.make_graph([], "g", [], [], [numpy_helper.from_array(weights, "w")])
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, ir_version=9), path)
    return path


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """A key pair, unencrypted: unlocking an encrypted one takes scrypt a while, by design."""
    key = PrivateKey.generate()
    pair = Keys(tmp_path / "site", tmp_path / "site.key", tmp_path / "site.pub")
    pair.private.write_bytes(key.export_plain())
    pair.public.write_text(key.public.pem)
    return pair


@pytest.fixture
async def published(run: Run, simulator: RegistrySimulator, model: Path, keys: Keys) -> str:
    """The reference of a signed model, by tag."""
    reference = f"{simulator.host}/models/detector:1.4.0"
    done = await run(
        "publish", model, "--to", reference, "--version", "1.4.0", "--sequence", 7,
        "--created", "2026-01-01T00:00:00Z", "--key", keys.private, "--plain-http",
    )  # fmt: skip
    assert done.code == 0, done.err
    return reference


def same_as_golden(name: str, printed: str, tmp_path: Path) -> None:
    """Compare with a golden file; what differs by run is replaced. ``UPDATE_GOLDEN=1`` writes it anew."""
    printed = printed.replace(str(tmp_path), "<folder>")
    printed = re.sub(r"127\.0\.0\.1:\d+", "<registry>", printed)
    printed = re.sub(r"\bsha256:[0-9a-f]{64}", "sha256:<digest>", printed)
    printed = re.sub(r"\b[0-9a-f]{64}\b", "<hex>", printed)
    printed = re.sub(r"[A-Za-z0-9+/]{43}=", "<key hint>", printed)
    path = GOLDEN / f"cli_{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(printed)
    assert printed == path.read_text()
