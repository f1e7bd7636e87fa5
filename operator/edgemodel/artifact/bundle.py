"""Offline bundles: models with their signatures and deltas in one file, for sites that a person supplies by hand.

A bundle is an OCI image layout in a tar archive (``image_layout``). ``create`` makes one out of a registry, ``push`` puts
one into a registry; a node takes one as it takes anything else, with the same checks (``node.imports``).

Promises: the same artifacts and choices give the same bytes; nothing is put into a bundle whose digest was not checked; a
bundle makes nothing trusted. Leaves to others: judging.
"""

import asyncio
import io
import tarfile
from collections.abc import AsyncIterable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgemodel.artifact import media_types
from edgemodel.artifact.attach import refer
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.image_layout import BLOBS, INDEX, LAYOUT, REF_NAME, ImageLayout
from edgemodel.artifact.manifest import EMPTY_CONFIG, Descriptor, Manifest, build_index
from edgemodel.artifact.reference import Reference
from edgemodel.artifact.registry import Registry
from edgemodel.artifact.signature import SignatureEvidence
from edgemodel.artifact.source import Source
from edgemodel.artifact.store import Store
from edgemodel.artifact.transfer import Progress, fetch
from edgemodel.artifact.verify import examine
from edgemodel.errors import Refused, Transient

SIGNERS = "io.edgemodel.bundle.signers"
"""On a model's entry in the index: the signers' own hints at their keys, for people; never for a decision."""
_LAYOUT_CONTENT = b'{"imageLayoutVersion":"1.0.0"}'


@dataclass(slots=True)
class _Contents:
    """What goes into a bundle."""

    texts: dict[Digest, bytes] = field(default_factory=lambda: {Digest.of(EMPTY_CONFIG): EMPTY_CONFIG})
    """Manifests, and the empty config, which some writers think need not be stored."""
    entries: dict[Digest, Descriptor] = field(default_factory=dict)
    """Of the index."""
    blobs: dict[Digest, tuple[Reference, Descriptor]] = field(default_factory=dict)

    def take(
        self,
        at: Reference,
        manifest: Manifest,
        blobs: Iterable[Descriptor],
        annotations: Mapping[str, str] | None = None,
    ) -> None:
        """Take a manifest along with some of its blobs, and list it."""
        self.texts[manifest.digest] = manifest.raw
        self.entries[manifest.digest] = replace(
            manifest.descriptor, artifact_type=manifest.artifact_type, annotations=annotations or {}
        )
        self.blobs |= {blob.digest: (at, blob) for blob in blobs}


@dataclass(frozen=True, slots=True)
class Created:
    """What a bundle came to hold."""

    models: tuple[Reference, ...]
    """Pinned."""
    signatures: int
    deltas: int
    left_out: tuple[Digest, ...]
    """Layers that are not inside, as the site has them or can rebuild them."""
    size: int
    """Bytes of the file."""


async def create(
    source: Source,
    references: Sequence[Reference],
    out: Path,
    scratch: Path,
    *,
    present: Collection[Reference] = (),
    deltas: bool = True,
    progress: Progress | None = None,
) -> Created:
    """Write a bundle.

    Args:
        source: where the artifacts are.
        references: the models to take along, by tag or digest.
        out: the file; replaced in one step when the bundle is whole.
        scratch: a folder for blobs on their way.
        present: models that the site has: their layers are left out, and so is what a delta inside rebuilds from them.
        deltas: take deltas along.
        progress: called as bytes arrive.

    Raises:
        Refused, Transient: as ``examine`` and ``fetch``.
    """
    there = {layer.digest for reference in present for layer in (await _manifest(source, reference)).layers}
    contents = _Contents()
    models: list[Reference] = []
    left_out: set[Digest] = set()
    signatures = patches = 0
    for reference in references:
        examined = await examine(source, reference)
        manifest = Manifest.parse(examined.manifest_bytes)
        pinned = examined.reference
        models.append(pinned)
        hints = sorted({it.hint for it in examined.evidence if isinstance(it, SignatureEvidence) and it.hint})
        named = {REF_NAME: str(replace(reference, digest=None)) if reference.tag else str(pinned)}
        if hints:
            named[SIGNERS] = ",".join(hints)
        rebuilt: set[Digest] = set()
        for referrer in await _referrers(source, pinned, deltas=deltas):
            is_delta = referrer.artifact_type == media_types.DELTA_MANIFEST
            layers = referrer.layers
            if is_delta and there:
                # Of use only where the file it starts from is.
                layers = tuple(it for it in layers if it.annotations.get(media_types.DELTA_FROM) in there)
                if not layers:
                    continue
                rebuilt |= {Digest(it.annotations[media_types.DELTA_TO]) for it in layers}
            patches += is_delta
            signatures += not is_delta
            contents.take(pinned, referrer, (referrer.config, *layers))
        legacy = await source.legacy_signatures(pinned, manifest.digest)
        if legacy is not None:
            tagged = Manifest.parse(legacy)
            signatures += 1
            signature_tag = {REF_NAME: f"sha256-{manifest.digest.hex}.sig"}
            contents.take(pinned, tagged, (tagged.config, *tagged.layers), signature_tag)
        parts = (manifest.config, *manifest.layers)
        absent = {part.digest for part in parts} & (there | rebuilt)
        left_out |= absent
        contents.take(pinned, manifest, [part for part in parts if part.digest not in absent], named)
    store = Store(scratch, durable=False)
    for reference, descriptor in contents.blobs.values():
        if descriptor.digest not in contents.texts:
            await fetch(source, reference, descriptor, store, progress)
    size = await asyncio.to_thread(_write, contents, store, out)
    return Created(tuple(models), signatures, patches, tuple(sorted(left_out)), size)


