"""Judgements that depend on the policy: OpenSSF's format, and several policies at a time."""

from dataclasses import replace

import pytest

from edgemodel.api.conditions import Reason
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.manifest import Descriptor, ModelFile, Release
from edgemodel.artifact.statement import FILES_PREDICATE, Kind, Statement
from tests.unit.artifact.judging import DAY, reason, verdict
from tests.unit.artifact.signed import FACTS, artifact, file, key, policy, reference, signed, trusted


class TestOpenSSF:
    """A list of files vouches for files, not for the manifest around them."""

    RULES = {"formats": frozenset({"Bundle", "OpenSSF"})}  # noqa: RUF012 - read only

    def listing(self, files, by="publisher"):
        listed = tuple((each.path, each.descriptor.digest) for each in files)
        data = b"list of " + repr(listed).encode()
        return replace(
            signed(artifact(), by),
            format="OpenSSF",
            signed=data,
            signature=key(by).sign(data),
            statement=Statement(Kind.FILES, FILES_PREDICATE, frozenset(), files=listed),
        )

    def test_the_right_files_pass_and_their_facts_do_not_count(self):
        files = (file(), file("labels.json", b"[]"))
        outcome = verdict(artifact(files=files), [self.listing(files)], policy(**self.RULES))
        assert reason(outcome) is None
        assert outcome.release == Release()
        assert outcome.verified_by == ("site/publisher",)

    def test_the_signature_file_itself_is_not_among_what_it_covers(self):
        files = (file(),)
        manifest = artifact(files=(*files, file("model.sig", b"{}")))
        assert reason(verdict(manifest, [self.listing(files)], policy(**self.RULES))) is None

    @pytest.mark.parametrize(
        ("there", "listed"),
        [
            ((file(), file("more.onnx", b"m")), (file(),)),
            ((file(),), (file(), file("more.onnx", b"m"))),
            ((file("model.onnx", b"other"),), (file(),)),
            ((file("other.onnx"),), (file(),)),
        ],
        ids=["one file more", "one file less", "another content", "another path"],
    )
    def test_other_files_are_refused(self, there, listed):
        outcome = verdict(artifact(files=there), [self.listing(listed)], policy(**self.RULES))
        assert reason(outcome) == Reason.SIGNATURE_INVALID

    def test_archives_hide_files_and_so_cannot_be_covered(self):
        packed = ModelFile(
            "models", Descriptor("application/vnd.cncf.model.weight.v1.tar", Digest.of(b"t"), 1)
        )
        outcome = verdict(artifact(files=(packed,)), [self.listing((file(),))], policy(**self.RULES))
        assert reason(outcome) == Reason.SIGNATURE_INVALID
        assert "archives" in outcome.refusal.message

    def test_facts_are_absent_for_sequence_and_age_too(self):
        files = (file(),)
        for rules, given in (
            ({}, {"mark": 1}),
            ({"require_sequence": True}, {}),
            ({"max_age": 99 * DAY}, {}),
        ):
            outcome = verdict(
                artifact(files=files), [self.listing(files)], policy(**self.RULES, **rules), **given
            )
            assert reason(outcome) in (Reason.DOWNGRADE_REFUSED, Reason.EXPIRED)

    def test_facts_need_as_many_keys_as_the_policy_does(self):
        files = (file(),)
        manifest = artifact(files=files)
        two = policy(trusted(), trusted("second"), threshold=2, **self.RULES)
        mixed = [signed(manifest), self.listing(files, "second")]
        outcome = verdict(manifest, mixed, two)
        assert reason(outcome) is None
        assert outcome.release == Release()


class TestSeveralPolicies:
    def test_every_enforcing_policy_must_pass(self):
        manifest = artifact()
        both = (policy(name="a"), policy(trusted("second"), name="b"))
        assert reason(verdict(manifest, [signed(manifest)], *both)) == Reason.KEY_UNKNOWN
        outcome = verdict(manifest, [signed(manifest), signed(manifest, "second")], *both)
        assert reason(outcome) is None
        assert outcome.verified_by == ("a/publisher", "b/second")

    def test_signatures_are_judged_for_all_before_facts_for_any(self):
        manifest = artifact(replace(FACTS, name="classifier"))
        both = (policy(name="a"), policy(trusted("second"), name="b"))
        assert reason(verdict(manifest, [signed(manifest)], *both)) == Reason.KEY_UNKNOWN

    def test_warn_lets_it_through_says_so_and_asks_no_further(self):
        outcome = verdict(artifact(), [], policy(enforce=False), mark=99)
        assert reason(outcome) is None
        assert len(outcome.warnings) == 1
        assert outcome.warnings[0].startswith("SignatureMissing: policy site: no signature counts")
        assert outcome.files
        assert outcome.release == Release()

    def test_warn_beside_enforce_adds_a_warning_and_changes_nothing(self):
        outcome = verdict(None, None, policy(name="a"), policy(trusted("second"), name="b", enforce=False))
        assert reason(outcome) is None
        assert outcome.warnings[0].startswith("KeyUnknown: policy b")
        assert outcome.release == FACTS
        assert outcome.verified_by == ("a/publisher",)

    def test_the_keys_of_a_warn_policy_lend_no_facts_where_another_enforces(self):
        files = (file(),)
        manifest = artifact(files=files)
        evidence = [TestOpenSSF().listing(files), signed(manifest, "second")]
        enforcing = policy(name="a", formats=frozenset({"OpenSSF"}))
        outcome = verdict(manifest, evidence, enforcing, policy(trusted("second"), name="b", enforce=False))
        assert reason(outcome) is None
        assert outcome.release == Release()

    def test_warn_waives_neither_digest_nor_form(self):
        other = artifact(replace(FACTS, version="1.4.1"))
        outcome = verdict(other, [], policy(enforce=False), at=reference(artifact()))
        assert reason(outcome) == Reason.DIGEST_MISMATCH
