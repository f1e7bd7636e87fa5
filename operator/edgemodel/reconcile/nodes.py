"""What a model's nodes tell: which they are, who is heard of, how far each version is on them, and how pods get it.

An EdgeNode's status is its agent's word, untrusted like a pod's: it is read as the CRD's types, and one that does not fit
them has told nothing. Bytes that tick are rounded to steps of 5 %, so that status is written at most twenty times on the
way; times are told of offline nodes only, so that a world at rest has a status at rest.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from pydantic import ValidationError

from edgemodel.api.conditions import Reason
from edgemodel.api.edge_node import EdgeNode, HeldModel, TransferKind
from edgemodel.api.meta import CSI_DRIVER
from edgemodel.api.v1alpha1 import EdgeModel, NodeCounts, NodeState, Transfer
from edgemodel.reconcile.child import digest_label
from edgemodel.reconcile.decision import PodRef
from edgemodel.reconcile.eligibility import eligible
from edgemodel.reconcile.observed import LiveNode, LiveObject, Observed
from edgemodel.reconcile.pods import PodFacts, clean
from edgemodel.reconcile.versions import label_of

Mode = Literal["Node", "Pod"]

STEPS = 20
"""Progress is told in this many steps."""
LISTED = 50
"""How many nodes status lists."""
TAMPERED = frozenset({Reason.INTEGRITY_FAILED, Reason.TAMPER_DETECTED})
"""What an agent says of files that are no longer what it verified."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One node that may run a model's pods, or does."""

    name: str
    agent: bool
    """It has an EdgeNode: an agent ran there once."""
    ready: bool
    """Kubernetes calls it ready."""
    silent: bool
    """Its agent has not been heard of for too long."""
    heard: datetime | None = None
    """When its agent was last heard of."""
    held: Mapping[str, HeldModel] = field(default_factory=dict)
    """What it says of this model's versions, by digest."""

    @property
    def online(self) -> bool:
        """Its agent is alive and it can run pods."""
        return self.agent and self.ready and not self.silent

    def has(self, digest: str) -> bool:
        """Say whether the version is whole and verified on it."""
        held = self.held.get(digest)
        return held is not None and held.state == "Ready"


def read_nodes(observed: Observed, pods: Iterable[PodFacts], now: datetime) -> tuple[NodeFacts, ...]:
    """Return the nodes that may run the model's pods, or run some, by name."""
    running = {pod.node for pod in pods if not pod.ended}
    template = observed.model.spec.pod_template
    found = [
        _read_node(live, observed.model, now)
        for live in observed.nodes
        if eligible(template, live.node) or name_of(live.node) in running
    ]
    return tuple(sorted(found, key=lambda node: node.name))


def name_of(live: LiveObject) -> str:
    """Return a live object's name."""
    return str((live.get("metadata") or {}).get("name", ""))


def online(live: LiveNode, now: datetime) -> bool:
    """Tell whether a node's agent is alive and the node ready."""
    return live.edge_node is not None and _ready(live.node) and not _silent(live, now)


def delivery_mode(
    model: EdgeModel, children: Iterable[LiveObject], nodes: Sequence[NodeFacts], pods: Iterable[PodFacts]
) -> Mode:
    """Return how the artifact reaches the pods: what spec says, else what it was started with, else what fits."""
    if model.spec.delivery is not None:
        return model.spec.delivery
    live = [child for child in children if child.get("kind") == "Deployment"]
    if live:
        return "Node" if any(mounts(child) for child in live) else "Pod"
    running = [pod for pod in pods if not pod.ended]
    if running:
        return "Node" if any(pod.mounts for pod in running) else "Pod"
    if model.status.nodes is not None and any(node.online for node in nodes):
        return "Node"  # a candidate is on its way, and an agent that misses a beat is no reason to send it another
    ready = [node for node in nodes if node.ready]
    return "Node" if ready and all(node.online for node in ready) else "Pod"


def mounts(deployment: LiveObject) -> bool:
    """Tell whether a live Deployment's pods mount the model from their node."""
    pod = ((deployment.get("spec") or {}).get("template") or {}).get("spec") or {}
    return any((one.get("csi") or {}).get("driver") == CSI_DRIVER for one in pod.get("volumes") or ())


def delivered(nodes: Iterable[NodeFacts], digest: str) -> bool:
    """Tell whether all nodes that are online have the version, and at least one is."""
    alive = [node for node in nodes if node.online]
    return bool(alive) and all(node.has(digest) for node in alive)


def mounting(
    digests: Iterable[str], children: Iterable[LiveObject], nodes: Sequence[NodeFacts]
) -> frozenset[str]:
    """Return the versions whose pods may mount it, with delivery Node.

    One whose live pods fetch for themselves, because spec.delivery was another, goes on so until the nodes have it.
    """
    fetching = {
        label_of(child) for child in children if child.get("kind") == "Deployment" and not mounts(child)
    }
    return frozenset(
        digest for digest in digests if digest_label(digest) not in fetching or delivered(nodes, digest)
    )


def altered(nodes: Sequence[NodeFacts], digest: str, pods: Iterable[PodFacts]) -> dict[str, HeldModel]:
    """Return what nodes say whose files of the version were altered and are not whole again, or still read by pods."""
    reading = {ref.node for ref in to_evict(nodes, [digest], pods)}
    return {
        node.name: node.held[digest]
        for node in nodes
        if digest in node.held
        and (node.name in reading or (not node.has(digest) and node.held[digest].reason in TAMPERED))
    }


