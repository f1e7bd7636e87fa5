"""Whether an artifact may run: one ordered judgement over bytes and facts that others have gathered.

``judge`` goes through these steps, and the first that fails under an enforcing policy is the answer:

1. the manifest's bytes have the digest that was asked for (``DigestMismatch``),
2. at least one policy governs the reference (``NoMatchingPolicy``),
3. no policy has revoked the digest (``KeyRevoked``),
4. the bytes are a manifest (``MalformedArtifact``),
5. enough distinct keys of each policy signed it (``SignatureMissing``, ``SignatureInvalid``, ``KeyUnknown``,
   ``KeyRevoked``),
6. the release facts, as far as signatures cover them, fit (``WrongModel``, ``DowngradeRefused``, ``Expired``),
7. the layers are files of a model with safe paths (``MalformedArtifact``).

What a policy in Warn mode holds against an artifact becomes a warning, and that policy is asked no further. Steps 1,
2, 4 and 7 belong to no policy and are never waived.

Promises: no input makes it raise, whatever a registry sent; the same arguments give the same verdict. It reads no
clock and opens nothing. Does not do: fetching, resolving tags (the reference is pinned before), and checking layers:
each layer's length and digest against its descriptor is checked by whoever streams it (``store``, ``pull``), as no
layer needs to be at hand for this judgement.

Modelled on theupdateframework/python-tuf ``TrustedMetadataSet``; threats and their names are TUF's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from edgemodel.api.conditions import Reason
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.model_files import ModelFile, model_files
from edgemodel.artifact.oci_manifest import Manifest
from edgemodel.artifact.policy import Policy
from edgemodel.artifact.reference import Reference
from edgemodel.artifact.release import Release, format_time, release
from edgemodel.artifact.signature import Evidence
from edgemodel.artifact.signers import Subject, Tally, tally
from edgemodel.errors import Refused

MAX_EVIDENCE = 256
"""Most signatures that are looked at; more are ignored."""

Problem = tuple[Reason, str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of it."""

    digest: Digest
    """Of the manifest's bytes."""
    manifest: Manifest | None = None
    """None when the bytes are not the right ones, or no manifest."""
    files: tuple[ModelFile, ...] = ()
    """What to deliver; empty when refused."""
    release: Release = field(default_factory=Release)
    """Release facts that signatures cover; all None when none does."""
    verified_by: tuple[str, ...] = ()
    """``policy/authority`` of each signature that counted."""
    warnings: tuple[str, ...] = ()
    """What Warn policies hold against it."""
    stale: str | None = None
    """Set when a known good artifact is past its expiry: it goes on serving, and somebody should be told."""
    refusal: Refused | None = None
    """None when it may run."""

    def or_refused(self) -> "Verdict":
        """Return itself, or raise the refusal."""
        if self.refusal is not None:
            raise self.refusal
        return self


@dataclass(slots=True)
class _Case:
    """The judgement as it goes on."""

    reference: Reference
    digest: Digest
    policies: list[Policy]
    """Those that are still asked."""
    enforcing: frozenset[str]
    """Names of those that may refuse."""
    tallies: dict[str, Tally] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    stale: str | None = None

    def ask(self, step: Callable[[Policy], Problem | None]) -> None:
        """Put one step to every policy that is still asked.

        Raises:
            Refused: an enforcing policy says no.
        """
        for policy in list(self.policies):
            problem = step(policy)
            if problem is None:
                continue
            reason, message = problem
            if policy.enforce:
                raise Refused(reason, f"policy {policy.name}: {message}")
            self.warnings.append(f"{reason}: policy {policy.name}: {message}")
            self.policies.remove(policy)


def judge(
    reference: Reference,
    manifest_bytes: bytes,
    evidence: Sequence[Evidence],
    policies: Sequence[Policy],
    *,
    mark: int | None = None,
    known_good: frozenset[Digest] = frozenset(),
    now: datetime | None = None,
) -> Verdict:
    """Judge one artifact.

    Args:
        reference: what is to run, pinned: its digest is what the bytes must have.
        manifest_bytes: as the registry, a peer or the disk gave them.
        evidence: everything attached to the digest that was meant as a signature, readable or not.
        policies: those that govern the reference.
        mark: highest sequence that was ever active here; None when there was none.
        known_good: artifacts that ran here and were verified then: going back to one of them is no downgrade, and
            one that expires while it serves goes on serving.
        now: an aware time; None where no clock can be relied on: then nothing is too old, too early or too late.

    Raises:
        ValueError: the reference is not pinned; a mistake of the caller, not of the artifact.
    """
    if reference.digest is None:
        raise ValueError(f"expected a reference pinned by digest, found {reference}")
    case = _Case(
        reference,
        Digest.of(manifest_bytes),
        sorted(policies, key=lambda policy: policy.name),
        frozenset(policy.name for policy in policies if policy.enforce),
    )
    manifest: Manifest | None = None
    files: tuple[ModelFile, ...] = ()
    refusal: Refused | None = None
    try:
        _check_digest(reference.digest, case.digest)
        _check_governed(case)
        case.ask(lambda policy: _revoked(policy, case))
        manifest = Manifest.parse(manifest_bytes)
        _count_signatures(case, manifest, evidence, now)
        facts = _covered(case, manifest)
        case.ask(lambda policy: _wrong_model(facts[policy.name], reference))
        case.ask(lambda policy: _downgrade(policy, facts[policy.name], case.digest, mark, known_good))
        case.ask(lambda policy: _expired(policy, facts[policy.name], case, known_good, now))
        files = _deliverable(manifest)
    except Refused as error:
        refusal = error
    return Verdict(
        digest=case.digest,
        manifest=manifest,
        files=files,
        release=_signed_release(case, manifest),
        verified_by=tuple(
            f"{name}/{authority}"
            for name, found in case.tallies.items()
            if found.problem is None
            for authority in found.names
        ),
        warnings=tuple(case.warnings),
        stale=case.stale,
        refusal=refusal,
    )


