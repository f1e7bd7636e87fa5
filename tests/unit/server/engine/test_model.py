"""Loading and running with the real ONNX Runtime; also pins the words of its errors that are parsed."""

import os

import numpy as np
import pytest
from onnx import helper, numpy_helper

from inference_server.engine.model import Model
from inference_server.engine.session import CPU, choose_providers
from inference_server.errors import InvalidRequest, ModelLoadFailed, OutOfMemory, UnsupportedOpset
from inference_server.files.model_directory import find_model
from inference_server.host.resident import resident_bytes
from inference_server.tensors import NUMPY_TYPES, TensorSpec
from tests.server.onnx_models import (
    ONNX_TYPES,
    bf16_linear,
    build,
    identity,
    mlp,
    save,
    save_with_external_data,
    sum_and_difference,
    tensor,
)


def load(model, tmp_path):
    return Model(find_model(save(model, tmp_path / "m.onnx"), version="7"), threads=1)


def test_a_model_says_what_it_takes_and_gives(tmp_path):
    model = load(mlp(), tmp_path)
    assert (model.metadata.name, model.metadata.version) == ("m", "7")
    assert model.metadata.inputs == (TensorSpec("x", "FP32", (-1, 64)),)
    assert model.metadata.outputs == (TensorSpec("y", "FP32", (-1, 10)),)
    assert model.load_seconds > 0
    assert model.memory_bytes >= 0


def test_a_model_computes_what_numpy_does(tmp_path):
    random = np.random.default_rng(0)
    w1, w2 = random.standard_normal((64, 128), np.float32), random.standard_normal((128, 10), np.float32)
    x = random.standard_normal((3, 64), np.float32)
    (y,) = load(mlp(seed=0), tmp_path).run(["y"], {"x": x})
    np.testing.assert_allclose(y, np.maximum(x @ w1, 0) @ w2, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("datatype", ONNX_TYPES)
def test_every_datatype_passes_through(tmp_path, datatype):
    model = load(identity(datatype, (None,)), tmp_path)
    assert model.metadata.inputs == (TensorSpec("x", datatype, (-1,)),)
    values = {"BOOL": [True, False], "BYTES": ["ü", ""]}.get(datatype, [1, 0])
    (y,) = model.run(["y"], {"x": np.array(values, NUMPY_TYPES[datatype])})
    assert y.tolist() == values


def test_bf16_may_have_any_bits_layout_and_size(tmp_path):
    model = load(identity("BF16", ("n", "m")), tmp_path)
    bits = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)  # every NaN among them
    for x in (bits, bits.T, bits[::2, 1::3], bits[:0], bits[:, :0]):
        (y,) = model.run(["y"], {"x": x})
        assert y.dtype == np.uint16
        np.testing.assert_array_equal(y, x)
    with pytest.raises(InvalidRequest, match="the model refuses them"):
        model.run(["y"], {"x": bits[0]})


def test_bf16_beside_other_types_and_what_a_model_hands_through(tmp_path):
    nodes = [
        helper.make_node("Cast", ["f"], [name], to=ONNX_TYPES[to])
        for name, to in (("h", "BF16"), ("t", "BYTES"))
    ]
    given = [tensor("f", shape=("n",)), tensor("b", "BF16", ("n",))]
    found = [tensor("h", "BF16", ("n",)), tensor("t", "BYTES", ("n",)), *given]
    model = load(build(nodes, given, found), tmp_path)
    f, b = np.array([1.5, -2], np.float32), np.array([7, 8], np.uint16)
    answers = model.run(["t", "b", "h", "f"], {"f": f, "b": b})
    f[:], b[:] = 0, 0  # the request is gone before its answer
    assert [answer.tolist() for answer in answers] == [["1.5", "-2"], [7, 8], [0x3FC0, 0xC000], [1.5, -2]]


