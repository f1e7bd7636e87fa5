"""One pass's facts, arranged for telling: which version each statement is about and what its pods report."""

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from edgemodel.api.conditions import ConditionType, Reason
from edgemodel.api.meta import Condition, ConditionStatus
from edgemodel.api.v1alpha1 import EdgeModelStatus, RolledBack, Slot
from edgemodel.reconcile.child import digest_label
from edgemodel.reconcile.nodes import NodeFacts
from edgemodel.reconcile.observed import Judged, Observed, Unresolved
from edgemodel.reconcile.pods import PodFacts, Stage
from edgemodel.reconcile.verdicts import Verdicts
from edgemodel.reconcile.versions import withheld_by_label, worst
from edgemodel.rollout.facts import Failure
from edgemodel.rollout.machine import Step

Told = tuple[ConditionStatus, Reason, str]
"""What one condition says: status, reason, message."""


@dataclass(frozen=True)
class VersionView:
    """One version and its pods, without those that are going or ended."""

    slot: Slot
    pods: tuple[PodFacts, ...]
    withheld: Failure | None = None
    """Why pods of it cannot be made."""

    @property
    def name(self) -> str:
        """The version as a person is told of it."""
        return named(self.slot)

    @cached_property
    def ready(self) -> int:
        """Pods that answer."""
        return sum(pod.ready for pod in self.pods)

    @cached_property
    def failure(self) -> Failure | None:
        """What the worst of its pods reports, or why there are none."""
        return worst(self.pods) or self.withheld

    def reached(self, stage: Stage) -> bool:
        """Say whether any pod has come as far as ``stage``."""
        return any(pod.stage >= stage for pod in self.pods)


class View:
    """What ``conditions`` and ``status`` read."""

    def __init__(
        self,
        observed: Observed,
        step: Step,
        pods: tuple[PodFacts, ...],
        nodes: tuple[NodeFacts, ...] | None,
        *,
        judged: Verdicts,
        now: datetime,
    ) -> None:
        """Arrange one pass.

        Args:
            observed: all that was looked at.
            step: what the rollout's machine made of it.
            pods: the model's pods.
            nodes: the nodes that may run them; None where pods fetch for themselves.
            judged: what is known of the candidate.
            now: the time of the pass.
        """
        self.observed = observed
        self.nodes = nodes
        self.model = observed.model
        self.spec = observed.model.spec
        self.old: EdgeModelStatus = observed.model.status
        self.target = observed.target
        self.step = step
        self.judged = judged
        self.overdue = step.deadline is not None and now.timestamp() >= step.deadline
        """A first version's progress deadline has passed."""
        self._pods = pods
        self.active = self.version(step.slots.active)
        self.candidate = self.version(step.slots.candidate)
        self.serve = self.version(step.serve)

    def version(self, slot: Slot | None) -> VersionView | None:
        """Return a slot with its pods."""
        if slot is None:
            return None
        label = digest_label(slot.digest)
        pods = tuple(pod for pod in self._pods if pod.digest == label and not pod.going and not pod.ended)
        return VersionView(slot, pods, withheld_by_label(self.observed.children).get(label))

    @property
    def subject(self) -> VersionView | None:
        """The newest version that was verified and not taken back."""
        return self.candidate or self.active

    @property
    def target_digest(self) -> str | None:
        """What spec.image stands for; while the registry does not answer, what it last stood for."""
        if isinstance(self.target, Judged):
            return self.target.digest
        tag = self.old.tag
        return tag.digest if tag is not None and tag.ref == self.spec.image else None

    @property
    def taken_back(self) -> RolledBack | None:
        """The version that spec.image stands for, if it was tried and taken back."""
        last, digest = self.step.rolled_back, self.target_digest
        if last is None or self.candidate is not None or last.digest == digest:
            return last if self.candidate is None else None
        for one in last.earlier:
            if one.digest == digest:
                update = {"digest": one.digest, "reason": one.reason, "message": one.message, "at": one.at}
                return last.model_copy(update=update)
        return None

    @property
    def refusal(self) -> tuple[Reason, str] | None:
        """Why the target is refused, if it is."""
        return self.target.refusal if isinstance(self.target, Judged) else None

    @property
    def active_refusal(self) -> tuple[Reason, str] | None:
        """Why today's policies refuse the version that serves, if they do."""
        if self.active is None:
            return None
        judged = judgement(self.observed, self.active.slot)
        return judged.refusal if judged is not None else remembered_refusal(self.old)

    def before(self, kind: ConditionType) -> Condition | None:
        """Return a condition as it was, while the first look at an artifact that status knows is still under way.

        A restarted operator knows less than the status it finds: until it knows as much, that is not to be undone.
        """
        looking = isinstance(self.target, Unresolved) and self.target.reason is Reason.RECONCILING
        return condition(self.old, kind) if looking and self.target_digest is not None else None

    @property
    def what_serves(self) -> str:
        """One sentence on what users of the model notice."""
        if self.serve is not None and self.serve.ready and not self.step.closed:
            return f"{capital(self.serve.name)} goes on serving."
        return "Nothing serves now."


def condition(status: EdgeModelStatus, kind: ConditionType) -> Condition | None:
    """Return one condition of a status."""
    return next((item for item in status.conditions if item.type == kind), None)


def judgement(observed: Observed, slot: Slot) -> Judged | None:
    """Return what trust says today about a slot's artifact; None when it could not be looked at."""
    for judged in (observed.target, observed.active):
        if isinstance(judged, Judged) and judged.digest == slot.digest:
            return judged
    return None


def remembered_refusal(status: EdgeModelStatus) -> tuple[Reason, str] | None:
    """Return that the active version was refused when it was last judged: it stays so until it is judged again."""
    degraded = condition(status, ConditionType.DEGRADED)
    if degraded is None or (degraded.status, degraded.reason) != ("True", Reason.POLICY_REFUSED):
        return None
    return Reason.POLICY_REFUSED, "when it was last judged, policies refused it"


def reason_of(text: str) -> Reason:
    """Return the Reason that status remembers; one that only a later release knows is a failed load to this one."""
    return Reason(text) if text in Reason.__members__.values() else Reason.LOAD_FAILED


def named(slot: Slot) -> str:
    """Return the version as a person is told of it: ``version 1.4.0 (sha256:0123456789ab)``."""
    short = slot.digest[: len("sha256:") + 12]
    return f"version {slot.version} ({short})" if slot.version else f"version {short}"


def capital(text: str) -> str:
    """Return the text as a sentence begins."""
    return text[:1].upper() + text[1:]


def sentence(text: str) -> str:
    """Return the text as a sentence: capital first, one full stop last."""
    text = capital(text.strip())
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."
