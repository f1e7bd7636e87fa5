"""A real Prometheus that scrapes the operator and every inference pod of a testbed, found through the Kubernetes API."""

import json
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from testbed.waiting import until

if TYPE_CHECKING:
    from testbed.installation import Testbed

PORT = 19090


class Prometheus:
    """Runs on loopback while the ``with`` block lasts."""

    def __init__(self, bed: "Testbed") -> None:
        self._bed = bed

    def __enter__(self) -> "Prometheus":
        self._folder = tempfile.TemporaryDirectory(prefix="edgemodel-prometheus-")
        root = Path(self._folder.name)
        job: dict[str, Any] = {
            "job_name": "edgemodel",
            "scrape_interval": "1s",
            "honor_labels": True,  # the operator's metrics carry the model's own namespace
            "kubernetes_sd_configs": [{"role": "pod", "kubeconfig_file": str(self._bed.kube.kubeconfig)}],
            "relabel_configs": [
                {
                    "source_labels": [
                        "__meta_kubernetes_pod_label_app_kubernetes_io_managed_by",
                        "__meta_kubernetes_pod_label_app_kubernetes_io_name",
                    ],
                    "regex": "edgemodel-operator;.*|[^;]*;edgemodel",
                    "action": "keep",
                },
                {
                    "source_labels": ["__meta_kubernetes_pod_container_port_name"],
                    "regex": "http|metrics",
                    "action": "keep",
                },
                {"source_labels": ["__meta_kubernetes_pod_phase"], "regex": "Running", "action": "keep"},
                {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
                {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
            ],
        }
        (root / "prometheus.yml").write_text(json.dumps({"scrape_configs": [job]}))
        self._log = (root / "log").open("w")
        self._process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={root}/prometheus.yml",
                f"--storage.tsdb.path={root}/data",
                f"--web.listen-address=127.0.0.1:{PORT}",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{PORT}", timeout=10)
        until(self._ready, "Prometheus to be ready", timeout=30)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout=20)
        self._log.close()
        self._folder.cleanup()

    def _ready(self) -> bool:
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series of an instant query whose values are numbers."""
        answer = self._client.get("/api/v1/query", params={"query": expression}).json()
        assert answer["status"] == "success", answer
        series: list[dict[str, Any]] = answer["data"]["result"]
        return [one for one in series if one["value"][1] != "NaN"]
