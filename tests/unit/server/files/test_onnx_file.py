"""Which weights files a model names, and what is wrong with them."""

import pytest
from onnx import helper

from inference_server.errors import MissingExternalData
from inference_server.files.model_directory import find_model
from inference_server.files.onnx_file import ExternalData, check_external_data, external_data, has_loops
from tests.server.onnx_models import build, identity, loop, mlp, save, save_with_external_data, tensor


def test_a_model_without_external_data_names_none():
    assert external_data(mlp().SerializeToString()) == []
    # The word alone is no external data.
    named = helper.make_node("Identity", ["x"], ["y"], name="location")
    assert external_data(build([named], [tensor("x")], [tensor("y")]).SerializeToString()) == []


def test_external_data_is_found_with_its_length(tmp_path):
    path = save_with_external_data(tmp_path / "m.onnx", "w/m.data")
    assert external_data(path.read_bytes()) == [ExternalData("w/m.data", 64 * 64 * 4)]
    assert check_external_data(find_model(path)) == [tmp_path / "w/m.data"]


def test_external_data_of_a_subgraph_is_found(tmp_path):
    inner = save_with_external_data(tmp_path / "m.onnx", "m.data")
    import onnx

    body = onnx.load(inner, load_external_data=False).graph
    branch = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    outer = build([branch], [tensor("c", "BOOL", ())], [tensor("y")])
    assert external_data(outer.SerializeToString()) == [ExternalData("m.data", 64 * 64 * 4)]


@pytest.mark.parametrize("cut", range(1, 200, 7))
def test_a_damaged_file_is_left_to_onnxruntime(tmp_path, cut):
    raw = save_with_external_data(tmp_path / "m.onnx", "m.data").read_bytes()
    assert external_data(raw[:-cut]) in ([], [ExternalData("m.data", 64 * 64 * 4)])
    assert isinstance(external_data(raw[cut:]), list)


def test_an_absent_weights_file_is_named(tmp_path):
    path = save_with_external_data(tmp_path / "m.onnx", "m.data")
    (tmp_path / "m.data").unlink()
    with pytest.raises(
        MissingExternalData, match=r"expected the weights file 'm.data' beside it, found none"
    ):
        check_external_data(find_model(path))


def test_a_short_weights_file_is_named_with_both_lengths(tmp_path):
    path = save_with_external_data(tmp_path / "m.onnx", "m.data")
    (tmp_path / "m.data").write_bytes(b"\0" * 100)
    with pytest.raises(MissingExternalData, match=r"'m.data' to have at least 16384 bytes, found 100"):
        check_external_data(find_model(path))


@pytest.mark.parametrize("location", ["../outside.data", "/etc/passwd", "link.data", "a/../../outside.data"])
def test_a_weights_file_outside_the_directory_is_refused(tmp_path, location):
    (tmp_path / "outside.data").write_bytes(b"\0" * 16384)
    model = tmp_path / "model"
    model.mkdir()
    (model / "a").mkdir()
    (model / "link.data").symlink_to("../outside.data")
    path = save(identity(), model / "m.onnx")
    save_with_external_data(
        tmp_path / "elsewhere" / "m.onnx", "placeholder" if location == "/etc/passwd" else location
    )
    raw = (tmp_path / "elsewhere" / "m.onnx").read_bytes()
    if location == "/etc/passwd":
        raw = raw.replace(b"placeholder", b"/etc/passwd")
    path.write_bytes(raw)
    with pytest.raises(MissingExternalData, match=r"inside the model directory|outside the model directory"):
        check_external_data(find_model(model))


def test_external_data_is_relative_to_the_entry_and_may_be_anywhere_inside(tmp_path):
    save_with_external_data(tmp_path / "graph/m.onnx", "weights/m.data")
    (tmp_path / "graph/weights/m.data").rename(tmp_path / "m.data")
    (tmp_path / "graph/weights/m.data").symlink_to("../../m.data")
    assert check_external_data(find_model(tmp_path)) == [tmp_path / "m.data"]


def named_loop():
    """Has the word in it, and no loop."""
    node = helper.make_node("Identity", ["x"], ["y"], name="Loop")
    return build([node], [tensor("x")], [tensor("y")])


def loop_in_a_function():
    node = helper.make_node("Loop", ["n", "c", "x"], ["y"], body=mlp().graph)
    opsets = [helper.make_opsetid("", 17)]
    model = build(
        [helper.make_node("Again", ["x"], ["y"], domain="own")],
        [tensor("x")],
        [tensor("y")],
        domains=("own",),
    )
    model.functions.append(helper.make_function("own", "Again", ["x"], ["y"], [node], opsets))
    return model


@pytest.mark.parametrize(
    ("model", "loops"), [(mlp, False), (named_loop, False), (loop, True), (loop_in_a_function, True)]
)
def test_a_model_that_loops_is_recognised(tmp_path, model, loops):
    path = tmp_path / "m.onnx"
    path.write_bytes(model().SerializeToString())
    assert has_loops(find_model(path)) is loops


def test_a_file_that_cannot_be_followed_counts_as_looping(tmp_path):
    path = save(loop(), tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes()[:-5])
    assert has_loops(find_model(path))
