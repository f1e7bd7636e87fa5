"""Candidates that must not take over: each is a version of ``tiny_model`` with one thing wrong with it.

All of them load, verify and are signed like a good one, except the one that dies while it loads. Each builder says how the
fault shows, because a gate may only be blamed for what can be seen.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from testbed import tiny_model

FAILING_FROM = 38
"""Cases from this number on fail in ``failing``: 2 of 40, 5 %."""
LEAKING_FROM = 20
"""Cases from this number on take memory in ``leaking``: half of them, and neither warm-up nor a golden sample is one."""
SLOW_ROUNDS = 700
"""Of a slow one, some 5 ms; a fifth of it is a good one beside it. Less would drown in what a busy machine adds to both: the
gate compares the 99th percentiles."""


def wrong(version: str) -> onnx.ModelProto:
    """Answer well-formed nonsense: what another version says. Shows in golden samples, and nowhere else."""
    return tiny_model.model(f"{version}, but other weights")


def slow(version: str, rounds: int = SLOW_ROUNDS) -> onnx.ModelProto:
    """Answer rightly after five times the work of ``tiny_model.model(version, rounds=rounds // 5)``."""
    return tiny_model.model(version, rounds=rounds)


def failing(version: str) -> onnx.ModelProto:
    """Answer rightly, but fail on 2 of the 40 cases: ONNX Runtime can't reshape one number to two; a 500 to the client."""
    nodes = [
        helper.make_node("GreaterOrEqual", ["case", "from"], ["bad"]),
        helper.make_node("Cast", ["bad"], ["bad_number"], to=TensorProto.INT64),
        helper.make_node("Add", ["bad_number", "ones"], ["size"]),
        helper.make_node("Reshape", ["nothing", "size"], ["reshaped"]),
    ]
    constants = [
        numpy_helper.from_array(np.array(FAILING_FROM, np.int64), "from"),
        numpy_helper.from_array(np.ones(1, np.int64), "ones"),
        numpy_helper.from_array(np.zeros(1, np.float32), "nothing"),
    ]
    return tiny_model.model(version, nodes=nodes, constants=constants, plus="reshaped")


def crashing(version: str, megabytes: int = 1024) -> onnx.ModelProto:
    """Die while loading: ONNX Runtime computes a constant of this size before anything is served.

    In a pod with a smaller memory limit the kernel kills the process; without a limit it just takes the memory.
    """
    nodes = [
        helper.make_node("ConstantOfShape", ["elements"], ["constant"]),  # zeros, float32
        helper.make_node("ReduceMin", ["constant"], ["zero"], keepdims=0),
    ]
    elements = np.array([megabytes * 2**20 // 4], np.int64)
    constants = [numpy_helper.from_array(elements, "elements")]
    return tiny_model.model(version, nodes=nodes, constants=constants, plus="zero")


def leaking(version: str, requests: int = 1000, megabytes: int = 256) -> onnx.ModelProto:
    """Take ever more memory, until the kernel kills it after about so many requests of clients.

    A graph can't keep state, so it can't leak in the plain sense. What this one does is: each request takes
    memory in proportion to 1 / u, u evenly drawn from 0 to 1, and ONNX Runtime's arena keeps the most that was ever
    taken. The most of n draws grows in proportion to n, so resident memory grows with the number of requests, as with a
    leak, only less evenly: each request has a chance of 1 / ``requests`` to need ``megabytes`` or more. What a server
    computes before clients ask it takes none, so that it is killed while it serves.
    """
    part = (tiny_model.CASES - LEAKING_FROM) / tiny_model.CASES
    share = megabytes * 2**20 / 4 / (requests * part)
    nodes = [
        helper.make_node("RandomUniform", [], ["drawn"], shape=[1]),
        helper.make_node("Max", ["drawn", "least"], ["u"]),
        helper.make_node("Div", ["share", "u"], ["wanted"]),
        helper.make_node("GreaterOrEqual", ["case", "from"], ["leaks"]),
        helper.make_node("Where", ["leaks", "wanted", "little"], ["given"]),
        helper.make_node("Cast", ["given"], ["elements"], to=TensorProto.INT64),
        helper.make_node("ConstantOfShape", ["elements"], ["taken"]),
        helper.make_node("ReduceMin", ["taken"], ["zero"], keepdims=0),
    ]
    constants = [
        numpy_helper.from_array(np.full(1, share, np.float32), "share"),
        numpy_helper.from_array(np.full(1, 0.1 / requests, np.float32), "least"),  # at most 10 × megabytes
        numpy_helper.from_array(np.array(LEAKING_FROM, np.int64), "from"),
        numpy_helper.from_array(np.ones(1, np.float32), "little"),
    ]
    return tiny_model.model(version, nodes=nodes, constants=constants, plus="zero")
