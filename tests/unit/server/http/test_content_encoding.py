"""gzip, deflate and zstd: round trips, bombs, damage, and what a client prefers."""

import gzip
import zlib

import pytest
from backports import zstd

from inference_server.errors import BodyTooLarge, InvalidRequest, UnsupportedEncoding
from inference_server.http.content_encoding import ENCODINGS, decode, encode, encoding_of, preferred

TEXT = b"edge" * 5000
COMPRESS = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstd.compress}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_is_encoded_is_decoded(encoding):
    for parts in ((TEXT,), (TEXT, memoryview(TEXT), b""), ()):
        raw = encode(encoding, parts)
        assert decode(encoding, raw, len(TEXT) * 2) == b"".join(parts)
    assert decode(encoding, memoryview(COMPRESS[encoding](TEXT)), len(TEXT)) == TEXT


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_bomb_is_refused_before_it_is_held(encoding):
    bomb = COMPRESS[encoding](bytes(5_000_000))
    assert len(bomb) < 50_000
    with pytest.raises(BodyTooLarge, match="when decoded"):
        decode(encoding, bomb, 100_000)
    with pytest.raises(BodyTooLarge):
        decode(encoding, COMPRESS[encoding](TEXT), len(TEXT) - 1)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw[:-5], "body: expected the end of the"),
        (lambda raw: b"", "body: expected"),
        (lambda raw: b"\xff" + raw[1:], "body: expected"),
        (lambda raw: raw + b"more", "body: expected"),
    ],
)
def test_damage_is_said(encoding, damage, message):
    with pytest.raises(InvalidRequest, match=message):
        decode(encoding, damage(COMPRESS[encoding](TEXT)), 10 * len(TEXT))


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_several_streams_are_one_body_but_not_endlessly_many(encoding):
    one = COMPRESS[encoding](b"ab")
    assert decode(encoding, one * 3, 6) == b"ababab"
    with pytest.raises(BodyTooLarge):
        decode(encoding, one * 3, 5)
    with pytest.raises(InvalidRequest, match="after its end"):
        decode(encoding, one * 1000, 10_000)


def test_a_window_larger_than_http_allows_is_refused():
    magic, block = b"\x28\xb5\x2f\xfd", b"\x01\x00\x00"
    assert decode("zstd", magic + bytes([0, (23 - 10) << 3]) + block, 100) == b""
    wide = magic + bytes([0, (27 - 10) << 3]) + block  # 128 MiB
    with pytest.raises(InvalidRequest, match="expected zstd data"):
        decode("zstd", wide, 100_000)


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        (b"", "identity"),
        (b"Identity", "identity"),
        (b" GZIP ", "gzip"),
        (b"x-gzip", "gzip"),
        (b"zstd", "zstd"),
    ],
)
def test_encodings_by_name(header, encoding):
    assert encoding_of(header) == encoding


@pytest.mark.parametrize("header", [b"br", b"gzip, gzip", b"\xff"])
def test_other_encodings_are_refused(header):
    with pytest.raises(UnsupportedEncoding, match="Content-Encoding: expected one of zstd, gzip, deflate"):
        encoding_of(header)


@pytest.mark.parametrize(
    ("accept", "encoding"),
    [
        (b"gzip", "gzip"),
        (b"gzip, deflate, br, zstd", "zstd"),
        (b"gzip;q=1.0, zstd;q=0.5", "gzip"),
        (b"GZip ; Q=0.5", "gzip"),
        (b"br", "identity"),
        (b"", "identity"),
        (b"identity", "identity"),
        (b"*", "zstd"),
        (b"*;q=0.1, zstd;q=0", "gzip"),
        (b"gzip;q=0", "identity"),
        (b"*;q=0", "identity"),
        (b"identity;q=1, gzip;q=0.5", "identity"),
        (b"identity;q=0.5, gzip;q=0.5", "gzip"),
        (b"gzip;q=nan", "identity"),
        (b"gzip;q=7", "identity"),
        (b"gzip;q=x, deflate", "deflate"),
        (b",,;q=1", "identity"),
    ],
)
def test_what_a_client_prefers(accept, encoding):
    assert preferred(accept) == encoding
