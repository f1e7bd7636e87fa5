"""One tiny model on a testbed, replaced and broken while clients ask it, for end-to-end tests and benchmarks.

A trial owns a namespace, a key and a policy. Every version that it publishes brings golden samples of what that version must
answer, so that a candidate which answers otherwise is found out before it gets a request.
"""

import itertools
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx

from testbed import tiny_model
from testbed.edge_nodes import EdgeNode, edge_nodes
from testbed.installation import Testbed, processes_of
from testbed.load import Load
from testbed.publisher import Key, Publisher, trust_policy
from testbed.watching import Watch, watch

NAME = "tiny"
HAPROXY, AGENT, SUPERVISOR = b"-W\0-db\0-S\0", b"gateway\0--agent\0", b"gateway.supervisor"
"""What is in the command line of a gateway's processes; the supervisor is process 1, with which the container ends."""
BRISK = {"minRequests": 50, "window": "3s"}
"""A gate that decides within seconds, as these requests come by the hundreds."""
SURGE: dict[str, Any] = {"strategy": "Surge", "gate": BRISK}
CANARY: dict[str, Any] = {
    "strategy": "Canary",
    "steps": [{"weight": 10, "pause": "4s"}, {"weight": 50, "pause": "4s"}],
    "gate": BRISK,
}
STOP_FIRST: dict[str, Any] = {"strategy": "StopFirst", "gate": BRISK}


