"""Digests: one form, and the same answer in pieces as in one."""

import pytest

from edgemodel.artifact.digest import Digest, Hasher

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_of_nothing_is_the_known_one():
    assert Digest.of(b"") == EMPTY
    assert Hasher().digest() == EMPTY


def test_parts():
    digest = Digest.parse(EMPTY)
    assert digest.hex == EMPTY[7:]
    assert digest.short == "e3b0c44298fc1c14"
    assert isinstance(digest, str)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        EMPTY[7:],
        EMPTY.upper(),
        EMPTY + "0",
        EMPTY[:-1],
        EMPTY + "\n",
        "sha512:" + "a" * 128,
        None,
        7,
        b"x",
    ],
)
def test_everything_else_is_refused(text):
    with pytest.raises(ValueError, match="expected"):
        Digest.parse(text)


def test_pieces_of_any_buffer_type_add_up():
    hasher = Hasher()
    for piece in (b"ab", bytearray(b"cd"), memoryview(b"efgh").cast("H")):
        hasher.update(piece)
    assert hasher.digest() == Digest.of(b"abcdefgh")
    assert hasher.size == 8
