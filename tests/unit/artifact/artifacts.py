"""Makes signed model artifacts in a registry simulator, as a publisher would."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from edgemodel.artifact import media_types
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.keys import PrivateKey
from edgemodel.artifact.manifest import (
    SAMPLES_PATH,
    Descriptor,
    Manifest,
    ModelFile,
    Release,
    build_config,
    build_index,
    build_manifest,
    build_signature_manifest,
)
from edgemodel.artifact.policy import Policy, TrustedKey
from edgemodel.artifact.reference import Reference
from edgemodel.artifact.signature import sign_bundle
from tests.simulators.registry import INDEX, RegistrySimulator

KEY = PrivateKey.generate()
OTHER_KEY = PrivateKey.generate()
POLICY = Policy("site", ("**",), (TrustedKey("publisher", KEY.public),))
RELEASE = Release(name="detector", version="1.4.0", sequence=7, created=datetime(2026, 1, 1, tzinfo=UTC))
REPOSITORY = "models/detector"


@dataclass
class Published:
    """An artifact that lies in a simulator."""

    reference: Reference
    manifest: Manifest

    @property
    def pinned(self) -> Reference:
        return self.reference.pinned(self.manifest.digest)


def layer(content: bytes, media_type: str = media_types.MODEL_WEIGHT) -> Descriptor:
    return Descriptor(media_type, Digest.of(content), len(content))


def publish(
    simulator: RegistrySimulator,
    files: Mapping[str, bytes],
    *,
    key: PrivateKey | None = KEY,
    release: Release = RELEASE,
    tag: str = "v1",
) -> Published:
    """Put raw files (and golden samples) into the simulator as a model, signed unless ``key`` is None."""
    model_files = [
        ModelFile(
            path, layer(content, media_types.SAMPLES if path == SAMPLES_PATH else media_types.MODEL_WEIGHT)
        )
        for path, content in files.items()
    ]
    config = build_config(release, [file.descriptor.digest for file in model_files])
    config_descriptor = Descriptor(media_types.MODEL_CONFIG, Digest.of(config), len(config))
    for content in (config, *files.values()):
        simulator.add_blob(REPOSITORY, content)
    return put(simulator, build_manifest(model_files, config_descriptor, release), key=key, tag=tag)


def put(
    simulator: RegistrySimulator, content: bytes, *, key: PrivateKey | None = KEY, tag: str = "v1"
) -> Published:
    """Put a manifest into the simulator, signed unless ``key`` is None."""
    simulator.add_manifest(REPOSITORY, content, tag=tag)
    published = Published(Reference(simulator.host, REPOSITORY, tag), Manifest.parse(content))
    if key is not None:
        attach(simulator, published, sign_bundle(key, published.manifest.digest))
    return published


def attach(simulator: RegistrySimulator, published: Published, bundle: bytes) -> str:
    """Attach a bundle as cosign does: as a referrer, and under the fallback tag where there is no referrers API."""
    descriptor = layer(bundle, media_types.BUNDLE)
    simulator.add_blob(REPOSITORY, bundle)
    manifest = build_signature_manifest(
        descriptor, published.manifest.descriptor, datetime(2026, 1, 1, tzinfo=UTC)
    )
    digest = simulator.add_manifest(REPOSITORY, manifest)
    if not simulator.referrers:
        # cosign writes this wrong type into the index, so readers must not rely on it.
        entry = replace(Manifest.parse(manifest).descriptor, artifact_type=media_types.OCI_EMPTY)
        index = build_index([entry])
        simulator.add_manifest(
            REPOSITORY, index, tag=f"sha256-{published.manifest.digest.hex}", media_type=INDEX
        )
    return digest


def attach_legacy(simulator: RegistrySimulator, published: Published, key: PrivateKey = KEY) -> None:
    """Attach a simple-signing signature under the ``.sig`` tag."""
    from base64 import b64encode

    payload = json.dumps(
        {
            "critical": {
                "identity": {"docker-reference": ""},
                "image": {"docker-manifest-digest": published.manifest.digest},
                "type": "cosign container image signature",
            },
            "optional": None,
        }
    ).encode()
    simulator.add_blob(REPOSITORY, payload)
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": {"mediaType": media_types.OCI_CONFIG, "digest": Digest.of(b"{}"), "size": 2},
        "layers": [
            {
                "mediaType": media_types.SIMPLE_SIGNING,
                "digest": Digest.of(payload),
                "size": len(payload),
                "annotations": {media_types.COSIGN_SIGNATURE: b64encode(key.sign(payload)).decode()},
            }
        ],
    }
    tag = f"sha256-{published.manifest.digest.hex}.sig"
    simulator.add_manifest(REPOSITORY, json.dumps(document).encode(), tag=tag)
