"""What calibration finds, for models that are Python functions in simulated time, and its probe with real models."""

import numpy as np
import pytest
from onnx import helper, numpy_helper

from inference_server.engine.calibration import BUDGET, Pinned, calibrate, probe_rows, uncalibrated
from inference_server.engine.example_inputs import example
from inference_server.engine.model import Model
from inference_server.errors import ExecutionFailed
from inference_server.files.model_directory import find_model
from inference_server.messages import ModelMetadata
from inference_server.tensors import TensorSpec, numbers
from tests.server.onnx_models import bf16_linear, build, identity, loop, mlp, save, sum_and_difference, tensor


class Simulated:
    """y = x, in simulated time.

    Args:
        seconds: Time of a run by its rows and threads.
    """

    def __init__(self, seconds, *, shape=(-1, 4), load_seconds=0.01, datatype="FP32"):
        self.metadata = ModelMetadata(
            "m", "1", (TensorSpec("x", datatype, shape),), (TensorSpec("y", datatype, shape),)
        )
        self.seconds, self.load_seconds = seconds, load_seconds
        self.threads, self.now, self.opened = 1, 0.0, []
        self.open_size, self.has_loops = 1, False
        self.runs = 0

    def run(self, outputs, inputs):
        self.runs += 1
        self.now += self.seconds(len(inputs["x"]), self.threads)
        return [inputs["x"]]

    def reopen(self, threads):
        self.threads = threads
        self.opened.append(threads)


def found(model, pinned=None, cpus=2):
    return calibrate(model, pinned or Pinned(), cpus, clock=lambda: model.now, work=lambda: model.now)


def tiny(rows, threads):
    return 0.00001 + rows * 0.0000005


def saves_by_batches(rows, threads):
    return (0.005 + rows * 0.0001) / threads**0.9


def gains_nothing(rows, threads):
    return 0.01 * rows / threads


def test_a_tiny_model_is_computed_inline_in_batches():
    plan = found(Simulated(tiny))
    assert (plan.inline, plan.batchable, plan.batch_rows, plan.sessions) == (True, True, 64, 1)
    assert plan.costs[0] == (4, pytest.approx(0.0000105))


def test_a_model_whose_price_lies_in_values_is_never_computed_inline(tmp_path):
    model = Simulated(tiny)
    model.has_loops = True
    assert not found(model).inline
    assert real(tmp_path, loop()).has_loops
    assert not real(tmp_path, mlp()).has_loops


def test_a_model_that_gains_by_batches_gets_large_ones_on_threads():
    plan = found(Simulated(saves_by_batches), cpus=1)
    assert (plan.inline, plan.batch_rows, plan.sessions, plan.threads) == (False, 64, 1, 1)


def test_a_model_that_gains_nothing_by_batches_is_computed_one_by_one():
    plan = found(Simulated(gains_nothing), cpus=1)
    assert (plan.batch_rows, plan.batchable) == (1, True)
    assert plan.piece_rows >= 1


def test_a_batch_is_no_larger_than_pays():
    plan = found(Simulated(lambda rows, threads: 0.0007 + 0.005 * rows), cpus=1)
    assert plan.batch_rows == 8
    assert plan.batch_elements == 8 * 4
    pinned = found(Simulated(lambda rows, threads: 0.0007 + 0.005 * rows), Pinned(batch_rows=20), cpus=1)
    assert (pinned.batch_rows, pinned.batch_elements) == (20, 0)


def test_cpus_are_shared_out_by_what_computes_most():
    model = Simulated(
        gains_nothing
    )  # in simulated time runs follow each other, so that all CPUs for one is better
    plan = found(model)
    assert (plan.threads, plan.sessions, model.threads) == (2, 1, 2)


def test_a_model_that_is_slow_to_load_is_not_loaded_again():
    model = Simulated(saves_by_batches, load_seconds=3.0)
    assert found(model, cpus=4).sessions == 4
    assert model.opened == []


def test_on_one_cpu_a_small_model_stays_inline_with_batches_that_are_short():
    plan = found(Simulated(lambda rows, threads: 0.0001 * rows**0.8), cpus=1)
    assert plan.inline
    assert plan.batch_rows == 2


@pytest.mark.parametrize(
    ("pinned", "expected"),
    [
        (Pinned(threads=2), (2, 1, 64)),
        (Pinned(sessions=2), (1, 2, 64)),
        (Pinned(threads=3, sessions=2), (3, 2, 64)),
        (Pinned(batch_rows=5, sessions=2), (1, 2, 5)),
    ],
)
def test_what_is_pinned_stays(pinned, expected):
    model = Simulated(saves_by_batches)
    model.threads = pinned.threads or 1
    plan = found(model, pinned)
    assert (plan.threads, plan.sessions, plan.batch_rows) == expected
    assert model.threads == expected[0]


