"""Message framing, compression, deadlines and error trailers of gRPC."""

import gzip
import zlib

import pytest
from hpack import Decoder

from inference_server.errors import BodyTooLarge, InvalidRequest, UnsupportedEncoding
from inference_server.grpc.messages import (
    Code,
    error_alone,
    error_trailers,
    frame_message,
    read_timeout,
    whole_message,
)


def read(body, encoding=b"identity", limit=1000):
    return bytes(whole_message(bytearray(body), encoding, limit))


def packed(data, flag=1):
    return bytes((flag,)) + len(data).to_bytes(4, "big") + data


def test_a_message_is_what_was_framed():
    assert read(frame_message(b"abc")) == b"abc"
    assert read(frame_message(b"")) == b""
    assert read(packed(gzip.compress(b"abc" * 100)), b"gzip") == b"abc" * 100
    assert read(packed(zlib.compress(b"abc")), b"deflate") == b"abc"
    assert read(packed(b"abc", 0), b"gzip") == b"abc"  # a message may be sent as it is


@pytest.mark.parametrize(
    ("body", "encoding", "error", "words"),
    [
        (b"", b"identity", InvalidRequest, "expected one whole message"),
        (b"\0\0\0\0", b"identity", InvalidRequest, "expected one whole message"),
        (frame_message(b"abc")[:-1], b"identity", InvalidRequest, "expected one whole message"),
        (frame_message(b"abc") * 2, b"identity", InvalidRequest, "expected one whole message"),
        (packed(b"abc", 2), b"identity", InvalidRequest, "expected 0 or 1"),
        (
            packed(b"abc"),
            b"identity",
            UnsupportedEncoding,
            "expected one of identity,deflate,gzip, found identity",
        ),
        (packed(b"abc"), b"snappy", UnsupportedEncoding, "found snappy"),
        (packed(b"abc"), b"gzip", InvalidRequest, "found damaged data"),
        (packed(gzip.compress(b"abc", mtime=0)[:-9]), b"gzip", InvalidRequest, "one whole gzip stream"),
        (packed(gzip.compress(b"abc", mtime=0) + b"x"), b"gzip", InvalidRequest, "one whole gzip stream"),
        (
            packed(gzip.compress(bytes(1 << 19), mtime=0)),
            b"gzip",
            BodyTooLarge,
            "at most 1000 bytes decompressed",
        ),
        (b"\0\xff\xff\xff\xff", b"identity", BodyTooLarge, "at most 1000 bytes, found 4294967295"),
        (frame_message(bytes(1001)), b"identity", BodyTooLarge, "found 1001"),
    ],
)
def test_what_is_no_message_is_refused(body, encoding, error, words):
    with pytest.raises(error, match=words):
        read(body, encoding)


def test_timeouts():
    found = {text: read_timeout(text) for text in (b"1H", b"2M", b"3S", b"4m", b"5u", b"99999999n")}
    assert found == pytest.approx(
        {b"1H": 3600, b"2M": 120, b"3S": 3, b"4m": 0.004, b"5u": 5e-6, b"99999999n": 0.099999999}
    )


@pytest.mark.parametrize("text", [b"", b"1", b"S", b"123456789S", b"1.5S", b"-1S", b"1s", b"1S "])
def test_what_is_no_timeout_is_refused(text):
    with pytest.raises(InvalidRequest, match="grpc-timeout"):
        read_timeout(text)


def test_an_errors_text_travels_as_a_trailer():
    fields = dict(Decoder().decode(error_trailers(Code.NOT_FOUND, "100 % größer\r\nx: y")))
    assert fields == {"grpc-status": "5", "grpc-message": "100 %25 gr%C3%B6%C3%9Fer%0D%0Ax: y"}
    alone = dict(Decoder().decode(error_alone(Code.UNIMPLEMENTED, "x" * 5000)))
    assert alone[":status"] == "200"
    assert alone["grpc-accept-encoding"] == "identity,deflate,gzip"
    assert len(alone["grpc-message"]) == 1000
