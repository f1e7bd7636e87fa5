"""Bundles and legacy signatures: what is read, what is refused by which member, and what is written."""

import base64
import copy
import json

import pytest

from edgemodel.artifact import media_types
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.signature import (
    Kind,
    SignatureEvidence,
    Unreadable,
    bundle_of,
    parse_bundle,
    parse_legacy,
    parse_openssf,
    read_bundle,
    read_legacy,
    sign_bundle,
)
from edgemodel.artifact.statement import FILES_PREDICATE, LEGACY_TYPE, parse_simple_signing, parse_statement
from edgemodel.errors import Refused
from tests.unit.artifact.signed import key

SUBJECT = Digest.of(b"manifest")
BUNDLE = json.loads(sign_bundle(key(), SUBJECT))


def encoded(value: object) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def altered(path: str, value: object) -> bytes:
    """The bundle with one member replaced, or removed when the value is None."""
    document = copy.deepcopy(BUNDLE)
    at = document
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in way:
        at = at[part]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return json.dumps(document).encode()


def test_what_is_signed_is_read_back_and_verifies():
    evidence = parse_bundle(sign_bundle(key(), SUBJECT, {"b": "2", "a": "1"}))
    assert evidence.format == "Bundle"
    assert evidence.statement.kind is Kind.SIGNATURE
    assert evidence.statement.subjects == {SUBJECT}
    assert evidence.statement.annotations == {"a": "1", "b": "2"}
    assert evidence.verified_by(key().public)
    assert not evidence.verified_by(key("stranger").public)


def test_the_bundle_has_cosigns_form():
    assert list(BUNDLE) == ["mediaType", "verificationMaterial", "dsseEnvelope"]
    assert BUNDLE["verificationMaterial"] == {"publicKey": {"hint": key().public.hint}}
    assert json.loads(base64.b64decode(BUNDLE["dsseEnvelope"]["payload"])) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": SUBJECT.hex}}],
        "predicateType": "https://sigstore.dev/cosign/sign/v1",
        "predicate": {},
    }


def test_the_signed_bytes_are_the_pre_authentication_encoding_of_the_received_payload():
    payload = b'{ "_type":"https://in-toto.io/Statement/v1",\n"predicateType":"p","subject":[{"digest":{}}] }'
    evidence = parse_bundle(bundle_of(payload, b"sig", ""))
    assert evidence.signed == b"DSSEv1 28 application/vnd.in-toto+json %d %b" % (len(payload), payload)


BAD_BUNDLES = {
    "media type": ("mediaType", "application/json", "bundle.mediaType"),
    "no material": ("verificationMaterial", None, "bundle.verificationMaterial"),
    "certificate": ("verificationMaterial", {"certificate": {}}, "keyless"),
    "hint": ("verificationMaterial.publicKey.hint", 7, "hint"),
    "long hint": ("verificationMaterial.publicKey.hint", "h" * 1025, "hint"),
    "bare signature": ("messageSignature", {}, "messageSignature"),
    "no envelope": ("dsseEnvelope", None, "bundle.dsseEnvelope"),
    "payload type": ("dsseEnvelope.payloadType", "text/plain", "payloadType"),
    "payload": ("dsseEnvelope.payload", 1, "payload: expected base64"),
    "payload's spelling": (
        "dsseEnvelope.payload",
        BUNDLE["dsseEnvelope"]["payload"].rstrip("=") + "==",
        "payload: is not base64",
    ),
    "no signature": ("dsseEnvelope.signatures", [], "exactly one"),
    "two signatures": ("dsseEnvelope.signatures", BUNDLE["dsseEnvelope"]["signatures"] * 2, "exactly one"),
    "empty signature": ("dsseEnvelope.signatures.0.sig", "", "is 0 bytes long"),
    "long signature": (
        "dsseEnvelope.signatures.0.sig",
        base64.b64encode(bytes(3000)).decode(),
        "is 3000 bytes long",
    ),
    "no JSON inside": ("dsseEnvelope.payload", base64.b64encode(b"{").decode(), "the statement is not JSON"),
    "statement type": ("dsseEnvelope.payload", encoded({"_type": "x"}), "statement._type"),
}


