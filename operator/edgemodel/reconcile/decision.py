"""What one pass wants done: returned by ``edgemodel.reconcile.decide``, carried out by ``edgemodel.controller.worker``.

Order of carrying out: ``apply``, ``delete``, ``evict``, ``status``; Events and metrics only after the status was written.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgemodel.api.v1alpha1 import EdgeModelStatus


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """Names one live child; ``uid`` and ``resource_version`` become preconditions of its deletion."""

    api_version: str
    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class PodRef:
    """Names one live pod; ``uid`` becomes a precondition of its eviction."""

    name: str
    uid: str
    node: str
    reason: str
    """Why it has to go, one of ``edgemodel.api.conditions.Reason``."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, told once."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome of one pass.

    ``apply`` holds only children that differ from what is live, ``status`` is None when nothing in it changed:
    a pass over an unchanged world writes nothing.
    """

    apply: tuple[Mapping[str, Any], ...] = ()
    delete: tuple[ObjectRef, ...] = ()
    evict: tuple[PodRef, ...] = ()
    """Pods that read files which were altered under them: each goes by eviction, so that a budget still counts, and comes
    back where its files are whole. Named again in every pass until it is going."""
    status: EdgeModelStatus | None = None
    events: tuple[Event, ...] = ()
    requeue_after: float | None = None
    """Seconds until the next pass even if nothing happens; None leaves it to the poll interval."""
