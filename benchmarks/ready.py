"""From ``kubectl apply`` of an EdgeModel to ``Ready=True``, with images present and a 5 MB model, step by step.

Peer: the very pod that the operator makes, applied by hand as a plain Deployment, timed to its readiness in the same run.
What is between the two is what the operator adds.
"""

import json
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.figures import Report
from benchmarks.models import matmul_model
from testbed.installation import Testbed, start
from testbed.paths import BIN
from testbed.publisher import Publisher, trust_policy

RUNS = 7
NAMESPACE = "bench-ready"


@contextmanager
def watch(bed: Testbed, kind: str) -> Iterator[list[tuple[float, dict[str, Any]]]]:
    """Collect every state of the objects of a kind, with the time at which it arrived here."""
    seen: list[tuple[float, dict[str, Any]]] = []
    process = subprocess.Popen(
        [str(BIN / "kubectl"), *bed.kube.flags, "get", kind, "-n", NAMESPACE, "-w", "-o", "json"],
        stdout=subprocess.PIPE,
        text=True,
    )

    def read() -> None:
        decoder, buffer = json.JSONDecoder(), ""
        assert process.stdout is not None
        while chunk := process.stdout.readline():
            buffer += chunk
            if chunk == "}\n":
                seen.append((time.monotonic(), decoder.decode(buffer)))
                buffer = ""

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        process.terminate()
        process.wait(timeout=10)
        thread.join(timeout=10)


def condition(item: dict[str, Any], kind: str) -> bool:
    """Whether a condition of an object is True."""
    return any(
        c["type"] == kind and c["status"] == "True" for c in item.get("status", {}).get("conditions", [])
    )


def container(item: dict[str, Any], listed: str, state: str) -> bool:
    """Whether the first (init) container of a pod is in a state."""
    statuses = item.get("status", {}).get(listed) or [{}]
    return state in statuses[0].get("state", {})


MILESTONES: list[tuple[str, str, Callable[[dict[str, Any]], bool]]] = [
    ("operator_seconds", "pods", bool),
    ("schedule_seconds", "pods", lambda item: condition(item, "PodScheduled")),
    (
        "sandbox_seconds",
        "pods",
        lambda item: (
            container(item, "initContainerStatuses", "running")
            or container(item, "initContainerStatuses", "terminated")
        ),
    ),
    ("fetch_seconds", "pods", lambda item: container(item, "initContainerStatuses", "terminated")),
    ("server_start_seconds", "pods", lambda item: container(item, "containerStatuses", "running")),
    ("server_ready_seconds", "pods", lambda item: condition(item, "Ready")),
    ("status_seconds", "edgemodels", lambda item: condition(item, "Ready")),
]


def one_run(bed: Testbed, image: str, number: int) -> tuple[float, dict[str, float]]:
    """Apply one EdgeModel; return seconds to Ready and to each milestone from the one before."""
    name = f"model-{number}"
    document = {
        "apiVersion": "edgemodel.io/v1alpha1",
        "kind": "EdgeModel",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"image": image},
    }
    with watch(bed, "pods") as pods, watch(bed, "edgemodels") as models:
        began = time.monotonic()
        bed.kube.apply(document)
        bed.kube.await_condition(name, "Ready", "True", "Serving", NAMESPACE, timeout=120)
        seen = {"pods": pods, "edgemodels": models}
        bed.kube.until(
            lambda: any(condition(item, "Ready") for _, item in models if item["metadata"]["name"] == name),
            "the watch to see it",
        )
        times, last = {}, began
        for milestone, kind, reached in MILESTONES:
            at = min(
                when
                for when, item in seen[kind]
                if item["metadata"]["name"].startswith(name) and when >= began and reached(item)
            )
            times[milestone] = max(0.0, at - last)
            last = max(at, last)
    return last - began, times


def peer_run(bed: Testbed, number: int) -> float:
    """Apply a copy of the operator's own Deployment by hand; return seconds to an available pod."""
    (model,) = bed.kube.list("deployments", NAMESPACE, f"edgemodel.io/model=model-{number}")
    spec = json.loads(json.dumps(model["spec"]).replace(f'"model-{number}"', f'"plain-{number}"'))
    template = spec["template"]["spec"]
    for volume in template["volumes"]:
        if "configMap" in volume:
            volume["configMap"]["name"] = f"model-{number}-delivery"
    labels = {"bench.example/plain": str(number)}
    spec["template"]["metadata"] = {"labels": labels}
    spec["selector"] = {"matchLabels": labels}
    document = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"plain-{number}", "namespace": NAMESPACE},
        "spec": spec,
    }
    with watch(bed, "pods") as pods:
        began = time.monotonic()
        bed.kube.apply(document)
        bed.kube.until(
            lambda: any(
                item["metadata"]["name"].startswith(f"plain-{number}-") and condition(item, "Ready")
                for _, item in pods
            ),
            "the plain pod to be ready",
            timeout=120,
        )
        ready = min(
            when
            for when, item in pods
            if item["metadata"]["name"].startswith(f"plain-{number}-") and condition(item, "Ready")
        )
    bed.kube("delete", "deployment", f"plain-{number}", "-n", NAMESPACE)
    return ready - began


def run() -> bool:
    """Run the benchmark; True when every goal is met."""
    report = Report("ready")
    with start("bench") as bed, TemporaryDirectory(prefix="edgemodel-bench-") as folder:
        publisher = Publisher(Path(folder), bed.registry)
        key = publisher.key("bench")
        model = matmul_model(Path(folder) / "model.onnx", megabytes=5)
        publisher.publish(model, f"{NAMESPACE}/model:1", version="1", sequence=1, key=key)
        bed.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        bed.kube.apply(trust_policy(NAMESPACE, [f"{bed.registry}/{NAMESPACE}/**"], [key]))
        totals, plain, steps = [], [], []
        for number in range(RUNS + 1):
            total, times = one_run(bed, f"{bed.registry}/{NAMESPACE}/model:1", number)
            peer = peer_run(bed, number)
            bed.kube("delete", "edgemodel", f"model-{number}", "-n", NAMESPACE)
            bed.kube.until(lambda: not bed.kube.list("pods", NAMESPACE), "the pods to be gone", timeout=120)
            if number:  # the first is the warm-up
                totals.append(total)
                plain.append(peer)
                steps.append(times)
        bed.kube("delete", "namespace", NAMESPACE, "--wait=false")
        bed.kube("delete", "modeltrustpolicy", NAMESPACE)
    report.add("apply_to_ready_median", statistics.median(totals), "s", "<=", 6)
    report.add("apply_to_ready_worst", max(totals), "s")
    report.add("plain_deployment_median", statistics.median(plain), "s")
    report.add(
        "ratio_to_plain_deployment", statistics.median(a / b for a, b in zip(totals, plain, strict=True)), "x"
    )
    for milestone, _, _ in MILESTONES:
        report.add(milestone, statistics.median(times[milestone] for times in steps), "s")
    report.notes["runs"] = [round(total, 3) for total in totals]
    return report.finish()
