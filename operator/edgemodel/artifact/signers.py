"""Who signed an artifact, by one policy's keys: the part of ``trust`` that counts signatures.

Promises: a key counts once however often it signed and under however many names it is listed; a revoked key never
counts; what does not count is sorted into one reason and a message that says what was found.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from edgemodel.api.conditions import Reason
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.model_files import ModelFile
from edgemodel.artifact.policy import Policy, TrustedKey
from edgemodel.artifact.signature import Evidence, Kind, SignatureEvidence, Unreadable

SIGNATURE_FILE = "model.sig"
"""Where OpenSSF's signature lies among the files it covers; it cannot cover itself."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The artifact that signatures are to be about."""

    digest: Digest
    files: tuple[ModelFile, ...] | None
    """None when they could not be told from the manifest: then no list of files can match."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What came of one policy's keys and the signatures at hand."""

    names: tuple[str, ...] = ()
    """Authorities whose signatures count, in the policy's order."""
    covers_manifest: bool = False
    """As many keys as the policy asks for signed the manifest itself, and so the release facts in it, not only files."""
    problem: tuple[Reason, str] | None = None
    """Set when fewer keys signed than the policy asks for."""


@dataclass(slots=True)
class _Notes:
    """What was found and does not count."""

    revoked: list[str] = field(default_factory=list)
    not_after: list[str] = field(default_factory=list)
    not_before: list[str] = field(default_factory=list)
    invalid: list[str] = field(default_factory=list)
    unknown: int = 0
    ignored: list[str] = field(default_factory=list)


def tally(
    policy: Policy,
    subject: Subject,
    evidence: Sequence[Evidence],
    *,
    now: datetime | None,
    checked: dict[tuple[str, int], bool],
) -> Tally:
    """Count the keys of ``policy`` that signed ``subject``.

    Args:
        policy: whose keys count.
        subject: what must be signed.
        evidence: everything that was attached; nothing of it is trusted.
        now: judges ``notBefore`` and ``notAfter``; they are not judged when None.
        checked: remembers key id and place in ``evidence`` of what was verified, across policies.
    """
    revoked_ids = {key.key.key_id for key in policy.keys if key.revoked}
    notes = _Notes()
    counted: set[str] = set()
    manifest_keys: set[str] = set()
    names: set[str] = set()
    for place, item in enumerate(evidence):
        if not _is_candidate(item, policy, notes):
            continue
        assert isinstance(item, SignatureEvidence)
        makers = [key for key in policy.keys if _verified(key, item, place, checked)]
        if not makers:
            _note_stranger(item, policy, notes)
            continue
        if (problem := _not_about(item, subject)) is not None:
            notes.invalid.append(f"{makers[0].name} signed, but {problem}")
            continue
        for key in makers:
            if _counts(key, revoked_ids, now, notes):
                names.add(key.name)
                counted.add(key.key.key_id)
                if item.statement.kind is Kind.SIGNATURE:
                    manifest_keys.add(key.key.key_id)
    ordered = tuple(key.name for key in policy.keys if key.name in names)
    problem_found = (
        _problem(policy, ordered, len(counted), notes) if len(counted) < policy.threshold else None
    )
    return Tally(ordered, len(manifest_keys) >= policy.threshold, problem_found)


def _is_candidate(item: Evidence, policy: Policy, notes: _Notes) -> bool:
    if item.format not in policy.formats:
        notes.ignored.append(f"a signature of format {item.format}, which the policy does not accept")
        return False
    if isinstance(item, Unreadable):
        notes.invalid.append(f"a signature of format {item.format} cannot be read: {item.problem}")
        return False
    if item.statement.kind is Kind.ATTESTATION:
        notes.ignored.append(f"an attestation {item.statement.predicate[:120]!r}, which is no signature")
        return False
    return True


def _verified(
    key: TrustedKey, item: SignatureEvidence, place: int, checked: dict[tuple[str, int], bool]
) -> bool:
    index = (key.key.key_id, place)
    if index not in checked:
        checked[index] = item.verified_by(key.key)
    return checked[index]


