"""A node goes, comes back with an old model, is drained: what clients notice. Two nodes, a gateway on each."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from testbed import node_loss, rollouts
from testbed.edge_nodes import EdgeNode
from testbed.installation import Testbed, start
from testbed.trial import SURGE, Trial

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    with start(node_loss.CLUSTER, nodes=2, more=node_loss.VALUES) as testbed:
        yield testbed


@contextmanager
def joined_again(node: EdgeNode) -> Iterator[None]:
    """Plug a node in at the end, whatever happens, and wait until it is Ready: the next test needs both."""
    try:
        yield
    finally:
        node.join()
        node.bed.kube("wait", "--for=condition=Ready", f"node/{node.name}", "--timeout=90s", timeout=100)
        node.bed.kube.until(
            lambda: len({pod["spec"].get("nodeName") for pod in node.bed.gateway_pods()}) == 2,
            "a gateway on each node",
        )


def pods_on(trial: Trial, node: EdgeNode) -> list[str]:
    """Return the versions, as pods' labels have them, of the model's pods on a node."""
    return [
        pod["metadata"]["labels"]["edgemodel.io/digest"]
        for pod in trial.pods()
        if pod["spec"].get("nodeName") == node.name
    ]


def test_a_lost_node_is_out_in_two_seconds_and_comes_back_up_to_date_before_it_serves(trial: Trial) -> None:
    lost = trial.nodes()[1]
    old = trial.serve("v1", rollout=SURGE, delivery="Node")
    trial.bed.kube.until(
        lambda: lost.held(trial.namespace, old).get("state") == "Ready", f"{lost.name} to hold v1"
    )
    assert len(pods_on(trial, lost)) == 1, "one pod on each node"

    with joined_again(lost):
        loss = node_loss.lose(trial, lost, seconds=15)
        print(f"{loss.load.summary()}; out {loss.out:.2f} s, longest answer {loss.longest:.2f} s")
        print(f"by the Service {loss.by_service:.2f} s, slices {loss.slices:.2f} s")
        shares = [loss.fresh.share_in_trouble(loss.at + it, loss.at + it + 1) for it in range(15)]
        print("of new connections by the Service, in trouble by second:", [f"{it:.0%}" for it in shares])
        assert loss.load.trouble == []
        assert loss.out < 2
        assert loss.longest < 5
        assert loss.by_service < 6
        # It was half of them, or the figure says nothing.
        assert loss.fresh.share_in_trouble(loss.at, loss.at + 2.5) > 0.2

        def one_more() -> None:
            trial.apply(rollout=SURGE, delivery="Node", replicas=3)
            trial.bed.kube.until(lambda: trial.ready_pods() == 3, "a pod on the node", timeout=90)

        back = node_loss.come_back(trial, lost, old, one_more)
    print(back.summary())
    assert back.trouble == [], "no answer of the version of before, and none that failed"
    label = old.removeprefix("sha256:")[:16]
    assert pods_on(trial, lost)
    assert label not in pods_on(trial, lost)


def test_the_only_pod_can_be_drained_and_is_back_elsewhere(trial: Trial) -> None:
    trial.serve("v1", replicas=1)
    home = trial.pods()[0]["spec"]["nodeName"]
    (node,) = [it for it in trial.nodes() if it.name == home]

    def drain() -> None:
        with trial.drained(node):
            trial.bed.kube.until(lambda: trial.ready_pods() == 1, "the pod to be elsewhere", timeout=120)

    load = rollouts.disturb(trial, drain, 2000)
    print(load.summary(), f"gap {load.longest_gap():.1f} s")
    assert load.wrong == []
    assert all("HTTP 503" in words for words in load.failures), "who is not answered is told to try again"
    assert load.longest_gap() < 30
