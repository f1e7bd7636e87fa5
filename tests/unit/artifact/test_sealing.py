"""What is sealed to one node and model comes out there and nowhere else, whole or not at all."""

import base64

import pytest

from edgemodel.artifact.sealing import (
    MAX_PLAINTEXT,
    SealingKey,
    new_key,
    pack_documents,
    pull_secret_context,
    seal,
    unpack_documents,
)
from edgemodel.errors import Refused

CONTEXT = pull_secret_context("node-1", "vision", "detector")
SECRET = b'{"auths":{"registry.local":{"password":"swordfish"}}}'


@pytest.fixture
def key() -> SealingKey:
    return new_key()


@pytest.mark.parametrize("size", [0, 1, 251, 252, 253, MAX_PLAINTEXT])
def test_what_was_sealed_comes_out(key: SealingKey, size: int) -> None:
    plaintext = bytes(index % 251 for index in range(size))
    assert key.open(seal(key.public, plaintext, CONTEXT), CONTEXT) == plaintext


def test_the_largest_fits_into_the_field_of_an_edge_node(key: SealingKey) -> None:
    assert len(seal(key.public, bytes(MAX_PLAINTEXT), CONTEXT)) <= 262_144


def test_too_much_is_refused(key: SealingKey) -> None:
    with pytest.raises(Refused, match=str(MAX_PLAINTEXT)):
        seal(key.public, bytes(MAX_PLAINTEXT + 1), CONTEXT)


def test_the_same_secret_never_looks_the_same_and_its_length_tells_little(key: SealingKey) -> None:
    assert seal(key.public, SECRET, CONTEXT) != seal(key.public, SECRET, CONTEXT)
    assert len(seal(key.public, b"a", CONTEXT)) == len(seal(key.public, b"a" * 100, CONTEXT))


@pytest.mark.parametrize(
    "context", ["", "node-2/vision/detector", "node-1/audio/detector", "node-1/vision/other", CONTEXT + " "]
)
def test_in_another_context_it_stays_shut(key: SealingKey, context: str) -> None:
    sealed = seal(key.public, SECRET, CONTEXT)
    with pytest.raises(Refused, match="not meant for this node's key"):
        key.open(sealed, context)


def test_another_key_does_not_open_it(key: SealingKey) -> None:
    with pytest.raises(Refused, match="not meant for this node's key"):
        new_key().open(seal(key.public, SECRET, CONTEXT), CONTEXT)


def test_a_flipped_bit_anywhere_keeps_it_shut(key: SealingKey) -> None:
    raw = base64.b64decode(seal(key.public, SECRET, CONTEXT))
    for at in range(len(raw)):
        altered = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        with pytest.raises(Refused):
            key.open(base64.b64encode(altered).decode(), CONTEXT)


def test_cut_anywhere_it_stays_shut(key: SealingKey) -> None:
    raw = base64.b64decode(seal(key.public, SECRET, CONTEXT))
    for length in range(len(raw)):
        with pytest.raises(Refused):
            key.open(base64.b64encode(raw[:length]).decode(), CONTEXT)


@pytest.mark.parametrize("text", ["", "!", "swordfish?", "AAAA\n", "A" * 100_001, "ü"])
def test_what_is_no_base64_is_refused_and_not_quoted(key: SealingKey, text: str) -> None:
    with pytest.raises(Refused) as refused:
        key.open(text, CONTEXT)
    assert "swordfish" not in str(refused.value)


@pytest.mark.parametrize(
    "public",
    ["", "?", "AAAA", base64.b64encode(bytes(31)).decode(), base64.b64encode(bytes(33)).decode()],
)
def test_what_is_no_key_is_refused(public: str) -> None:
    with pytest.raises(Refused, match="sealing key"):
        seal(public, SECRET, CONTEXT)


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31)])
def test_a_key_that_gives_everybody_the_same_secret_is_refused(key: SealingKey, point: bytes) -> None:
    with pytest.raises(Refused, match="X25519"):
        seal(base64.b64encode(point).decode(), SECRET, CONTEXT)
    raw = base64.b64decode(seal(key.public, SECRET, CONTEXT))
    with pytest.raises(Refused, match="X25519"):
        key.open(base64.b64encode(raw[:1] + point + raw[33:]).decode(), CONTEXT)


def test_a_kept_key_opens_what_was_sealed_before(key: SealingKey) -> None:
    sealed = seal(key.public, SECRET, CONTEXT)
    again = SealingKey.from_bytes(key.to_bytes())
    assert again.public == key.public
    assert again.open(sealed, CONTEXT) == SECRET
    with pytest.raises(Refused, match="32 bytes"):
        SealingKey.from_bytes(b"short")


def test_a_key_shows_nothing_of_itself(key: SealingKey) -> None:
    assert key.to_bytes().hex() not in repr(key)
    assert base64.b64encode(key.to_bytes()).decode() not in repr(vars(key))


def test_documents_come_back_as_they_were() -> None:
    documents = (SECRET, b"", b"\xff\x00")
    assert unpack_documents(pack_documents(documents)) == documents


@pytest.mark.parametrize("plaintext", [b"", b"{}", b"[1]", b'["swordfish"]', b"[" * 100_000, b"\xff"])
def test_what_is_no_list_of_documents_is_refused_and_not_quoted(plaintext: bytes) -> None:
    with pytest.raises(Refused) as refused:
        unpack_documents(plaintext)
    assert "swordfish" not in str(refused.value)
