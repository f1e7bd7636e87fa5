"""A small cluster for ``decide``: an API server that stores, a Deployment controller that makes pods, a kubelet by hand."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from edgemodel.api.conditions import Reason
from edgemodel.api.v1alpha1 import EdgeModel, EdgeModelStatus
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.manifest import Release
from edgemodel.reconcile.decide import LOOK_AGAIN_SECONDS, decide
from edgemodel.reconcile.decision import Decision, Event
from edgemodel.reconcile.observed import GatewayPod, Judged, LiveNode, Observed, Settings, Unresolved
from edgemodel.rollout.evidence import CandidateEvidence
from tests.unit.reconcile.api_server import stored

Object = dict[str, Any]
START = datetime(2026, 1, 1, tzinfo=UTC)
SETTINGS = Settings(server_image="example.org/server:1", node_image="example.org/node:1")
DIGESTS = {letter: Digest.of(letter.encode()) for letter in "ABCD"}
SHORT = {letter: digest.short for letter, digest in DIGESTS.items()}


def judged(
    letter: str, *, sequence: int | None = None, refusal: tuple[Reason, str] | None = None, **more: Any
) -> Judged:
    """Return version ``letter`` as trust hands it over."""
    digest = DIGESTS[letter]
    return Judged(
        digest=digest,
        image=f"registry.site.local/models/detector@{digest}",
        release=Release(
            name="detector", version=f"1.{ord(letter) - 64}.0", sequence=sequence or ord(letter) - 64
        ),
        verified_by=("site/release",),
        refusal=refusal,
        **more,
    )


UNJUDGED = {"window": "0s", "goldenSamples": "Ignore"}
"""A gate that lets a version take over as soon as its pods are ready."""


def edge_model(**spec: Any) -> EdgeModel:
    """Return the five-line EdgeModel with fields of spec added."""
    return EdgeModel.model_validate(
        {
            "metadata": {"name": "detector", "namespace": "vision", "uid": "6f1e", "generation": 1},
            "spec": {"image": "registry.site.local/models/detector:stable", **spec},
        }
    )


def unjudged(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of spec with a gate that judges nothing, unless there is one."""
    return {**spec, "rollout": {"gate": UNJUDGED, **spec.get("rollout", {})}}


