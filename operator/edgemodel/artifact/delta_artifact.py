"""Deltas in a registry: how they are written down, found again, and chosen among.

A delta manifest is a referrer of the manifest of the **new** model. Each of its layers rebuilds one file of that model
out of one older file; ``to`` and ``from`` name the two by digest, a layer without ``from`` rebuilds it out of nothing
(the file, packed).

Promises: nothing of this is believed. What a layer rebuilds must hash to the digest that the signed manifest says, so a
wrong delta costs time and no more; the work is bounded; a broken or hostile referrer never hides a good one; and when
nothing can be found, there is still the whole file. Leaves to others: rebuilding (``delta``), making deltas
(``delta_publish``).

Format: docs/reference/artifact-format.md, "Deltas". The rule that deltas need no signature: flatpak's
flatpak-oci-specs/image-deltas.md.
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from edgemodel.artifact import media_types
from edgemodel.artifact.concurrency import concurrently
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.manifest import Descriptor, Manifest, build_referrer
from edgemodel.artifact.oci_manifest import malformed
from edgemodel.artifact.reference import Reference
from edgemodel.artifact.source import Source
from edgemodel.errors import EdgeModelError, Refused

MAX_MANIFESTS = 16
"""Delta manifests of one artifact that are opened: a publisher makes one for each of the last releases."""
MAX_MANIFEST_BYTES = 1 << 20
"""Longest delta manifest that is opened; one of a thousand files has a third of it."""
MAX_LAYERS = 1024
"""Layers that are kept of all delta manifests of one artifact."""
_AT_ONCE = 4
_CODEC = re.compile(r"[a-z0-9]([a-z0-9.-]{0,30}[a-z0-9])?", re.ASCII)
_UNTYPED = frozenset({None, media_types.OCI_EMPTY})
"""What writers of the fallback tag, and old registries, say of a referrer that has a type."""


@dataclass(frozen=True, slots=True)
class DeltaLayer:
    """One patch: what it needs, what it gives, and where it lies."""

    from_digest: Digest | None
    """The file that must be there; None for a patch that needs none."""
    to_digest: Digest
    codec: str
    """For people and for leaving out what this version cannot read; the patch itself names it too."""
    descriptor: Descriptor
    """The blob with the patch."""


def build_delta_manifest(target: Descriptor, layers: Sequence[DeltaLayer]) -> bytes:
    """Return the manifest that attaches patches to ``target``; the same patches in any order give the same bytes."""
    ordered = sorted(layers, key=lambda layer: (layer.to_digest, layer.from_digest or "", layer.codec))
    return build_referrer(
        media_types.DELTA_MANIFEST, [_descriptor(layer) for layer in ordered], target, annotations={}
    )


def _descriptor(layer: DeltaLayer) -> Descriptor:
    names = {media_types.DELTA_TO: str(layer.to_digest), media_types.DELTA_CODEC: layer.codec}
    if layer.from_digest is not None:
        names[media_types.DELTA_FROM] = str(layer.from_digest)
    return replace(layer.descriptor, media_type=media_types.DELTA_LAYER, annotations=names)


def read_delta_manifest(content: bytes, target: Digest | None = None) -> tuple[DeltaLayer, ...]:
    """Return the patches of a delta manifest; layers of other types are passed over.

    Args:
        content: the manifest's bytes.
        target: what it must refer to; None to take any.

    Raises:
        Refused: ``MalformedArtifact``; names the member.
    """
    manifest = Manifest.parse(content)
    if manifest.artifact_type != media_types.DELTA_MANIFEST:
        raise malformed(
            f"manifest.artifactType: expected {media_types.DELTA_MANIFEST}, found {str(manifest.artifact_type)[:80]!r}"
        )
    if target is not None and (manifest.subject is None or manifest.subject.digest != target):
        found = manifest.subject.digest if manifest.subject is not None else "nothing"
        raise malformed(f"manifest.subject: expected {target}, found {found}")
    return tuple(
        _layer(layer, f"manifest.layers[{number}]")
        for number, layer in enumerate(manifest.layers)
        if layer.media_type == media_types.DELTA_LAYER
    )


def _layer(layer: Descriptor, where: str) -> DeltaLayer:
    codec = layer.annotations.get(media_types.DELTA_CODEC, "")
    if not _CODEC.fullmatch(codec):
        raise malformed(f"{where}.annotations: expected a codec's name in {media_types.DELTA_CODEC}")
    old = layer.annotations.get(media_types.DELTA_FROM)
    name = media_types.DELTA_TO
    try:
        new = Digest.parse(layer.annotations.get(name))
        name = media_types.DELTA_FROM
        base = Digest.parse(old) if old is not None else None
    except ValueError as error:
        raise malformed(f"{where}.annotations.{name}: {error}") from None
    if base == new:
        raise malformed(f"{where}.annotations: a patch from a file to itself")
    if layer.size == 0:
        raise malformed(f"{where}.size: a patch cannot be empty")
    return DeltaLayer(base, new, codec, layer)


async def find_deltas(
    registry: Source,
    reference: Reference,
    target: Digest,
    wanted: Collection[Digest],
    *,
    report: Callable[[str], None] | None = None,
) -> tuple[DeltaLayer, ...]:
    """Return the patches that are attached to an artifact and rebuild one of the wanted files, smallest first.

    Args:
        registry: where to ask.
        reference: the artifact; only its repository matters.
        target: digest of the artifact's manifest.
        wanted: digests of its layers that are of interest.
        report: told, in words, why there are none or why one was passed over.

    Never raises for what a registry says or fails to do: then there are none.
    """
    tell = report or (lambda _words: None)
    try:
        referrers = await registry.referrers(reference, target)
    except EdgeModelError as error:
        tell(f"deltas could not be listed: {error.message}")
        return ()
    # Those that say what they are come first: whoever floods an artifact with untyped referrers must not hide them.
    said = [entry for entry in referrers if entry.artifact_type == media_types.DELTA_MANIFEST]
    perhaps = [entry for entry in referrers if entry.artifact_type in _UNTYPED]
    opened = [_open(registry, reference, target, entry, tell) for entry in (said + perhaps)[:MAX_MANIFESTS]]
    groups = await concurrently(opened, at_once=_AT_ONCE)
    files = frozenset(wanted)
    layers = {layer for group in groups for layer in group if layer.to_digest in files}
    return tuple(sorted(layers, key=_order)[:MAX_LAYERS])


async def _open(
    registry: Source, reference: Reference, target: Digest, entry: Descriptor, tell: Callable[[str], None]
) -> tuple[DeltaLayer, ...]:
    if entry.size > MAX_MANIFEST_BYTES:
        tell(
            f"delta {entry.digest}: its manifest has {entry.size} bytes, at most {MAX_MANIFEST_BYTES} are read"
        )
        return ()
    try:
        return read_delta_manifest(await registry.manifest(reference.pinned(entry.digest)), target)
    except EdgeModelError as error:
        # An untyped referrer may rightly be something else.
        if entry.artifact_type == media_types.DELTA_MANIFEST or not isinstance(error, Refused):
            tell(f"delta {entry.digest}: {error.message}")
        return ()


def _order(layer: DeltaLayer) -> tuple[int, str, str, str]:
    return layer.descriptor.size, layer.to_digest, layer.from_digest or "", layer.descriptor.digest


@dataclass(frozen=True, slots=True)
class Choice:
    """How one file is to be fetched."""

    kind: Literal["Full", "Delta"]
    delta: DeltaLayer | None
    """The patch to apply; None for the whole file."""
    why: str
    """In words, for status and logs."""


def choose(
    file: Descriptor,
    deltas: Collection[DeltaLayer],
    have: Callable[[Digest], bool],
    *,
    link_bytes_per_second: float | None,
    apply_bytes_per_second: float,
    codecs: Collection[str] | None = None,
) -> Choice:
    """Choose between the patches for a file and the whole file: fewest bytes, unless the whole is there sooner. Pure.

    Args:
        file: what is to be had.
        deltas: what ``find_deltas`` gave; patches for other files are passed over.
        have: says whether a base is on disk, whole.
        link_bytes_per_second: what the network gives just now; None when nothing is known, or when bytes cost more than
            time: then the bytes alone decide.
        apply_bytes_per_second: how fast a patch is applied, in bytes of the new file.
        codecs: those that this process can read; None for any.
    """
    ours = [delta for delta in deltas if delta.to_digest == file.digest]
    if not ours:
        return Choice("Full", None, "no delta is published for it")
    readable = [delta for delta in ours if codecs is None or delta.codec in codecs]
    if not readable:
        names = ", ".join(sorted({delta.codec for delta in ours}))
        return Choice("Full", None, f"its deltas are written in {names}, which this version cannot read")
    based = [delta for delta in readable if delta.from_digest is None or have(delta.from_digest)]
    if not based:
        return Choice("Full", None, f"none of the {len(readable)} files that its deltas build on is here")
    best = min(based, key=_order)
    patch = best.descriptor.size
    if patch >= file.size:
        return Choice("Full", None, f"the delta has {patch} bytes, the file {file.size}")
    saved = f"{patch} of {file.size} bytes ({patch / file.size:.1%})"
    if link_bytes_per_second is None or link_bytes_per_second <= 0 or apply_bytes_per_second <= 0:
        return Choice("Delta", best, f"{best.codec}: {saved}")
    full = file.size / link_bytes_per_second
    delta = patch / link_bytes_per_second + file.size / apply_bytes_per_second
    rate = f"at {link_bytes_per_second * 8 / 1e6:.0f} Mbit/s"
    if full < delta:
        return Choice("Full", None, f"{rate} the whole file takes {full:.1f} s, by delta {delta:.1f} s")
    return Choice("Delta", best, f"{best.codec}: {saved}; {rate} {delta:.1f} s, the whole file {full:.1f} s")
