"""Real models along the whole path: published, in a registry, fetched by the agent of a real node, mounted, asked.

For each pair of versions (``delta_models``) the old one is published, signed and served from a node's store; then the new
one is published with ``--delta-from``, and comes over a link of 50 Mbit/s. Seconds run from the end of ``edgemodel publish``
until the operator's word that the node has the version, polling of the tag included. Peer: the same artifact, pulled whole
over the same link by a pod of its own (delivery ``Pod``). Both pods are asked the same; the answers must be equal in every
bit, and what ONNX Runtime says in this process of the files that were published. Those are a graph and a safetensors file;
``edgemodel publish`` lays the weights out anew, aligned, and leaves a safetensors file's metadata out: where only those
changed, the node has all that the new version is made of.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import path_models
from benchmarks.figures import Report
from benchmarks.path_models import Case, Version
from testbed.edge_nodes import edge_nodes
from testbed.installation import Testbed, start
from testbed.publisher import Key, Publisher, trust_policy
from testbed.slow_link import SlowLink
from testbed.waiting import until

NAMESPACE = "bench-path"
RATE = 50e6
"""Bits a second."""
PATIENCE = 300.0
"""Seconds: the largest model takes 82 over the link."""

Answers = list[npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Came:
    """How a new version came to the node, and what the same cost in full."""

    said: Mapping[str, Any]
    """What the node says of it."""
    seconds: float
    megabytes: float
    """Over the link: manifests, signatures and requests included."""
    full_seconds: float
    full_megabytes: float
    moved: float
    """The largest difference between old and new version's answers."""


def run() -> bool:
    """Run the benchmark; True when every goal is met."""
    report = Report("path")
    cases = path_models.cases()
    with TemporaryDirectory(prefix="edgemodel-bench-") as name, start("path") as bed:
        publisher = Publisher(Path(name), bed.registry)
        key = publisher.key()
        bed.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        with bed.slow_registry(RATE) as link:
            images = [f"{host}/{NAMESPACE}/**" for host in (bed.registry, link.address)]
            bed.kube.apply(trust_policy(NAMESPACE, images, [key]))
            for case in cases:
                _record(report, case, _Path(bed, link, publisher, key, case, Path(name) / case.name).walk())
    return report.finish()


def _record(report: Report, case: Case, came: Came) -> None:
    report.add(f"{case.name}_bytes", came.megabytes, "MB")
    report.add(f"{case.name}_full_bytes", came.full_megabytes, "MB")
    report.add(
        f"{case.name}_bytes_ratio",
        came.megabytes / came.full_megabytes,
        "x",
        "<=" if case.goal else "",
        case.goal,
    )
    report.add(f"{case.name}_saved", float(came.said.get("savedBytes", 0)) / 1e6, "MB")
    report.add(f"{case.name}_seconds", came.seconds, "s")
    report.add(f"{case.name}_full_seconds", came.full_seconds, "s")
    report.add(f"{case.name}_answers_equal", 1, "", ">=", 1)  # or it would not have come this far
    report.notes[case.name] = {
        "kind": came.said["kind"],
        "fallbackReason": came.said.get("fallbackReason", ""),
        "largest_difference_of_answers_old_to_new": came.moved,
    }
    print(f"bench: path {case.name}: {came}", flush=True)


@dataclass
class _Path:
    """One case on its way."""

    bed: Testbed
    link: SlowLink
    publisher: Publisher
    key: Key
    case: Case
    folder: Path

    def walk(self) -> Came:
        """Serve the old version, then the new one, then the same in full, and compare what they answer."""
        name, whole = self._name, f"{self._name}-whole"
        old, new = self.case.versions(self.folder)
        self._publish(old, 1)
        self._apply(name, f"{self.link.address}/{NAMESPACE}/{name}:stable", "Node")
        self._await_ready(name)
        before = self._answers(name)
        _equal(before, self.case.answers(old), exact=False)
        said, seconds, megabytes = self._update(new)
        digest = said["digest"]
        self.bed.await_alone(name, NAMESPACE, digest, PATIENCE)
        told = self._answers(name)
        received = self.link.received
        self._apply(whole, f"{self.link.address}/{NAMESPACE}/{name}@{digest}", "Pod")
        self._await_ready(whole)
        full = (self.link.received - received) / 1e6
        _equal(told, self._answers(whole), exact=True)
        _equal(told, self.case.answers(new), exact=False)
        moved = max(float(np.abs(a - b).max()) for a, b in zip(before, told, strict=True))
        if self.case.moves and not moved:
            raise AssertionError(f"{name}: expected the new version to answer otherwise than the old one")
        pulled = self._init_seconds(whole)
        for model in (name, whole):
            self.bed.kube("delete", "edgemodel", model, "-n", NAMESPACE)
        self.bed.kube.until(lambda: not self.bed.kube.list("pods", NAMESPACE), "the pods to go", timeout=120)
        return Came(said, seconds, megabytes, pulled, full, moved)

    @property
    def _name(self) -> str:
        return self.case.name.replace("_", "-")

    def _publish(self, version: Version, sequence: int, *more: str) -> str:
        return self.publisher.publish(
            version.entry,
            f"{NAMESPACE}/{self._name}:stable",
            version=str(sequence),
            sequence=sequence,
            key=self.key,
            extra=version.beside,
            more=more,
            timeout=PATIENCE,
        )

    def _update(self, new: Version) -> tuple[dict[str, Any], float, float]:
        """Publish the new version; return what the node says of it, and what it took."""
        (node,) = edge_nodes(self.bed)
        received = self.link.received + self.link.sent
        offer = ("--delta-from", f"{self.bed.registry}/{NAMESPACE}/{self._name}:stable")
        digest = self._publish(new, 2, *offer)
        begun = time.monotonic()

        def ready() -> dict[str, Any] | None:
            said = node.held(NAMESPACE, digest)
            return said if said.get("state") == "Ready" else None

        said = until(ready, f"{self._name} to be on the node", timeout=PATIENCE)
        seconds = time.monotonic() - begun
        return said, seconds, (self.link.received + self.link.sent - received) / 1e6

    def _apply(self, name: str, image: str, delivery: str) -> None:
        self.bed.kube.apply(
            {
                "apiVersion": "edgemodel.io/v1alpha1",
                "kind": "EdgeModel",
                "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": {"image": image, "pollInterval": "2s", "delivery": delivery},
            }
        )

    def _await_ready(self, name: str) -> None:
        self.bed.kube.await_condition(name, "Ready", "True", "Serving", NAMESPACE, PATIENCE)

    def _answers(self, name: str) -> Answers:
        url = self.bed.service_url(name, NAMESPACE)
        found = []
        for body in self.case.requests():
            (output,) = self.bed.infer(url, name, body)["outputs"]
            found.append(np.asarray(output["data"], np.float32))
        return found

    def _init_seconds(self, name: str) -> float:
        """Return how long a pod's own pull took; Kubernetes says it in whole seconds."""
        (pod,) = self.bed.kube.list("pods", NAMESPACE, f"edgemodel.io/model={name}")
        ended = pod["status"]["initContainerStatuses"][0]["state"]["terminated"]
        begin, end = (np.datetime64(ended[at].removesuffix("Z")) for at in ("startedAt", "finishedAt"))
        return float((end - begin) / np.timedelta64(1, "s"))


def _equal(one: Answers, other: Answers, *, exact: bool) -> None:
    for told, right in zip(one, other, strict=True):
        if exact:
            np.testing.assert_array_equal(told, right)
        else:
            np.testing.assert_allclose(told, right, rtol=1e-4, atol=1e-6)