def test_a_batch_that_cannot_be_is_told(caplog):
    assert found(Simulated(tiny, shape=(1, 4)), Pinned(batch_rows=8)).batch_rows == 1
    assert "no batch axis" in caplog.text


def test_a_model_that_refuses_examples_is_computed_request_by_request():
    model = Simulated(tiny)
    model.open_size = None
    assert found(model, cpus=3) == uncalibrated(Pinned(), 3)
    assert model.threads == 3


def test_a_model_that_refuses_the_values_of_examples_is_too():
    class Refusing(Simulated):
        def run(self, outputs, inputs):
            raise ExecutionFailed("no")

    assert not found(Refusing(tiny)).batchable


@pytest.mark.parametrize("seconds", [tiny, saves_by_batches, gains_nothing, lambda rows, threads: 0.2 * rows])
def test_measuring_ends_within_its_budget_and_a_few_runs(seconds):
    model = Simulated(seconds)
    found(model, cpus=1)
    assert model.now <= BUDGET + 6 * seconds(1, 1)


def real(tmp_path, model):
    return Model(find_model(save(model, tmp_path / "m.onnx")), threads=1)


def constant(name, *values):
    return numpy_helper.from_array(np.array(values, np.int64), name)


def mean_over_rows():
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    return build(nodes, [tensor("x")], [tensor("y")])


def dynamically_quantised():
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    return build(nodes, [tensor("x")], [tensor("y")])


def sequence_first():
    """A running sum along the first axis."""
    node = helper.make_node("CumSum", ["x", "axis"], ["y"])
    return build(
        [node], [tensor("x")], [tensor("y")], [numpy_helper.from_array(np.array(0, np.int64), "axis")]
    )


def no_rows_in_the_output():
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    return build([node], [tensor("x")], [tensor("y", shape=("n", 2))], [constant("shape", -1, 2)])


def data_dependent():
    nodes = [helper.make_node("NonZero", ["x"], ["y"])]
    return build(nodes, [tensor("x")], [tensor("y", "INT64", ("n", "m"))])


@pytest.mark.parametrize("datatype", ["FP32", "FP16", "FP64", "BF16", "INT64", "BOOL", "BYTES"])
def test_rows_are_told_whatever_the_datatype(tmp_path, datatype):
    assert probe_rows(real(tmp_path, identity(datatype)), 1) > 0


@pytest.mark.parametrize(("off", "same"), [(0, True), (1, True), (4, False), (0x8000, False)])
def test_bf16_is_compared_as_the_numbers_it_is(off, same):
    class Rounds(Simulated):
        """y = x, by some bits another of a row alone."""

        def run(self, outputs, inputs):
            (y,) = super().run(outputs, inputs)
            return [y + np.uint16(off) if len(y) == 1 else y]

    model = Rounds(tiny, datatype="BF16")
    assert (probe_rows(model, 1) > 0) == same


@pytest.mark.parametrize("model", [mlp, sum_and_difference, bf16_linear])
def test_a_batch_axis_is_found(tmp_path, model):
    assert probe_rows(real(tmp_path, model()), 1) > 0


@pytest.mark.parametrize(
    "model",
    [
        mean_over_rows,
        dynamically_quantised,
        sequence_first,
        no_rows_in_the_output,
        data_dependent,
        lambda: identity(shape=(2, 4)),
        lambda: identity(shape=()),
    ],
)
def test_a_first_axis_that_is_no_batch_axis_is_not_taken_for_one(tmp_path, model):
    assert probe_rows(real(tmp_path, model()), 1) == 0


def test_the_perceptron_is_inline_and_gets_the_rows_it_can_have(tmp_path):
    model = real(tmp_path, mlp())
    plan = calibrate(model, Pinned(), 2)
    assert (plan.inline, plan.batchable, plan.row_bytes) == (True, True, 4 * (64 + 10))


@pytest.mark.parametrize("seed", [0, 20])
def test_made_up_bf16_is_finite_and_of_all_magnitudes(seed):
    values = numbers(example((TensorSpec("x", "BF16", (-1, 50)),), 3, 1, seed)["x"], "BF16")
    assert np.isfinite(values).all()
    assert (np.abs(values).max(axis=1) > [0.5, 1, 2]).all() == bool(seed)


@pytest.mark.parametrize("rows", [1, 3, 17, 64])
def test_a_shared_run_gives_what_runs_alone_give(tmp_path, rows):
    model = real(tmp_path, mlp())
    x = np.random.default_rng(rows).standard_normal((rows, 64), np.float32)
    (together,) = model.run(["y"], {"x": x})
    alone = np.concatenate([model.run(["y"], {"x": x[row : row + 1]})[0] for row in range(rows)])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-4 * np.abs(together).max())