@dataclass
class Trial:
    """A tiny model in a namespace of its own.

    Attributes:
        bed: where.
        namespace: exists.
        publisher: publishes into that part of the registry.
        key: signs.
        folder: for files.
        rate: requests a second of its load.
        rounds: how much each version has to compute (``tiny_model.model``).
    """

    bed: Testbed
    namespace: str
    publisher: Publisher
    key: Key
    folder: Path
    rate: float = 600.0
    rounds: int = 0
    _sequence: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def publish(
        self,
        version: str,
        built: onnx.ModelProto | None = None,
        *,
        tag: str = "stable",
        golden: bool = True,
    ) -> str:
        """Publish a version, or what passes for it (``built``: unchecked, as by a careless publisher); return its digest."""
        sequence = next(self._sequence)
        path = tiny_model.save(
            built or tiny_model.model(version, rounds=self.rounds),
            self.folder / self.namespace / str(sequence) / "tiny.onnx",
        )
        more: tuple[str, ...] = ()
        if golden:
            more = ("--golden", str(tiny_model.write_golden(path.parent / "golden", version)))
            more += ("--golden-unchecked",) if built else ()
        return self.publisher.publish(
            path,
            f"{self.namespace}/{NAME}:{tag}",
            version=version,
            sequence=sequence,
            key=self.key,
            more=more,
        )

    def allow(self) -> None:
        """Apply a policy that lets in what the key signed."""
        images = [f"{self.bed.registry}/{self.namespace}/**"]
        self.bed.kube.apply(trust_policy(self.namespace, images, [self.key]))

    def apply(self, **spec: Any) -> None:
        """Apply the EdgeModel; ``spec`` overrides."""
        self.bed.kube.apply(self.document(**spec))

    def document(self, name: str = NAME, **spec: Any) -> dict[str, Any]:
        """Return an EdgeModel that follows the tag ``stable``."""
        return {
            "apiVersion": "edgemodel.io/v1alpha1",
            "kind": "EdgeModel",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "image": f"{self.bed.registry}/{self.namespace}/{NAME}:stable",
                "pollInterval": "1s",
                "replicas": 2,
                "server": {"resources": {"requests": {"cpu": "50m", "memory": "96Mi"}}},
                **spec,
            },
        }

    def serve(self, version: str = "v1", **spec: Any) -> str:
        """Publish a first version and wait until all of it answers; return its digest."""
        digest = self.publish(version)
        self.allow()
        self.apply(**spec)
        self.bed.kube.await_condition(NAME, "Ready", "True", "Serving", self.namespace, timeout=120)
        self.await_active(digest)
        return digest

    def status(self) -> dict[str, Any]:
        """Return the EdgeModel's status."""
        status: dict[str, Any] = self.bed.kube.get("edgemodel", NAME, self.namespace).get("status", {})
        return status

    def await_active(self, digest: str, timeout: float = 180) -> None:
        """Wait until a version serves, all of its pods are up, and no other version has pods."""
        label = digest.removeprefix("sha256:")[:16]

        def alone() -> bool:
            pods = self.bed.kube.list("pods", self.namespace, f"edgemodel.io/model={NAME}")
            model = self.bed.kube.get("edgemodel", NAME, self.namespace)
            slot = model.get("status", {}).get("slots", {}).get("active") or {}
            versions = {pod["metadata"]["labels"]["edgemodel.io/digest"] for pod in pods}
            up = model["status"].get("readyReplicas") == model["spec"]["replicas"]
            return slot.get("digest") == digest and versions == {label} and up

        self.bed.kube.until(alone, f"{digest} to serve alone", timeout)

    def await_rolled_back(self, digest: str, timeout: float = 120) -> dict[str, Any]:
        """Wait until a version was taken back; return what status says of it."""

        def rolled_back() -> dict[str, Any] | None:
            found: dict[str, Any] = self.status().get("rolledBack") or {}
            return found if found.get("digest") == digest else None

        found: dict[str, Any] = self.bed.kube.until(rolled_back, f"{digest} to be taken back", timeout)
        return found

    def annotate(self, **annotations: str) -> None:
        """Set annotations ``edgemodel.io/<name>`` on the EdgeModel."""
        words = [f"edgemodel.io/{name}={value}" for name, value in annotations.items()]
        self.bed.kube("annotate", "--overwrite", "edgemodel", NAME, "-n", self.namespace, *words)

    def url(self) -> str:
        """Base URL of the model's Service."""
        return self.bed.service_url(NAME, self.namespace)

    @contextmanager
    def load(
        self,
        *versions: str,
        resend: bool = False,
        rate: float | None = None,
        url: str | None = None,
        alike: str = "",
    ) -> Iterator[Load]:
        """Keep asking (the Service, or ``url``) while the block lasts; answers of other versions than these are wrong.

        ``alike`` is one more version, which answers as the first of them.
        """
        cases = tiny_model.cases(*versions)
        if alike:
            cases = [
                replace(case, expected={**case.expected, alike: case.expected[versions[0]]}) for case in cases
            ]
        with Load(url or self.url(), NAME, cases, rate=rate or self.rate, resend=resend) as load:
            self.bed.kube.until(lambda: load.answers[versions[0]] >= 100, "the first answers")
            yield load

    def await_requests(self, load: Load, number: int) -> None:
        """Wait until so many requests are over."""
        seconds = max(0, number - load.total) / load.rate
        self.bed.kube.until(lambda: load.total >= number, f"{number} requests", timeout=60 + 2 * seconds)

    def await_more(self, load: Load, number: int) -> None:
        """Wait until so many more requests are over."""
        self.await_requests(load, load.total + number)

    @contextmanager
    def watching(self, kind: str = "edgemodel") -> Iterator[Watch]:
        """Collect every state of the EdgeModel, or of its pods, while the block lasts."""
        with watch(self.bed.kube, kind, self.namespace) as watched:
            yield watched

    def pods(self) -> list[dict[str, Any]]:
        """Pods of the model that are not going."""
        found = self.bed.kube.list("pods", self.namespace, f"edgemodel.io/model={NAME}")
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def ready_pods(self) -> int:
        """How many pods answer and are not going."""
        return sum(
            condition["type"] == "Ready" and condition["status"] == "True"
            for pod in self.pods()
            for condition in pod["status"].get("conditions", [])
        )

    def kill_server(self) -> None:
        """Kill the server of one pod without a warning, and wait until it is back."""
        pod = self.pods()[0]
        before = restarts(pod)
        for pid in processes_of([pod], b"inference_server"):
            os.kill(pid, signal.SIGKILL)

        def back() -> bool:
            now = next(p for p in self.pods() if p["metadata"]["uid"] == pod["metadata"]["uid"])
            return restarts(now) > before and self.ready_pods() == 2

        self.bed.kube.until(back, "the pod to be back", timeout=90)

    def kill_gateway(self, command: bytes) -> None:
        """Kill processes of one gateway pod (one of the three above), and wait until it is ready again."""

        def running(pods: Iterable[dict[str, Any]]) -> set[int]:
            # The supervisor's command line ends with the agent's.
            rest = set() if command == SUPERVISOR else set(processes_of(pods, SUPERVISOR))
            return set(processes_of(pods, command)) - rest

        pids = running([self.bed.gateway_pods()[0]])
        assert pids, f"no process of the gateway has {command!r} in its command line"
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

        def back() -> bool:
            pods = self.bed.gateway_pods()
            ready = [
                condition["status"] == "True"
                for one in pods
                for condition in one["status"].get("conditions", [])
                if condition["type"] == "Ready"
            ]
            return bool(running(pods) - pids) and len(ready) == len(pods) and all(ready)

        self.bed.kube.until(back, "the gateway to be back", timeout=90)

    def kill_operator(self) -> None:
        """Kill the operator's process without a warning, and wait until it is back."""
        killed = set(self.bed.operator_pids())
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        self.bed.kube.until(lambda: set(self.bed.operator_pids()) - killed, "the operator to be back", 90)
        self.bed.until_operator_is_ready()

    @contextmanager
    def drained(self, node: EdgeNode) -> Iterator[None]:
        """Drain a node, as for maintenance, and take it back in at the end."""
        kube = self.bed.kube
        try:
            kube(
                "drain", node.name, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=240s",
                timeout=260,
            )  # fmt: skip
            yield
        finally:
            kube("uncordon", node.name)

    def nodes(self) -> list[EdgeNode]:
        """Return the nodes."""
        return edge_nodes(self.bed)

    def crowd(self, number: int) -> None:
        """Create so many more EdgeModels, wait until each has its Service, delete them and wait until they are gone."""
        kube = self.bed.kube
        names = [f"crowd-{index}" for index in range(number)]
        items = [self.document(name, replicas=0) for name in names]
        kube.apply({"apiVersion": "v1", "kind": "List", "items": items})

        def services() -> bool:
            return {f"crowd-{index}" for index in range(number)} <= {
                service["metadata"]["name"] for service in kube.list("services", self.namespace)
            }

        kube.until(services, f"{number} Services", timeout=60 + 2 * number)
        kube("delete", "edgemodel", "-n", self.namespace, "--wait=false", *names)
        kube.until(
            lambda: len(kube.list("services", self.namespace, "edgemodel.io/model")) <= 1,
            "only one Service to be left",
            timeout=60 + 2 * number,
        )

    def end(self) -> None:
        """Remove all of it."""
        self.bed.kube("delete", "namespace", self.namespace, "--wait=false")
        self.bed.kube("delete", "modeltrustpolicy", self.namespace, "--ignore-not-found")


def restarts(pod: dict[str, Any]) -> int:
    """Return how often containers of a pod were started again."""
    return sum(status["restartCount"] for status in pod["status"].get("containerStatuses", []))