def test_bf16_goes_on_with_other_threads_and_after_memory_was_given_back(tmp_path):
    model, x = load(bf16_linear(), tmp_path), np.full((2, 8), 0x3F80, np.uint16)
    before = model.run(["y"], {"x": x})[0]
    model.reopen(2)
    model.trim()
    np.testing.assert_array_equal(model.run(["y"], {"x": x})[0], before)


def test_weights_in_their_own_file_are_loaded(tmp_path):
    path = save_with_external_data(tmp_path / "m.onnx", "m.data")
    x = np.arange(64, dtype=np.float32)[None]
    (y,) = Model(find_model(path), threads=1).run(["y"], {"x": x})
    np.testing.assert_array_equal(x, y)


def test_outputs_come_in_the_order_asked_for(tmp_path):
    one = np.ones((1, 2), np.float32)
    difference, total = load(sum_and_difference(), tmp_path).run(["difference", "sum"], {"a": one, "b": one})
    assert (difference.tolist(), total.tolist()) == ([[0, 0]], [[2, 2]])


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (
            identity(opset=99),
            UnsupportedOpset,
            r"m.onnx: needs opset 99 of domain ai.onnx; onnxruntime \S+ knows up to 2\d",
        ),
        (
            identity(ir_version=99),
            UnsupportedOpset,
            r"has ONNX IR version 99; onnxruntime \S+ knows up to \d+",
        ),
        (
            build([helper.make_node("Frobnicate", ["x"], ["y"])], [tensor("x")], [tensor("y")]),
            UnsupportedOpset,
            r"needs the operator Frobnicate, which onnxruntime \S+ does not have",
        ),
        (
            build(
                [helper.make_node("F", ["x"], ["y"], domain="a.b")],
                [tensor("x")],
                [tensor("y")],
                domains=["a.b"],
            ),
            UnsupportedOpset,
            r"needs the operator a.b:F, which",
        ),
        (
            build([helper.make_node("Add", ["x", "x"], ["y"])], [tensor("x", "BF16")], [tensor("y", "BF16")]),
            UnsupportedOpset,
            r"needs the operator Add of opset 14 for a type that onnxruntime \S+ does not compute it for here",
        ),
        (
            build(
                [helper.make_node("Identity", [one], [f"y_{one}"]) for one in ("h", "t")],
                [tensor("h", "BF16"), tensor("t", "BYTES")],
                [tensor("y_h", "BF16"), tensor("y_t", "BYTES")],
            ),
            ModelLoadFailed,
            "input 't': ONNX Runtime's Python has no strings in models with BF16",
        ),
        (
            build([helper.make_node("Add", ["x", "absent"], ["y"])], [tensor("x")], [tensor("y")]),
            ModelLoadFailed,
            r"m.onnx: onnxruntime \S+ cannot load it: .*absent",
        ),
    ],
)
def test_what_cannot_be_loaded_has_a_reason_of_its_own(tmp_path, model, error, message):
    with pytest.raises(error, match=message) as refusal:
        load(model, tmp_path)
    assert "/onnxruntime_src/" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("raw", [b"", b"hello, world", mlp().SerializeToString()[:-100], b"\x08\x09" * 1000])
def test_a_damaged_file_is_a_failed_load(tmp_path, raw):
    (tmp_path / "m.onnx").write_bytes(raw)
    with pytest.raises(ModelLoadFailed, match=r"m.onnx: onnxruntime \S+ cannot load it: \S+"):
        Model(find_model(tmp_path), threads=1)


def test_a_border_that_is_no_plain_tensor_is_refused(tmp_path):
    model = build(
        [helper.make_node("SequenceConstruct", ["x"], ["y"])],
        [tensor("x", shape=(2,))],
        [helper.make_tensor_sequence_value_info("y", 1, (2,))],
    )
    with pytest.raises(
        ModelLoadFailed, match=r"output 'y': expected a tensor of BOOL|output 'y': expected a tensor"
    ):
        load(model, tmp_path)


def test_shapes_that_do_not_fit_together_are_the_clients_fault_or_named(tmp_path):
    model = load(sum_and_difference(), tmp_path)
    with pytest.raises(Exception, match="model") as refusal:
        model.run(["sum"], {"a": np.ones((2, 2), np.float32), "b": np.ones((3, 2), np.float32)})
    assert "/onnxruntime_src/" not in str(refusal.value)


