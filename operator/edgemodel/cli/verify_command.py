"""``edgemodel verify``: would a cluster with these keys or policies run this artifact?"""

import argparse
import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from edgemodel.api.conditions import Reason
from edgemodel.cli import command, exit_codes, options, output
from edgemodel.cli.command import Commands

if TYPE_CHECKING:
    from edgemodel.artifact.trust import Verdict

_STEPS: tuple[tuple[str, frozenset[Reason]], ...] = (
    ("digest", frozenset({Reason.DIGEST_MISMATCH})),
    ("policy", frozenset({Reason.NO_MATCHING_POLICY})),
    (
        "signatures",
        frozenset(
            {Reason.SIGNATURE_MISSING, Reason.SIGNATURE_INVALID, Reason.KEY_UNKNOWN, Reason.KEY_REVOKED}
        ),
    ),
    ("name", frozenset({Reason.WRONG_MODEL})),
    ("sequence", frozenset({Reason.DOWNGRADE_REFUSED})),
    ("expiry", frozenset({Reason.EXPIRED})),
    ("form", frozenset({Reason.MALFORMED_ARTIFACT})),
)
"""The checks in the order of ``trust.judge``, and the reasons by which each refuses."""
_OF_A_MANIFEST = frozenset({"signatures", "name", "sequence", "expiry"})


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command.add(
        commands,
        "verify",
        run,
        summary="check who signed an artifact, as a cluster would",
        about="""
Reads the manifest and its signatures, not the model's files, and goes through the same judgement as the operator.
A signature counts only if it says that it is one: an attestation (a scan report, a bill of materials) by the same
key does not. Keys given with --key form one policy; --policy files are judged as a cluster would judge them.""",
        examples="""
edgemodel verify registry.example.com/models/detector:1.4.0 --key edgemodel.pub
edgemodel verify registry.example.com/models/detector:1.4.0 --key a.pub --key b.pub --threshold 2
edgemodel verify registry.example.com/models/detector:1.4.0 --policy trust-policy.yaml --output json""",
    )
    parser.add_argument("reference", metavar="REFERENCE", help="registry/repository:tag or …@sha256:…")
    options.add_trust(parser)
    options.add_registry(parser)
    options.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from edgemodel.artifact.reference import Reference
    from edgemodel.artifact.verify import Examined, examine

    reference = Reference.parse(arguments.reference)
    policies = options.policies(arguments)

    async def look() -> Examined:
        async with options.registry(arguments, reference) as registry:
            return await examine(registry, reference)

    examined = asyncio.run(look())
    verdict = examined.judge(policies, mark=arguments.min_sequence, now=datetime.now(UTC))
    checks = _checks(verdict)
    facts = verdict.release
    if arguments.output == "json":
        output.document(
            {
                "reference": str(examined.reference),
                "digest": examined.digest,
                "verified": verdict.refusal is None,
                "verifiedBy": verdict.verified_by,
                "refusal": None
                if verdict.refusal is None
                else {"reason": verdict.refusal.reason, "message": verdict.refusal.message},
                "checks": [{"check": name, "result": result} for name, result in checks],
                "warnings": verdict.warnings,
                "release": output.release(facts),
            }
        )
    else:
        output.fields(
            [
                ("artifact", examined.reference),
                *((name, result) for name, result in checks),
                ("verified by", ", ".join(verdict.verified_by)),
                ("signed name", facts.name),
                ("signed version", facts.version),
                ("signed sequence", facts.sequence),
                ("signed expiry", output.moment(facts.expires)),
                *(("warning", warning) for warning in verdict.warnings),
            ]
        )
        if verdict.refusal is not None:
            output.note(f"Refused ({verdict.refusal.reason}): {verdict.refusal.message}")
    return exit_codes.OK if verdict.refusal is None else exit_codes.of(verdict.refusal)


def _checks(verdict: "Verdict") -> list[tuple[str, str]]:
    """Say of each check whether it passed, failed, or was not reached."""
    checks: list[tuple[str, str]] = []
    failed = False
    for name, reasons in _STEPS:
        if failed:
            checks.append((name, "not reached"))
        elif verdict.refusal is not None and verdict.refusal.reason in reasons:
            checks.append((name, "FAILED"))
            failed = True
        elif verdict.refusal is not None and verdict.manifest is None and name in _OF_A_MANIFEST:
            # Bytes that are no manifest fail before signatures and what they cover are looked at.
            checks.append((name, "not reached"))
        else:
            checks.append((name, "passed"))
    return checks
