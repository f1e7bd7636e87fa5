"""The cluster with the operator installed (once per run), and a site of its own for each test: namespace, keys, policy.

``KEEP=1`` leaves the cluster for the next run.
"""

import itertools
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from testbed import magika_model
from testbed.installation import Testbed, start
from testbed.kube import Kube
from testbed.publisher import Key, Publisher, trust_policy
from testbed.trial import Trial

# Namespaces of an earlier run on a cluster that was kept may still be going.
_numbers = itertools.count(int(time.time()) % 100_000 * 100)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            # What is to be alone may have to wait for another test to end.
            item.add_marker(pytest.mark.timeout(600 if item.get_closest_marker("alone") else 300))


@pytest.fixture(scope="session")
def bed() -> Iterator[Testbed]:
    with start("test", keep=bool(os.environ.get("KEEP"))) as testbed:
        yield testbed


@pytest.fixture(scope="module")
def agents_testbed() -> Iterator[Testbed]:
    """Two nodes whose agents give a sign of life every 3 s, on a cluster beside the others, for what happens to nodes.

    A module that is about nodes makes it its ``bed``.
    """
    beside_the_operator = {
        "labelSelector": {
            "matchExpressions": [
                {"key": "app.kubernetes.io/name", "operator": "In", "values": ["edgemodel"]},
                {"key": "app.kubernetes.io/component", "operator": "NotIn", "values": ["node", "gateway"]},
            ]
        },
        "topologyKey": "kubernetes.io/hostname",
    }
    lively = {
        "node": {"heartbeatSeconds": 3},
        "settings": {"nodeLookInterval": 3},
        # The other node is the one that things happen to.
        "gateway": {
            "affinity": {
                "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [beside_the_operator]}
            }
        },
    }
    with start("agents", nodes=2, more=lively, keep=bool(os.environ.get("KEEP"))) as testbed:
        yield testbed


@dataclass
class Site:
    """One test's namespace, with a policy that lets its key's models in.

    Model repositories are ``<namespace>/<name>`` in the testbed's registry.
    """

    bed: Testbed
    namespace: str
    publisher: Publisher
    key: Key
    policies: list[str] = field(default_factory=list)

    @property
    def kube(self) -> Kube:
        return self.bed.kube

    def image(self, name: str = "detector", tag: str = "stable") -> str:
        return f"{self.bed.registry}/{self.namespace}/{name}:{tag}"

    def publish(
        self, release: str | Path = "v1", *, name: str = "detector", tag: str = "stable", **facts: Any
    ) -> str:
        """Publish a release of Magika (or a file); signed by the site's key unless ``key=None`` says otherwise."""
        facts.setdefault("key", self.key)
        facts.setdefault("version", str(release) if isinstance(release, str) else "0.0.1")
        model = magika_model.release(release) if isinstance(release, str) else release
        return self.publisher.publish(model, f"{self.namespace}/{name}:{tag}", **facts)

    def policy(self, *keys: Key, name: str = "site", **spec: Any) -> None:
        """Apply a policy for everything in this site's part of the registry."""
        full = f"{self.namespace}-{name}"
        images = [f"{self.bed.registry}/{self.namespace}/**"]
        self.kube.apply(trust_policy(full, images, list(keys or (self.key,)), **spec))
        if full not in self.policies:
            self.policies.append(full)

    def apply(self, name: str = "detector", **spec: Any) -> None:
        """Apply an EdgeModel; ``image`` is the site's ``stable`` tag of that name unless given."""
        self.kube.apply(self.document(name, **spec))

    def document(self, name: str = "detector", **spec: Any) -> dict[str, Any]:
        return {
            "apiVersion": "edgemodel.io/v1alpha1",
            "kind": "EdgeModel",
            "metadata": {"name": name, "namespace": self.namespace},
            # Where there are agents, models come by the node unless told otherwise; most tests are about pods that fetch.
            "spec": {"image": self.image(name), "pollInterval": "2s", "delivery": "Pod", **spec},
        }

    def status(self, name: str = "detector") -> dict[str, Any]:
        status: dict[str, Any] = self.kube.get("edgemodel", name, self.namespace).get("status", {})
        return status

    def pods(self) -> list[dict[str, Any]]:
        """Pods of the site's models that are not going."""
        found = self.kube.list("pods", self.namespace, "edgemodel.io/model")
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def active(self, name: str = "detector") -> str | None:
        """Digest that serves now."""
        slot = self.status(name).get("slots", {}).get("active")
        return str(slot["digest"]) if slot else None

    def await_active(self, digest: str, name: str = "detector", timeout: float = 90) -> None:
        self.kube.until(lambda: self.active(name) == digest, f"{name} to serve {digest}", timeout)

    def await_alone(self, digest: str, name: str = "detector") -> None:
        """Wait until a version serves and no pod of another is left that could still answer."""
        self.bed.await_alone(name, self.namespace, digest)

    def await_condition(
        self,
        kind: str,
        status: str,
        reason: str | None = None,
        *,
        name: str = "detector",
        timeout: float = 90,
    ) -> dict[str, Any]:
        return self.kube.await_condition(name, kind, status, reason, self.namespace, timeout)

    def serve(
        self, release: str = "v1", *, name: str = "detector", sequence: int | None = None, **spec: Any
    ) -> str:
        """Publish, allow, apply and wait until it answers; return the digest."""
        digest = self.publish(release, name=name, sequence=sequence)
        self.policy()
        self.apply(name, **spec)
        self.await_condition("Ready", "True", "Serving", name=name)
        self.await_active(digest, name)
        return digest

    def url(self, name: str = "detector") -> str:
        """Base URL of the model's Service, reachable from here."""
        return self.bed.service_url(name, self.namespace)


@pytest.fixture
def make_site(
    bed: Testbed, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], Site]]:
    sites: list[Site] = []

    def make(name: str) -> Site:
        bed.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        publisher = Publisher(tmp_path, bed.registry)
        site = Site(bed, name, publisher, publisher.key(f"{name}-key"))
        sites.append(site)
        return site

    yield make
    failed = getattr(request.node, "failed", False)
    for site in sites:
        if failed:
            print(bed.describe(site.namespace))
        bed.kube("delete", "namespace", site.namespace, "--wait=false")
        for policy in site.policies:
            bed.kube("delete", "modeltrustpolicy", policy, "--ignore-not-found")


def _namespace(request: pytest.FixtureRequest) -> str:
    """Return a name of its own for a test."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())
    return f"t{next(_numbers)}-{words[:40].strip('-')}"


@pytest.fixture
def site(make_site: Callable[[str], Site], request: pytest.FixtureRequest) -> Site:
    return make_site(_namespace(request))


@pytest.fixture
def trial(bed: Testbed, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Trial]:
    """A tiny model that is asked 200 times a second."""
    namespace = _namespace(request)
    bed.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    publisher = Publisher(tmp_path, bed.registry)
    made = Trial(bed, namespace, publisher, publisher.key("site"), tmp_path, rate=200.0)
    yield made
    if getattr(request.node, "failed", False):
        print(bed.describe(namespace))
    made.end()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    if report.failed:
        item.failed = True  # type: ignore[attr-defined]
    return report
