"""Gathers what a judgement needs from a registry: the manifest, and everything attached that claims to be a signature.

Promises: downloads no layer of the model; one broken or hostile signature never hides a good one; the work is bounded
(``Limits.referrers`` referrers, ``MAX_EVIDENCE_BYTES`` of signatures). What was gathered can be judged again and again,
under other policies and at other times, without the network. Leaves to others: the judgement (``trust``).

Where signatures are: sigstore/cosign (bundles as OCI referrers; the older ``sha256-<hex>.sig`` tag; the experimental OCI 1.1
form, a referrer with simple-signing layers);
OpenSSF model signing (a file ``model.sig`` among the model's files).
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from edgemodel.artifact import media_types, trust
from edgemodel.artifact.concurrency import concurrently
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.manifest import Descriptor, Manifest, model_files
from edgemodel.artifact.policy import Policy, governing
from edgemodel.artifact.reference import Reference
from edgemodel.artifact.signature import Evidence, Format, Unreadable, read_bundle, read_legacy
from edgemodel.artifact.signers import SIGNATURE_FILE
from edgemodel.artifact.source import Source
from edgemodel.errors import EdgeModelError, Refused, Transient

MAX_EVIDENCE_BYTES = 4 << 20
"""Bytes of signatures of one artifact that are kept in memory; what does not fit is passed over. A cosign bundle has 3 kB,
a list of 4096 files 1 MiB. Read, a hostile one takes six times its length, and the operator, whose memory is limited,
reads for everybody: whoever may create an EdgeModel somewhere must not be able to end it."""
MAX_LAYERS = 8
"""Layers of one referrer that are looked at; cosign writes one."""
_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Attachment:
    """One thing that was attached to an artifact as a signature, as it came."""

    format: Format
    content: bytes = field(default=b"", repr=False)
    signature: str = field(default="", repr=False)
    """Of the format Legacy: the layer's annotation that holds the signature."""
    problem: str = ""
    """Why there is no content."""

    def read(self) -> Evidence:
        """Return what a judgement looks at."""
        if self.problem:
            return Unreadable(self.format, self.problem)
        if self.format == "Legacy":
            return read_legacy(self.content, self.signature)
        return read_bundle(self.content, self.format)