class World:
    """One EdgeModel and its cluster; the methods are what happens to it."""

    def __init__(self, target: Judged | Unresolved | str = "A", **spec: Any) -> None:
        self.model = edge_model(**unjudged(spec))
        self.now = START
        self.target = judged(target) if isinstance(target, str) else target
        self.active: Judged | None = None
        self.children: dict[tuple[str, str], Object] = {}
        self.pods: dict[str, Object] = {}
        self.conflicts: tuple[str, ...] = ()
        self.config = {"policies.json": "[]"}
        self.monitors = False
        self.nodes: dict[str, Node] = {}
        self.gateway: tuple[GatewayPod, ...] | None = None
        self.gateway_port: int | None = None
        self.evidence: CandidateEvidence | None = None
        self.events: list[Event] = []
        self.last = Decision()
        self._made = 0

    # what people do

    def edit(self, **spec: Any) -> None:
        """Change the spec, which raises the generation."""
        metadata = self.model.metadata.model_copy(update={"generation": self.model.metadata.generation + 1})
        known = self.model.spec.model_dump(by_alias=True)
        self.model = self.model.model_copy(
            update={
                "metadata": metadata,
                "spec": type(self.model.spec).model_validate(unjudged({**known, **spec})),
            }
        )

    def annotate(self, **annotations: str) -> None:
        """Set annotations ``edgemodel.io/<name>``, which leaves the generation alone."""
        found = {f"edgemodel.io/{name}": value for name, value in annotations.items()}
        metadata = self.model.metadata.model_copy(update={"annotations": found})
        self.model = self.model.model_copy(update={"metadata": metadata})

    # what the operator does

    def observe(self) -> Observed:
        return Observed(
            model=self.model,
            settings=SETTINGS,
            target=self.target,
            active=self.active,
            children=tuple(self.children.values()),
            conflicts=self.conflicts,
            pods=tuple(self.pods.values()),
            delivery_config=self.config,
            service_monitors=self.monitors,
            nodes=tuple(node.live() for node in self.nodes.values()),
            gateway=self.gateway,
            gateway_port=self.gateway_port,
            evidence=self.evidence,
        )

    def decide(self) -> Decision:
        """Return what the next pass would do, without doing it."""
        return decide(self.observe(), self.now)

    def turn(self) -> Decision:
        """Make one pass and carry it out; the Deployment controller follows."""
        self.last = self.decide()
        for child in self.last.apply:
            self._apply(dict(child))
        for reference in self.last.delete:
            del self.children[reference.kind, reference.name]
        if self.last.status is not None:
            # Through JSON and back, as through the API server.
            text = json.loads(self.last.status.model_dump_json(by_alias=True))
            status = EdgeModelStatus.model_validate(text)
            self.model = self.model.model_copy(update={"status": status})
        self.events.extend(self.last.events)
        self._control_deployments()
        return self.last

    def settle(self, most: int = 8) -> "World":
        """Make passes until one does nothing."""
        for _ in range(most):
            decision = self.turn()
            if decision.requeue_after == LOOK_AGAIN_SECONDS:
                self.later(LOOK_AGAIN_SECONDS)
            elif not decision.apply and not decision.delete and decision.status is None:
                return self
        raise AssertionError(f"no fixed point after {most} passes: {self.last}")

    def _apply(self, child: Object) -> None:
        key = (child["kind"], child["metadata"]["name"])
        self._made += 1
        uid = self.children[key]["metadata"]["uid"] if key in self.children else f"uid-{self._made}"
        self.children[key] = stored(child, uid)

    def _control_deployments(self) -> None:
        live = [child for child in self.children.values() if child["kind"] == "Deployment"]
        specs = {child["metadata"]["labels"]["edgemodel.io/digest"]: child["spec"] for child in live}
        wanted = {label: spec["replicas"] for label, spec in specs.items()}
        for label in {*wanted, *(self._label(pod) for pod in self.pods.values())}:
            own = [name for name, pod in self.pods.items() if self._label(pod) == label]
            for name in own[wanted.get(label, 0) :]:
                del self.pods[name]
            for _ in range(wanted.get(label, 0) - len(own)):
                self._made += 1
                name = f"pod-{self._made:03}"
                self.pods[name] = self._new_pod(name, label, specs[label]["template"]["spec"])

    @staticmethod
    def _label(pod: Mapping[str, Any]) -> str:
        return str(pod["metadata"]["labels"]["edgemodel.io/digest"])

    def _new_pod(self, name: str, label: str, spec: Object) -> Object:
        labels = {"edgemodel.io/model": "detector", "edgemodel.io/digest": label}
        nodes = sorted(self.nodes)
        return {
            "metadata": {
                "name": name,
                "uid": f"uid-of-{name}",
                "labels": labels,
                "creationTimestamp": f"{self.now:%Y-%m-%dT%H:%M:%SZ}",
            },
            "spec": {**spec, **({"nodeName": nodes[self._made % len(nodes)]} if nodes else {})},
            "status": {"phase": "Pending"},
        }

    # what the kubelet does

    def of(self, letter: str) -> list[Object]:
        return [pod for _, pod in sorted(self.pods.items()) if self._label(pod) == SHORT[letter]]

    def report(self, letter: str, status: Mapping[str, Any], count: int | None = None) -> "World":
        """Set the status of (the first ``count``) pods of a version."""
        for pod in self.of(letter)[:count]:
            pod["status"] = dict(status)
        return self

    def ready(self, letter: str, count: int | None = None) -> "World":
        return self.report(letter, READY, count)

    def fail(self, letter: str, reason: str, message: str = "broken", count: int | None = None) -> "World":
        """Let the server of a version end with a termination message."""
        return self.report(letter, server_ended(json.dumps({"reason": reason, "message": message})), count)

    def later(self, seconds: float) -> "World":
        self.now += timedelta(seconds=seconds)
        return self

    # what nodes do

    def add_node(self, name: str, **labels: str) -> "Node":
        """Let a node with a live agent join."""
        self.nodes[name] = Node(name, labels, self.now)
        return self.nodes[name]

    def hold(self, letter: str, *names: str, state: str = "Ready", **more: Any) -> "World":
        """Let agents (of all nodes, if none is named) say how far a version is."""
        for name in names or tuple(self.nodes):
            self.nodes[name].hold(letter, state=state, **more)
        return self

    # what one sees

    def condition(self, kind: str) -> tuple[str, str]:
        found = next(item for item in self.model.status.conditions if item.type == kind)
        return found.status, found.reason

    def message(self, kind: str) -> str:
        return next(item.message for item in self.model.status.conditions if item.type == kind)

    def slots(self) -> dict[str, str]:
        """Return the letter in each slot that is taken."""
        letters = {digest: letter for letter, digest in DIGESTS.items()}
        slots = self.model.status.slots
        roles = {"active": slots.active, "candidate": slots.candidate, "last_good": slots.last_good}
        return {role: letters[Digest(slot.digest)] for role, slot in roles.items() if slot is not None}

    def sizes(self) -> dict[str, int]:
        """Return the replicas of each version's Deployment."""
        letters = {short: letter for letter, short in SHORT.items()}
        return {
            letters[child["metadata"]["labels"]["edgemodel.io/digest"]]: child["spec"]["replicas"]
            for child in self.children.values()
            if child["kind"] == "Deployment"
        }

    def selected(self) -> str | None:
        """Return the version that the Service selects."""
        letters = {short: letter for letter, short in SHORT.items()}
        service = self.children.get(("Service", "detector"))
        return letters[service["spec"]["selector"]["edgemodel.io/digest"]] if service else None

    def told(self) -> list[str]:
        """Return the reasons of the Events since the last call."""
        reasons = [event.reason for event in self.events]
        self.events.clear()
        return reasons


