"""Gathering from a registry: every place a signature can be, with bytes that real tools wrote; and bounded work."""

import dataclasses
import json
from pathlib import Path

import pytest

from edgemodel.artifact.digest import Digest
from edgemodel.artifact.keys import PublicKey
from edgemodel.artifact.policy import Policy, TrustedKey
from edgemodel.artifact.registry_settings import Limits
from edgemodel.artifact.signature import Kind, SignatureEvidence, Unreadable, sign_bundle
from edgemodel.artifact.verify import MAX_EVIDENCE_BYTES, MAX_LAYERS, Examined, examine
from edgemodel.errors import Refused, Transient
from tests.simulators.registry import INDEX, RegistrySimulator
from tests.unit.artifact.artifacts import (
    KEY,
    OTHER_KEY,
    POLICY,
    REPOSITORY,
    attach,
    attach_legacy,
    publish,
    put,
)
from tests.unit.artifact.registry_client import SHORT, at, client

VECTORS = Path(__file__).parents[2] / "vectors"


def cosign_policy(*formats: str) -> Policy:
    key = PublicKey.from_pem((VECTORS / "cosign-3.1.1/cosign.pub").read_bytes())
    return Policy("site", ("**",), (TrustedKey("cosign", key),), formats=frozenset(formats))  # type: ignore[arg-type]


def load(simulator: RegistrySimulator, name: str) -> Digest:
    """Put a vector into a registry as cosign left it there; return the artifact's digest."""
    folder = VECTORS / "cosign-3.1.1" / name
    digest = Digest(simulator.add_manifest(REPOSITORY, (folder / "manifest.json").read_bytes(), tag="v1"))
    if name == "leg":
        simulator.add_blob(REPOSITORY, (folder / "payload.json").read_bytes())
        content = (folder / "tag-sig.json").read_bytes()
        simulator.add_manifest(REPOSITORY, content, tag=f"sha256-{digest.hex}.sig")
        return digest
    simulator.add_blob(REPOSITORY, (folder / "bundle.json").read_bytes())
    simulator.add_manifest(REPOSITORY, (folder / "referrer-manifest.json").read_bytes())
    if not simulator.referrers:
        content = (folder / "tag-fallback-index.json").read_bytes()
        simulator.add_manifest(REPOSITORY, content, tag=f"sha256-{digest.hex}", media_type=INDEX)
    return digest


async def examined(simulator: RegistrySimulator, limits: Limits = SHORT) -> Examined:
    async with client(simulator, limits=limits) as registry:
        return await examine(registry, at(simulator, repository=REPOSITORY))


@pytest.mark.parametrize("referrers", [True, False], ids=["referrers API", "fallback tag"])
async def test_what_cosign_signed_is_found_and_accepted(referrers):
    async with RegistrySimulator(referrers=referrers) as simulator:
        digest = load(simulator, "det")
        found = await examined(simulator)
    assert found.digest == digest
    verdict = found.judge([cosign_policy("Bundle")])
    assert verdict.verified_by == ("site/cosign",)
    assert found.evidence[0].statement.annotations == {"edge.sequence": "3"}  # type: ignore[union-attr]


async def test_what_an_older_cosign_signed_is_found_and_accepted_if_the_policy_allows_it():
    async with RegistrySimulator() as simulator:
        load(simulator, "leg")
        found = await examined(simulator)
    assert found.judge([cosign_policy("Bundle", "Legacy")]).verified_by == ("site/cosign",)
    refusal = found.judge([cosign_policy("Bundle")]).refusal
    assert refusal is not None
    assert refusal.reason == "SignatureMissing"


@pytest.mark.parametrize("referrers", [True, False], ids=["referrers API", "fallback tag"])
async def test_an_attestation_is_found_and_is_no_signature(referrers):
    async with RegistrySimulator(referrers=referrers) as simulator:
        load(simulator, "att")
        found = await examined(simulator)
    (evidence,) = found.evidence
    assert isinstance(evidence, SignatureEvidence)
    assert evidence.statement.kind is Kind.ATTESTATION
    refusal = found.judge([cosign_policy("Bundle", "Legacy")]).refusal
    assert refusal is not None
    assert refusal.reason == "SignatureMissing"


