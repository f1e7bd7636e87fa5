"""What clients notice when a node goes without a word, with 100 EdgeModels whose Services must turn, and comes back.

Two nodes and two gateways on this machine; the cable of one node is pulled under load, three times. The goals: no request is
led to the lost pods after 2 s, none fails or is answered wrongly through the gateway that is left, and none is answered by a
version that serves no more when the node is back.
"""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.figures import Report
from testbed import node_loss
from testbed.edge_nodes import EdgeNode
from testbed.installation import start
from testbed.publisher import Publisher
from testbed.trial import SURGE, Trial

ROUNDS = int(os.environ.get("NODE_LOSS_ROUNDS", "3"))
MODELS = 100
RATE = 300.0
NAMESPACE = "bench-node-loss"


def lose_and_join(trial: Trial, lost: EdgeNode) -> node_loss.Loss:
    """Cut the node off under load, and plug it in again; both gateways are led to at the end."""
    loss = node_loss.lose(trial, lost, seconds=12, models=MODELS)
    print(f"  {loss.load.summary()}", flush=True)
    for words in loss.load.trouble[:5]:
        print(f"  {words}", flush=True)
    lost.join()
    trial.bed.kube.until(
        lambda: all(len(nodes) == 2 for nodes in node_loss.gateways_in_slices(trial)),
        "both gateways to be led to",
        timeout=120,
    )
    trial.bed.kube.until(lambda: trial.ready_pods() == 2, "both pods to be ready", timeout=120)
    return loss


def run() -> bool:
    """Run the benchmark; True when every goal is met."""
    report = Report("node_loss")
    with (
        start(node_loss.CLUSTER, nodes=2, more=node_loss.VALUES) as bed,
        TemporaryDirectory(prefix="edgemodel-bench-") as folder,
    ):
        bed.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        publisher = Publisher(Path(folder), bed.registry)
        trial = Trial(bed, NAMESPACE, publisher, publisher.key("bench"), Path(folder), rate=RATE)
        old = trial.serve("v1", rollout=SURGE, delivery="Node")
        more = [trial.document(f"more-{number}", replicas=0) for number in range(MODELS - 1)]
        bed.kube.apply({"apiVersion": "v1", "kind": "List", "items": more})
        bed.kube.until(
            lambda: len(node_loss.gateways_in_slices(trial)) == MODELS, f"{MODELS} Services", timeout=300
        )
        lost = trial.nodes()[1]
        losses = [lose_and_join(trial, lost) for _ in range(ROUNDS)]
        lost.cut()
        back = node_loss.come_back(trial, lost, old, lambda: None)
    report.add("out_seconds", max(loss.out for loss in losses), "s", "<=", 2)
    report.add("requests", sum(loss.load.total for loss in losses), "")
    report.add("failed", sum(len(loss.load.failures) for loss in losses), "", "<=", 0)
    report.add("wrong", sum(len(loss.load.wrong) for loss in losses), "", "<=", 0)
    report.add("longest_answer", max(loss.longest for loss in losses), "s", "<=", 5)
    report.add("service_trouble_seconds", max(loss.by_service for loss in losses), "s", "<=", 6)
    report.add("slices_seconds", max(loss.slices for loss in losses), "s")
    report.add("back_old_answers", len(back.wrong), "", "<=", 0)
    report.add("back_failed", len(back.failures), "", "<=", 0)
    report.notes = {
        "models": MODELS,
        "rounds": [
            {"out": loss.out, "longest": loss.longest, "by_service": loss.by_service, "slices": loss.slices}
            for loss in losses
        ],
    }
    return report.finish()