def to_evict(
    nodes: Sequence[NodeFacts], digests: Iterable[str], pods: Iterable[PodFacts]
) -> tuple[PodRef, ...]:
    """Return the pods that mount files which were altered since they were made, by name."""
    at = {(node.name, digest_label(digest)): node.held.get(digest) for digest in digests for node in nodes}
    gone = []
    for pod in pods:
        held = at.get((pod.node, pod.digest))
        when = _altered_at(held) if held is not None else None
        if held is None or when is None or pod.made is None or not pod.mounts or pod.going or pod.ended:
            continue
        # Both are told to the second. One made in that very second may read the old files; if not, it only moves once more.
        if pod.made <= when:
            reason = held.reason if held.reason in TAMPERED else Reason.INTEGRITY_FAILED
            gone.append(PodRef(pod.name, pod.uid, pod.node, str(reason)))
    return tuple(sorted(gone, key=lambda ref: ref.name))


def _altered_at(held: HeldModel) -> datetime | None:
    """Return when files were found altered: pods may still read them long after they have come anew."""
    if held.altered_at is not None:
        return held.altered_at
    return held.since if held.state != "Ready" and held.reason in TAMPERED else None


def counts(nodes: Sequence[NodeFacts], digest: str | None) -> NodeCounts:
    """Return how many nodes there are, have the version, and are offline."""
    ready = sum(node.online and digest is not None and node.has(digest) for node in nodes)
    offline = sum(not node.online for node in nodes)
    return NodeCounts(total=len(nodes), ready=ready, offline=offline, summary=f"{ready}/{len(nodes)}")


def states(nodes: Iterable[NodeFacts], digest: str | None) -> list[NodeState]:
    """Return how far each node is with the version: those that are not ready first, then by name, 50 at most."""
    if digest is None:
        return []
    told = [_state(node, digest) for node in nodes]
    return sorted(told, key=lambda state: (state.state == "Ready", state.node))[:LISTED]


def percent(nodes: Iterable[NodeFacts], digest: str) -> int:
    """Return how much of the version has come to the nodes that are online, in steps of 5; 100 only when all have it."""
    alive = [node for node in nodes if node.online]
    if not alive:
        return 0
    parts = [_part(node, digest) for node in alive]
    return int(sum(parts) / len(parts) * STEPS) * (100 // STEPS)


def transfer(nodes: Iterable[NodeFacts], digest: str | None) -> Transfer | None:
    """Return what it took to bring the version to all nodes that tell of it; None when none does."""
    held = [node.held[digest] for node in nodes if digest is not None and digest in node.held]
    if not held:
        return None
    total = sum(one.total for one in held)
    done = sum(min(one.bytes, one.total) for one in held)
    return Transfer(
        bytes=total if done >= total else total * (done * STEPS // total) // STEPS,
        total=total,
        saved_bytes=sum(one.saved_bytes for one in held if one.state == "Ready"),
        kind=kind(held),
        fallback_reason=next(
            (clean(one.fallback_reason, 256) for one in held if one.fallback_reason and one.state == "Ready"),
            "",
        ),
    )


def kind(held: Iterable[HeldModel]) -> TransferKind:
    """Return how a version came to its nodes: Delta when any used one, Imported when all did."""
    kinds = {one.kind for one in held if one.state == "Ready" and one.kind}
    if "Delta" in kinds:
        return "Delta"
    if kinds == {"Imported"}:
        return "Imported"
    return "Full" if kinds else ""


def _part(node: NodeFacts, digest: str) -> float:
    held = node.held.get(digest)
    if held is None:
        return 0.0
    if held.state == "Ready":
        return 1.0
    return min(held.bytes / held.total, 0.99) if held.total else 0.0


def _state(node: NodeFacts, digest: str) -> NodeState:
    if not node.online:
        why = Reason.NO_AGENT if not node.agent else "NodeNotReady" if not node.ready else "NoHeartbeat"
        return NodeState(node=node.name, digest=digest, state="Offline", reason=why, last_seen=node.heard)
    held = node.held.get(digest)
    if held is None:
        return NodeState(node=node.name, digest=digest, state="Pending")
    return NodeState(node=node.name, digest=digest, state=held.state, reason=clean(held.reason, 64))


def _read_node(live: LiveNode, model: EdgeModel, now: datetime) -> NodeFacts:
    held: dict[str, HeldModel] = {}
    if live.edge_node is not None:
        try:
            status = EdgeNode.model_validate(live.edge_node).status
        except ValidationError:
            status = None  # of another release: it has told nothing yet
        for one in status.models if status is not None else ():
            if (one.namespace, one.name) == (model.metadata.namespace, model.metadata.name):
                held[one.digest] = one
    heard = live.heard.replace(microsecond=0) if live.heard is not None else None
    return NodeFacts(
        name=name_of(live.node),
        agent=live.edge_node is not None,
        ready=_ready(live.node),
        silent=_silent(live, now),
        heard=heard,
        held=held,
    )


def _ready(node: LiveObject) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def _silent(live: LiveNode, now: datetime) -> bool:
    return live.heard is None or (now - live.heard).total_seconds() > live.patience
