"""Node agents without Kubernetes: real ``edgemodel node agent`` processes, a simulated API server, a real registry.

Each agent has a store and a kubelet's directory of its own. What the operator would do, writing EdgeNodes, is done here.
"""

import asyncio
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from edgemodel.artifact.keys import PublicKey
from edgemodel.artifact.policy import Policy, TrustedKey
from testbed.paths import ROOT
from testbed.publisher import Key
from tests.simulators.apiserver import ApiServerSimulator

NAMESPACE = "vision"
SYSTEM = "system"
POLICY = "site"

T = TypeVar("T")

AGENT = """
import sys
sys.modules.update(dict.fromkeys(("click", "rich", "pygments")))
from edgemodel.cli.main import main
raise SystemExit(main())
"""
"""The agent as in its image: without the packages that httpx imports where somebody's command line has brought them."""


async def until(check: Callable[[], T | None], what: str, *, within: float = 120.0, every: float = 0.01) -> T:
    """Return the first truthy result of ``check``; the event loop, and the simulator with it, goes on meanwhile."""
    end = time.monotonic() + within
    while not (found := check()):
        if time.monotonic() >= end:
            raise AssertionError(f"waited {within:.0f} s for {what}")
        await asyncio.sleep(every)
    return found


def entry(name: str, image: str, role: str = "Active", **more: Any) -> dict[str, Any]:
    """Return one of ``spec.models``; ``image`` is pinned."""
    digest = image.partition("@")[2]
    return {
        "namespace": NAMESPACE,
        "name": name,
        "digest": digest,
        "image": image,
        "role": role,
        "policies": [POLICY],
        **more,
    }


class Agent:
    """One agent's process, and its EdgeNode.

    Args:
        root: its own folder; the store is in there.
        api: the API server's simulator.
        api_url: where the agent finds it; the simulator itself by default.
        registries: ``host:port`` of all that are reached in the clear.
        name: of the node.
        key: whom it trusts.
        wrap: command in front of the agent's own.
    """

    def __init__(
        self,
        root: Path,
        api: ApiServerSimulator,
        registries: Sequence[str],
        *,
        key: Key,
        name: str = "worker-1",
        api_url: str | None = None,
        wrap: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.store = root / "store"
        # Not below root: a socket's path has 107 bytes at most.
        self._kubelet = tempfile.TemporaryDirectory(prefix="kubelet-")
        self.kubelet = Path(self._kubelet.name)
        self._api, self._api_url, self._wrap = api, api_url, wrap
        self._settings = root / "agent.json"
        self._log = root / "agent.log"
        self._policy = Policy(
            POLICY, ("**",), (TrustedKey("publisher", PublicKey.from_pem(key.pem)),)
        ).to_json()
        self._process: asyncio.subprocess.Process | None = None
        root.mkdir(parents=True, exist_ok=True)
        plain = {host: {"plainHTTP": True} for host in registries}
        self._settings.write_text(json.dumps({"registries": plain, "host": "127.0.0.1", "port": 0}))

    @property
    def edge_node(self) -> str:
        """Path of its EdgeNode."""
        return f"/apis/edgemodel.io/v1alpha1/edgenodes/{self.name}"

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it, and wait until it has found its EdgeNode and renewed its Lease."""
        lease = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/edgenode-{self.name}"
        self._api.objects.pop(lease, None)
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._wrap, sys.executable, "-c", AGENT, "node", "agent", "--node-name", self.name,
                "--store", self.store, "--kubelet-dir", self.kubelet, "--settings", self._settings,
                "--api-server", self._api_url or self._api.url, "--namespace", SYSTEM,
                stderr=log, cwd=ROOT,
            )  # fmt: skip
        await until(
            lambda: self._lives() and self.edge_node in self._api.objects and lease in self._api.objects,
            f"{self.name} to report itself",
        )

    def _lives(self) -> bool:
        assert self._process is not None
        if self._process.returncode is not None:
            raise AssertionError(f"{self.name} ended: {self._log.read_text()[-2000:]}")
        return True

    def want(self, *models: dict[str, Any]) -> None:
        """Write its spec, as the operator does."""
        before = self._api.objects[self.edge_node]
        generation = before["metadata"].get("generation", 0) + 1
        spec = {"models": list(models), "policies": [{"name": POLICY, "document": self._policy}]}
        metadata = {**before["metadata"], "generation": generation}
        self._api.put(self.edge_node, {**before, "metadata": metadata, "spec": spec})

    def said(self, image: str) -> dict[str, Any] | None:
        """Return what its status says of a version, by the pinned reference or the digest alone."""
        digest = image.rpartition("@")[2]
        lines = self._api.objects.get(self.edge_node, {}).get("status", {}).get("models", [])
        return next((line for line in lines if line["digest"] == digest), None)

    def ready(self, image: str) -> dict[str, Any] | None:
        """Return what its status says of a version that is Ready, None of any other.

        Raises:
            AssertionError: it failed, or the agent ended.
        """
        self._lives()
        line = self.said(image)
        if line is not None and line["state"] == "Failed":
            raise AssertionError(f"{self.name}: {line}")
        return line if line is not None and line["state"] == "Ready" else None

    async def holds(self, image: str, *, within: float = 300.0) -> dict[str, Any]:
        """Wait until a version is Ready; return what is said of it."""
        return await until(lambda: self.ready(image), f"{self.name} to have {image}", within=within)

    async def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the process; the store stays."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(how)
            await asyncio.wait_for(self._process.wait(), 60)

    async def close(self) -> None:
        """Leave no process and no kubelet's directory behind."""
        await self.end(signal.SIGKILL)
        self._kubelet.cleanup()
