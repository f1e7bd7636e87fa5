"""Golden samples against a model: what passes, what fails and with which words, and that serving begins whatever comes."""

import asyncio
import json

import numpy as np
import pytest

from inference_server.engine.model import Model
from inference_server.errors import ExecutionFailed, NotReady
from inference_server.files.golden_samples import Tolerance, Tolerances
from inference_server.files.model_directory import ModelFiles, find_model
from inference_server.messages import ABSENT, GoldenResult
from inference_server.serving import golden
from inference_server.serving.dataplane import DataPlane
from inference_server.telemetry.metrics import Metrics
from tests.server.onnx_models import identity, save
from tests.unit.server.conftest import Doubler
from tests.unit.server.golden_archive import entries, tar, write

X = np.array([1, 2, 3], np.float32)
RIGHT = ({"x": X}, {"y": X * 2})
WRONG = ({"x": X}, {"y": X * 2 + np.array([0, 0.5, 0], np.float32)})


@pytest.fixture
def plane():
    return DataPlane(Metrics())


@pytest.fixture
def judged(plane, tmp_path):
    async def judge(samples=None, tolerances=None, *, model=None, seconds=5.0, content=None):
        if samples is not None:
            content = tar(entries(samples, tolerances))
        if content is not None:
            write(tmp_path, content)
        files = ModelFiles(tmp_path / "model.onnx", tmp_path.resolve(), "m", "1", "")
        return await golden.judge(plane, model or Doubler(), files, seconds)

    return judge


async def test_a_model_without_samples_is_neither_right_nor_wrong(judged):
    assert await judged() == ABSENT


async def test_right_answers_pass(judged):
    assert await judged({"a": RIGHT, "b": RIGHT}) == GoldenResult("Pass", 2, 2)


async def test_a_wrong_answer_names_sample_output_index_expected_and_found(judged):
    result = await judged({"a": RIGHT, "b": WRONG})
    assert (result.outcome, result.total, result.passed) == ("Fail", 2, 1)
    (failure,) = result.failures
    assert (failure.sample, failure.output) == ("b", "y")
    assert failure.message == (
        "sample 'b', output 'y': index [1]: expected 4.5, found 4.0, at most 0.0046 apart; 1 of 3 values differ"
    )


async def test_tolerances_of_the_archive_decide(judged):
    assert (await judged({"b": WRONG}, {"outputs": {"y": {"absolute": 0.5}}})).outcome == "Pass"
    assert (await judged({"b": WRONG}, {"outputs": {"z": {"absolute": 0.5}}})).outcome == "Fail"


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (({"z": X}, {"y": X}), "expected an input 'x', found 'z'"),
        (({"x": X, "z": X}, {"y": X}), "inputs: the model has no 'z'"),
        (({"x": X.astype(np.float64)}, {"y": X}), "input 'x': expected FP32, found FP64"),
        (({"x": X.reshape(1, 3)}, {"y": X}), "input 'x'.shape: expected 1 sizes"),
        (({"x": X}, {"q": X}), "outputs: expected some of 'y', found 'q'"),
        (({"x": X}, {}), "outputs: expected some of 'y', found none"),
        (({"x": X}, {"y": X.astype(np.int32)}), "expected INT32, found FP32"),
        (({"x": X}, {"y": X.reshape(1, 3)}), r"expected shape \[1, 3\], found \[3\]"),
        (({"x": X * np.nan}, {"y": X * np.nan}), "expected nan, found nan"),
    ],
)
async def test_what_does_not_fit_fails_and_says_so(judged, sample, words):
    result = await judged({"s": sample})
    assert (result.outcome, result.passed) == ("Fail", 0)
    assert result.failures[0].sample == "s"
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(result.failures[0].message)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (0.5, 0.5, None),
        (0.5, 0.504, None),
        (0.5, 0.6, "index [0]: expected 0.6, found 0.5, at most 0.032 apart"),
        (0.1, 0.1, "input 'x': expected numbers that BF16 has"),
    ],
)
async def test_bf16_is_kept_as_fp32_and_compared_by_its_own_tolerance(judged, tmp_path, x, y, words):
    path = save(identity("BF16", ("n",)), tmp_path / "model.onnx")
    sample = tuple({name: np.array([value], np.float32)} for name, value in (("x", x), ("y", y)))
    result = await judged({"s": sample}, model=Model(find_model(path), 1))
    assert (result.outcome == "Pass") == (words is None)
    assert all(words in failure.message for failure in result.failures)


