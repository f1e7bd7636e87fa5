"""What agrees and what does not, and which answers can be read at all: tables, then whatever bytes a pod may send."""

import json
import struct
from typing import Any

import pytest

from edgemodel.gateway.shadow_answers import Answer, Unreadable, read_answer, read_outputs
from edgemodel.gateway.shadow_comparison import Outcome, compare


def answer(*outputs: dict[str, Any], status: int = 200, **more: Any) -> Answer:
    return Answer(status, {}, json.dumps({"outputs": outputs, **more}).encode())


def tensor(
    data: Any, datatype: str = "FP32", shape: tuple[int, ...] | None = None, name: str = "y"
) -> dict[str, Any]:
    return {
        "name": name,
        "datatype": datatype,
        "shape": [len(data)] if shape is None else shape,
        "data": data,
    }


@pytest.mark.parametrize(
    ("active", "candidate", "outcome"),
    [
        (tensor([0.1, 0.9]), tensor([0.1, 0.9]), "agree"),
        (tensor([0.1, 0.9]), tensor([0.4, 0.6]), "agree"),  # the same class
        (tensor([0.1, 0.9]), tensor([0.6, 0.4]), "differ"),
        (tensor([0.5, 0.5001]), tensor([0.5001, 0.5]), "agree"),  # within tolerance
        (tensor([0.5, 0.5]), tensor([0.1, 0.9]), "agree"),  # either is the largest
        (tensor([0.1, 0.9]), tensor([0.5, 0.5]), "differ"),  # the first of several is what counts
        (tensor([0.1, 0.9, 0.9, 0.1], shape=(2, 2)), tensor([0, 1, 1, 0], shape=(2, 2)), "agree"),
        (tensor([0.1, 0.9, 0.9, 0.1], shape=(2, 2)), tensor([0, 1, 0, 1], shape=(2, 2)), "differ"),
        (tensor([[0.1, 0.9], [0.9, 0.1]], shape=(2, 2)), tensor([0, 1, 1, 0], shape=(2, 2)), "agree"),
        (tensor([100.0]), tensor([101.0]), "agree"),
        (tensor([100.0]), tensor([101.1]), "differ"),
        (tensor([0.0]), tensor([0.001]), "agree"),
        (tensor([0.0]), tensor([0.0011]), "differ"),
        (tensor([[1.0], [2.0]], shape=(2, 1)), tensor([1.0, 3.0], shape=(2, 1)), "differ"),
        (tensor([5.0], shape=()), tensor([5.01], shape=(1,)), "differ"),  # of other shapes
        (tensor([None]), tensor([None]), "agree"),  # NaN, as JSON has it
        (tensor([None]), tensor([1.0]), "differ"),
        (tensor([1.0, None]), tensor([1.0, 0.0]), "differ"),
        (tensor([None, 1.0]), tensor([None, 1.001]), "agree"),
        (tensor([], shape=(0, 4)), tensor([], shape=(0, 4)), "agree"),
        (tensor([3], "INT64"), tensor([3], "INT64"), "agree"),
        (tensor([3], "INT64"), tensor([4], "INT64"), "differ"),
        (tensor([3], "INT64"), tensor([3], "INT32"), "differ"),
        (tensor([True], "BOOL"), tensor([False], "BOOL"), "differ"),
        (tensor(["cat"], "BYTES"), tensor(["cat"], "BYTES"), "agree"),
        (tensor(["cat"], "BYTES"), tensor(["dog"], "BYTES"), "differ"),
        (tensor([1.0]), tensor([1.0], name="z"), "differ"),
        (tensor([1.0]), tensor([1.0, 2.0], shape=(1,)), "differ"),  # data that do not fit
        (tensor([1.0, 2.0], shape=(1,)), tensor([1.0]), "incomparable"),
        (tensor(["1"]), tensor([1.0]), "incomparable"),
        (tensor([1], "COMPLEX"), tensor([1], "COMPLEX"), "incomparable"),
    ],
)
def test_two_outputs(active: dict[str, Any], candidate: dict[str, Any], outcome: Outcome) -> None:
    assert compare(answer(active, model_version="1"), answer(candidate, model_version="2")) == outcome