class Node:
    """A node whose agent is heard of until ``silence`` is called."""

    def __init__(self, name: str, labels: Mapping[str, str], now: datetime) -> None:
        self.labels = {"kubernetes.io/hostname": name, **labels}
        self.name, self.ready, self.agent, self.heard = name, True, True, now + timedelta(days=999)
        self.held: dict[str, Object] = {}
        self.spec: Object = {}
        self.allocatable: str | None = None

    def hold(self, letter: str, *, state: str = "Ready", **more: Any) -> None:
        """Say how far a version is."""
        self.held[letter] = {
            "namespace": "vision",
            "name": "detector",
            "digest": str(DIGESTS[letter]),
            "state": state,
            **more,
        }

    def silence(self, since: datetime) -> None:
        """Be heard of no more."""
        self.heard = since

    def live(self) -> LiveNode:
        """Return it as a gathering finds it."""
        status: Object = {"conditions": [{"type": "Ready", "status": "True" if self.ready else "False"}]}
        if self.allocatable is not None:
            status["allocatable"] = {"memory": self.allocatable}
        edge_node = {"metadata": {"name": self.name}, "status": {"models": list(self.held.values())}}
        return LiveNode(
            node={
                "metadata": {"name": self.name, "labels": self.labels},
                "spec": self.spec,
                "status": status,
            },
            edge_node=edge_node if self.agent else None,
            heard=self.heard if self.agent else None,
        )


FETCHED = {
    "name": "fetch",
    "restartCount": 0,
    "state": {"terminated": {"exitCode": 0, "reason": "Completed"}},
}
READY: Object = {
    "phase": "Running",
    "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}],
    "initContainerStatuses": [FETCHED],
    "containerStatuses": [{"name": "server", "ready": True, "restartCount": 0, "state": {"running": {}}}],
}
DOWNLOADING: Object = {
    "phase": "Pending",
    "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False"}],
    "initContainerStatuses": [{"name": "fetch", "restartCount": 0, "state": {"running": {}}}],
    "containerStatuses": [
        {"name": "server", "restartCount": 0, "state": {"waiting": {"reason": "PodInitializing"}}}
    ],
}
LOADING: Object = {
    **READY,
    "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False"}],
    "containerStatuses": [{"name": "server", "ready": False, "restartCount": 0, "state": {"running": {}}}],
}
UNSCHEDULABLE: Object = {
    "phase": "Pending",
    "conditions": [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 Insufficient memory.",
        }
    ],
}


def server_ended(
    message: str = "",
    *,
    exit_code: int = 1,
    reason: str = "Error",
    restarts: int = 0,
    waiting: str = "CrashLoopBackOff",
) -> Object:
    """Return the status of a pod whose server ended and waits to be started again."""
    ended = {"terminated": {"exitCode": exit_code, "reason": reason, "message": message}}
    server = {"name": "server", "restartCount": restarts, "lastState": ended}
    return {**LOADING, "containerStatuses": [{**server, "state": {"waiting": {"reason": waiting}}}]}


def fetch_ended(message: str = "", *, exit_code: int = 1) -> Object:
    """Return the status of a pod whose init container ended and waits to be started again."""
    ended = {"terminated": {"exitCode": exit_code, "reason": "Error", "message": message}}
    fetch = {
        "name": "fetch",
        "restartCount": 1,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": ended,
    }
    return {**DOWNLOADING, "initContainerStatuses": [fetch]}


UNREACHABLE = Unresolved(Reason.REGISTRY_UNREACHABLE, "registry.site.local did not answer within 10 s")
LOOKING = Unresolved(Reason.RECONCILING, "it is being looked up")
UNSIGNED = (Reason.SIGNATURE_MISSING, "no signature was found; sign it with edgemodel sign")


def serving(letter: str = "A", **spec: Any) -> World:
    """Return a world in which a version serves and nothing is left to do."""
    world = World(letter, **spec).settle()
    world.ready(letter).settle().told()
    assert world.condition("Ready") == ("True", "Serving")
    return world


def kinds(decision: Decision) -> list[str]:
    return [child["kind"] for child in decision.apply]
