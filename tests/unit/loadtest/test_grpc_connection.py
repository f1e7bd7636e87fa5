"""A call ends in one answer or in one loss, whatever the server sends; the other end is h2's, which is not of our making."""

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived
from h2.settings import SettingCodes
from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemodel.loadtest.connection import HEAD_BYTES
from edgemodel.loadtest.grpc_connection import GrpcConnection, call, frame
from tests.unit.loadtest.wire import Told, Wire

HEAD = [(":status", "200"), ("content-type", "application/grpc")]
BLOCK = Encoder().encode(
    [(":method", "POST", True), (":path", "/x", True), (":scheme", "http", True), (":authority", "m", True)]
)


class Peer:
    """A client that has sent a call, and a server that has read as much of it as it may."""

    def __init__(self, message=b"abc", keep=300, told_first=None):
        self.told, self.wire = Told(), Wire()
        self.connection = GrpcConnection(self.told, keep)
        self.connection.connection_made(self.wire)
        self.server = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.server.initiate_connection()
        if told_first:
            self.server.update_settings(told_first)
        self.bodies = {}
        self.connection.send(call(BLOCK, message))
        self.read()

    def read(self):
        written, self.wire.written = self.wire.written, b""
        for event in self.server.receive_data(written):
            if isinstance(event, RequestReceived):
                self.stream = event.stream_id
            elif isinstance(event, DataReceived):
                self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data

    def answer(self, body=b"\0\0\0\0\3xyz", trailers=(("grpc-status", "0"),), head=HEAD):
        """Return the bytes of an answer."""
        self.server.send_headers(self.stream, head, end_stream=not trailers)
        if trailers:
            if body:
                self.server.send_data(self.stream, body)
            self.server.send_headers(self.stream, trailers, end_stream=True)
        return self.server.data_to_send()

    def say(self, raw, pieces=()):
        for size in [*pieces, len(raw)]:
            piece, raw = raw[:size], raw[size:]
            if piece and not self.wire.ended:
                self.connection.data_received(piece)


@given(pieces=st.lists(st.integers(1, 30), max_size=80))
@settings(max_examples=40, deadline=None)
def test_an_answer_is_whole_in_whatever_pieces_it_comes(pieces):
    peer = Peer()
    peer.say(peer.answer(), pieces)
    assert peer.bodies == {1: b"\0\0\0\0\3abc"}
    assert peer.told.answers == [("", b"\0\0\0\0\3xyz", True)]


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (
            {"trailers": [("grpc-status", "14"), ("grpc-message", "model%20%C3%BC")]},
            ("gRPC UNAVAILABLE", "model ü".encode(), True),
        ),
        (
            {"trailers": (), "head": [*HEAD, ("grpc-status", "3"), ("grpc-message", "x")]},
            ("gRPC INVALID_ARGUMENT", b"x", True),
        ),
        ({"trailers": [("grpc-status", "77")]}, ("gRPC 77", b"", True)),
        ({"trailers": [("grpc-status", "none")]}, ("gRPC UNKNOWN", b"", True)),
        ({"trailers": [("x", "y")]}, ("gRPC UNKNOWN", b"an answer without grpc-status", True)),
        ({"trailers": [], "head": [(":status", "503")]}, ("HTTP 503", b"", True)),
    ],
)
def test_what_a_server_says_has_failed_is_named(said, wanted):
    peer = Peer()
    peer.say(peer.answer(**said))
    assert peer.told.answers == [wanted]


def test_only_the_first_of_a_message_is_kept_and_of_words():
    peer = Peer(keep=10)
    peer.say(peer.answer(b"x" * 1000))
    peer.connection.send(call(BLOCK, b""))
    peer.read()
    peer.say(peer.answer(trailers=[("grpc-status", "2"), ("grpc-message", "y" * 1000)]))
    assert [body for _, body, _ in peer.told.answers] == [b"x" * 10, b"y" * 10]


def test_headers_mean_the_same_by_a_table_as_without():
    """h2 names by their number in a table what it has sent before; the first answer's bytes differ from the second's."""
    peer = Peer()
    blocks = []
    for number in range(20):
        code = "0" if number % 3 else "8"
        raw = peer.answer(trailers=[("grpc-status", code), ("grpc-message", f"{number % 2}")])
        blocks.append(raw)
        peer.say(raw)
        peer.connection.send(call(BLOCK, b"abc"))
        peer.read()
    assert [failure for failure, *_ in peer.told.answers] == [
        "" if number % 3 else "gRPC RESOURCE_EXHAUSTED" for number in range(20)
    ]
    assert len(blocks[0]) > len(blocks[6])


