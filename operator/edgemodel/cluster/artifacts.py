"""What each EdgeModel's image stands for and who signed it: looked at when due, judged anew every time.

Two things with two rhythms. *Looking* asks the registry: at each poll, soon after a refusal, ever later
after a failure (``polling``); it runs beside the passes, so that a dead registry holds up no pass for
longer than ``PATIENCE``. *Judging* asks nobody: evidence at hand is held against today's policies in every
pass, so that a changed policy counts at once, registry or not.

Promises: what was fetched for one EdgeModel is never used for another, and neither are its credentials; a
failing registry changes nothing but what is said about the image. Lives in memory: after a restart all is
looked at once.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from edgemodel.api.conditions import Reason
from edgemodel.api.meta import seconds
from edgemodel.api.v1alpha1 import EdgeModel
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.reference import Reference
from edgemodel.artifact.registry import Registry
from edgemodel.artifact.registry_connections import Connections
from edgemodel.artifact.trust import judge
from edgemodel.artifact.verify import Examined, examine
from edgemodel.cluster.policies import ReadPolicy
from edgemodel.cluster.polling import Polling
from edgemodel.cluster.pull_secrets import PullSecrets
from edgemodel.errors import EdgeModelError, Stalled, Transient
from edgemodel.reconcile.observed import Judged, Unresolved

log = logging.getLogger(__name__)

PATIENCE = 1.0
"""Seconds that a pass waits for the first look; then it goes on without, and comes back when the look ends."""
LATER_PATIENCE = 0.25
"""Seconds that a pass waits for a later look, or for any look about a model that serves: there is an answer, if an old one,
at hand or in status. A restarted operator that finds its registries dead must still get round to every model."""
LOOKS_PER_REGISTRY = 4
"""Looks that may ask one registry at the same time: a dead one must not hold up the others."""

Governing = Callable[[Reference], tuple[ReadPolicy, ...]]
"""Returns the policies that govern a reference in the EdgeModel's namespace."""
ModelKey = tuple[str, str]
_PASSED = str(Reason.VERIFIED)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a look is about; another value starts it anew."""

    reference: str
    secrets: str
    interval: float


@dataclass(slots=True)
class _Look:
    """One image of one EdgeModel: what was asked, what came of it, when to ask again."""

    asked: _Asked
    polling: Polling
    found: Examined | None = None
    failure: EdgeModelError | None = None
    task: asyncio.Task[None] | None = None
    told: tuple[str, str] | None = None
    """Digest and result that were last counted."""

    @property
    def accepted(self) -> bool:
        """Whether what was found passed when it was last judged."""
        return self.told is not None and self.told[1] == _PASSED


@dataclass(slots=True)
class _Entry:
    target: _Look | None = None
    active: _Look | None = None
    known: dict[str, Examined] = field(default_factory=dict)
    """Evidence at hand by digest: of the target and the active version."""

    def looks(self) -> tuple[_Look, ...]:
        return tuple(look for look in (self.target, self.active) if look is not None)


class ArtifactCache:
    """Evidence about artifacts, by EdgeModel."""

    def __init__(
        self,
        connections: Connections,
        *,
        changed: Callable[[str, str], None],
        counted: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
        spread: Callable[[], float] = lambda: random.uniform(-1.0, 1.0),  # noqa: S311 - spreads load
        patience: float = PATIENCE,
    ) -> None:
        """``changed`` is told the namespace and name when a look ends that no pass waited for.

        ``counted`` is told the result of each new judgement: ``Verified`` or the reason of the refusal.
        """
        self._connections = connections
        self._changed = changed
        self._counted = counted
        self._clock = clock
        self._wall = wall
        self._spread = spread
        self._patience = patience
        self._entries: dict[ModelKey, _Entry] = {}
        self._gates: dict[str, asyncio.Semaphore] = {}

    async def look(
        self, model: EdgeModel, reference: Reference, secrets: PullSecrets, governing: Governing
    ) -> tuple[Judged | Unresolved, Judged | None]:
        """Return what ``spec.image`` stands for, and the active version's artifact when that is another one.

        Args:
            model: the EdgeModel.
            reference: its ``spec.image``, parsed.
            secrets: its pull secrets.
            governing: which policies govern a reference.
        """
        key = (model.metadata.namespace, model.metadata.name)
        entry = self._entries.setdefault(key, _Entry())
        interval = 0.0 if reference.digest else seconds(model.spec.poll_interval)
        asked = _Asked(str(reference), secrets.fingerprint, interval)
        look = entry.target = self._ask(entry.target, asked)
        await self._see_to(model, entry, look, reference, secrets)
        target = self._target(model, look, secrets, governing)
        active = None
        serving = _serving(model, target)
        if serving is None:
            entry.active = None
        else:
            asked = _Asked(str(serving), secrets.fingerprint, 0.0)
            look = entry.active = self._ask(entry.active, asked)
            if look.found is None and (known := entry.known.get(str(serving.digest))) is not None:
                look.found = known
                look.polling.found(self._clock(), str(known.digest), 0.0)
            await self._see_to(model, entry, look, serving, secrets)
            active = self._judged(model, look, look.found, governing) if look.found else None
        _keep_evidence(entry)
        return target, active

    def next_look(self, namespace: str, name: str) -> float | None:
        """Return the seconds until something about this EdgeModel is due; None when nothing is."""
        entry = self._entries.get((namespace, name))
        due = min(
            (look.polling.due for look in (entry.looks() if entry else ()) if look.task is None),
            default=float("inf"),
        )
        return None if due == float("inf") else max(0.0, due - self._clock())

    def forget(self, namespace: str, name: str) -> None:
        """Drop all that is known for an EdgeModel that is gone."""
        entry = self._entries.pop((namespace, name), None)
        for look in entry.looks() if entry else ():
            _cancel(look)

    async def close(self) -> None:
        """End all looks."""
        tasks = [look.task for entry in self._entries.values() for look in entry.looks() if look.task]
        self._entries.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- looking ----------------------------------------------------------------------------------------------------

    def _ask(self, look: _Look | None, asked: _Asked) -> _Look:
        if look is not None and look.asked == asked:
            return look
        fresh = _Look(asked, Polling(spread=self._spread))
        if look is not None:
            _cancel(look)
            if look.asked.reference == asked.reference:
                # Other credentials or another rhythm for the same image: what was found stays true until looked at.
                fresh.found, fresh.failure, fresh.told = look.found, look.failure, look.told
        return fresh

    async def _see_to(
        self, model: EdgeModel, entry: _Entry, look: _Look, reference: Reference, secrets: PullSecrets
    ) -> None:
        """Begin a look if one is due, and wait a little for it to end."""
        if look.task is None and self._clock() >= look.polling.due:
            look.task = asyncio.create_task(
                self._fetch(entry, look, reference, secrets), name=f"look at {reference}"
            )
        task = look.task
        if task is None:
            return
        serves = model.status.slots.active is not None
        answered = look.found is not None or look.failure is not None or serves
        patience = min(self._patience, LATER_PATIENCE) if answered else self._patience
        done, _ = await asyncio.wait({task}, timeout=patience)
        if done:
            task.result()
        else:
            # Cancelled looks are nobody's news; one that broke is begun again, and raises, in the next pass.
            key = (model.metadata.namespace, model.metadata.name)
            task.add_done_callback(lambda ended: None if ended.cancelled() else self._changed(*key))

    async def _fetch(self, entry: _Entry, look: _Look, reference: Reference, secrets: PullSecrets) -> None:
        gate = self._gates.setdefault(reference.registry, asyncio.Semaphore(LOOKS_PER_REGISTRY))
        try:
            async with gate:
                registry = Registry(self._connections, secrets.credentials())
                found = look.found
                if found is not None and look.accepted:
                    # Nothing about an accepted artifact can change for the better: only the tag may have moved.
                    digest = await registry.resolve(reference, known=found.digest)
                    if digest != found.digest:
                        found = await examine(registry, reference.pinned(digest))
                else:
                    found = await examine(registry, reference)
        except EdgeModelError as error:
            look.failure = error
            look.polling.failed(self._clock(), error.retry_after if isinstance(error, Transient) else None)
            log.info(
                "look failed",
                extra={"image": str(reference), "reason": error.reason, "error": error.message},
            )
        else:
            look.failure = None
            if found is not look.found:
                look.found, look.told = found, None
            look.polling.found(self._clock(), str(found.digest), look.asked.interval)
            entry.known[str(found.digest)] = found
        finally:
            look.task = None

    # -- judging ----------------------------------------------------------------------------------------------------

    def _target(
        self, model: EdgeModel, look: _Look, secrets: PullSecrets, governing: Governing
    ) -> Judged | Unresolved:
        if look.failure is not None:
            known = look.failure.reason in Reason.__members__.values()
            reason = Reason(look.failure.reason) if known else Reason.REGISTRY_UNREACHABLE
            hint = secrets.hint() if reason in (Reason.AUTHENTICATION_FAILED, Reason.NOT_FOUND) else ""
            message = look.failure.message + hint
            return Unresolved(reason, message, stalled=isinstance(look.failure, Stalled))
        if look.found is None:
            return Unresolved(
                Reason.RECONCILING,
                f"{look.asked.reference} is being looked up; the registry has yet to answer",
            )
        return self._judged(model, look, look.found, governing)

    def _judged(self, model: EdgeModel, look: _Look, found: Examined, governing: Governing) -> Judged:
        policies = governing(found.reference)
        unusable = [policy for policy in policies if policy.policy is None]
        slots = model.status.slots
        verdict = judge(
            found.reference,
            found.manifest_bytes,
            found.evidence,
            [policy.policy for policy in policies if policy.policy is not None],
            mark=model.status.highest_sequence,
            known_good=frozenset(
                Digest(slot.digest) for slot in (slots.active, slots.last_good) if slot is not None
            ),
            now=self._wall(),
        )
        refusal = None
        if unusable:
            # It cannot say yes, so nothing it governs passes; that it only warns when it can be read changes nothing.
            refusal = (Reason.KEY_UNKNOWN, "; ".join(policy.problem for policy in unusable))
        elif verdict.refusal is not None:
            refusal = (Reason(verdict.refusal.reason), verdict.refusal.message)
        result = str(refusal[0]) if refusal else _PASSED
        if look.told != (str(verdict.digest), result):
            look.told = (str(verdict.digest), result)
            self._counted(result)
        look.polling.judged(str(verdict.digest), refused=refusal is not None)
        return Judged(
            digest=verdict.digest,
            image=str(found.reference),
            release=verdict.release,
            verified_by=verdict.verified_by if refusal is None else (),
            refusal=refusal,
            warnings=verdict.warnings,
            stale=verdict.stale,
        )


def _serving(model: EdgeModel, target: Judged | Unresolved) -> Reference | None:
    """Return the active version's reference unless the target, as it is known, is the same artifact."""
    active = model.status.slots.active
    if active is None or (isinstance(target, Judged) and target.digest == active.digest):
        return None
    try:
        return Reference.parse(active.image)
    except Stalled:
        return None


def _keep_evidence(entry: _Entry) -> None:
    wanted = {str(look.found.digest) for look in entry.looks() if look.found is not None}
    entry.known = {digest: found for digest, found in entry.known.items() if digest in wanted}


def _cancel(look: _Look) -> None:
    if look.task is not None:
        look.task.cancel()
        look.task = None
