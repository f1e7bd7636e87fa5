"""The judgement: each step, its reason, their order, and what Warn waives."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from edgemodel.api.conditions import Reason
from edgemodel.artifact import media_types
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.reference import Reference
from edgemodel.artifact.signature import Unreadable, parse_bundle, sign_bundle
from edgemodel.artifact.statement import Kind, Statement
from edgemodel.artifact.trust import MAX_EVIDENCE, judge
from edgemodel.errors import Refused
from tests.unit.artifact.judging import DAY, reason, verdict
from tests.unit.artifact.signed import FACTS, NOW, artifact, file, key, policy, reference, signed, trusted


def test_a_signed_release_passes_with_its_facts_files_and_signers():
    outcome = verdict()
    assert outcome.refusal is None
    assert outcome.or_refused() is outcome
    assert outcome.release == FACTS
    assert [each.path for each in outcome.files] == ["model.onnx"]
    assert outcome.verified_by == ("site/publisher",)
    assert outcome.warnings == ()


def test_other_bytes_than_the_digest_asked_for_are_refused_whoever_signed_them():
    other = artifact(replace(FACTS, version="1.4.1"))
    outcome = verdict(other, [signed(other)], at=reference(artifact()))
    assert reason(outcome) == Reason.DIGEST_MISMATCH
    assert outcome.manifest is None
    assert outcome.digest == other.digest
    with pytest.raises(Refused):
        outcome.or_refused()


def test_a_reference_that_is_not_pinned_is_the_callers_mistake():
    with pytest.raises(ValueError, match="pinned by digest"):
        verdict(at=Reference.parse("registry.example.com/models/detector:1"))


def test_without_a_policy_nothing_may_run():
    manifest = artifact()
    outcome = judge(reference(manifest), manifest.raw, [signed(manifest)], [])
    assert reason(outcome) == Reason.NO_MATCHING_POLICY
    assert "registry.example.com/models/detector" in outcome.refusal.message


def test_a_revoked_digest_is_refused_although_its_signature_is_good_and_it_ran_here():
    manifest = artifact()
    outcome = verdict(
        manifest,
        None,
        policy(revoked_digests=frozenset({manifest.digest})),
        known_good=frozenset({manifest.digest}),
    )
    assert reason(outcome) == Reason.KEY_REVOKED
    assert "revokedDigests" in outcome.refusal.message


def test_bytes_that_are_no_manifest_are_malformed():
    data = b'{"schemaVersion":2,"layers":{}}'
    at = Reference("registry.example.com", "models/detector", digest=Digest.of(data))
    assert reason(judge(at, data, [], [policy()])) == Reason.MALFORMED_ARTIFACT


ATTESTATION = Statement(Kind.ATTESTATION, "https://example.com/scan/v1", frozenset())

SIGNATURES = {
    "none is attached": (lambda m: [], {}, Reason.SIGNATURE_MISSING),
    "only an attestation": (
        lambda m: [replace(signed(m), statement=ATTESTATION)],
        {},
        Reason.SIGNATURE_MISSING,
    ),
    "only a format that the policy excludes": (
        lambda m: [signed(m)],
        {"formats": frozenset({"Legacy"})},
        Reason.SIGNATURE_MISSING,
    ),
    "by a stranger": (lambda m: [signed(m, "stranger")], {}, Reason.KEY_UNKNOWN),
    "by a stranger who claims to be the publisher": (
        lambda m: [replace(signed(m, "stranger"), hint=key().public.hint)],
        {},
        Reason.SIGNATURE_INVALID,
    ),
    "altered after signing": (
        lambda m: [replace(signed(m), signed=signed(m).signed + b" ")],
        {},
        Reason.SIGNATURE_INVALID,
    ),
    "copied from another artifact": (
        lambda m: [signed(artifact(replace(FACTS, sequence=99)))],
        {},
        Reason.SIGNATURE_INVALID,
    ),
    "not readable": (lambda m: [Unreadable("Bundle", "is not JSON")], {}, Reason.SIGNATURE_INVALID),
    "a stranger's, and one that is not readable": (
        lambda m: [signed(m, "stranger"), Unreadable("Bundle", "is not JSON")],
        {},
        Reason.SIGNATURE_INVALID,
    ),
    "good, among attestations, strangers and rubbish": (
        lambda m: [Unreadable("Bundle", "x"), signed(m, "stranger"), signed(m)],
        {},
        None,
    ),
    "good, but beyond the number that is looked at": (
        lambda m: [Unreadable("Legacy", "x")] * MAX_EVIDENCE + [signed(m)],
        {},
        Reason.SIGNATURE_INVALID,
    ),
    "by a revoked key": (lambda m: [signed(m)], {"keys": (trusted(revoked=True),)}, Reason.KEY_REVOKED),
    "by a revoked key that is listed again under another name": (
        lambda m: [signed(m)],
        {"keys": (replace(trusted(), name="again"), trusted(revoked=True))},
        Reason.KEY_REVOKED,
    ),
    "by a revoked and by a good key": (
        lambda m: [signed(m), signed(m, "second")],
        {"keys": (trusted(revoked=True), trusted("second"))},
        None,
    ),
    "by a key whose time is over": (
        lambda m: [signed(m)],
        {"keys": (trusted(not_after=NOW - DAY),)},
        Reason.KEY_REVOKED,
    ),
    "by a key whose time has not come": (
        lambda m: [signed(m)],
        {"keys": (trusted(not_before=NOW + DAY),)},
        Reason.KEY_UNKNOWN,
    ),
    "by a key in its time": (
        lambda m: [signed(m)],
        {"keys": (trusted(not_before=NOW - DAY, not_after=NOW + DAY),)},
        None,
    ),
    "by one of two needed keys": (
        lambda m: [signed(m)],
        {"keys": (trusted(), trusted("second")), "threshold": 2},
        Reason.SIGNATURE_MISSING,
    ),
    "twice by one of two needed keys": (
        lambda m: [signed(m), signed(m)],
        {"keys": (trusted(), trusted("second")), "threshold": 2},
        Reason.SIGNATURE_MISSING,
    ),
    "by one key under two names, where two keys are needed": (
        lambda m: [signed(m)],
        {"keys": (trusted(), replace(trusted(), name="again"), trusted("second")), "threshold": 2},
        Reason.SIGNATURE_MISSING,
    ),
    "by both needed keys": (
        lambda m: [signed(m), signed(m, "second")],
        {"keys": (trusted(), trusted("second")), "threshold": 2},
        None,
    ),
}


@pytest.mark.parametrize(("evidence", "rules", "expected"), SIGNATURES.values(), ids=SIGNATURES)
def test_signatures(evidence, rules, expected):
    manifest = artifact()
    outcome = verdict(manifest, evidence(manifest), policy(**rules))
    assert reason(outcome) == expected
    assert bool(outcome.files) == (expected is None)


def test_without_a_clock_no_key_is_too_early_or_too_late():
    keys = (trusted(not_before=NOW + DAY),)
    assert reason(verdict(None, None, policy(*keys), now=None)) is None


def test_the_message_says_who_signed_and_how_many_are_missing():
    manifest = artifact()
    outcome = verdict(manifest, [signed(manifest)], policy(trusted(), trusted("second"), threshold=2))
    assert outcome.refusal.message.startswith(
        "policy site: 1 of 2 needed keys signed (publisher): none is attached"
    )


FACTS_TABLE = {
    "name is the repository's last component": ({"name": "detector"}, {}, {}, None),
    "name is the whole repository": ({"name": "models/detector"}, {}, {}, None),
    "name is not given": ({"name": None}, {}, {}, None),
    "name is another model's": ({"name": "classifier"}, {}, {}, Reason.WRONG_MODEL),
    "name ends inside a component": ({"name": "tector"}, {}, {}, Reason.WRONG_MODEL),
    "name is longer than the repository": ({"name": "site/models/detector"}, {}, {}, Reason.WRONG_MODEL),
    "sequence as high as the mark": ({"sequence": 14}, {}, {"mark": 14}, None),
    "sequence below the mark": ({"sequence": 13}, {}, {"mark": 14}, Reason.DOWNGRADE_REFUSED),
    "sequence zero below mark one": ({"sequence": 0}, {}, {"mark": 1}, Reason.DOWNGRADE_REFUSED),
    "sequence below the mark, allowed": ({"sequence": 13}, {"allow_downgrade": True}, {"mark": 14}, None),
    "no sequence and no mark": ({"sequence": None}, {}, {}, None),
    "no sequence but a mark": ({"sequence": None}, {}, {"mark": 0}, Reason.DOWNGRADE_REFUSED),
    "no sequence where one is required": (
        {"sequence": None},
        {"require_sequence": True},
        {},
        Reason.DOWNGRADE_REFUSED,
    ),
    "no sequence where one is required, downgrade allowed": (
        {"sequence": None},
        {"require_sequence": True, "allow_downgrade": True},
        {},
        Reason.DOWNGRADE_REFUSED,
    ),
    "expires later": ({"expires": NOW + DAY}, {}, {}, None),
    "expires this second": ({"expires": NOW}, {}, {}, Reason.EXPIRED),
    "expired": ({"expires": NOW - DAY}, {}, {}, Reason.EXPIRED),
    "expired, but no clock": ({"expires": NOW - DAY}, {}, {"now": None}, None),
    "young enough": ({"created": NOW - DAY}, {"max_age": 2 * DAY}, {}, None),
    "too old": ({"created": NOW - 3 * DAY}, {"max_age": 2 * DAY}, {}, Reason.EXPIRED),
    "of unknown age where age is limited": ({"created": None}, {"max_age": 2 * DAY}, {}, Reason.EXPIRED),
    "wrong name comes before downgrade": (
        {"name": "classifier", "sequence": 1},
        {},
        {"mark": 14},
        Reason.WRONG_MODEL,
    ),
    "downgrade comes before expiry": (
        {"sequence": 1, "expires": NOW - DAY},
        {},
        {"mark": 14},
        Reason.DOWNGRADE_REFUSED,
    ),
}


@pytest.mark.parametrize(("facts", "rules", "given", "expected"), FACTS_TABLE.values(), ids=FACTS_TABLE)
def test_release_facts(facts, rules, given, expected):
    outcome = verdict(artifact(replace(FACTS, **facts)), None, policy(**rules), **given)
    assert reason(outcome) == expected


def test_going_back_to_what_ran_here_is_no_downgrade():
    manifest = artifact(replace(FACTS, sequence=3))
    assert reason(verdict(manifest, mark=14, known_good=frozenset({manifest.digest}))) is None


def test_what_serves_and_expires_is_stale_not_refused():
    manifest = artifact(replace(FACTS, expires=NOW - DAY))
    outcome = verdict(manifest, known_good=frozenset({manifest.digest}))
    assert reason(outcome) is None
    assert "expired at 2026-11-23T13:00:00Z" in outcome.stale


def test_a_signed_annotation_that_cannot_be_read_is_malformed():
    manifest = artifact(replace(FACTS, sequence=None), extra={media_types.RELEASE_SEQUENCE: "014"})
    outcome = verdict(manifest)
    assert reason(outcome) == Reason.MALFORMED_ARTIFACT
    assert "io.edgemodel.sequence" in outcome.refusal.message


def test_signed_paths_that_escape_are_malformed():
    safe = artifact(files=(file("aa/model.onnx"),))
    raw = safe.raw.replace(b"aa/model.onnx", b"../model.onnx")
    at = Reference("registry.example.com", "models/detector", digest=Digest.of(raw))
    evidence = [parse_bundle(sign_bundle(key(), Digest.of(raw)))]
    for rules in ({}, {"enforce": False}):
        assert reason(judge(at, raw, evidence, [policy(**rules)], now=NOW)) == Reason.MALFORMED_ARTIFACT


@pytest.mark.parametrize("rules", [{}, {"enforce": False}], ids=["Enforce", "Warn"])
def test_a_layer_that_no_pod_can_unpack_is_refused_before_anything_changes(rules):
    raw = artifact().raw.replace(b"weight.v1.raw", b"weight.v1.tar+zstd")
    at = Reference("registry.example.com", "models/detector", digest=Digest.of(raw))
    evidence = [parse_bundle(sign_bundle(key(), Digest.of(raw)))]
    outcome = judge(at, raw, evidence, [policy(**rules)], now=NOW)
    assert reason(outcome) == Reason.MALFORMED_ARTIFACT
    assert "zstd" in outcome.refusal.message
    assert outcome.files == ()


def test_a_refused_release_still_says_what_it_is():
    outcome = verdict(mark=99)
    assert reason(outcome) == Reason.DOWNGRADE_REFUSED
    assert outcome.release.version == "1.4.0"
    assert outcome.files == ()


def test_the_same_arguments_give_the_same_verdict():
    manifest = artifact()
    evidence = [signed(manifest)]
    assert verdict(manifest, evidence) == verdict(manifest, evidence)


def test_times_in_other_zones_are_the_same_times():
    late = datetime.fromisoformat("2026-11-24T14:59:59+02:00")
    assert late.astimezone(UTC) < NOW
    assert reason(verdict(artifact(replace(FACTS, expires=late)))) == Reason.EXPIRED
