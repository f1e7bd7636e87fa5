"""Makes signed artifacts and policies for tests, in memory; and finds the vectors."""

import functools
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from edgemodel.artifact import media_types
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.manifest import (
    Descriptor,
    Manifest,
    ModelFile,
    Release,
    build_config,
    build_manifest,
)
from edgemodel.artifact.policy import Policy, TrustedKey
from edgemodel.artifact.reference import Reference
from edgemodel.artifact.signature import PrivateKey, SignatureEvidence, parse_bundle, sign_bundle

VECTORS = Path(__file__).parents[2] / "vectors"
NOW = datetime(2026, 11, 24, 13, tzinfo=UTC)
FACTS = Release(name="detector", version="1.4.0", sequence=14, created=datetime(2026, 11, 20, tzinfo=UTC))


def key(name: str = "publisher") -> PrivateKey:
    """The same key for the same name, within one run."""
    return _generated(name)


@functools.cache
def _generated(name: str) -> PrivateKey:
    return PrivateKey.generate()


def file(
    path: str = "model.onnx", content: bytes = b"weights", media_type: str = media_types.MODEL_WEIGHT
) -> ModelFile:
    return ModelFile(path, Descriptor(media_type, Digest.of(content), len(content)))


def artifact(
    facts: Release = FACTS, files: tuple[ModelFile, ...] = (), extra: dict[str, str] | None = None
) -> Manifest:
    files = files or (file(),)
    config = build_config(facts, [each.descriptor.digest for each in files])
    described = Descriptor(media_types.MODEL_CONFIG, Digest.of(config), len(config))
    return Manifest.parse(build_manifest(files, described, facts, extra))


def reference(manifest: Manifest, name: str = "registry.example.com/models/detector") -> Reference:
    return Reference.parse(f"{name}@{manifest.digest}")


def signed(manifest: Manifest, by: str = "publisher") -> SignatureEvidence:
    return parse_bundle(sign_bundle(key(by), manifest.digest))


def trusted(name: str = "publisher", **limits: object) -> TrustedKey:
    return replace(TrustedKey(name, key(name).public), **limits)  # type: ignore[arg-type]


def policy(*keys: TrustedKey, **rules: object) -> Policy:
    made = Policy("site", ("registry.example.com/**",), keys or (trusted(),))
    return replace(made, **rules)  # type: ignore[arg-type]
