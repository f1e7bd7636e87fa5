"""Attaches signatures, and whatever else refers to an artifact, to it in a registry: where cosign and we look for it.

Promises: the signature manifest is what ``cosign sign`` 3 writes; where the registry has no referrers API, the fallback
tag's index keeps every entry it has and gains one, and ours is there in the end although others write too. Leaves to
others: making the signature (``signature``).

Source: OCI distribution-spec 1.1, "Pushing Manifests with Subject" and "Unavailable Referrers API".
"""

import asyncio
import dataclasses
import random
from dataclasses import dataclass
from datetime import datetime

from edgemodel.artifact import media_types
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.manifest import (
    EMPTY_CONFIG,
    Descriptor,
    Index,
    Manifest,
    build_index,
    build_signature_manifest,
)
from edgemodel.artifact.reference import Reference
from edgemodel.artifact.registry import Registry
from edgemodel.errors import Transient

_TRIES = 5


@dataclass(frozen=True, slots=True)
class Attached:
    """Where a referrer is."""

    subject: Reference
    """The artifact it refers to, pinned."""
    digest: Digest
    """Of the referrer's manifest."""
    fallback_tag: str | None
    """The tag that lists it, where the registry has no referrers API."""


async def attach(registry: Registry, reference: Reference, bundle: bytes, created: datetime) -> Attached:
    """Store a bundle as a referrer of the artifact at ``reference``, which is pinned.

    Args:
        registry: with credentials that may write.
        reference: the signed artifact, by digest.
        bundle: made by ``signature.sign_bundle`` over that digest.
        created: when it was signed.

    Raises:
        Transient: as ``Registry.put_manifest``; ``TransferFailed`` when others keep changing the fallback tag.
        Refused: ``DigestMismatch`` or ``MalformedArtifact``; the artifact, or the fallback tag's index, cannot be read.
    """
    assert reference.digest is not None, "a signature is about a digest"
    subject = Manifest.parse(await registry.manifest(reference)).descriptor
    bundle_descriptor = Descriptor(media_types.BUNDLE, Digest.of(bundle), len(bundle))
    content = build_signature_manifest(bundle_descriptor, subject, created)
    await registry.put_blob(reference, bundle_descriptor.digest, len(bundle), bundle)
    await registry.put_blob(reference, Digest.of(EMPTY_CONFIG), len(EMPTY_CONFIG), EMPTY_CONFIG)
    return await refer(registry, reference, content)


async def refer(registry: Registry, reference: Reference, content: bytes) -> Attached:
    """Store a manifest that refers to the artifact at ``reference``; its blobs are there already.

    Args:
        registry: with credentials that may write.
        reference: what it refers to, by digest.
        content: the manifest; its ``subject`` names that digest.

    Raises:
        Transient, Refused: as ``attach``.
    """
    assert reference.digest is not None, "a referrer is about a digest"
    manifest = Manifest.parse(content)
    listed = await registry.put_manifest(reference.pinned(manifest.digest), content, manifest.media_type)
    tag = None
    if not listed:
        tag = f"sha256-{reference.digest.hex}"
        entry = dataclasses.replace(
            manifest.descriptor, artifact_type=manifest.artifact_type, annotations=manifest.annotations
        )
        await _list(registry, Reference(reference.registry, reference.repository, tag), entry)
    return Attached(reference, manifest.digest, tag)


async def _list(registry: Registry, index: Reference, entry: Descriptor) -> None:
    """Add an entry to the fallback tag's index.

    Registries have no compare-and-swap on tags: two writers can read the same index, and the second then drops the first
    one's entry. So it is read again afterwards, and written again when the entry is gone.
    """
    assert index.tag is not None, "the fallback index is a tag"
    for attempt in range(_TRIES):
        content = await registry.tagged(index, index.tag)
        entries = list(Index.parse(content).manifests) if content is not None else []
        if any(known.digest == entry.digest for known in entries):
            return
        await registry.put_manifest(index, build_index([*entries, entry]), media_types.OCI_INDEX)
        await asyncio.sleep(0.05 * attempt * random.random())  # noqa: S311 - parts two writers
    content = await registry.tagged(index, index.tag)
    if content is None or all(known.digest != entry.digest for known in Index.parse(content).manifests):
        raise Transient(
            "TransferFailed",
            f"{index} is changed by others as fast as we add to it; try again when they are done",
        )