async def _manifest(source: Source, reference: Reference) -> Manifest:
    return Manifest.parse(await source.manifest(reference))


async def _referrers(source: Source, reference: Reference, *, deltas: bool) -> list[Manifest]:
    """Return the manifests of signatures and deltas that refer to a model; what cannot be read is left behind."""
    assert reference.digest is not None, "what is bundled is pinned"
    found = []
    for entry in await source.referrers(reference, reference.digest):
        try:
            manifest = Manifest.parse(await source.manifest(reference.pinned(entry.digest)))
        except (Refused, Transient) as error:
            if isinstance(error, Transient) and error.reason != "NotFound":
                raise
            continue
        signs = any(layer.media_type.startswith(media_types.BUNDLE_PREFIX) for layer in manifest.layers)
        if signs or (deltas and manifest.artifact_type == media_types.DELTA_MANIFEST):
            found.append(manifest)
    return found


def _write(contents: _Contents, store: Store, out: Path) -> int:
    """Write the archive: what describes it first, then blobs by digest; no time, owner or order of ours shows."""
    temporary = out.with_name(out.name + ".partial")
    entries = [contents.entries[digest] for digest in sorted(contents.entries)]
    with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, LAYOUT, _LAYOUT_CONTENT)
        _add(archive, INDEX, build_index(entries))
        for digest, raw in sorted(contents.texts.items()):
            _add(archive, BLOBS + digest.hex, raw)
        for digest in sorted(contents.blobs.keys() - contents.texts.keys()):
            with store.path(digest).open("rb") as content:
                info = _info(BLOBS + digest.hex, contents.blobs[digest][1].size)
                archive.addfile(info, content)
    temporary.replace(out)
    return out.stat().st_size


def _info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o444
    return info


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    archive.addfile(_info(name, len(content)), io.BytesIO(content))


async def push(layout: ImageLayout, registry: Registry, target: Reference | None = None) -> list[Reference]:
    """Put what a bundle holds into a registry, signatures and deltas before the tags that make it public.

    Args:
        layout: the bundle.
        registry: with credentials that may write.
        target: repository (and tag) to use in place of the one in the bundle; only for a bundle of one model.

    Returns:
        Where the models are now, pinned.

    Raises:
        Refused: ``MalformedArtifact``, ``DigestMismatch``; nothing was made public.
        Transient: as ``Registry.put_manifest``; ``NotFound``: a layer is neither in the bundle nor in the registry.
    """
    placed = []
    for named, entry in layout.models.items():
        at = named if target is None else replace(target, tag=target.tag or named.tag)
        content = await layout.manifest(named)
        manifest = Manifest.parse(content)
        await _put_blobs(layout, registry, named, at, (manifest.config, *manifest.layers))
        pinned = replace(at, tag=None, digest=entry.digest)
        await registry.put_manifest(pinned, content, manifest.media_type)
        for referrer in await layout.referrers(named, entry.digest):
            raw = await layout.manifest(named.pinned(referrer.digest))
            attached_manifest = Manifest.parse(raw)
            blobs = (attached_manifest.config, *attached_manifest.layers)
            try:
                await _put_blobs(layout, registry, named, at, blobs)
            except Transient as error:
                if error.reason != "NotFound" or referrer.artifact_type != media_types.DELTA_MANIFEST:
                    raise
                continue  # of this delta only the part that one site needed was taken along
            await refer(registry, pinned, raw)
        legacy = await layout.legacy_signatures(named, entry.digest)
        if legacy is not None:
            tagged = Manifest.parse(legacy)
            await _put_blobs(layout, registry, named, at, (tagged.config, *tagged.layers))
            signature_tag = replace(at, tag=f"sha256-{entry.digest.hex}.sig", digest=None)
            await registry.put_manifest(signature_tag, legacy, tagged.media_type)
        if at.tag is not None:
            await registry.put_manifest(replace(at, digest=None), content, manifest.media_type)
        placed.append(replace(at, digest=entry.digest))
    return placed


async def _put_blobs(
    layout: ImageLayout, registry: Registry, named: Reference, at: Reference, blobs: Sequence[Descriptor]
) -> None:
    for descriptor in {it.digest: it for it in blobs}.values():
        if layout.size(descriptor.digest) is None and await registry.has_blob(at, descriptor.digest):
            continue

        def pieces(of: Descriptor = descriptor) -> AsyncIterable[bytes]:
            return layout.blob(named, of)

        await registry.put_blob(at, descriptor.digest, descriptor.size, pieces)
