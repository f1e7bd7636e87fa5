"""Judges an artifact with little said about it."""

from datetime import timedelta

from edgemodel.artifact.trust import Verdict, judge
from tests.unit.artifact.signed import NOW, artifact, policy, reference, signed

DAY = timedelta(days=1)


def verdict(manifest=None, evidence=None, *policies, at=None, **given) -> Verdict:
    manifest = manifest or artifact()
    evidence = [signed(manifest)] if evidence is None else evidence
    given.setdefault("now", NOW)
    return judge(at or reference(manifest), manifest.raw, evidence, policies or [policy()], **given)


def reason(outcome: Verdict) -> str | None:
    return outcome.refusal.reason if outcome.refusal else None