async def test_a_model_that_fails_is_a_failed_sample_and_the_others_run(judged):
    class Picky(Doubler):
        def run(self, outputs, inputs):
            if inputs["x"].size == 1:
                raise ExecutionFailed("the model failed on this input")
            return super().run(outputs, inputs)

    one = ({"x": X[:1]}, {"y": X[:1] * 2})
    result = await judged({"a": one, "b": RIGHT}, model=Picky())
    assert (result.total, result.passed) == (2, 1)
    assert result.failures[0].message == "sample 'a': the model failed on this input"


async def test_a_model_that_takes_too_long_fails_and_is_not_waited_for(judged):
    model = Doubler()
    model.go.clear()
    try:
        result = await judged({"a": RIGHT, "b": RIGHT}, model=model, seconds=0.05)
    finally:
        model.go.set()
    assert (result.outcome, result.total, result.passed) == ("Fail", 2, 0)
    assert "longer than the 0.05 s" in result.failures[0].message
    assert "0 of 2" in result.failures[0].message


async def test_no_more_than_a_few_failures_are_told_and_all_are_counted(judged):
    result = await judged({f"s{n}": WRONG for n in range(12)})
    assert (result.total, result.passed, len(result.failures)) == (12, 0, 8)


async def test_samples_that_cannot_be_read_fail(judged):
    result = await judged(content=b"no tar" * 100)
    assert (result.outcome, result.total) == ("Fail", 0)
    assert "unusable" in result.failures[0].message


async def test_a_link_that_leads_outside_is_not_followed(judged, tmp_path):
    (tmp_path / ".golden").mkdir()
    (tmp_path / ".golden/samples.tar").symlink_to("/etc/passwd")
    result = await judged()
    assert "leads outside" in result.failures[0].message


async def test_a_bug_fails_the_samples_and_nothing_else(judged, caplog):
    class Buggy(Doubler):
        def run(self, outputs, inputs):
            raise ZeroDivisionError

    result = await judged({"a": RIGHT}, model=Buggy())
    assert result.outcome == "Fail"
    assert "ZeroDivisionError" in caplog.text


# -- comparing ----------------------------------------------------------------------------------------------------------


def floats(*values):
    return np.array(values, np.float32)


INF = float("inf")
NAN = float("nan")


@pytest.mark.parametrize(
    ("expected", "found", "tolerance", "same"),
    [
        (floats(1.0), floats(1.0), (0, 0), True),
        (floats(1.0), floats(1.01), (0, 0), False),
        (floats(100), floats(101), (0, 0.01), True),
        (floats(100), floats(102), (0, 0.01), False),
        (floats(0), floats(1e-5), (1e-4, 0), True),
        (floats(NAN), floats(NAN), (1, 1), False),
        (floats(1), floats(NAN), (1, 1), False),
        (floats(INF), floats(INF), (0, 0), True),
        (floats(INF), floats(INF), (1, 1), True),
        (floats(INF), floats(-INF), (1, 1), False),
        (floats(INF), floats(3), (1, 1), False),
        (floats(3), floats(INF), (1, 1), False),
        (floats(), floats(), (0, 0), True),
        (np.array([2**62], np.int64), np.array([2**62 + 1], np.int64), (0, 0), False),
        (np.array([200], np.uint8), np.array([198], np.uint8), (2, 0), True),
        (np.array([200], np.uint8), np.array([197], np.uint8), (2, 0), False),
        (np.array([True]), np.array([False]), (1, 1), False),
        (np.array(["a"], object), np.array(["a"], object), (0, 0), True),
        (np.array(["a"], object), np.array([b"a\0"], object), (0, 0), True),
        (np.array(["a"], object), np.array(["b"], object), (1, 1), False),
        (np.array(7.0), np.array(7.5), (0.25, 0), False),
    ],
)
def test_values_are_compared_by_their_kind(expected, found, tolerance, same):
    message = golden.difference(expected, found, Tolerance(*tolerance))
    assert (message is None) == same, message


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((0, 1, 5), "index [2]: expected 0.0, found 5.0"),
        ((7, 1, 5), "index [0]: expected 0.0, found 7.0"),
        ((7, NAN, 5), "index [1]: expected 0.0, found nan"),
        ((7, 8, INF), "index [2]: expected 0.0, found inf"),
        ((0, 1e-30, 0), "index [1]: expected 0.0, found 1e-30"),
    ],
)
def test_the_worst_of_many_differences_is_told(values, words):
    assert golden.difference(floats(0, 0, 0), floats(*values), Tolerance(0, 0)).startswith(words)


