"""Weights outside the model file: aligned, the same to a runtime, the same on every run; the input untouched."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgemodel.artifact.onnx_layout import LARGE_PAGE, PAGE, external_files, lay_out
from edgemodel.errors import Stalled

ROWS = 700


def model(weights: np.ndarray, *, raw: bool = True) -> onnx.ModelProto:
    """y = reshape(x) @ weights + bias: a large tensor, a small one, and one that holds a shape."""
    large = numpy_helper.from_array(weights, "weights")
    if not raw:
        large = helper.make_tensor("weights", TensorProto.FLOAT, weights.shape, weights.ravel().tolist())
    initializers = [
        large,
        numpy_helper.from_array(np.arange(ROWS, dtype=np.float32), "bias"),
        numpy_helper.from_array(np.array([1, -1], dtype=np.int64), "shape"),
    ]
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [ROWS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, ROWS])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


WEIGHTS = np.random.default_rng(5).standard_normal((ROWS, ROWS)).astype(np.float32)
INPUT = np.linspace(-1, 1, ROWS, dtype=np.float32)


def answer(path: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": INPUT})[0]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "m.onnx"
    path.parent.mkdir()
    onnx.save(model(WEIGHTS), path)
    return path


def out(tmp_path: Path, name: str = "out") -> Path:
    folder = tmp_path / name
    folder.mkdir()
    return folder


def test_large_weights_move_out_and_the_answers_stay_the_same(source, tmp_path):
    before = source.read_bytes()
    layout = lay_out(source, out(tmp_path))
    assert layout.weights is not None
    assert layout.weights.name == "m.onnx_data"
    assert layout.model.stat().st_size < 4096
    assert np.array_equal(answer(layout.model), answer(source))
    assert source.read_bytes() == before


def test_offsets_are_page_aligned(source, tmp_path):
    layout = lay_out(source, out(tmp_path))
    document = onnx.load(layout.model, load_external_data=False)
    offsets = {}
    for tensor in document.graph.initializer:
        said = {entry.key: entry.value for entry in tensor.external_data}
        if said:
            offsets[tensor.name] = int(said["offset"])
    assert set(offsets) == {"weights", "bias"}, "shapes stay inside"
    assert offsets["weights"] % LARGE_PAGE == 0
    assert offsets["bias"] % PAGE == 0


def test_the_same_input_gives_the_same_bytes(source, tmp_path):
    one, other = lay_out(source, out(tmp_path, "a")), lay_out(source, out(tmp_path, "b"))
    assert one.model.read_bytes() == other.model.read_bytes()
    assert one.weights.read_bytes() == other.weights.read_bytes()


def test_what_was_laid_out_once_is_laid_out_to_the_same_bytes_again(source, tmp_path):
    once = lay_out(source, out(tmp_path, "a"))
    twice = lay_out(once.model, out(tmp_path, "b"))
    assert once.model.read_bytes() == twice.model.read_bytes()
    assert once.weights.read_bytes() == twice.weights.read_bytes()


def test_a_small_model_is_taken_as_it_is(tmp_path):
    path = tmp_path / "s.onnx"
    onnx.save(helper.make_model(helper.make_graph([], "g", [], [])), path)
    layout = lay_out(path, out(tmp_path))
    assert layout.model == path
    assert layout.weights is None


def test_weights_written_as_a_list_of_floats_move_out_too(tmp_path):
    path = tmp_path / "f.onnx"
    onnx.save(model(WEIGHTS, raw=False), path)
    layout = lay_out(path, out(tmp_path))
    assert layout.weights is not None
    assert np.array_equal(answer(layout.model), answer(path))


def test_external_files_of_other_names_are_gathered(source, tmp_path):
    document = onnx.load(source)
    folder = out(tmp_path, "external")
    onnx.save(
        document,
        folder / "m.onnx",
        save_as_external_data=True,
        all_tensors_to_one_file=False,
        size_threshold=1024,
    )
    assert external_files(folder / "m.onnx") == {folder / "weights", folder / "bias"}
    layout = lay_out(folder / "m.onnx", out(tmp_path))
    assert np.array_equal(answer(layout.model), answer(source))


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "gone"])
def test_external_weights_from_elsewhere_are_refused(source, tmp_path, location):
    (tmp_path / "secret").write_bytes(bytes(ROWS * ROWS * 4))
    document = onnx.load(source)
    tensor = document.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    path = source.parent / "bad.onnx"
    path.write_bytes(document.SerializeToString())
    with pytest.raises(Stalled) as caught:
        lay_out(path, out(tmp_path))
    assert "weights" in caught.value.message


@pytest.mark.parametrize(
    "said",
    [{"offset": "x"}, {"offset": "-4"}, {"length": "-4"}, {"offset": "9999999"}, {"length": "9999999"}],
)
def test_external_weights_at_a_place_of_nonsense_are_refused(source, tmp_path, said):
    (source.parent / "data").write_bytes(bytes(ROWS * ROWS * 4))
    document = onnx.load(source)
    tensor = document.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "data", **said}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    path = source.parent / "bad.onnx"
    path.write_bytes(document.SerializeToString())
    with pytest.raises(Stalled) as caught:
        lay_out(path, out(tmp_path))
    assert caught.value.reason == "MalformedArtifact"


@pytest.mark.parametrize("content", [b"", b"\xff\xff\xff\xff", b"<html>"])
def test_what_is_no_model_is_refused_by_its_name(tmp_path, content):
    path = tmp_path / "no.onnx"
    path.write_bytes(content)
    with pytest.raises(Stalled) as caught:
        lay_out(path, out(tmp_path))
    assert "no.onnx" in caught.value.message
