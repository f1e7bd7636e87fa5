"""Signatures under mutation: of every altered document, either it is refused or what it says is what was signed.

Exactly: let D be a good document and D' any other bytes. Reading D' ends in a refusal; or its signature does not
verify; or the signed bytes it yields, and with them the statement, equal those of D. What may differ in the last case
is only what decides nothing: of a bundle, the key hint and JSON's own freedom (white space, unknown members).
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemodel.artifact.keys import PublicKey
from edgemodel.artifact.manifest import Manifest
from edgemodel.artifact.media_types import COSIGN_SIGNATURE
from edgemodel.artifact.signature import Unreadable, read_bundle, read_legacy
from tests.properties.mutation import mutations, single_bit_flips
from tests.unit.artifact.signed import VECTORS

COSIGN = VECTORS / "cosign-3.1.1"
BUNDLES = {
    "cosign": (COSIGN / "det/bundle.json", COSIGN / "cosign.pub"),
    **{
        kind: (VECTORS / "edgemodel-0.1" / kind / "bundle.json", VECTORS / "edgemodel-0.1" / kind / "key.pub")
        for kind in ("ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-3072")
    },
    "openssf": (VECTORS / "openssf-1.1.1/model.sig", VECTORS / "openssf-1.1.1/key.pub"),
}
LOADED = {
    name: (bundle.read_bytes(), PublicKey.from_pem(pem.read_text()))
    for name, (bundle, pem) in BUNDLES.items()
}
LEGACY_KEY = LOADED["cosign"][1]
PAYLOAD = (COSIGN / "leg/payload.json").read_bytes()
ANNOTATION = (
    Manifest.parse((COSIGN / "leg/tag-sig.json").read_bytes()).layers[0].annotations[COSIGN_SIGNATURE]
)


def accepted(evidence, key) -> bool:
    return not isinstance(evidence, Unreadable) and evidence.verified_by(key)


def says_the_same(one, other) -> bool:
    return (one.format, one.signed, one.statement) == (other.format, other.signed, other.statement)


@pytest.mark.parametrize("name", ["cosign", "rsa-3072", "openssf"])
def test_a_flipped_bit_is_accepted_only_where_nothing_is_decided(name):
    data, key = LOADED[name]
    original = read_bundle(data)
    assert accepted(original, key)
    # The hint and its name; and of model_signing's two empty members their names: a misspelt one is an unknown member.
    unsigned = set(range(data.index(b'"hint"'), data.index(b"}", data.index(b'"hint"'))))
    for name_of_empty in (b'"keyid"', b'"tlogEntries"'):
        if name_of_empty in data:
            start = data.index(name_of_empty)
            unsigned |= set(range(start, start + len(name_of_empty)))
    for place, flipped in single_bit_flips(data):
        evidence = read_bundle(flipped)
        if accepted(evidence, key):
            assert place in unsigned, (place, flipped[max(0, place - 20) : place + 20])
            assert says_the_same(evidence, original)


def test_every_flipped_bit_of_a_legacy_payload_is_noticed():
    assert accepted(read_legacy(PAYLOAD, ANNOTATION), LEGACY_KEY)
    for place, flipped in single_bit_flips(PAYLOAD):
        assert not accepted(read_legacy(flipped, ANNOTATION), LEGACY_KEY), place


def test_every_flipped_bit_of_a_legacy_annotation_is_noticed():
    for place, flipped in single_bit_flips(ANNOTATION.encode()):
        text = flipped.decode("utf-8", "replace")
        assert not accepted(read_legacy(PAYLOAD, text), LEGACY_KEY), place


@given(
    st.sampled_from(sorted(LOADED)).flatmap(lambda name: st.tuples(st.just(name), mutations(LOADED[name][0])))
)
def test_a_mutated_bundle_is_refused_or_says_the_same(case):
    name, mutated = case
    data, key = LOADED[name]
    evidence = read_bundle(mutated)
    assert not accepted(evidence, key) or says_the_same(evidence, read_bundle(data))


@given(
    mutations(PAYLOAD),
    st.one_of(st.just(ANNOTATION), mutations(ANNOTATION.encode()).map(lambda text: text.decode("latin-1"))),
)
def test_a_mutated_legacy_signature_is_refused_or_says_the_same(payload, annotation):
    evidence = read_legacy(payload, annotation)
    assert not accepted(evidence, LEGACY_KEY) or says_the_same(evidence, read_legacy(PAYLOAD, ANNOTATION))


@given(st.binary(max_size=300), st.text(max_size=100))
def test_any_bytes_are_read_or_unreadable(data, text):
    for evidence in (read_bundle(data), read_bundle(data, "OpenSSF"), read_legacy(data, text)):
        assert not accepted(evidence, LEGACY_KEY)


@given(st.sampled_from(sorted(LOADED)), st.sampled_from(sorted(LOADED)))
def test_only_the_signers_own_key_verifies(signer, other):
    evidence = read_bundle(LOADED[signer][0])
    assert accepted(evidence, LOADED[other][1]) == (signer == other)
