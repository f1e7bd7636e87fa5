"""Says how the newest version is on its way to where pods can read it: the condition ArtifactDelivered.

Where nodes deliver, it speaks of nodes: a mount that fails shows in no pod's status, so what agents say is what there is.
Where pods fetch for themselves, it speaks of pods.
"""

from collections.abc import Sequence

from edgemodel.api.conditions import Reason
from edgemodel.api.edge_node import HeldModel, TransferKind
from edgemodel.api.v1alpha1 import RolledBack
from edgemodel.reconcile.nodes import NodeFacts, kind, percent
from edgemodel.reconcile.pods import DELIVERY_REASONS, FILE_REASONS, LOAD_REASONS, Stage, clean
from edgemodel.reconcile.view import Told, VersionView, View, capital, reason_of, sentence

NAMED = 5
"""How many nodes a message names."""
_CAME: dict[TransferKind, Reason] = {
    "Delta": Reason.DELTA_APPLIED,
    "Imported": Reason.IMPORTED,
    "Full": Reason.PULLED,
    "": Reason.PULLED,
}
_HELD_UP = frozenset({Reason.WAITING_FOR_WINDOW, Reason.RATE_LIMITED})
"""What an agent says of a download that goes on by itself."""
_AGENT_MAY_SAY = (
    DELIVERY_REASONS
    | FILE_REASONS
    | {Reason.INTEGRITY_FAILED, Reason.TAMPER_DETECTED, Reason.WAITING_FOR_WINDOW}
)


def arrival(view: View) -> Told:
    """Return what ArtifactDelivered says."""
    if view.taken_back is not None:
        return _taken_back(view.taken_back, by_nodes=view.nodes is not None)
    subject = view.subject
    if subject is None:
        return "Unknown", Reason.RECONCILING, "No version has been started."
    return _fetched(subject) if view.nodes is None else brought(view)


def brought(view: View) -> Told:
    """Return how far the nodes are with the newest version; needs nodes that deliver, and a version."""
    nodes, subject = view.nodes or (), view.subject
    if subject is None:
        return "Unknown", Reason.RECONCILING, "No version has been started."
    name, digest = subject.name, subject.slot.digest
    if not nodes:
        return (
            "Unknown",
            Reason.NODES_OFFLINE,
            "No node may run its pods: spec.podTemplate fits none of the cluster's.",
        )
    if not any(node.agent for node in nodes):
        message = (
            f"None of the {len(nodes)} nodes that may run its pods has the node agent, which delivery Node needs. "
            "Install it, or set spec.delivery to Pod."
        )
        return "False", Reason.NO_AGENT, message
    alive = [node for node in nodes if node.online]
    if not alive:
        return (
            "Unknown",
            Reason.NODES_OFFLINE,
            f"No node that may run its pods is heard of: {offline_told(nodes)}",
        )
    missing = offline_told(nodes)
    later = f" Not heard of, and brought up to date on return: {missing}" if missing else ""
    lacking = [node for node in alive if not node.has(digest)]
    if not lacking:
        came = [node.held[digest] for node in alive]
        return (
            "True",
            _CAME[kind(came)],
            f"{capital(name)} is on {_of(alive)}, whole and verified.{_spared(came)}{later}",
        )
    failed = [node for node in lacking if _failed(node, digest)]
    if failed:
        first = failed[0].held[digest]
        also = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        why = sentence(clean(first.message) or f"{clean(first.reason, 64) or 'no reason'} was given")
        reason = next((known for known in _AGENT_MAY_SAY if known == first.reason), Reason.TRANSFER_FAILED)
        return (
            "False",
            reason,
            f"{capital(name)}: node {failed[0].name}{also}: {why} It is tried again.{later}",
        )
    have = f"{capital(name)} is on {len(alive) - len(lacking)} of {_of(alive)}"
    held_up = {_reason(node, digest) for node in lacking}
    if held_up == {Reason.WAITING_FOR_WINDOW}:
        told = f"{have}; the others wait for spec.rollout.window.download to open.{later}"
        return "False", Reason.WAITING_FOR_WINDOW, told
    progress = f"{have}; {percent(nodes, digest)} % of it has come.{later}"
    if held_up <= _HELD_UP and Reason.RATE_LIMITED in held_up:
        return "False", Reason.RATE_LIMITED, f"{progress} The node's rate limit is what it waits for."
    return "False", Reason.DOWNLOADING, progress


def offline_told(nodes: Sequence[NodeFacts]) -> str:
    """Return, as a sentence, which nodes are offline and since when; empty when none is."""
    told = [_offline(node) for node in nodes if not node.online]
    if not told:
        return ""
    more = f" and {len(told) - NAMED} more" if len(told) > NAMED else ""
    return f"{', '.join(told[:NAMED])}{more}."


def _offline(node: NodeFacts) -> str:
    if not node.agent:
        return f"{node.name} (no agent)"
    if node.heard is None:
        return f"{node.name} (never heard of)"
    if not node.silent:
        return f"{node.name} (not ready)"
    return f"{node.name} (last heard of at {node.heard:%Y-%m-%dT%H:%M:%SZ})"


def _failed(node: NodeFacts, digest: str) -> bool:
    held = node.held.get(digest)
    return held is not None and held.state == "Failed"


def _reason(node: NodeFacts, digest: str) -> str:
    held = node.held.get(digest)
    return held.reason if held is not None else ""


def _of(alive: Sequence[NodeFacts]) -> str:
    return "1 node" if len(alive) == 1 else f"{len(alive)} nodes"


def _spared(came: Sequence[HeldModel]) -> str:
    saved = sum(one.saved_bytes for one in came)
    return f" {saved} bytes did not have to come." if saved else ""


def _taken_back(taken_back: RolledBack, *, by_nodes: bool) -> Told:
    """Return how far a version had come that was taken back; what nodes deliver they had before it was started."""
    reason = reason_of(taken_back.reason)
    loaded = reason in LOAD_REASONS - {Reason.AMBIGUOUS_MODEL_FILE, Reason.MODEL_FILE_NOT_FOUND}
    if loaded or by_nodes:
        return "True", Reason.PULLED, "The version that was taken back had been pulled and verified."
    if reason in DELIVERY_REASONS or reason in FILE_REASONS:
        return "False", reason, sentence(taken_back.message)
    return "Unknown", reason, f"The version was taken back: {sentence(taken_back.message)}"


def _fetched(subject: VersionView) -> Told:
    """Return how far pods that fetch for themselves have come."""
    failure = subject.failure
    if failure is not None and failure.reason in DELIVERY_REASONS:
        return "False", failure.reason, f"{capital(subject.name)}: {sentence(failure.message)}"
    if subject.reached(Stage.LOADING):
        return "True", Reason.PULLED, f"{capital(subject.name)} was pulled and verified inside its pods."
    if failure is not None and failure.reason in FILE_REASONS:
        return "False", failure.reason, f"{capital(subject.name)}: {sentence(failure.message)}"
    if subject.reached(Stage.DOWNLOADING):
        return "False", Reason.DOWNLOADING, f"{capital(subject.name)} is being pulled."
    return "Unknown", Reason.RECONCILING, f"No pod of {subject.name} has begun to pull it."
