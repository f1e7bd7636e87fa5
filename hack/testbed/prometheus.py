"""A real Prometheus that scrapes a testbed's operator, node agents, gateway and every inference pod.

Debian's Prometheus is built without Kubernetes discovery, so the pods are looked up here and written to a target file,
with the ports and labels that the chart's monitors would give them.
"""

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
            "file_sd_configs": [{"files": [str(root / "targets.json")], "refresh_interval": "1s"}],
        }
        self._targets = root / "targets.json"
        self.find_targets()
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
        try:
            until(self._ready, "Prometheus to be ready", timeout=30)
        except BaseException as error:
            error.add_note((root / "log").read_text()[-2000:])
            self.__exit__()
            raise
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

    def find_targets(self) -> None:
        """Write down our own pods and those of all models as they are now."""
        found = []
        for selector in (
            "app.kubernetes.io/managed-by=edgemodel-operator",
            "app.kubernetes.io/name=edgemodel",
        ):
            pods = json.loads(self._bed.kube("get", "pods", "-A", "-l", selector, "-o", "json"))["items"]
            for pod in pods:
                ports = [port for one in pod["spec"]["containers"] for port in one.get("ports", ())]
                labels = {"namespace": pod["metadata"]["namespace"], "pod": pod["metadata"]["name"]}
                address = pod["status"].get("podIP")
                # The gateway's own http is the door to the models.
                names = {"metrics", "haproxy"} & {port.get("name") for port in ports} or {"http"}
                if pod["status"]["phase"] == "Running" and address:
                    found += [
                        {"targets": [f"{address}:{port['containerPort']}"], "labels": labels}
                        for port in ports
                        if port.get("name") in names
                    ]
        # Renamed into place: Prometheus reads the file whenever it changes.
        new = self._targets.with_suffix(".new")
        new.write_text(json.dumps(found))
        new.replace(self._targets)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series of an instant query whose values are numbers."""
        self.find_targets()
        answer = self._client.get("/api/v1/query", params={"query": expression}).json()
        assert answer["status"] == "success", answer
        series: list[dict[str, Any]] = answer["data"]["result"]
        return [one for one in series if one["value"][1] != "NaN"]
