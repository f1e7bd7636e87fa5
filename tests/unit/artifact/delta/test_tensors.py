"""Where the numbers are, in every format a model comes in, and nowhere when the file is rubbish."""

import pytest
from onnx import TensorProto, helper, load

from edgemodel.artifact.delta.tensors import TensorSpan, tensors_of
from tests.unit.artifact.delta.models import onnx, safetensors, trained, weights

A, B = weights(count=500), weights("I8", 700)


def content(path, span):
    return path.read_bytes()[span.offset : span.offset + span.size]


def test_safetensors(tmp_path):
    path = safetensors(tmp_path / "m.safetensors", [("a", "F32", A), ("b", "I8", B)])
    a, b = tensors_of(path, beside={})
    assert (a.name, a.dtype, content(path, a)) == ("a", "F32", A.tobytes())
    assert (b.name, b.dtype, content(path, b)) == ("b", "I8", B.tobytes())


def test_onnx_with_its_weights_inside(tmp_path):
    path = onnx(tmp_path / "m.onnx", [("a", "F32", A), ("b", "I8", B)])
    a, b = tensors_of(path, beside={})
    assert (a.name, a.dtype, content(path, a)) == ("a", "F32", A.tobytes())
    assert (b.name, b.dtype, content(path, b)) == ("b", "I8", B.tobytes())


def test_onnx_with_typed_fields_constants_and_graphs_within_graphs(tmp_path):
    typed = helper.make_tensor("typed", TensorProto.FLOAT, [len(A)], A.tolist())
    constant = helper.make_node("Constant", [], ["c"], value=TensorProto(
        name="constant", data_type=TensorProto.INT8, dims=[len(B)], raw_data=B.tobytes()))  # fmt: skip
    inner = helper.make_graph(
        [constant], "inner", [], [helper.make_tensor_value_info("c", TensorProto.INT8, [1])]
    )
    branch = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    value = helper.make_tensor_value_info("x", TensorProto.BOOL, [1])
    graph = helper.make_graph([branch], "g", [value], [value], [typed])
    path = tmp_path / "m.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    spans = tensors_of(path, beside={})
    assert sorted((s.name, content(path, s)) for s in spans) == [
        ("constant", B.tobytes()), ("constant", B.tobytes()), ("typed", A.tobytes()),
    ]  # fmt: skip


def test_external_data_by_the_graph_beside_it_whatever_the_files_are_called_on_the_disk(tmp_path):
    graph = onnx(
        tmp_path / "blob1", [("a", "F32", A), ("b", "I8", B)], external=("w.bin", {"a": 4096, "b": 0})
    )
    data = tmp_path / "blob2"
    data.write_bytes(B.tobytes().ljust(4096, b"\0") + A.tobytes())
    spans = tensors_of(data, beside={"onnx/model.onnx": graph, "onnx/w.bin": data})
    assert spans == [TensorSpan("b", "I8", 0, 700), TensorSpan("a", "F32", 4096, 2000)]
    assert tensors_of(graph, beside={"onnx/model.onnx": graph, "onnx/w.bin": data}) == []
    assert tensors_of(data, beside={"elsewhere/model.onnx": graph, "onnx/w.bin": data}) == []


def test_spans_that_stick_out_or_overlap_are_left_out(tmp_path):
    graph = onnx(
        tmp_path / "m.onnx",
        [("a", "F32", A), ("over", "F32", A), ("out", "F32", A)],
        external=("w", {"a": 0, "over": 100, "out": 2100}),
    )
    data = tmp_path / "w"
    data.write_bytes(trained(A).tobytes() + bytes(1000))
    assert [s.name for s in tensors_of(data, beside={"m.onnx": graph, "w": data})] == ["a"]


@pytest.mark.parametrize("suffix", ["onnx", "safetensors", "bin"])
@pytest.mark.parametrize(
    "data", [b"", b"\0", b"\xff" * 100, b"\x3a\xff\xff\xff\xff\x0f", b"\x02\0\0\0\0\0\0\0[]", b"\x08" * 50]
)
def test_rubbish_has_no_tensors(suffix, data, tmp_path):
    path = tmp_path / f"m.{suffix}"
    path.write_bytes(data)
    assert tensors_of(path, beside={}) == []


def test_a_cut_model_shows_only_what_is_whole(tmp_path):
    path = onnx(tmp_path / "m.onnx", [("a", "F32", A), ("b", "I8", B)])
    whole = path.read_bytes()
    for end in range(0, len(whole), 97):
        path.write_bytes(whole[:end])
        assert all(span.offset + span.size <= end for span in tensors_of(path, beside={}))
    path.write_bytes(whole)
    assert len(load(path).graph.initializer) == len(tensors_of(path, beside={}))
