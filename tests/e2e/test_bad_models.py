"""A new version that is signed and cannot be loaded: a reason that a person understands, and the old version serving."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from testbed import magika_model
from tests.e2e.conftest import Site


def linear(opset: int = 17) -> onnx.ModelProto:
    weights = numpy_helper.from_array(np.ones((4, 4), dtype=np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 4])],
        [weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def corrupt(folder: Path) -> list[Path]:
    path = folder / "model.onnx"
    path.write_bytes(b"\x08\x0a\xff\xff this is not a model " * 64)
    return [path]


def future_opset(folder: Path) -> list[Path]:
    path = folder / "model.onnx"
    path.write_bytes(linear(opset=999).SerializeToString())
    return [path]


def missing_external_data(folder: Path) -> list[Path]:
    model = linear()
    (tensor,) = model.graph.initializer
    onnx.external_data_helper.set_external_data(tensor, location="weights.bin", offset=0, length=64)
    tensor.ClearField("raw_data")
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return [path]


def two_models(folder: Path) -> list[Path]:
    paths = [folder / "encoder.onnx", folder / "decoder.onnx"]
    for path in paths:
        path.write_bytes(linear().SerializeToString())
    return paths


def no_model(folder: Path) -> list[Path]:
    path = folder / "labels.txt"
    path.write_text("cat\ndog\n")
    return [path]


@pytest.mark.parametrize(
    ("build", "condition", "reason", "says"),
    [
        (corrupt, "ModelLoaded", "ModelLoadFailed", "model.onnx"),
        (future_opset, "ModelLoaded", "UnsupportedOpset", "999"),
        (missing_external_data, "ModelLoaded", "MissingExternalData", "weights.bin"),
        (two_models, "ModelLoaded", "AmbiguousModelFile", "decoder.onnx"),
        (no_model, "ModelLoaded", "ModelFileNotFound", ".onnx"),
    ],
    ids=["corrupt", "future-opset", "missing-data", "ambiguous", "no-model"],
)
def test_a_bad_model_is_taken_back_with_its_reason(
    site: Site, tmp_path: Path, build, condition: str, reason: str, says: str
) -> None:  # type: ignore[no-untyped-def]
    old = site.serve("v1")
    folder = tmp_path / "bad"
    folder.mkdir()
    site.bed.registry_tools.oras_push(f"{site.namespace}/detector:stable", build(folder))
    site.publisher.sign(f"{site.namespace}/detector:stable", site.key)
    failed = site.await_condition(condition, "False", reason)
    assert says in failed["message"]
    site.await_condition("Progressing", "False", "BlockedByFailedLoad")
    assert site.active() == old
    assert site.kube.condition("detector", "Ready", site.namespace)["status"] == "True"
    answer = site.bed.infer(site.url(), "detector", magika_model.request(magika_model.SAMPLES["python"]))
    assert answer["model_version"] == "v1"


def test_a_bad_first_model_says_why_and_is_never_ready(site: Site, tmp_path: Path) -> None:
    site.policy()
    site.bed.registry_tools.oras_push(f"{site.namespace}/detector:stable", corrupt(tmp_path))
    site.publisher.sign(f"{site.namespace}/detector:stable", site.key)
    site.apply()
    site.await_condition("ModelLoaded", "False", "ModelLoadFailed")
    assert site.kube.condition("detector", "Ready", site.namespace)["status"] == "False"
    good = site.publish("v1")
    site.await_active(good)
    site.await_condition("Ready", "True", "Serving")