@pytest.mark.parametrize(("path", "value", "message"), BAD_BUNDLES.values(), ids=BAD_BUNDLES)
def test_the_member_is_named(path, value, message):
    data = altered(path, value)
    with pytest.raises(Refused, match=message) as caught:
        parse_bundle(data)
    assert caught.value.reason == "SignatureInvalid"
    assert read_bundle(data) == Unreadable("Bundle", caught.value.message)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"{}{}", b'{"mediaType":1,"mediaType":1}', b"\xff"])
def test_rubbish_is_unreadable(data):
    assert isinstance(read_bundle(data), Unreadable)


def test_what_lies_outside_the_signature_decides_nothing():
    plain = parse_bundle(json.dumps(BUNDLE).encode())
    for path, value in (
        ("verificationMaterial.publicKey.hint", "another"),
        ("verificationMaterial.tlogEntries", [{}]),
        ("dsseEnvelope.signatures.0.keyid", "another"),
        ("unknown", {"dsseEnvelope": {}}),
    ):
        evidence = parse_bundle(altered(path, value))
        assert (evidence.signed, evidence.statement) == (plain.signed, plain.statement)
        assert evidence.verified_by(key().public)


@pytest.mark.parametrize("minor", [1, 2, 3])
def test_older_bundles_are_read(minor):
    assert parse_bundle(altered("mediaType", f"application/vnd.dev.sigstore.bundle+json;version=0.{minor}"))


SIGN = "https://sigstore.dev/cosign/sign/v1"


def statement(**members: object) -> bytes:
    whole = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": SUBJECT.hex}}],
        "predicateType": SIGN,
    }
    return json.dumps({**whole, **members}).encode()


@pytest.mark.parametrize(
    ("predicate", "kind"),
    [
        (SIGN, Kind.SIGNATURE),
        (SIGN + "/", Kind.ATTESTATION),
        (SIGN.upper(), Kind.ATTESTATION),
        ("https://slsa.dev/provenance/v1", Kind.ATTESTATION),
        ("https://spdx.dev/Document", Kind.ATTESTATION),
    ],
)
def test_only_the_sign_predicate_is_a_signature(predicate, kind):
    assert parse_statement(statement(predicateType=predicate)).kind is kind


def test_subjects_with_other_digests_are_about_nothing_we_know():
    found = parse_statement(
        statement(subject=[{"digest": {"sha512": "x"}}, {"digest": {"sha256": SUBJECT.hex}}])
    )
    assert found.subjects == {SUBJECT}


BAD_STATEMENTS = {
    "no subject": ({"subject": []}, "statement.subject"),
    "subject without digest": ({"subject": [{}]}, r"subject\[0\].digest"),
    "subject with a bad digest": ({"subject": [{"digest": {"sha256": "AB"}}]}, r"subject\[0\].digest.sha256"),
    "subject with a number": ({"subject": [{"digest": {"sha256": 7}}]}, r"subject\[0\].digest.sha256"),
    "no predicate": ({"predicateType": ""}, "predicateType"),
    "annotations as list": ({"subject": [{"digest": {}, "annotations": []}]}, "annotations"),
}


@pytest.mark.parametrize(("members", "message"), BAD_STATEMENTS.values(), ids=BAD_STATEMENTS)
def test_statements_that_are_refused(members, message):
    with pytest.raises(Refused, match=message):
        parse_statement(statement(**members))


