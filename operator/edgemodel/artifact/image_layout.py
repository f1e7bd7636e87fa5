"""An OCI image layout in a plain tar archive, read as a source of artifacts: what ``edgemodel bundle create`` writes.

::

    oci-layout                    {"imageLayoutVersion": "1.0.0"}
    index.json                    what is inside: models with their reference, and what refers to them
    blobs/sha256/<hex>            manifests, configs, layers, signatures, deltas

Promises: opening reads headers and ``index.json`` only; every manifest that is handed out has the digest it was asked for
by; a blob that the archive does not hold is ``NotFound``, as a registry would say. Blobs are not hashed here: whoever takes
them does, as from a registry.

Source: OCI image-spec 1.1, image-layout.md.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Self

from edgemodel.artifact import media_types, tar
from edgemodel.artifact.digest import Digest, Hasher
from edgemodel.artifact.oci_manifest import MAX_BYTES, Descriptor, Index, Manifest, malformed
from edgemodel.artifact.reference import Reference
from edgemodel.artifact.registry_settings import Limits
from edgemodel.errors import EdgeModelError, Refused, Transient

LAYOUT = "oci-layout"
INDEX = "index.json"
BLOBS = "blobs/sha256/"
REF_NAME = "org.opencontainers.image.ref.name"
PIECE = 1 << 20


class ImageLayout:
    """One archive; a ``source.Source``. It opens the file anew for each blob and holds nothing open."""

    def __init__(self, path: Path, spans: dict[str, tar.Span], index: Index) -> None:
        self.path = path
        self.limits = Limits()
        self._spans = spans
        self.index = index

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read what an archive holds.

        Raises:
            Refused: ``MalformedArtifact``; it is no archive of this kind, or damaged.
            Transient: ``NotFound``, ``TransferFailed``; it cannot be read.
        """
        try:
            spans = tar.index(path)
            layout = _content(path, spans, LAYOUT)
            index = Index.parse(_content(path, spans, INDEX))
        except FileNotFoundError:
            raise Transient("NotFound", f"{path}: there is no such file") from None
        except OSError as error:
            raise Transient("TransferFailed", f"{path}: cannot be read: {error.strerror or error}") from None
        try:
            version = json.loads(layout)["imageLayoutVersion"]
        except (ValueError, KeyError, TypeError, RecursionError):
            version = None
        if version != "1.0.0":
            raise malformed(
                f"{path.name}: {LAYOUT}: expected imageLayoutVersion 1.0.0, found {version!r:.80}"
            )
        return cls(path, spans, index)

    @property
    def models(self) -> dict[Reference, Descriptor]:
        """The models inside, by reference: with digest, and with a tag if they were taken by one.

        Raises:
            Refused: ``MalformedArtifact``; an entry's name is no reference.
        """
        found = {}
        for entry in self.index.manifests:
            name = entry.annotations.get(REF_NAME, "")
            if entry.artifact_type in (media_types.BUNDLE, media_types.DELTA_MANIFEST) or ":" not in name:
                continue
            try:
                found[replace(Reference.parse(name), digest=entry.digest)] = entry
            except EdgeModelError as error:
                raise malformed(f"{self.path.name}: {INDEX}: {error.message}") from None
        return found

    def size(self, digest: Digest) -> int | None:
        """Return how many bytes the archive holds of a blob; None when it is not there."""
        span = self._spans.get(BLOBS + digest.hex)
        return None if span is None else span.size

    def digests(self) -> list[Digest]:
        """Return what blobs there are."""
        names = (name.removeprefix(BLOBS) for name in self._spans if name.startswith(BLOBS))
        try:
            return [Digest(f"sha256:{name}") for name in names]
        except ValueError as error:
            raise malformed(f"{self.path.name}: {BLOBS}: {error}") from None

    def damaged(self) -> list[Digest]:
        """Return the blobs whose bytes are not what their name says. Reads everything: blocks."""
        return [digest for digest in self.digests() if self._hash(digest) != digest]

    def check_whole(self) -> None:
        """Refuse an archive that was damaged on the way. Reads everything: blocks.

        Raises:
            Refused: ``DigestMismatch``; names a blob.
        """
        if wrong := self.damaged():
            raise Refused("DigestMismatch", f"{self.path}: blob {wrong[0]} is damaged; copy the bundle again")

    # -- source.Source ----------------------------------------------------------------------------------------------

    async def resolve(self, reference: Reference, *, known: Digest | None = None) -> Digest:
        """Return the digest that a reference stands for in here."""
        del known
        if reference.digest is not None:
            return reference.digest
        for inside in self.models:
            if (inside.registry, inside.repository, inside.tag) == (
                reference.registry,
                reference.repository,
                reference.tag,
            ):
                assert inside.digest is not None, "models are pinned"
                return inside.digest
        raise Transient("NotFound", f"{self.path.name} holds no {reference}")

    async def manifest(self, reference: Reference) -> bytes:
        """Return a manifest, checked against the digest it is asked for by."""
        digest = await self.resolve(reference)
        content = await asyncio.to_thread(self._small, digest, MAX_BYTES)
        if Digest.of(content) != digest:
            raise Refused(
                "DigestMismatch", f"{self.path.name}: blob {digest} has other content: it is damaged"
            )
        return content

    async def blob(
        self, reference: Reference, descriptor: Descriptor, *, offset: int = 0, exact: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """Yield a blob's bytes from ``offset`` to its end."""
        del reference, exact
        span = self._span(descriptor.digest)
        if span.size != descriptor.size:
            raise Refused(
                "DigestMismatch",
                f"{self.path.name}: blob {descriptor.digest} has {span.size} bytes, its descriptor says {descriptor.size}",
            )
        while offset < span.size:
            piece = await asyncio.to_thread(self._read, span.offset + offset, min(PIECE, span.size - offset))
            offset += len(piece)
            yield piece

    async def small_blob(self, reference: Reference, descriptor: Descriptor) -> bytes:
        """Return a whole small blob, checked against its descriptor."""
        del reference
        content = await asyncio.to_thread(self._small, descriptor.digest, self.limits.small_blob)
        if (Digest.of(content), len(content)) != (descriptor.digest, descriptor.size):
            raise Refused(
                "DigestMismatch",
                f"{self.path.name}: blob {descriptor.digest} has other content: it is damaged",
            )
        return content

    async def referrers(self, reference: Reference, digest: Digest) -> tuple[Descriptor, ...]:
        """Return what in here refers to a manifest."""
        found = []
        for entry in self.index.manifests:
            if entry.artifact_type not in (media_types.BUNDLE, media_types.DELTA_MANIFEST):
                continue
            subject = Manifest.parse(await self.manifest(reference.pinned(entry.digest))).subject
            if subject is not None and subject.digest == digest:
                found.append(entry)
        return tuple(found[: self.limits.referrers])

    async def legacy_signatures(self, reference: Reference, digest: Digest) -> bytes | None:
        """Return the manifest of cosign's older signature tag, if it was taken along."""
        for entry in self.index.manifests:
            if entry.annotations.get(REF_NAME) == f"sha256-{digest.hex}.sig":
                return await self.manifest(reference.pinned(entry.digest))
        return None

    # -- within -----------------------------------------------------------------------------------------------------

    def _hash(self, digest: Digest) -> Digest:
        span, hasher, done = self._span(digest), Hasher(), 0
        while done < span.size:
            piece = self._read(span.offset + done, min(PIECE, span.size - done))
            hasher.update(piece)
            done += len(piece)
        return hasher.digest()

    def _span(self, digest: Digest) -> tar.Span:
        span = self._spans.get(BLOBS + digest.hex)
        if span is None:
            raise Transient("NotFound", f"{self.path.name} does not hold blob {digest}")
        return span

    def _small(self, digest: Digest, most: int) -> bytes:
        span = self._span(digest)
        if span.size > most:
            raise malformed(f"{self.path.name}: blob {digest} has {span.size} bytes; at most {most} are read")
        return self._read(span.offset, span.size)

    def _read(self, offset: int, size: int) -> bytes:
        try:
            with self.path.open("rb") as archive:
                archive.seek(offset)
                content = archive.read(size)
        except OSError as error:
            raise Transient(
                "TransferFailed", f"{self.path}: cannot be read: {error.strerror or error}"
            ) from None
        if len(content) != size:
            raise Transient("TransferFailed", f"{self.path}: ends early; was it cut off?")
        return content


def _content(path: Path, spans: dict[str, tar.Span], name: str) -> bytes:
    span = spans.get(name)
    if span is None:
        raise malformed(f"{path.name}: expected a file {name}: is it an OCI image layout?")
    if span.size > MAX_BYTES:
        raise malformed(f"{path.name}: {name} has {span.size} bytes; at most {MAX_BYTES} are read")
    with path.open("rb") as archive:
        archive.seek(span.offset)
        return archive.read(span.size)
