"""OCI manifests and indexes, read from the bytes as received.

Promises: a ``Manifest`` or ``Index`` is well formed, within the caps and has one meaning; its ``digest`` is
that of the very bytes. Whatever the bytes, ``parse`` raises ``Refused`` with ``MalformedArtifact`` and
nothing else; the message names the member. Leaves to others: whether the digest is the one that was asked
for and whether anybody vouches for it (``trust``), and what the layers are (``model_files``).

Format: OCI image spec 1.1, manifest.md, image-index.md and descriptor.md; Docker's schema 2 has the same
form.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from edgemodel.artifact import media_types, strict_json
from edgemodel.artifact.digest import Digest
from edgemodel.errors import Refused

MAX_BYTES = 4 << 20
"""Longest manifest or index in bytes."""
MAX_LAYERS = 4096
"""Most layers of a manifest, and most entries of an index."""
MAX_SIZE = 1 << 53
"""Sizes stay below this number of bytes: what every JSON parser holds exactly."""

_STRUCTURE = (
    "schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject",
    "annotations", "digest", "size",
)  # fmt: skip
_BY_LOWER = {name.lower(): name for name in _STRUCTURE}


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Names content: what it is, its digest and its length."""

    media_type: str
    digest: Digest
    size: int
    """Length in bytes."""
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    artifact_type: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """One artifact: a config and layers."""

    raw: bytes = field(repr=False)
    """The bytes as received: what the digest, and so every signature, is over."""
    digest: Digest
    media_type: str
    artifact_type: str | None
    """As written; None when only the config's media type says what the artifact is."""
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(hash=False)
    subject: Descriptor | None = None
    """The manifest this one refers to, when it is a referrer."""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read an image manifest.

        Raises:
            Refused: ``MalformedArtifact``.
        """
        document = _document(data, "manifest")
        if "manifests" in document:
            # CVE-2021-41190: a document that is manifest and index at once means different things to different readers.
            raise malformed(
                "manifest.manifests: expected one artifact's manifest, found an index; refer to one of its entries by digest"
            )
        media_type = _media_type(document, media_types.MANIFESTS, media_types.OCI_MANIFEST, "manifest")
        layers = _list(document, "layers", "manifest")
        return cls(
            raw=data,
            digest=Digest.of(data),
            media_type=media_type,
            artifact_type=_optional_text(document, "artifactType", "manifest"),
            config=_descriptor(document.get("config"), "manifest.config"),
            layers=tuple(_descriptor(layer, f"manifest.layers[{i}]") for i, layer in enumerate(layers)),
            annotations=_annotations(document, "manifest"),
            subject=_descriptor(document["subject"], "manifest.subject")
            if document.get("subject") is not None
            else None,
        )

    @property
    def descriptor(self) -> Descriptor:
        """What a referrer puts into ``subject``."""
        return Descriptor(self.media_type, self.digest, len(self.raw))


@dataclass(frozen=True, slots=True)
class Index:
    """A list of manifests: a registry's answer about referrers, the fallback tag, a multi-platform image."""

    digest: Digest
    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(hash=False)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read an image index.

        Raises:
            Refused: ``MalformedArtifact``.
        """
        document = _document(data, "index")
        if "layers" in document or "config" in document:
            raise malformed("index.layers: expected an index of manifests, found a manifest")
        entries = _list(document, "manifests", "index")
        return cls(
            digest=Digest.of(data),
            media_type=_media_type(document, media_types.INDEXES, media_types.OCI_INDEX, "index"),
            manifests=tuple(_descriptor(entry, f"index.manifests[{i}]") for i, entry in enumerate(entries)),
            annotations=_annotations(document, "index"),
        )


def malformed(message: str) -> Refused:
    """Return the refusal for an artifact whose form is wrong."""
    return Refused("MalformedArtifact", message)


def _document(data: bytes, what: str) -> dict[str, Any]:
    try:
        document = strict_json.parse(data, max_bytes=MAX_BYTES)
    except strict_json.NotStrictJson as error:
        raise malformed(f"the {what} {error}") from None
    if not isinstance(document, dict):
        raise malformed(f"{what}: expected an object, found {_kind(document)}")
    _check_spelling(document, what)
    version = document.get("schemaVersion")
    if version != 2 or isinstance(version, (bool, float)):
        raise malformed(f"{what}.schemaVersion: expected 2, found {_shown(version)}")
    return document


def _check_spelling(members: Mapping[str, Any], where: str) -> None:
    # Go's decoder takes "Layers" for "layers"; ours does not. A document on which the two differ is refused.
    for name in members:
        if (meant := _BY_LOWER.get(name.lower(), name)) != name:
            raise malformed(f"{where}.{name}: expected it to be spelt {meant}")


def _media_type(document: Mapping[str, Any], allowed: frozenset[str], default: str, what: str) -> str:
    found = document.get("mediaType", default)
    if not isinstance(found, str) or found not in allowed:
        raise malformed(
            f"{what}.mediaType: expected one of {', '.join(sorted(allowed))}; found {_shown(found)}"
        )
    return found


def _list(document: Mapping[str, Any], name: str, what: str) -> list[Any]:
    entries = document.get(name)
    if not isinstance(entries, list):
        raise malformed(f"{what}.{name}: expected an array, found {_kind(entries)}")
    if len(entries) > MAX_LAYERS:
        raise malformed(f"{what}.{name}: has {len(entries)} entries, at most {MAX_LAYERS} are read")
    return entries


def _descriptor(value: Any, where: str) -> Descriptor:
    if not isinstance(value, dict):
        raise malformed(f"{where}: expected a descriptor object, found {_kind(value)}")
    _check_spelling(value, where)
    media_type, size = value.get("mediaType"), value.get("size")
    if not isinstance(media_type, str) or not media_type or len(media_type) > 255:
        raise malformed(f"{where}.mediaType: expected a media type, found {_shown(media_type)}")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < MAX_SIZE:
        raise malformed(f"{where}.size: expected a number of bytes, found {_shown(size)}")
    try:
        digest = Digest.parse(value.get("digest"))
    except ValueError as error:
        raise malformed(f"{where}.digest: {error}") from None
    return Descriptor(
        media_type, digest, size, _annotations(value, where), _optional_text(value, "artifactType", where)
    )


def _annotations(owner: Mapping[str, Any], where: str) -> dict[str, str]:
    value = owner.get("annotations")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise malformed(f"{where}.annotations: expected an object, found {_kind(value)}")
    for name in _not_text(value):
        raise malformed(f"{where}.annotations.{name[:80]}: expected a string, found {_kind(value[name])}")
    return value


def _not_text(members: Mapping[str, Any]) -> Iterator[str]:
    return (name for name, value in members.items() if not isinstance(value, str))


def _optional_text(owner: Mapping[str, Any], name: str, where: str) -> str | None:
    value = owner.get(name)
    if value is not None and not isinstance(value, str):
        raise malformed(f"{where}.{name}: expected a string, found {_kind(value)}")
    return value or None


_KINDS = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "true or false",
    int: "a number",
    float: "a number",
}


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), "nothing")


def _shown(value: Any) -> str:
    return _kind(value) if value is None or isinstance(value, (dict, list)) else repr(value)[:80]