class TestLegacy:
    def payload(self, **critical: object) -> bytes:
        whole = {"type": LEGACY_TYPE, "image": {"docker-manifest-digest": str(SUBJECT)}, **critical}
        return json.dumps({"critical": whole, "optional": None}).encode()

    def test_it_verifies_over_the_payload_itself(self):
        payload = self.payload()
        evidence = parse_legacy(payload, base64.b64encode(key().sign(payload)).decode())
        assert evidence.signed is payload
        assert evidence.statement.subjects == {SUBJECT}
        assert evidence.verified_by(key().public)

    @pytest.mark.parametrize(
        "critical",
        [
            {"type": "atomic container signature"},
            {"image": {}},
            {"image": {"docker-manifest-digest": SUBJECT.hex}},
            {"image": 1},
        ],
    )
    def test_other_payloads_are_refused(self, critical):
        with pytest.raises(Refused, match=r"payload\.critical"):
            parse_simple_signing(self.payload(**critical))

    def test_a_signature_of_another_spelling_is_refused(self):
        assert isinstance(read_legacy(self.payload(), "QR=="), Unreadable)
        assert isinstance(read_legacy(b"[]", "QQ=="), Unreadable)

    def test_a_dsse_signature_is_none_of_the_payload(self):
        evidence = parse_bundle(sign_bundle(key(), SUBJECT))
        payload = base64.b64decode(BUNDLE["dsseEnvelope"]["payload"])
        assert not SignatureEvidence("Legacy", payload, evidence.signature, evidence.statement).verified_by(
            key().public
        )


class TestOpenSSF:
    FILES = (("a.onnx", Digest.of(b"a")), ("b/c", Digest.of(b"c")))

    def data(self, serialization=None, resources=None, subject=None) -> bytes:
        resources = resources or [
            {"name": name, "algorithm": "sha256", "digest": d.hex} for name, d in self.FILES
        ]
        root = Digest.of(b"".join(bytes.fromhex(d.hex) for _, d in self.FILES))
        return statement(
            predicateType=FILES_PREDICATE,
            subject=subject or [{"name": "model", "digest": {"sha256": root.hex}}],
            predicate={
                "serialization": serialization or {"method": "files", "hash_type": "sha256"},
                "resources": resources,
            },
        )

    def test_files_are_listed_and_no_manifest_is(self):
        found = parse_statement(self.data())
        assert found.kind is Kind.FILES
        assert found.files == self.FILES
        assert found.subjects == frozenset()

    def test_the_bundle_knows_its_format(self):
        payload = self.data()
        assert parse_openssf(bundle_of(payload, b"sig", "")).format == "OpenSSF"
        with pytest.raises(Refused, match="expected a list of files"):
            parse_openssf(sign_bundle(key(), SUBJECT))
        assert isinstance(read_bundle(sign_bundle(key(), SUBJECT), "OpenSSF"), Unreadable)

    BAD = {  # noqa: RUF012 - read only
        "shards": ({"serialization": {"method": "shards", "hash_type": "sha256"}}, "serialization"),
        "another hash": ({"serialization": {"method": "files", "hash_type": "blake2b"}}, "blake2b"),
        "another root": ({"subject": [{"digest": {"sha256": SUBJECT.hex}}]}, "statement.subject"),
        "two roots": ({"subject": [{"digest": {"sha256": SUBJECT.hex}}] * 2}, "statement.subject"),
        "no files": ({"resources": [{}]}, r"resources\[0\]\.name"),
        "one file twice": (
            {"resources": [{"name": "a", "algorithm": "sha256", "digest": SUBJECT.hex}] * 2},
            r"resources\[1\]\.name",
        ),
        "a file by another hash": (
            {"resources": [{"name": "a", "algorithm": "md5", "digest": "x"}]},
            "algorithm",
        ),
        "a file with a bad digest": (
            {"resources": [{"name": "a", "algorithm": "sha256", "digest": "x"}]},
            r"resources\[0\]\.digest",
        ),
        "a file that is text": ({"resources": ["a"]}, r"resources\[0\]"),
    }

    @pytest.mark.parametrize(("parts", "message"), BAD.values(), ids=BAD)
    def test_lists_that_are_refused(self, parts, message):
        with pytest.raises(Refused, match=message):
            parse_statement(self.data(**parts))


def test_media_type_is_the_one_of_version_three():
    assert BUNDLE["mediaType"] == media_types.BUNDLE == "application/vnd.dev.sigstore.bundle.v0.3+json"