@pytest.mark.parametrize("frame_bytes", [16_384, 20_000])
def test_a_large_message_waits_for_room_and_comes_whole(frame_bytes):
    message = bytes(range(256)) * 1000
    peer = Peer(message, told_first={SettingCodes.MAX_FRAME_SIZE: frame_bytes})
    given = 0
    while (came := len(peer.bodies[1])) < len(message) + 5:
        peer.say(peer.server.data_to_send())
        peer.read()
        peer.server.acknowledge_received_data(came - given, 1)
        given = came
        peer.say(peer.server.data_to_send())
        peer.read()
        assert len(peer.bodies[1]) > came
    assert peer.bodies[1][5:] == message
    peer.say(peer.answer())
    assert peer.told.answers == [("", b"\0\0\0\0\3xyz", True)]


def test_what_is_answered_before_it_was_sent_whole_ends_the_connection():
    peer = Peer(b"x" * 100_000)
    peer.say(peer.answer(body=b"", trailers=[("grpc-status", "8")]))
    assert peer.told.answers == [("gRPC RESOURCE_EXHAUSTED", b"", False)]
    assert peer.wire.ended


def test_settings_and_pings_are_acknowledged():
    peer = Peer()
    peer.server.ping(b"12345678")
    peer.say(peer.server.data_to_send())
    events = [type(event).__name__ for event in peer.server.receive_data(peer.wire.written)]
    assert events == ["SettingsAcknowledged", "PingAckReceived"]


def test_a_goodbye_lets_the_call_end_that_it_says_was_read():
    peer = Peer()
    answer = peer.answer()
    peer.say(frame(7, 0, 0, (2**31 - 1).to_bytes(4, "big") + bytes(4)))
    peer.say(frame(7, 0, 0, (1).to_bytes(4, "big") + bytes(4)))
    peer.say(answer)
    assert peer.told.answers == [("", b"\0\0\0\0\3xyz", False)]
    assert peer.told.losses == []


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not an answer by gRPC: b'HTTP/1.1 400"),
        (frame(3, 0, 1, (7).to_bytes(4, "big")), "the call was reset with HTTP/2's error 7"),
        (frame(7, 0, 0, bytes(8)), "the server said goodbye"),
        (frame(5, 4, 1, bytes(8)), "a push, which was not allowed"),
        (frame(1, 0, 1, b"x" * 16_000) * 3, f"its headers have more than {HEAD_BYTES} bytes"),
        (frame(1, 4, 1, b"\xff\xff\xff\xff\xff\xff"), "not an answer by gRPC"),
        (frame(4, 0, 0, b"123"), "not an answer by gRPC"),
        (frame(8, 0, 0, b"123"), "not an answer by gRPC"),
        (frame(0, 0, 1, b"abc"), "connection closed"),
        (b"", "connection closed"),
    ],
)
def test_what_is_no_answer_is_a_loss_with_words(raw, words):
    peer = Peer()
    peer.say(raw)
    peer.connection.connection_lost(None)
    assert peer.told.answers == []
    assert [words in loss for loss in peer.told.losses] == [True]


_FRAMES = st.builds(
    frame, st.integers(0, 10), st.integers(0, 255), st.sampled_from([0, 1, 3]), st.binary(max_size=40)
)


@given(raw=st.binary(max_size=100) | st.lists(_FRAMES, max_size=6).map(b"".join), cut=st.integers(0, 60))
@settings(max_examples=100, deadline=None)
def test_any_bytes_end_a_call_once(raw, cut):
    peer = Peer()
    whole = peer.answer()
    peer.say(whole[:cut] + raw + whole[cut:], [7] * 10)
    peer.connection.connection_lost(None)
    # An answer may be followed by the end of its idle connection.
    assert (len(peer.told.answers), len(peer.told.losses)) in [(1, 0), (1, 1), (0, 1)]


def test_an_idle_connection_that_ends_is_a_loss_as_well():
    peer = Peer()
    peer.say(peer.answer())
    peer.say(frame(7, 0, 0, (1).to_bytes(4, "big") + bytes(4)))
    assert peer.told.losses == ["the server said goodbye"]
    assert peer.wire.ended