def _check_digest(wanted: Digest, found: Digest) -> None:
    if wanted != found:
        raise Refused(
            Reason.DIGEST_MISMATCH,
            f"expected a manifest with digest {wanted}, found bytes with {found}: the registry, or something before it, "
            "hands out something else; check it before anything else is pulled from there",
        )


def _check_governed(case: _Case) -> None:
    if not case.policies:
        raise Refused(
            Reason.NO_MATCHING_POLICY,
            f"no ModelTrustPolicy matches {case.reference.name} in this namespace, so nobody may sign for it; "
            "create one, or widen spec.match of one",
        )


def _deliverable(manifest: Manifest) -> tuple[ModelFile, ...]:
    files = model_files(manifest)
    for file in files:
        if file.packing == "tar+zstd":
            # Said before anything changes or is downloaded, not by the pod that cannot unpack it.
            raise Refused(
                Reason.MALFORMED_ARTIFACT,
                f"layer {file.descriptor.digest}: is packed with zstd, which is not read; "
                "publish weights uncompressed (raw or tar)",
            )
    return files


def _revoked(policy: Policy, case: _Case) -> Problem | None:
    if case.digest not in policy.revoked_digests:
        return None
    return Reason.KEY_REVOKED, f"{case.digest} is listed in revokedDigests; publish another release"


def _count_signatures(
    case: _Case, manifest: Manifest, evidence: Sequence[Evidence], now: datetime | None
) -> None:
    try:
        files: tuple[ModelFile, ...] | None = model_files(manifest)
    except Refused:
        files = None
    subject = Subject(case.digest, files)
    checked: dict[tuple[str, int], bool] = {}

    def step(policy: Policy) -> Problem | None:
        found = tally(policy, subject, evidence[:MAX_EVIDENCE], now=now, checked=checked)
        case.tallies[policy.name] = found
        return found.problem

    case.ask(step)


def _covered(case: _Case, manifest: Manifest) -> dict[str, Release]:
    """Return by policy what it may take for said: nothing, unless as many keys as it asks for signed the manifest.

    Raises:
        Refused: ``MalformedArtifact``; a signed annotation cannot be read.
    """
    enough = {policy.name: case.tallies[policy.name].covers_manifest for policy in case.policies}
    facts = release(manifest) if any(enough.values()) else Release()
    return {name: facts if covered else Release() for name, covered in enough.items()}


def _signed_release(case: _Case, manifest: Manifest | None) -> Release:
    """Return the facts for status, logs and the next mark; also those of an artifact that was refused for them.

    A policy in Warn mode may lend its keys only where nothing enforces: its keys may be anybody's.
    """
    asked = case.enforcing or case.tallies.keys()
    if manifest is None or not any(
        found.covers_manifest for name, found in case.tallies.items() if name in asked
    ):
        return Release()
    try:
        return release(manifest)
    except Refused:
        return Release()


def _wrong_model(facts: Release, reference: Reference) -> Problem | None:
    """The signed name must be the end of the repository's path, by whole components."""
    if facts.name is None or f"/{reference.repository}".endswith(f"/{facts.name}"):
        return None
    return (
        Reason.WRONG_MODEL,
        (
            f"the publisher signed it as {facts.name!r}, but it lies in {reference.repository!r}; expected a repository "
            f"that ends in {facts.name!r}: it was copied from another model's place, or published under a wrong name"
        ),
    )


def _downgrade(
    policy: Policy, facts: Release, digest: Digest, mark: int | None, known_good: frozenset[Digest]
) -> Problem | None:
    if facts.sequence is None and policy.require_sequence:
        return (
            Reason.DOWNGRADE_REFUSED,
            "it has no signed sequence, and the policy requires one; publish it with a sequence",
        )
    if mark is None or policy.allow_downgrade or digest in known_good:
        return None
    if facts.sequence is None:
        return (
            Reason.DOWNGRADE_REFUSED,
            (
                f"it has no signed sequence, and sequence {mark} was active here already; publish it with a higher one, or "
                "set allowDowngrade for as long as it takes"
            ),
        )
    if facts.sequence < mark:
        return (
            Reason.DOWNGRADE_REFUSED,
            (
                f"its sequence is {facts.sequence}, and {mark} was active here already; publish a release with a higher "
                "one, or set allowDowngrade for as long as it takes"
            ),
        )
    return None


def _expired(
    policy: Policy, facts: Release, case: _Case, known_good: frozenset[Digest], now: datetime | None
) -> Problem | None:
    if now is None:
        return None
    message = None
    if facts.expires is not None and now >= facts.expires:
        message = f"it expired at {format_time(facts.expires)}; publish a newer release"
    elif policy.max_age is not None and facts.created is None:
        message = "the policy limits its age, and no signature says when it was created; publish it with edgemodel publish"
    elif policy.max_age is not None and facts.created is not None and now - facts.created > policy.max_age:
        message = (
            f"it was created at {format_time(facts.created)}, longer ago than maxAge allows ({policy.max_age}); "
            "publish a newer release"
        )
    if message is None:
        return None
    if case.digest in known_good:
        case.stale = f"policy {policy.name}: {message}"
        return None
    return Reason.EXPIRED, message
