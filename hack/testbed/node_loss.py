"""A node goes without a word, and comes back with what it had: what clients notice, and for how long.

On a cluster of two nodes with a gateway on each; the operator is on the first, by way of which this machine's requests to
Services go. The second is the one that is lost.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from testbed import tiny_model
from testbed.edge_nodes import EdgeNode
from testbed.fresh_clients import FreshClients, fresh_clients
from testbed.load import Load
from testbed.trial import NAME, Trial

CLUSTER = "nodes"
VALUES: dict[str, Any] = {
    "gateway": {"replicas": 2},
    "node": {"heartbeatSeconds": 3},
    "settings": {"nodeLookInterval": 3},
    "nodeSelector": {"kubernetes.io/hostname": f"{CLUSTER}-1"},
}
"""Of the chart."""
LATE = 0.9
"""Seconds from which on an answer was waited for because its pod was gone: a connection to one is given up after 1."""


@dataclass(frozen=True)
class Loss:
    """What clients noticed of a node's loss."""

    load: Load
    """Through the gateway that is left."""
    fresh: FreshClients
    """By the Service."""
    at: float
    """When the cable was pulled (POSIX time)."""
    slices: float
    """Seconds until the last EndpointSlice led to the lost gateway no more."""

    @property
    def out(self) -> float:
        """Seconds after the cut at which the last request came that was still led to a lost pod."""
        late = [
            it.at - it.latency - self.at
            for it in self.load.timeline()
            if it.latency > LATE and it.at > self.at
        ]
        return max(late, default=0.0)

    @property
    def longest(self) -> float:
        """Seconds that the longest answer took."""
        return max((it.latency for it in self.load.timeline() if it.at > self.at), default=0.0)

    @property
    def by_service(self) -> float:
        """Seconds after the cut at which the last new connection was made that got no answer, or a late one."""
        return self.fresh.last_trouble(self.at)


def surviving_gateway(trial: Trial, lost: EdgeNode) -> str:
    """Return the model's base URL at the gateway that is not on that node."""
    port = trial.status()["gatewayPort"]
    (pod,) = [it for it in trial.bed.gateway_pods() if it["spec"]["nodeName"] != lost.name]
    return f"http://{pod['status']['podIP']}:{port}"


def gateways_in_slices(trial: Trial) -> list[set[str]]:
    """Return, for each model of the trial, the nodes to whose gateways its Service leads."""
    return [
        {it.get("nodeName", "") for it in one.get("endpoints") or () if it["conditions"].get("ready")}
        for one in trial.bed.kube.list("endpointslices", trial.namespace, "edgemodel.io/model")
    ]


def lose(trial: Trial, lost: EdgeNode, *, seconds: float, models: int = 1) -> Loss:
    """Cut a node off under load; return when clients have long ceased to notice. The node stays cut off.

    Args:
        trial: a version v1 serves with a pod on each node.
        lost: which.
        seconds: how long the load goes on after it.
        models: how many of the trial have a Service that must turn.
    """
    kube = trial.bed.kube
    with ExitStack() as stack:
        load = stack.enter_context(trial.load("v1", url=surviving_gateway(trial, lost)))
        infer = f"{trial.url()}/v2/models/{NAME}/infer"
        fresh = stack.enter_context(fresh_clients(infer, tiny_model.request(0)))
        kube.until(lambda: fresh.count(0.0) > 20, "the load to run")
        at = lost.cut()

        def turned() -> bool:
            found = gateways_in_slices(trial)
            return len(found) >= models and all(lost.name not in nodes for nodes in found)

        kube.until(turned, "no Service to lead to the lost gateway", timeout=30)
        slices = time.time() - at
        kube.until(lambda: time.time() > at + seconds, "some time to pass", timeout=seconds + 10)
    return Loss(load, fresh, at, slices)


def come_back(trial: Trial, lost: EdgeNode, old: str, until_done: Callable[[], object]) -> Load:
    """Serve v2 while a node is cut off that has v1 (``old``), then plug it in; return a load for which v1 is wrong."""
    kube = trial.bed.kube
    # Before Kubernetes misses the node, a new pod may be scheduled onto it, and wait there for minutes.
    kube("wait", "--for=condition=Ready=Unknown", f"node/{lost.name}", "--timeout=90s", timeout=100)
    digest = trial.publish("v2")
    with trial.load("v1", "v2"):  # the gate wants to see requests
        kube.until(
            lambda: (trial.status()["slots"].get("active") or {}).get("digest") == digest,
            "v2 to serve without the lost node",
            timeout=180,
        )
    assert not lost.held(trial.namespace, digest)
    assert lost.held(trial.namespace, old)["state"] == "Ready"
    with trial.load("v2") as load:
        trial.await_more(load, 200)
        lost.join()
        kube.until(
            lambda: lost.held(trial.namespace, digest).get("state") == "Ready",
            "the node to have v2",
            timeout=120,
        )
        kube.until(
            lambda: any(lost.name in nodes for nodes in gateways_in_slices(trial)),
            "its gateway to be led to again",
            timeout=120,
        )
        # Until Kubernetes has taken its taints away no pod is put there.
        kube.until(
            lambda: not kube.get("node", lost.name)["spec"].get("taints"),
            "the node to take pods again",
            timeout=120,
        )
        until_done()
        trial.await_more(load, 400)
    return load