async def test_a_signature_over_files_is_found_among_them():
    folder = VECTORS / "openssf-1.1.1"
    manifest = (folder / "manifest.json").read_bytes()
    async with RegistrySimulator() as simulator:
        put(simulator, manifest, key=None)
        simulator.add_blob(REPOSITORY, next(folder.rglob("model.sig")).read_bytes())
        found = await examined(simulator)
    assert [item.format for item in found.evidence] == ["OpenSSF"]


async def test_referrers_of_other_kinds_are_no_evidence():
    async with RegistrySimulator() as simulator:
        published = publish(simulator, {"m.onnx": b"x"})
        sbom = {
            "schemaVersion": 2,
            "artifactType": "application/spdx+json",
            "config": {
                "mediaType": "application/vnd.oci.empty.v1+json",
                "digest": Digest.of(b"{}"),
                "size": 2,
            },
            "layers": [{"mediaType": "application/spdx+json", "digest": Digest.of(b"{}"), "size": 2}],
            "subject": {"mediaType": "x/y", "digest": published.manifest.digest, "size": 1},
        }
        simulator.add_manifest(REPOSITORY, json.dumps(sbom).encode())
        simulator.add_manifest(REPOSITORY, json.dumps({**sbom, "layers": []}).encode())
        found = await examined(simulator)
    assert len(found.evidence) == 1


async def test_a_signature_with_other_bytes_than_said_is_unreadable_not_fatal():
    async with RegistrySimulator() as simulator:
        published = publish(simulator, {"m.onnx": b"x"})
        bundle = sign_bundle(OTHER_KEY, published.manifest.digest)
        attach(simulator, published, bundle)
        simulator.blobs[REPOSITORY][Digest.of(bundle)] = bundle[:-1] + b" "
        found = await examined(simulator)
    assert sorted(type(item).__name__ for item in found.evidence) == ["SignatureEvidence", "Unreadable"]
    assert found.judge([POLICY]).refusal is None


async def test_a_flood_of_referrers_is_bounded_and_signatures_come_first():
    limits = dataclasses.replace(SHORT, referrers=5)
    async with RegistrySimulator() as simulator:
        published = publish(simulator, {"m.onnx": b"x"}, key=None)
        for number in range(20):
            rubbish = {
                "schemaVersion": 2,
                "config": {
                    "mediaType": "application/vnd.oci.empty.v1+json",
                    "digest": Digest.of(b"{}"),
                    "size": 2,
                },
                "layers": [],
                "subject": {"mediaType": "x/y", "digest": published.manifest.digest, "size": 1},
                "annotations": {"number": str(number)},
            }
            simulator.add_manifest(REPOSITORY, json.dumps(rubbish).encode())
        attach(simulator, published, sign_bundle(KEY, published.manifest.digest))
        found = await examined(simulator, limits)
        assert len(simulator.seen("GET", "/manifests/sha256:")) <= limits.referrers + 1
    assert found.judge([POLICY]).verified_by == ("site/publisher",)


async def test_a_flood_of_bytes_and_layers_is_bounded():
    async with RegistrySimulator() as simulator:
        published = publish(simulator, {"m.onnx": b"x"}, key=None)
        size = 3 << 20
        blobs = [simulator.add_blob(REPOSITORY, bytes([number]) * size) for number in range(MAX_LAYERS + 4)]
        bundle = "application/vnd.dev.sigstore.bundle.v0.3+json"
        referrer = {
            "schemaVersion": 2,
            "config": {
                "mediaType": "application/vnd.oci.empty.v1+json",
                "digest": Digest.of(b"{}"),
                "size": 2,
            },
            "layers": [{"mediaType": bundle, "digest": blob, "size": size} for blob in blobs],
            "subject": {"mediaType": "x/y", "digest": published.manifest.digest, "size": 1},
        }
        simulator.add_manifest(REPOSITORY, json.dumps(referrer).encode())
        found = await examined(simulator)
        assert len(simulator.seen("GET", "/blobs/")) <= MAX_EVIDENCE_BYTES // size
    assert len(found.attachments) <= MAX_LAYERS
    assert sum(len(item.content) for item in found.attachments) <= 4 << 20
    assert all(isinstance(item, Unreadable) for item in found.evidence)


