"""What a model answers to samples without a server: each type as an `.npz` can hold it."""

import sys

import numpy as np
import pytest
from onnx import helper

from inference_server import run_samples
from tests.server.onnx_models import bf16_linear, build, save, tensor


@pytest.fixture
def answers(tmp_path, monkeypatch):
    def run(model, **inputs):
        np.savez(tmp_path / "s.npz", **inputs)
        (tmp_path / "to").mkdir()
        path = save(model, tmp_path / "m.onnx")
        arguments = [str(path), str(tmp_path / "s.npz"), "--to", str(tmp_path / "to")]
        monkeypatch.setattr(sys, "argv", ["run_samples", *arguments])
        if run_samples.main():
            return None
        return dict(np.load(tmp_path / "to/s.npz"))

    return run


def test_numbers_and_texts_are_kept_in_their_types(answers):
    kinds = {"f": "FP32", "h": "FP16", "t": "BYTES"}
    nodes = [helper.make_node("Identity", [name], [f"y_{name}"]) for name in kinds]
    given, found = (
        [tensor(side + name, kind, ("n",)) for name, kind in kinds.items()] for side in ("", "y_")
    )
    sent = {"f": np.array([0.1], np.float32), "h": np.array([0.1], np.float16), "t": np.array(["ä"])}
    got = answers(build(nodes, given, found), **sent)
    assert {name: (array.dtype, array.tolist()) for name, array in sent.items()} == {
        name.removeprefix("y_"): (array.dtype, array.tolist()) for name, array in got.items()
    }


def test_bf16_is_kept_as_fp32(answers):
    x = np.eye(8, dtype=np.float32)
    found = answers(bf16_linear(), x=x)["y"]
    assert (found.dtype, found.shape) == (np.float32, (8, 3))
    assert not (found.view(np.uint32) & 0xFFFF).any()
    assert np.unique(found).size > 20


def test_what_bf16_does_not_have_is_refused(answers, capsys):
    assert answers(bf16_linear(), x=np.full((1, 8), 0.1, np.float32)) is None
    assert "s.npz: input 'x': expected numbers that BF16 has" in capsys.readouterr().err