def test_outputs_are_compared_by_name_and_none_may_be_missing_or_more() -> None:
    one, two = tensor([1.0], name="a"), tensor([2.0], name="b")
    assert compare(answer(one, two), answer(two, one)) == "agree"
    assert compare(answer(one, two), answer(one)) == "differ"
    assert compare(answer(one), answer(one, two)) == "differ"
    assert compare(answer(one, one), answer(one, one)) == "incomparable"


@pytest.mark.parametrize(
    ("status", "outcome"), [(500, "failed"), (503, "failed"), (400, "differ"), (204, "differ")]
)
def test_another_status_than_200(status: int, outcome: Outcome) -> None:
    assert compare(answer(tensor([1.0])), answer(tensor([1.0]), status=status)) == outcome


def binary(head: dict[str, Any], data: bytes) -> Answer:
    text = json.dumps({"outputs": [head]}).encode()
    return Answer(200, {"inference-header-content-length": str(len(text))}, text + data)


def test_binary_tensors_are_compared_with_those_in_json() -> None:
    head = {"name": "y", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}
    found = binary(head, struct.pack("<2f", 0.25, 0.75))
    assert read_outputs(found)["y"].data == (0.25, 0.75)
    assert compare(answer(tensor([0.25, 0.75])), found) == "agree"
    halves = {"name": "y", "datatype": "BF16", "shape": [2], "parameters": {"binary_data_size": 4}}
    assert read_outputs(binary(halves, b"\x80\x3e\xc0\xbf"))["y"].data == (0.25, -1.5)
    strings = {"name": "y", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 13}}
    assert read_outputs(binary(strings, b"\x03\0\0\0cat\x02\0\0\0no"))["y"].data == (b"cat", b"no")


@pytest.mark.parametrize(
    ("size", "data", "datatype"),
    [
        (8, b"1234567", "FP32"),
        (-1, b"12345678", "FP32"),
        (True, b"12345678", "FP32"),
        (7, b"12345678", "FP32"),
        (8, b"12345678", "BF16"),
        (3, b"123", "BF16"),
        (8, b"12345678", "FP8"),
        (8, b"\xff\xff\xff\xff1234", "BYTES"),
        (8, b"\x01\0\0\0a123", "BYTES"),
    ],
)
def test_binary_tensors_that_cannot_be(size: Any, data: bytes, datatype: str) -> None:
    head = {"name": "y", "datatype": datatype, "shape": [2], "parameters": {"binary_data_size": size}}
    with pytest.raises(Unreadable):
        read_outputs(binary(head, data))


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab", b"ab"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab", b"ab"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2;x=y\r\nbc\r\n0\r\n\r\n",
            b"abc",
        ),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n", b""),
    ],
)
def test_whole_answers(raw: bytes, body: bytes) -> None:
    found = read_answer(raw)
    assert (found.status, found.body) == (200, body)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nabc",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 99999 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\na\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\na\r\n0\r\n\r\n",
    ],
)
def test_what_is_no_whole_answer(raw: bytes) -> None:
    with pytest.raises(Unreadable):
        read_answer(raw)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"outputs": [' * 50_000,
        b'{"outputs": []}',
        b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [1e9], "data": []}]}',
        b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [99999999999999], "data": []}]}',
        b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [-1], "data": [1]}]}',
        b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [1' + b"0" * 400 + b"]}]}",
        b'{"outputs": [{"name": "y", "datatype": "INT8", "shape": [1], "data": [1' + b"0" * 5000 + b"]}]}",
        b"\xff\xfe",
    ],
)
def test_what_a_pod_may_write_ends_in_a_word_and_in_time(body: bytes) -> None:
    assert compare(Answer(200, {}, body), Answer(200, {}, body)) == "incomparable"
    assert compare(answer(tensor([1.0])), Answer(200, {}, body)) == "differ"