def _note_stranger(item: SignatureEvidence, policy: Policy, notes: _Notes) -> None:
    """No key of the policy made it: altered, if it claims one of them; else somebody else's."""
    claimed = next((key for key in policy.keys if item.hint in key.key.hints), None)
    if claimed is not None:
        notes.invalid.append(f"a signature names the key of {claimed.name}, but that key did not make it")
    else:
        notes.unknown += 1


def _not_about(item: SignatureEvidence, subject: Subject) -> str | None:
    if item.statement.kind is Kind.SIGNATURE:
        if subject.digest in item.statement.subjects:
            return None
        others = ", ".join(digest.short for digest in sorted(item.statement.subjects)) or "nothing"
        return f"not this artifact (sha256:{others}…)"
    return _files_differ(item.statement.files, subject.files)


def _files_differ(signed: Iterable[tuple[str, Digest]], files: tuple[ModelFile, ...] | None) -> str | None:
    """Say how the delivered files differ from the signed ones: each must be in both, with the same digest."""
    if files is None:
        return "the artifact's files cannot be told"
    present: dict[str, Digest] = {}
    for file in files:
        if file.packing != "raw":
            return "only files, and this artifact packs them in archives, whose content no manifest tells"
        if file.path != SIGNATURE_FILE:
            present[file.path] = file.descriptor.digest
    expected: Mapping[str, Digest] = dict(signed)
    for path in sorted(present.keys() | expected.keys()):
        if path not in expected:
            return f"not the file {path!r}, which the artifact holds"
        if path not in present:
            return f"also a file {path!r}, which the artifact lacks"
        if present[path] != expected[path]:
            return f"another {path!r} (sha256:{expected[path].short}…)"
    return None


def _counts(key: TrustedKey, revoked_ids: set[str], now: datetime | None, notes: _Notes) -> bool:
    if key.key.key_id in revoked_ids:
        notes.revoked.append(key.name)
    elif now is not None and key.not_after is not None and now > key.not_after:
        notes.not_after.append(f"{key.name} (until {key.not_after:%Y-%m-%dT%H:%M:%SZ})")
    elif now is not None and key.not_before is not None and now < key.not_before:
        notes.not_before.append(f"{key.name} (from {key.not_before:%Y-%m-%dT%H:%M:%SZ})")
    else:
        return True
    return False


def _problem(policy: Policy, names: tuple[str, ...], count: int, notes: _Notes) -> tuple[Reason, str]:
    have = f"signed by {', '.join(names)}" if names else "no signature counts"
    missing = f"{count} of {policy.threshold} needed keys signed" if policy.threshold > 1 else have
    if names and policy.threshold > 1:
        missing += f" ({', '.join(names)})"

    def say(reason: Reason, what: str) -> tuple[Reason, str]:
        return reason, f"{missing}: {what}"

    if notes.revoked:
        return say(
            Reason.KEY_REVOKED,
            f"signed by {_joined(notes.revoked)}, whose key is revoked; have it signed with another key",
        )
    if notes.invalid:
        return say(
            Reason.SIGNATURE_INVALID,
            f"{_joined(notes.invalid)}; it was altered or copied: publish and sign anew",
        )
    if notes.not_after:
        return say(
            Reason.KEY_REVOKED,
            f"signed by {_joined(notes.not_after)}, whose key counts no longer; sign with another",
        )
    if notes.not_before:
        return say(Reason.KEY_UNKNOWN, f"signed by {_joined(notes.not_before)}, whose key does not count yet")
    if notes.unknown and not names:
        known = ", ".join(key.name for key in policy.keys)
        return say(
            Reason.KEY_UNKNOWN,
            f"{notes.unknown} signature(s) found, none by a key of the policy ({known}); sign with one, or add the key",
        )
    found = f"found only {_joined(notes.ignored)}" if notes.ignored else "none is attached"
    return say(Reason.SIGNATURE_MISSING, f"{found}; sign the artifact with edgemodel sign or cosign sign")


def _joined(parts: Sequence[str]) -> str:
    """Join what was found, each once, the first few of many."""
    distinct = list(dict.fromkeys(parts))
    return "; ".join(distinct[:3]) + (f"; and {len(distinct) - 3} more" if len(distinct) > 3 else "")
