"""Whatever a server sends, in whatever pieces, a request ends in one answer or in one loss."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemodel.loadtest.connection import HEAD_BYTES
from edgemodel.loadtest.http_connection import HttpConnection
from tests.simulators.model_server import answer
from tests.unit.loadtest.wire import Told, Wire

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def sent(keep=300):
    told, wire = Told(), Wire()
    connection = HttpConnection(told, keep)
    connection.connection_made(wire)
    connection.send(b"GET / HTTP/1.1\r\n\r\n")
    return connection, told, wire


def fed(raw, *, keep=300, pieces=(), end=False):
    connection, told, wire = sent(keep)
    for size in [*pieces, len(raw)]:
        piece, raw = raw[:size], raw[size:]
        if piece and not wire.ended:
            connection.data_received(piece)
    if end and not wire.ended:
        connection.eof_received()
    connection.connection_lost(None)
    return told


ANSWERS = {
    "length": (answer(b"abc"), ("", b"abc", True)),
    "length by another spelling": (b"HTTP/1.1 200 OK\r\ncontent-LENGTH:3\r\n\r\nabc", ("", b"abc", True)),
    "nothing": (answer(b""), ("", b"", True)),
    "error": (answer(b"no", "503 Service Unavailable"), ("HTTP 503", b"no", True)),
    "no reason": (b"HTTP/1.1 200 \r\nContent-Length: 1\r\n\r\na", ("", b"a", True)),
    "last": (answer(b"abc", extra="Connection: close\r\n"), ("", b"abc", False)),
    "1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", ("", b"a", False)),
    "1.0 kept": (
        b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: Keep-Alive\r\n\r\na",
        ("", b"a", True),
    ),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", ("HTTP 204", b"", True)),
    "interim": (b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"abc"), ("", b"abc", True)),
    "chunks": (CHUNKED + b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n", ("", b"abc0123456789", True)),
    "chunks with a trailer": (CHUNKED + b"1\r\na\r\n0\r\nX: y\r\n\r\n", ("", b"a", True)),
}


@pytest.mark.parametrize(("raw", "wanted"), ANSWERS.values(), ids=ANSWERS)
@given(pieces=st.lists(st.integers(1, 30), max_size=80))
@settings(max_examples=40, deadline=None)
def test_an_answer_is_whole_in_whatever_pieces_it_comes(raw, wanted, pieces):
    told = fed(raw, pieces=pieces)
    assert told.answers == [wanted]


def test_a_body_may_end_with_the_connection():
    told = fed(b"HTTP/1.1 200 OK\r\n\r\nabc", end=True)
    assert told.answers == [("", b"abc", False)]
    assert told.losses == []


def test_only_the_first_of_a_body_is_kept():
    assert fed(answer(b"x" * 1000), keep=10, pieces=[300, 300]).answers == [("", b"x" * 10, True)]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"SSH-2.0-x\r\n\r\n", "not an HTTP/1.1 answer: b'SSH"),
        (b"HTTP/1.1 099 x\r\n\r\n", "not an HTTP/1.1 answer"),
        (b"HTTP/2 200 OK\r\n\r\n", "not an HTTP/1.1 answer"),
        (b"HTTP/1.1 200 OK\r\n" + b"x" * HEAD_BYTES, "its head has more than 32768 bytes"),
        (CHUNKED + b"x\r\n", "chunk size b'x'"),
        (CHUNKED + b"-1\r\n", "chunk size b'-1'"),
        (CHUNKED + b"1\r\nabc\r\n", "b'bc' after a chunk"),
        (CHUNKED + b"1" * (HEAD_BYTES + 1), "a line of more than 32768 bytes"),
        (answer(b"abc") + b"more", "more than was asked for: b'more'"),
        (answer(b"abc")[:-1], "connection closed"),
        (b"", "connection closed"),
    ],
)
def test_what_is_no_answer_is_a_loss_with_words(raw, words):
    told = fed(raw)
    assert told.answers == []
    assert [words in loss for loss in told.losses] == [True]


@given(
    raw=st.binary(max_size=200)
    | st.sampled_from([raw for raw, _ in ANSWERS.values()]).flatmap(
        lambda raw: st.tuples(st.integers(0, len(raw)), st.binary(max_size=3)).map(
            lambda cut: raw[: cut[0]] + cut[1] + raw[cut[0] + len(cut[1]) :]
        )
    ),
    pieces=st.lists(st.integers(1, 30), max_size=20),
    end=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_any_bytes_end_a_request_once(raw, pieces, end):
    told = fed(raw, pieces=pieces, end=end)
    # An answer may be followed by the end of its idle connection, or by more than was asked for.
    assert (len(told.answers), len(told.losses)) in [(1, 0), (1, 1), (0, 1)]


def test_bytes_that_nobody_asked_for_end_an_idle_connection():
    connection, told, wire = sent()
    connection.data_received(answer(b"abc"))
    connection.data_received(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert wire.ended
    assert len(told.losses) == 1


def test_a_connection_takes_one_request_after_the_other():
    connection, told, _ = sent()
    connection.data_received(answer(b"abc"))
    connection.send(b"GET /2 HTTP/1.1\r\n\r\n")
    connection.data_received(answer(b"de"))
    assert [body for _, body, _ in told.answers] == [b"abc", b"de"]
