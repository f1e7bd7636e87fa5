"""Each bad candidate has its one fault, in real ONNX Runtime, and answers rightly otherwise."""

import json
import subprocess
import sys
import time

import numpy as np
import onnxruntime
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from testbed import bad_models, tiny_model
from testbed.paths import ROOT


def session(built):  # type: ignore[no-untyped-def]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(built.SerializeToString(), options, ["CPUExecutionProvider"])


def say(model, case):  # type: ignore[no-untyped-def]
    return model.run(None, {"x": tiny_model.inputs(case)})[0]


GOOD = tiny_model.answers(tiny_model.model("v2"), range(tiny_model.CASES))


def test_versions_answer_visibly_differently() -> None:
    for case, other in enumerate(tiny_model.answers(tiny_model.model("v1"), range(tiny_model.CASES))):
        assert np.abs(other - GOOD[case]).max() > 0.05


def test_the_cases_of_a_load_say_what_each_version_answers() -> None:
    cases = tiny_model.cases("v1", "v2")
    assert len(cases) == tiny_model.CASES
    assert cases[7].expected["v2"] == pytest.approx(GOOD[7].ravel().tolist())


def test_a_busy_one_answers_the_same() -> None:
    for case in range(0, tiny_model.CASES, 7):
        np.testing.assert_array_equal(tiny_model.answer(tiny_model.model("v2", rounds=3), case), GOOD[case])


def test_a_wrong_one_is_wrong_in_every_case() -> None:
    for case, told in enumerate(tiny_model.answers(bad_models.wrong("v2"), range(tiny_model.CASES))):
        assert told.shape == GOOD[case].shape
        assert not np.allclose(told, GOOD[case], atol=0.01)


def test_a_slow_one_takes_five_times_as_long_for_the_same_answer() -> None:
    def seconds(model) -> float:  # type: ignore[no-untyped-def]
        best = float("inf")
        for case in range(20):
            began = time.perf_counter()
            told = say(model, case)
            best = min(best, time.perf_counter() - began)
            np.testing.assert_array_equal(told, GOOD[case])
        return best

    fast = seconds(session(tiny_model.model("v2", rounds=bad_models.SLOW_ROUNDS // 5)))
    assert 3.5 < seconds(session(bad_models.slow("v2"))) / fast < 7


def test_a_failing_one_fails_in_one_of_twenty_and_not_for_the_clients_fault() -> None:
    model = session(bad_models.failing("v2"))
    for case in range(bad_models.FAILING_FROM):
        np.testing.assert_array_equal(say(model, case), GOOD[case])
    for case in range(bad_models.FAILING_FROM, tiny_model.CASES):
        with pytest.raises(Fail):  # InvalidArgument would be the client's fault, a 400
            say(model, case)
    assert (tiny_model.CASES - bad_models.FAILING_FROM) / tiny_model.CASES == 0.05


# Not ru_maxrss, which begins with what the parent had (getrusage(2)): a test process can be large.
LOAD = """
import re, sys
import onnxruntime

def most():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) // 1024

model = onnxruntime.InferenceSession(sys.stdin.buffer.read(), providers=["CPUExecutionProvider"])
"""
PEAK = f"{LOAD}\nprint(most())"


def test_a_crashing_one_takes_its_memory_while_it_is_loaded() -> None:
    most = []
    for built in (bad_models.crashing("v2", megabytes=256), tiny_model.model("v2")):
        told = subprocess.run(
            [sys.executable, "-c", PEAK], input=built.SerializeToString(), capture_output=True, check=True
        )
        most.append(int(told.stdout))
    assert most[0] - most[1] > 250


LEAK = f"""{LOAD}
import json
from testbed import tiny_model

leaking_from, told = int(sys.argv[1]), []
for cases in (range(leaking_from), range(leaking_from, tiny_model.CASES)):
    before = most()
    for turn in range(1000):
        case = cases[turn % len(cases)]
        told.append((case, model.run(None, {{"x": tiny_model.inputs(case)}})[0].tolist()))
    print(most() - before)
print(json.dumps(told))
"""


def test_a_leaking_one_answers_rightly_and_takes_more_and_more_of_what_clients_ask() -> None:
    built = bad_models.leaking("v2", requests=500, megabytes=64)
    result = subprocess.run(
        [sys.executable, "-c", LEAK, str(bad_models.LEAKING_FROM)],
        cwd=ROOT / "hack",
        input=built.SerializeToString(),
        capture_output=True,
        check=True,
    )
    before, after, told = result.stdout.decode().splitlines()
    assert int(before) < 4
    # The chance that none of 1,000 draws wants 16 MiB or more is (1 - 8 / 500) ** 1000, 1 in 10 million.
    assert int(after) > 12
    for case, answer in json.loads(told):
        np.testing.assert_array_equal(np.array(answer, np.float32), GOOD[case])