@dataclass(frozen=True, slots=True)
class Examined:
    """An artifact's manifest and signatures as they came from the registry: untrusted until judged."""

    reference: Reference
    """Pinned to the digest that was examined."""
    manifest_bytes: bytes = field(repr=False)
    attachments: tuple[Attachment, ...] = ()

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """What a judgement looks at."""
        return tuple(attachment.read() for attachment in self.attachments)

    def to_json(self) -> str:
        """Write everything, so that it can be judged again where no registry is at hand."""
        return json.dumps(
            {
                "reference": str(self.reference),
                "manifest": b64encode(self.manifest_bytes).decode(),
                "attachments": [
                    [item.format, b64encode(item.content).decode(), item.signature, item.problem]
                    for item in self.attachments
                ],
            }
        )

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Read what ``to_json`` writes; nothing in it is trusted more than what a registry says.

        Raises:
            ValueError: it is something else.
        """
        try:
            document = json.loads(text)
            attachments = tuple(
                Attachment(form, b64decode(content), signature, problem)
                for form, content, signature, problem in document["attachments"]
            )
            return cls(Reference.parse(document["reference"]), b64decode(document["manifest"]), attachments)
        except (KeyError, TypeError, ValueError, EdgeModelError, RecursionError) as error:
            raise ValueError(f"not an examined artifact: {type(error).__name__}") from None

    @property
    def digest(self) -> Digest:
        """The digest that was examined."""
        assert self.reference.digest is not None, "examine pins the reference"
        return self.reference.digest

    def judge(
        self,
        policies: Sequence[Policy],
        *,
        mark: int | None = None,
        known_good: frozenset[Digest] = frozenset(),
        now: datetime | None = None,
    ) -> trust.Verdict:
        """Judge under the policies that govern the reference; see ``trust.judge``.

        Of ``policies`` those that do not govern the reference are left out by their globs; whoever knows the namespace
        passes only those that govern it.
        """
        return trust.judge(
            self.reference,
            self.manifest_bytes,
            self.evidence,
            governing(policies, self.reference),
            mark=mark,
            known_good=known_good,
            now=now,
        )


async def examine(registry: Source, reference: Reference, *, known: Digest | None = None) -> Examined:
    """Resolve a reference, read its manifest and look for signatures.

    Args:
        registry: where to ask.
        reference: by tag or digest.
        known: what the tag stood for last time; saves a download when it still does.

    Raises:
        Transient: ``RegistryUnreachable``, ``AuthenticationFailed``, ``NotFound``.
        Refused: ``DigestMismatch``, ``MalformedArtifact``.
    """
    if reference.digest is None and known is None:
        # One request for both: the digest of a tag is that of the bytes that come.
        content = await registry.manifest(reference)
        digest = Digest.of(content)
    else:
        digest = await registry.resolve(reference, known=known)
        content = await registry.manifest(reference.pinned(digest))
    pinned = reference.pinned(digest)
    return Examined(pinned, content, await attached(registry, pinned, content))


async def attached(registry: Source, reference: Reference, content: bytes) -> tuple[Attachment, ...]:
    """Return everything attached to a manifest that claims to be a signature, readable or not.

    Raises:
        Transient: the registry failed in a way that leaves open whether there is more.
    """
    assert reference.digest is not None, "signatures are about a digest"
    referrers = await _listed(registry, reference, reference.digest)
    opened = [_open(registry, reference, referrer) for referrer in referrers]
    opened.append(_legacy(registry, reference, reference.digest))
    listed = [item for group in await concurrently(opened, at_once=_AT_ONCE) for item in group]
    wrong = [item for item in listed if isinstance(item, Attachment)]
    # Real signatures are small: the smallest first, so that none that claims to be large takes their room. The
    # artifact's own file comes before all that others attached.
    claims = [*_files(content), *sorted(_claims(listed), key=lambda claim: claim.layer.size)]
    left, chosen = MAX_EVIDENCE_BYTES, []
    for claim in claims:
        if claim.layer.size > left:
            problem = f"signature {claim.layer.digest}: more than {MAX_EVIDENCE_BYTES} bytes of signatures"
            wrong.append(Attachment(claim.format, problem=problem))
            continue
        left -= claim.layer.size
        chosen.append(_attachment(registry, reference, claim))
    found = await concurrently(chosen, at_once=_AT_ONCE)
    # What cannot be read comes last, as a judgement looks at so many only.
    return tuple(sorted([*found, *wrong], key=lambda item: bool(item.problem)))


@dataclass(frozen=True, slots=True)
class _Claim:
    """A blob that somebody listed as a signature."""

    layer: Descriptor
    format: Format


def _claims(listed: Sequence[Attachment | _Claim]) -> list[_Claim]:
    return [item for item in listed if isinstance(item, _Claim)]


async def _listed(registry: Source, reference: Reference, digest: Digest) -> tuple[Descriptor, ...]:
    try:
        return await registry.referrers(reference, digest)
    except Refused:
        # A list that cannot be read lists no signature; the legacy tag may still hold one.
        return ()


async def _open(registry: Source, reference: Reference, referrer: Descriptor) -> list[Attachment | _Claim]:
    try:
        manifest = Manifest.parse(await registry.manifest(reference.pinned(referrer.digest)))
    except (Refused, Transient) as error:
        if isinstance(error, Transient) and error.reason != "NotFound":
            raise
        return [Attachment("Bundle", problem=f"referrer {referrer.digest}: {error.message}")]
    found: list[Attachment | _Claim] = []
    for layer in manifest.layers[:MAX_LAYERS]:
        if layer.media_type.startswith(media_types.BUNDLE_PREFIX):
            found.append(_Claim(layer, "Bundle"))
        elif layer.media_type == media_types.SIMPLE_SIGNING:
            found.append(_Claim(layer, "Legacy"))
    return found


async def _legacy(registry: Source, reference: Reference, digest: Digest) -> list[Attachment | _Claim]:
    try:
        content = await registry.legacy_signatures(reference, digest)
        layers = Manifest.parse(content).layers if content is not None else ()
    except Refused as error:
        return [Attachment("Legacy", problem=error.message)]
    return [
        _Claim(layer, "Legacy")
        for layer in layers[: registry.limits.referrers]
        if layer.media_type == media_types.SIMPLE_SIGNING
    ]


def _files(content: bytes) -> list[_Claim]:
    try:
        files = model_files(Manifest.parse(content))
    except Refused:
        return []  # the judgement says why
    return [
        _Claim(file.descriptor, "OpenSSF")
        for file in files
        if file.packing == "raw" and file.path == SIGNATURE_FILE
    ]


async def _attachment(registry: Source, reference: Reference, claim: _Claim) -> Attachment:
    layer = claim.layer
    try:
        content = await registry.small_blob(reference, layer)
    except (Refused, Transient) as error:
        if isinstance(error, Transient) and error.reason != "NotFound":
            raise
        return Attachment(claim.format, problem=f"signature {layer.digest}: {error.message}")
    signature = layer.annotations.get(media_types.COSIGN_SIGNATURE, "") if claim.format == "Legacy" else ""
    return Attachment(claim.format, content, signature)