def test_a_wrong_shape_past_the_checks_is_refused(tmp_path):
    with pytest.raises(InvalidRequest, match="the model refuses them"):
        load(mlp(), tmp_path).run(["y"], {"x": np.ones((1, 63), np.float32)})


def test_a_failed_warm_up_is_no_failed_load(tmp_path, caplog):
    # Reshape to 7 elements: zeros of size 1 cannot pass.
    shape = numpy_helper.from_array(np.array([7], np.int64), "shape")
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    model = load(build([node], [tensor("x", shape=("n",))], [tensor("y", shape=(7,))], [shape]), tmp_path)
    assert "warm-up failed" in caplog.text
    assert model.run(["y"], {"x": np.ones(7, np.float32)})[0].tolist() == [1] * 7


def test_a_model_larger_than_the_memory_limit_is_refused_in_words(tmp_path):
    from inference_server.engine.model import check_memory

    files = find_model(save(mlp(), tmp_path / "m.onnx"))
    check_memory(files, None)
    check_memory(files, 10**9)
    with pytest.raises(
        OutOfMemory, match=r"does not fit in memory \(file of \d+ bytes, limit of 1000 bytes\)"
    ):
        check_memory(files, 1000)


def test_memory_is_counted_in_the_kernels_own_pages(tmp_path, monkeypatch):
    def grown(page):
        monkeypatch.setattr(os, "sysconf", lambda _: page)
        return resident_bytes() // page

    assert grown(16384) == pytest.approx(grown(4096), rel=0.1)


def test_providers_go_by_preference_and_the_cpu_is_what_remains(tmp_path, caplog):
    path = save(mlp(), tmp_path / "m.onnx")
    model = Model(find_model(path), threads=1, providers=("cuda", "Azure"))
    assert "passed over" in caplog.text
    assert model.metadata.parameters["providers"].endswith("CPUExecutionProvider")


@pytest.mark.parametrize(
    ("wanted", "chosen", "missing"),
    [
        ((), [CPU], []),
        (("cpu",), [CPU], []),
        (("CUDA", "cpu"), ["CUDAExecutionProvider", CPU], []),
        (("CUDAExecutionProvider",), ["CUDAExecutionProvider", CPU], []),
        (("cpu", "cuda"), [CPU], []),
        (("npu", "cuda"), ["CUDAExecutionProvider", CPU], ["npu"]),
    ],
)
def test_names_of_providers_may_be_short(wanted, chosen, missing):
    assert choose_providers(wanted, ["CUDAExecutionProvider", CPU]) == (chosen, missing)


def test_another_number_of_threads_gives_the_same_answers(tmp_path):
    model, x = load(mlp(), tmp_path), np.ones((1, 64), np.float32)
    before = model.run(["y"], {"x": x})
    model.reopen(2)
    assert model.threads == 2
    np.testing.assert_allclose(model.run(["y"], {"x": x})[0], before[0], rtol=1e-4)


def test_sizes_of_images_are_found_for_open_axes(tmp_path):
    weight = numpy_helper.from_array(np.ones((1, 3, 33, 33), np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    shape = ("n", 3, "h", "w")
    model = load(build([node], [tensor("x", shape=shape)], [tensor("y", shape=shape)], [weight]), tmp_path)
    assert model.open_size == 64


@pytest.mark.parametrize("low_memory", [False, True])
def test_giving_memory_back_changes_no_answer(tmp_path, low_memory):
    model = Model(find_model(save(mlp(), tmp_path / "m.onnx")), threads=1, low_memory=low_memory)
    x = np.random.default_rng(0).standard_normal((64, 64), np.float32)
    before = model.run(["y"], {"x": x})[0].copy()
    model.trim()
    np.testing.assert_allclose(model.run(["y"], {"x": x})[0], before, rtol=1e-5)
