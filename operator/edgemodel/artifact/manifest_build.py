"""Writes manifests: of models (CNCF ModelPack), of signatures (as cosign 3 does), the index of referrers.

Promises: the same arguments give the same bytes; what is written here is read back by ``Manifest.parse``,
``model_files`` and ``release`` to the same values. Leaves to others: sending the bytes anywhere.

Formats: modelpack/model-spec docs/spec.md and docs/config.md; sigstore/cosign pkg/oci/remote/write.go.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from edgemodel.artifact import media_types
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.model_files import ModelFile, Paths
from edgemodel.artifact.oci_manifest import Descriptor
from edgemodel.artifact.release import Release, annotations, format_time

EMPTY_CONFIG = b"{}"
"""The config blob of a manifest that needs none (OCI image spec, "Guidance for an Empty Descriptor")."""
EMPTY_DESCRIPTOR = Descriptor(media_types.OCI_EMPTY, Digest.of(EMPTY_CONFIG), len(EMPTY_CONFIG))
SIGN_PREDICATE = "https://sigstore.dev/cosign/sign/v1"
"""Predicate type of a statement that is a signature and no attestation."""


def build_manifest(
    files: Sequence[ModelFile],
    config: Descriptor,
    release: Release,
    extra: Mapping[str, str] | None = None,
) -> bytes:
    """Return the manifest of a ModelPack artifact.

    Args:
        files: raw files with their paths; the order is kept.
        config: of the blob that ``build_config`` made.
        release: becomes annotations.
        extra: more annotations of the manifest; release facts win.

    Raises:
        Refused: ``MalformedArtifact``; a path or a release fact could not be read back.
    """
    paths = Paths()
    layers = []
    for file in files:
        path = paths.add(file.path)
        named = {media_types.FILEPATH: path, media_types.TITLE: path}
        layers.append(replace(file.descriptor, annotations={**file.descriptor.annotations, **named}))
    return _bytes(
        {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "artifactType": media_types.MODEL_ARTIFACT,
            "config": _descriptor(config),
            "layers": [_descriptor(layer) for layer in layers],
            "annotations": dict(sorted({**(extra or {}), **annotations(release)}.items())),
        }
    )


def build_config(
    release: Release,
    layers: Sequence[Digest],
    *,
    about: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
) -> bytes:
    """Return the ModelPack config blob.

    Args:
        release: gives name, version and creation time.
        layers: digests of the layers, uncompressed, in the manifest's order.
        about: more members of ``descriptor`` (``licenses``, ``title``, ``vendor``, …).
        model: more members of ``config`` (``precision``, ``paramSize``, ``architecture``, …).
    """
    descriptor: dict[str, Any] = dict(about or {})
    if release.created is not None:
        descriptor["createdAt"] = format_time(release.created)
    if release.name is not None:
        descriptor["name"] = release.name
    if release.version is not None:
        descriptor["version"] = release.version
    return _bytes(
        {
            "descriptor": dict(sorted(descriptor.items())),
            "config": dict(sorted({"format": "onnx", **(model or {})}.items())),
            "modelfs": {"type": "layers", "diffIds": [str(digest) for digest in layers]},
        }
    )


def build_signature_manifest(bundle: Descriptor, subject: Descriptor, created: datetime) -> bytes:
    """Return the referrer that attaches a Sigstore bundle to ``subject``, as ``cosign sign`` 3 writes it."""
    return build_referrer(
        media_types.BUNDLE,
        [replace(bundle, media_type=media_types.BUNDLE)],
        subject,
        annotations={
            media_types.BUNDLE_CONTENT: "dsse-envelope",
            media_types.BUNDLE_PREDICATE: SIGN_PREDICATE,
            media_types.CREATED: format_time(created),
        },
    )


def build_referrer(
    artifact_type: str, layers: Sequence[Descriptor], subject: Descriptor, *, annotations: Mapping[str, str]
) -> bytes:
    """Return a manifest with an empty config that refers to ``subject``."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": _descriptor(EMPTY_DESCRIPTOR),
        "layers": [_descriptor(layer) for layer in layers],
        "subject": _descriptor(Descriptor(subject.media_type, subject.digest, subject.size)),
    }
    if annotations:
        document["annotations"] = dict(annotations)
    return _bytes(document)


def build_index(manifests: Sequence[Descriptor], extra: Mapping[str, str] | None = None) -> bytes:
    """Return an index: what the tag ``sha256-<hex>`` holds where a registry has no referrers API."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_INDEX,
        "manifests": [_descriptor(entry) for entry in manifests],
    }
    if extra:
        document["annotations"] = dict(sorted(extra.items()))
    return _bytes(document)


def _descriptor(value: Descriptor) -> dict[str, Any]:
    document: dict[str, Any] = {
        "mediaType": value.media_type,
        "digest": str(value.digest),
        "size": value.size,
    }
    if value.artifact_type is not None:
        document["artifactType"] = value.artifact_type
    if value.annotations:
        document["annotations"] = dict(sorted(value.annotations.items()))
    return document


def _bytes(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
