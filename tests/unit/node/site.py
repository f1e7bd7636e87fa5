"""A node as its agent sees it: an API server, a registry, disks; and the agent itself, as a process or within the test."""

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgemodel.artifact.policy import Policy
from tests.simulators.apiserver import ApiServerSimulator
from tests.simulators.registry import RegistrySimulator
from tests.unit.artifact.artifacts import POLICY, Published

NODE = "worker-1"
EDGE_NODE = f"/apis/edgemodel.io/v1alpha1/edgenodes/{NODE}"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/system/leases/edgenode-{NODE}"
PATIENCE = 20.0


def entry(published: Published, **more: Any) -> dict[str, Any]:
    """One of ``spec.models``, as the operator writes it."""
    return {
        "namespace": "vision",
        "name": "detector",
        "digest": str(published.pinned.digest),
        "image": str(published.pinned),
        "role": "Active",
        "policies": ["site"],
        **more,
    }


def spec(*entries: dict[str, Any], policies: tuple[Policy, ...] = (POLICY,), **more: Any) -> dict[str, Any]:
    """``EdgeNode.spec``, as the operator writes it."""
    documents = [{"name": policy.name, "document": policy.to_json()} for policy in policies]
    return {"models": list(entries), "policies": documents, **more}


def want(api: ApiServerSimulator, wanted: dict[str, Any]) -> None:
    """Write the spec, as the operator does."""
    before = api.objects.get(EDGE_NODE, {})
    generation = before.get("metadata", {}).get("generation", 0) + 1
    metadata = {**before.get("metadata", {}), "generation": generation}
    api.put(EDGE_NODE, {**before, "metadata": metadata, "spec": wanted})


def said(api: ApiServerSimulator) -> list[dict[str, Any]]:
    """``status.models``."""
    return api.objects.get(EDGE_NODE, {}).get("status", {}).get("models", [])


async def until(condition: Callable[[], Any]) -> Any:
    """Wait until something is so, and return it."""
    async with asyncio.timeout(PATIENCE):
        while not (found := condition()):  # noqa: ASYNC110 - another process sets no event here
            await asyncio.sleep(0.01)
    return found


class AgentProcess:
    """``edgemodel node agent``."""

    def __init__(
        self, root: Path, api: ApiServerSimulator, registry: RegistrySimulator, **settings: Any
    ) -> None:
        self.root, self.store = root, root / "store"
        # Not below root: a socket's path has 107 bytes at most.
        self._kubelet = tempfile.TemporaryDirectory(prefix="kubelet-")
        self.kubelet = Path(self._kubelet.name)
        self._api = api
        self._settings = root / "agent.json"
        document = {
            "registries": {registry.host: {"plainHTTP": True}},
            "host": "127.0.0.1",
            "port": 0,
            **settings,
        }
        self._settings.write_text(json.dumps(document))
        self.lines: list[dict[str, Any]] = []
        self.process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def start(self, *, api_url: str | None = None) -> int:
        """Start it; return the port of its metrics once it listens."""
        self.lines.clear()
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "edgemodel", "node", "agent", "--node-name", NODE,
            "--store", self.store, "--kubelet-dir", self.kubelet, "--settings", self._settings,
            "--api-server", api_url or self._api.url, "--namespace", "system",
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": "operator"},
            cwd=Path(__file__).parents[3],
        )  # fmt: skip
        self._reader = asyncio.create_task(self._read(self.process))
        return int((await self.logged("listening"))["port"])

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            self.lines.append(json.loads(line) if line.startswith(b"{") else {"message": line.decode()})

    async def logged(self, words: str) -> dict[str, Any]:
        """Wait for a line of its log."""

        def found() -> dict[str, Any] | None:
            assert self.process is not None
            for line in self.lines:
                if words in line["message"]:
                    return line
            assert self.process.returncode is None, f"it ended: {self.lines}"
            return None

        return await until(found)

    async def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal; return how it ended."""
        assert self.process is not None
        assert self._reader is not None
        if self.process.returncode is None:
            self.process.send_signal(how)
        code = await asyncio.wait_for(self.process.wait(), PATIENCE)
        await self._reader
        return code

    async def close(self) -> None:
        """Leave nothing behind."""
        if self.process is not None:
            await self.end(signal.SIGKILL)
        self._kubelet.cleanup()

    def resident_bytes(self) -> int:
        """Resident memory of the process."""
        assert self.process is not None
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )


async def ask(port: int, path: str) -> tuple[int, str]:
    """One request to its metrics server; returns status and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = (await reader.read()).decode()
    finally:
        writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split()[1]), body
