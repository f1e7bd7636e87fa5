"""Bytes that are read for ever: signed artifacts as they lay in a registry, and the verdict each must get."""

import json
from datetime import UTC, datetime

import pytest

from edgemodel.api.conditions import Reason
from edgemodel.api.trust_policy import ModelTrustPolicy
from edgemodel.artifact import media_types
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.manifest import EMPTY_DESCRIPTOR, Index, Manifest, Release, model_files, release
from edgemodel.artifact.policy import Policy
from edgemodel.artifact.reference import Reference
from edgemodel.artifact.signature import (
    Kind,
    PrivateKey,
    PublicKey,
    parse_bundle,
    parse_legacy,
    parse_openssf,
    read_bundle,
    read_legacy,
)
from edgemodel.artifact.trust import judge
from tests.unit.artifact.signed import NOW, VECTORS

COSIGN = VECTORS / "cosign-3.1.1"
OURS = VECTORS / "edgemodel-0.1"
OPENSSF = VECTORS / "openssf-1.1.1"
KINDS = ["ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-3072"]


def policy(pem: str, formats=("Bundle", "Legacy")) -> Policy:
    return Policy.from_resource(
        ModelTrustPolicy.model_validate(
            {
                "metadata": {"name": "site"},
                "spec": {
                    "match": {"images": ["registry.example.com/**"]},
                    "authorities": [{"name": "publisher", "publicKey": pem}],
                    "formats": list(formats),
                },
            }
        )
    )


def judged(raw: bytes, evidence, rules: Policy, repository: str = "models/detector"):
    at = Reference("registry.example.com", repository, digest=Digest.of(raw))
    return judge(at, raw, evidence, [rules], now=NOW)


def legacy():
    manifest = Manifest.parse((COSIGN / "leg/tag-sig.json").read_bytes())
    layer = manifest.layers[0]
    payload = (COSIGN / "leg/payload.json").read_bytes()
    assert layer.media_type == media_types.SIMPLE_SIGNING
    assert (Digest.of(payload), len(payload)) == (layer.digest, layer.size)
    return payload, layer.annotations[media_types.COSIGN_SIGNATURE]


class TestCosign:
    pem = (COSIGN / "cosign.pub").read_text()

    @pytest.mark.parametrize("name", ["det", "leg", "att"])
    def test_manifests_have_the_digest_that_cosign_saw(self, name):
        manifest = Manifest.parse((COSIGN / name / "manifest.json").read_bytes())
        assert manifest.digest == (COSIGN / name / "digest").read_text().strip()
        assert manifest.artifact_type == media_types.MODEL_ARTIFACT

    def test_a_bundle_is_accepted(self):
        outcome = judged(
            (COSIGN / "det/manifest.json").read_bytes(),
            [read_bundle((COSIGN / "det/bundle.json").read_bytes())],
            policy(self.pem),
        )
        assert outcome.refusal is None
        assert outcome.verified_by == ("site/publisher",)
        assert outcome.release == Release(created=datetime(2026, 11, 24, 12, 32, 12, tzinfo=UTC))

    def test_annotations_of_the_statement_are_at_hand(self):
        evidence = parse_bundle((COSIGN / "det/bundle.json").read_bytes())
        assert evidence.statement.annotations == {"edge.sequence": "3"}
        assert evidence.hint == PublicKey.from_pem(self.pem).hint

    @pytest.mark.parametrize(
        ("formats", "expected"),
        [(("Bundle", "Legacy"), None), (("Legacy",), None), (("Bundle",), Reason.SIGNATURE_MISSING)],
    )
    def test_a_legacy_signature_is_accepted_where_the_policy_takes_it(self, formats, expected):
        outcome = judged(
            (COSIGN / "leg/manifest.json").read_bytes(), [read_legacy(*legacy())], policy(self.pem, formats)
        )
        assert (outcome.refusal and outcome.refusal.reason) == expected
        assert parse_legacy(*legacy()).statement.annotations == {"edge.sequence": "4"}

    def test_an_attestation_by_the_same_key_is_no_signature(self):
        # cosign verify 3.1.1 accepts this artifact.
        evidence = parse_bundle((COSIGN / "att/bundle.json").read_bytes())
        raw = (COSIGN / "att/manifest.json").read_bytes()
        assert evidence.verified_by(PublicKey.from_pem(self.pem))
        assert evidence.statement.kind is Kind.ATTESTATION
        assert Digest.of(raw) in evidence.statement.subjects
        outcome = judged(raw, [evidence], policy(self.pem))
        assert outcome.refusal.reason == Reason.SIGNATURE_MISSING
        assert "https://example.com/scan/v1" in outcome.refusal.message

    def test_referrers_and_the_fallback_index_are_read_though_the_index_misnames_them(self):
        for name in ("det", "att"):
            index = Index.parse((COSIGN / name / "tag-fallback-index.json").read_bytes())
            referrer_bytes = (COSIGN / name / "referrer-manifest.json").read_bytes()
            referrer = Manifest.parse(referrer_bytes)
            assert [entry.digest for entry in index.manifests] == [referrer.digest]
            assert index.manifests[0].artifact_type == media_types.OCI_EMPTY
            assert referrer.artifact_type == media_types.BUNDLE
            assert referrer.subject.digest == (COSIGN / name / "digest").read_text().strip()
            assert referrer.layers[0].digest == Digest.of((COSIGN / name / "bundle.json").read_bytes())

    def test_the_encrypted_key_file_opens_with_its_password(self):
        key = PrivateKey.load((COSIGN / "cosign.key").read_bytes(), b"x")
        assert key.public == PublicKey.from_pem(self.pem)