def test_a_difference_is_told_with_its_place():
    found = np.zeros((2, 3), np.float32)
    found[1, 2] = 5
    message = golden.difference(np.zeros((2, 3), np.float32), found, Tolerance(1e-4, 0))
    assert message == "index [1, 2]: expected 0.0, found 5.0, at most 0.0001 apart; 1 of 6 values differ"


def test_a_long_text_is_cut():
    message = golden.difference(np.array(["a" * 500], object), np.array(["b"], object), Tolerance(0, 0))
    assert len(message) < 200


async def test_a_failure_is_never_longer_than_whoever_asks_will_read():
    name = "y" * 5000
    (failure,) = golden.differences("s", {name: X}, {name: X + 1}, Tolerances(), {name: "FP32"})
    assert len(failure.output) == 600
    assert len(failure.message) < 600
    assert failure.message.endswith("3 of 3 values differ")


# -- serving ------------------------------------------------------------------------------------------------------------


async def test_samples_are_in_no_count_of_requests_and_hold_memory_only_while_they_run(judged, plane):
    await judged({"a": RIGHT})
    plane.add(Doubler())
    text = plane.metrics.render().decode()
    assert "inference_requests_total{" not in text
    assert "inference_compute_duration_seconds_count{" in text
    assert 'inference_compute_duration_seconds_count{model="m",version="1"} 0.0' in text
    assert plane._decoded_bytes == 0


@pytest.mark.parametrize(
    ("result", "passed", "failed"),
    [
        (ABSENT, 0, 0),
        (GoldenResult("Pass", 3, 3), 3, 0),
        (GoldenResult("Fail", 3, 1), 1, 2),
        (golden.unreadable(ValueError("x")), 0, 1),
    ],
)
async def test_the_metric_counts_samples_by_outcome(plane, result, passed, failed):
    plane.add(Doubler(), golden=result)
    for outcome, expected in (("Pass", passed), ("Fail", failed)):
        labels = {"model": "m", "version": "1", "outcome": outcome}
        assert plane.metrics.registry.get_sample_value("inference_golden_samples", labels) == expected


async def test_the_result_is_told_over_http_and_only_once_the_model_serves(loopback, judged):
    result = await judged({"a": RIGHT, "b": WRONG})
    async with loopback(loaded=False) as server:
        for path in ("/v2/models/m/golden", "/v2/models/m/versions/1/golden"):
            assert (await server.ask("GET", path))[0] == NotReady.status
        server.dataplane.add(server.model, golden=result)
        for path in ("/v2/models/m/golden", "/v2/models/m/versions/1/golden"):
            status, _, body = await server.ask("GET", path)
            assert status == 200
            said = json.loads(body)
            assert (said["outcome"], said["total"], said["passed"]) == ("Fail", 2, 1)
            assert said["failures"][0].keys() == {"sample", "output", "message"}
        assert (await server.ask("GET", "/v2/models/other/golden"))[0] == 404
        assert (await server.ask("POST", "/v2/models/m/golden"))[0] == 405
        assert (await server.ask("GET", "/v2/health/ready"))[0] == 200, (
            "a model that fails is served all the same"
        )


async def test_samples_run_one_after_the_other_beside_a_loop_that_stays_alive(judged):
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.ensure_future(tick())
    result = await judged({f"s{n}": RIGHT for n in range(64)})
    ticking.cancel()
    assert result == GoldenResult("Pass", 64, 64)
    assert ticks > 64
