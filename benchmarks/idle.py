"""An idle operator with 100 EdgeModels: what it writes in five minutes, and the memory it holds.

The writes are counted in the API server's own audit log. Peer: a process that has only imported kopf and the Kubernetes
client, which is where any operator in Python begins.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.figures import Report
from benchmarks.memory import resident
from benchmarks.models import matmul_model
from testbed.installation import start
from testbed.publisher import Publisher, trust_policy

MODELS = 100
SECONDS = 300
NAMESPACE = "bench-idle"
WRITES = {"create", "update", "patch", "delete", "deletecollection"}
IMPORTS = "import kopf, kubernetes.aio.client, time; print('ready', flush=True); time.sleep(60)"


def run() -> bool:
    """Run the benchmark; True when every goal is met."""
    report = Report("idle")
    with start("bench", audit=True) as bed, TemporaryDirectory(prefix="edgemodel-bench-") as folder:
        publisher = Publisher(Path(folder), bed.registry)
        key = publisher.key("bench")
        model = matmul_model(Path(folder) / "model.onnx", megabytes=1)
        bed.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        bed.kube.apply(trust_policy(NAMESPACE, [f"{bed.registry}/{NAMESPACE}/**"], [key]))
        publisher.publish(model, f"{NAMESPACE}/model:1", version="1", sequence=1, key=key)
        began = time.monotonic()
        for number in range(MODELS):
            # No pods: what is measured is the operator, and a hundred servers would not fit on this machine.
            bed.kube.apply(
                {
                    "apiVersion": "edgemodel.io/v1alpha1",
                    "kind": "EdgeModel",
                    "metadata": {"name": f"model-{number}", "namespace": NAMESPACE},
                    "spec": {
                        "image": f"{bed.registry}/{NAMESPACE}/model:1",
                        "replicas": 0,
                        "pollInterval": "1m",
                    },
                }
            )

        def settled() -> bool:
            models = bed.kube.list("edgemodels", NAMESPACE)
            return len(models) == MODELS and all(
                model.get("status", {}).get("slots", {}).get("active") for model in models
            )

        bed.kube.until(settled, "all of them to be reconciled", timeout=300)
        report.notes["seconds_to_reconcile_all"] = round(time.monotonic() - began, 1)
        assert bed.audit_log is not None
        quiet_from = time.time() + 15
        time.sleep(15 + SECONDS)
        report.add(
            "writes_in_five_minutes", float(len(writes(bed.audit_log, quiet_from))), "requests", "<=", 0
        )
        report.notes["reads_in_five_minutes"] = len(requests(bed.audit_log, quiet_from)) - int(
            report.figures[0].value
        )
        ours = resident(bed.operator_pids())
        report.add("operator_rss", ours, "MB", "<=", 90)
        peer = subprocess.Popen([sys.executable, "-c", IMPORTS], stdout=subprocess.PIPE)
        assert peer.stdout is not None
        peer.stdout.readline()
        imports = resident([peer.pid])
        peer.kill()
        peer.wait()
        report.add("imports_of_kopf_and_client_rss", imports, "MB")
        report.add("operator_rss_over_imports", ours / imports, "x")
    return report.finish()


def requests(audit_log: Path, since: float) -> list[dict[str, object]]:
    """Return the operator's own requests since a time, from the API server's audit log."""
    found = []
    for line in audit_log.read_text().splitlines():
        entry = json.loads(line)
        if entry["stage"] != "ResponseComplete" or "edgemodel" not in entry["user"].get("username", ""):
            continue
        if not entry["user"]["username"].startswith("system:serviceaccount:"):
            continue
        if entry["requestReceivedTimestamp"] >= time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(since)):
            found.append(entry)
    return found


def writes(audit_log: Path, since: float) -> list[dict[str, object]]:
    """Return those that write."""
    return [entry for entry in requests(audit_log, since) if entry["verb"] in WRITES]