@pytest.mark.parametrize("kind", KINDS)
class TestOurs:
    def test_it_is_accepted_with_all_its_facts(self, kind):
        folder = OURS / kind
        raw = (folder / "manifest.json").read_bytes()
        rules = policy((folder / "key.pub").read_text())
        outcome = judged(raw, [read_bundle((folder / "bundle.json").read_bytes())], rules)
        assert outcome.refusal is None
        assert outcome.digest == (folder / "digest").read_text()
        assert [file.path for file in outcome.files] == ["model.onnx", "labels.json"]
        assert outcome.release == Release(
            name="models/detector",
            version="1.4.0",
            sequence=14,
            created=datetime(2026, 11, 24, 12, tzinfo=UTC),
            expires=datetime(2030, 1, 1, tzinfo=UTC),
        )

    def test_another_kinds_key_does_not_do(self, kind):
        other = KINDS[KINDS.index(kind) - 1]
        raw = (OURS / kind / "manifest.json").read_bytes()
        rules = policy((OURS / other / "key.pub").read_text())
        outcome = judged(raw, [read_bundle((OURS / kind / "bundle.json").read_bytes())], rules)
        assert outcome.refusal.reason == Reason.KEY_UNKNOWN

    def test_the_referrer_is_what_cosign_writes(self, kind):
        ours = json.loads((OURS / kind / "referrer-manifest.json").read_bytes())
        theirs = json.loads((COSIGN / "det/referrer-manifest.json").read_bytes())
        # cosign repeats the artifact type inside the config descriptor, which has no such meaning there.
        assert theirs["config"].pop("artifactType") == media_types.BUNDLE
        theirs["subject"] = ours["subject"]
        theirs["layers"][0].update({name: ours["layers"][0][name] for name in ("digest", "size")})
        theirs["annotations"][media_types.CREATED] = ours["annotations"][media_types.CREATED]
        assert ours == theirs
        assert (
            Manifest.parse((OURS / kind / "referrer-manifest.json").read_bytes()).config == EMPTY_DESCRIPTOR
        )

    def test_the_key_file_opens_with_its_password(self, kind):
        key = PrivateKey.load((OURS / kind / "key.pem").read_bytes(), b"vectors")
        assert key.public.pem == (OURS / kind / "key.pub").read_text()


@pytest.mark.parametrize("kind", KINDS[1:])
def test_what_cosign_signed_with_the_same_key_is_accepted(kind):
    raw = (OURS / kind / "manifest.json").read_bytes()
    evidence = read_bundle((OURS / kind / "bundle-by-cosign-3.1.1.json").read_bytes())
    assert judged(raw, [evidence], policy((OURS / kind / "key.pub").read_text())).refusal is None


class TestOpenSSF:
    raw = (OPENSSF / "manifest.json").read_bytes()
    pem = (OPENSSF / "key.pub").read_text()
    data = (OPENSSF / "model.sig").read_bytes()

    def test_the_files_are_accepted_and_the_unsigned_facts_are_not(self):
        manifest = Manifest.parse(self.raw)
        assert release(manifest).sequence == 999
        assert "model.sig" in [file.path for file in model_files(manifest)]
        outcome = judged(self.raw, [read_bundle(self.data, "OpenSSF")], policy(self.pem, ["OpenSSF"]))
        assert outcome.refusal is None
        assert outcome.release == Release()

    def test_it_lists_the_files_that_lie_beside_it(self):
        listed = parse_openssf(self.data).statement.files
        folder = OPENSSF / "model"
        there = sorted(path for path in folder.rglob("*") if path.is_file())
        assert listed == tuple(
            (path.relative_to(folder).as_posix(), Digest.of(path.read_bytes())) for path in there
        )

    def test_a_policy_that_does_not_take_the_format_sees_no_signature(self):
        outcome = judged(self.raw, [read_bundle(self.data)], policy(self.pem))
        assert outcome.refusal.reason == Reason.SIGNATURE_MISSING
