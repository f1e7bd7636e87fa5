"""Metadata of any server is read with suspicion; open sizes are filled in, or asked for by name."""

import json

import pytest

from edgemodel.errors import Stalled
from edgemodel.loadtest.metadata import Input, parse, sized
from tests.simulators.model_server import METADATA


def test_a_models_inputs_are_found():
    model = parse(json.dumps(METADATA).encode())
    assert (model.name, model.versions) == ("m", ("1",))
    assert model.inputs == (Input("x", "FP32", (-1, 4)),)


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": None},
        {"inputs": [{}]},
        {"inputs": [{"name": "x", "datatype": "FP8", "shape": [1]}]},
        {"inputs": [{"name": "x", "datatype": ["FP32"], "shape": [1]}]},
        {"inputs": [{"name": 1, "datatype": "FP32", "shape": [1]}]},
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-2]}]},
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [True]}]},
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": "14"}]},
        {"inputs": METADATA["inputs"] * 2},
        {"name": None, "inputs": 3},
    ],
)
def test_other_answers_are_refused_and_shown(change):
    with pytest.raises(Stalled, match="metadata"):
        parse(json.dumps({**METADATA, **change}).encode())


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_refused(body):
    with pytest.raises(Stalled, match="expected a model's metadata"):
        parse(body)


PIXELS = Input("pixels", "FP32", (-1, 3, -1, 224))


def test_the_first_open_size_is_a_batch_of_one():
    assert sized([Input("x", "FP32", (-1, 4))], {}) == [Input("x", "FP32", (1, 4))]
    assert sized([Input("x", "FP32", ())], {}) == [Input("x", "FP32", ())]


def test_other_open_sizes_are_asked_for_by_name_with_an_example():
    with pytest.raises(Stalled, match=r"--shape pixels:1,3,16,224"):
        sized([PIXELS], {})


def test_a_shape_that_fits_is_taken():
    assert sized([PIXELS], {"pixels": (8, 3, 224, 224)})[0].shape == (8, 3, 224, 224)


@pytest.mark.parametrize("shape", [(8, 3, 224), (8, 4, 224, 224), (8, 3, 224, 225)])
def test_a_shape_that_does_not_fit_is_refused(shape):
    with pytest.raises(Stalled, match=r"expected a shape like \[-1, 3, -1, 224\]"):
        sized([PIXELS], {"pixels": shape})


def test_a_shape_for_an_input_that_is_none_is_refused():
    with pytest.raises(Stalled, match="no input 'pixel'; it has pixels"):
        sized([PIXELS], {"pixel": (1,)})


def test_a_tensor_that_no_memory_holds_is_refused():
    with pytest.raises(Stalled, match="expected at most 268435456 elements"):
        sized([PIXELS], {"pixels": (1, 3, 10**9, 224)})
