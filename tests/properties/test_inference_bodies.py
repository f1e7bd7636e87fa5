"""Bodies of inference requests, JSON and binary: whatever comes is a request, whole, or a refusal of a few words.

``tests/corpus/oip`` keeps one body for every way to be refused that fuzzing has found (``grow.py`` there adds to it).
"""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_server.errors import InvalidRequest
from inference_server.messages import ModelMetadata
from inference_server.oip.binary import decode_raw, encode_raw
from inference_server.oip.json import decode_request
from inference_server.oip.layouts import Layouts
from inference_server.tensors import NUMPY_TYPES, TensorSpec
from tests.corpus.oip.grow import FOUND, refusal, seeds
from tests.properties.mutation import mutations

CASES = sorted(FOUND.iterdir())


def test_the_seeds_are_requests():
    assert [refusal(seed) for seed in seeds()] == [""] * len(seeds())


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_what_was_refused_once_is_refused(case):
    assert refusal(case.read_bytes())


def test_the_corpus_has_a_body_for_every_refusal():
    words = [refusal(case.read_bytes()) for case in CASES]
    assert len(set(words)) == len(words) > 40


@given(st.sampled_from(seeds() + [case.read_bytes() for case in CASES]).flatmap(mutations))
@settings(max_examples=500, deadline=None)
def test_any_body_is_whole_or_refused(case):
    refusal(case.ljust(4, b"\0"))


@given(
    datatype=st.sampled_from(sorted(NUMPY_TYPES)),
    shape=st.lists(st.integers(0, 3), max_size=3),
    seed=st.integers(0, 2**32 - 1),
    strings=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), min_size=27, max_size=27),
)
@settings(max_examples=300, deadline=None)
def test_binary_data_is_given_back_unchanged(datatype, shape, seed, strings):
    count = int(np.prod(shape, dtype=int))
    if datatype == "BYTES":
        array = np.array(strings[:count], object).reshape(shape)
    else:
        random = np.random.default_rng(seed).integers(
            0, 256, count * NUMPY_TYPES[datatype].itemsize, np.uint8
        )
        array = (random & 1 if datatype == "BOOL" else random).view(NUMPY_TYPES[datatype]).reshape(shape)
    raw = encode_raw(array)
    again = decode_raw(memoryview(raw), tuple(shape), datatype, "x")
    assert (again.dtype, again.shape) == (array.dtype, array.shape)
    assert bytes(encode_raw(again)) == bytes(raw)


@given(
    st.binary(max_size=60), st.sampled_from(sorted(NUMPY_TYPES)), st.lists(st.integers(0, 2**40), max_size=3)
)
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_tensor_or_refused(raw, datatype, shape):
    try:
        array = decode_raw(memoryview(raw), tuple(shape), datatype, "x")
    except InvalidRequest:
        return
    assert array.shape == tuple(shape)
    assert array.size <= len(raw)


ONE = ModelMetadata("m", "1", (TensorSpec("x", "INT16", (-1, 2)),), (TensorSpec("y", "INT16", (-1,)),))
TENSOR = {"name": "x", "shape": [2, 2], "data": [[1, 2], [3, 4]], "datatype": "INT16"}
IN_JSON = [
    json.dumps({"inputs": [TENSOR], **more}, indent=indent).encode()
    for more in ({}, {"outputs": [{"name": "y"}], "parameters": {"timeout": 7}})
    for indent in (None, 1)
]


def became(body: bytes, layouts: Layouts | None) -> object:
    """What a body becomes, or the words in which it is refused."""
    try:
        decoded = decode_request(body, ONE, None, layouts)
    except InvalidRequest as error:
        return str(error)
    array = decoded.request.inputs["x"]
    return array.dtype, array.tolist(), decoded.request.outputs, decoded.request.timeout, decoded.binary


@given(st.sampled_from(IN_JSON), st.data())
@settings(max_examples=1000, deadline=None)
def test_what_is_remembered_of_json_changes_nothing(seed: bytes, data: st.DataObject) -> None:
    layouts = Layouts()
    assert became(seed, layouts) == became(seed, None)
    for _ in range(3):  # what was taken just now may be remembered, too
        body = data.draw(mutations(seed))
        assert became(body, layouts) == became(body, None)
