"""Versions, wishes and what is seen of them, for cases of the rollout's machine."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from edgemodel.api.conditions import Reason
from edgemodel.api.rollout import RolloutStatus
from edgemodel.api.v1alpha1 import RolledBack, Slot, Slots
from edgemodel.rollout.facts import Failure, Seen, Wanted
from edgemodel.rollout.machine import Step, step

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
LOAD_FAILED = Failure(Reason.MODEL_LOAD_FAILED, "opset 99 is unknown", fatal=True)
NO_IMAGE = Failure(Reason.IMAGE_PULL_FAILED, "no such image", fatal=False)


def digest(letter: str) -> str:
    return f"sha256:{letter * 64}"


def slot(letter: str, **changes: Any) -> Slot:
    facts: dict[str, Any] = {
        "digest": digest(letter),
        "image": f"example.org/m@{digest(letter)}",
        "version": letter,
    }
    return Slot(**{**facts, **changes})


A, B, C = (slot(letter, since=NOW, tries=1) for letter in "abc")
FIRST, SERVING = Slots(candidate=A), Slots(active=A)
REPLACING = Slots(active=A, candidate=B)
WANTED = Wanted(target=slot("b"), replicas=2, generation=1)
STOP_FIRST = replace(WANTED, strategy="StopFirst")
NODES = replace(WANTED, delivered=frozenset())
ON_NODES = replace(WANTED, delivered=frozenset({digest("b")}))
WAITING = Slots(active=A, candidate=B)
DELIVERED = Slots(active=A, candidate=B.model_copy(update={"delivered": NOW}))
PAUSED = replace(WANTED, paused=True)
BANNED = RolledBack(digest=digest("b"), reason="ModelLoadFailed", at=NOW, generation=1)


def up(pods: int = 2, ready: int | None = None, failure: Failure | None = None, replicas: int = 2) -> Seen:
    return Seen(True, replicas, pods, pods if ready is None else ready, failure)


def take(
    wanted: Wanted,
    slots: Slots,
    seen: Mapping[str, Seen] | None = None,
    *,
    rolled_back: RolledBack | None = None,
    selected: str | None = None,
    after: float = 0,
    at: RolloutStatus | None = None,
) -> Step:
    by_digest = {digest(letter): facts for letter, facts in (seen or {}).items()}
    live = None if selected is None else digest(selected)
    return step(wanted, slots, rolled_back, by_digest, live, NOW + timedelta(seconds=after), at)


def told(taken: Step) -> str:
    """Return the outcome as one line: slots, sizes, which is served, removed, draining, banned, held."""
    slots = taken.slots
    roles = (("active", slots.active), ("candidate", slots.candidate), ("good", slots.last_good))
    words = [f"{role} {version.version}" for role, version in roles if version is not None]
    words += [f"run {version.version}={replicas}" for version, replicas in taken.run]
    words += [f"serve {taken.serve.version}"] if taken.serve else []
    words += [f"remove {key[7]}" for key in sorted(taken.remove)]
    words += [f"drain {key[7]}" for key in sorted(taken.draining)]
    words += [f"back {taken.rolled_back.digest[7]} {taken.rolled_back.reason}"] if taken.rolled_back else []
    words += ["held"] if taken.held else []
    words += ["waiting"] if taken.waiting else []
    return ", ".join(words)