@pytest.mark.parametrize(
    ("said", "copies"), [(1 << 50, 1), (4 << 20, MAX_LAYERS), (1000, 1)], ids=["huge", "all room", "a little"]
)
async def test_one_signature_that_says_it_is_larger_than_it_is_hides_no_other(said, copies):
    """Registries take any size for said; such a referrer costs whoever may push a few bytes."""
    async with RegistrySimulator() as simulator:
        published = publish(simulator, {"m.onnx": b"x"}, key=None)
        layer = {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "digest": simulator.add_blob(REPOSITORY, b"{}"),
            "size": said,
        }
        referrer = {
            "schemaVersion": 2,
            "artifactType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "config": {
                "mediaType": "application/vnd.oci.empty.v1+json",
                "digest": Digest.of(b"{}"),
                "size": 2,
            },
            "layers": [layer] * copies,
            "subject": {"mediaType": "x/y", "digest": published.manifest.digest, "size": 1},
        }
        simulator.add_manifest(REPOSITORY, json.dumps(referrer).encode())
        attach_legacy(simulator, published)
        found = await examined(simulator)
    assert found.judge([dataclasses.replace(POLICY, formats=frozenset({"Legacy"}))]).refusal is None


async def test_a_fallback_index_that_cannot_be_read_does_not_hide_the_legacy_tag():
    async with RegistrySimulator(referrers=False) as simulator:
        digest = load(simulator, "leg")
        simulator.add_manifest(REPOSITORY, b'{"manifests": 7}', tag=f"sha256-{digest.hex}", media_type=INDEX)
        found = await examined(simulator)
    assert found.judge([cosign_policy("Legacy")]).verified_by == ("site/cosign",)


async def test_a_legacy_manifest_that_cannot_be_read_does_not_hide_a_bundle():
    async with RegistrySimulator() as simulator:
        digest = load(simulator, "det")
        simulator.add_manifest(REPOSITORY, b"[]", tag=f"sha256-{digest.hex}.sig")
        found = await examined(simulator)
    assert found.judge([cosign_policy("Bundle", "Legacy")]).verified_by == ("site/cosign",)


@pytest.mark.parametrize("path", ["/referrers/", r"\.sig$"])
async def test_a_list_that_a_broken_registry_withholds_leaves_the_answer_open(path):
    async with RegistrySimulator() as simulator:
        publish(simulator, {"m.onnx": b"x"}, key=None)
        simulator.fault("GET", path, times=None, status=503)
        with pytest.raises(Transient):
            await examined(simulator)


async def test_a_manifest_that_changed_under_its_digest_is_refused():
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        published = publish(simulator, {"m.onnx": b"x"})
        simulator.fault("GET", published.manifest.digest, corrupt=30, times=None)
        with pytest.raises(Refused) as caught:
            await examine(registry, published.pinned)
    assert caught.value.reason == "DigestMismatch"


async def test_a_poll_of_an_unchanged_tag_downloads_nothing_but_the_manifest_and_signatures():
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        published = publish(simulator, {"m.onnx": b"x" * 5000})
        await examine(registry, published.reference, known=published.manifest.digest)
        layers = {layer.digest for layer in published.manifest.layers}
        assert not layers & {request.path.rpartition("/")[2] for request in simulator.requests}
        assert not simulator.seen("GET", "/manifests/v1")
