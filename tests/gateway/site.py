"""One real gateway: its agent in this process, a real HAProxy, pods that are small HTTP servers, an API server's simulator.

Pods have addresses of their own on loopback (127.0.2.n) and one port, as in a cluster.
"""

import asyncio
import base64
import collections
import itertools
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from edgemodel.gateway.agent import Gateway
from edgemodel.gateway.api_server import ApiServer
from edgemodel.gateway.launch import supervisor
from edgemodel.gateway.settings import GatewaySettings
from edgemodel.kube_api import Address
from tests.gateway.clients import SECONDS, close_all, free_port, until
from tests.gateway.far_node import FarNode
from tests.simulators.apiserver import ApiServerSimulator

NAMESPACE, SYSTEM = "vision", "edgemodel-system"
MODELS = f"/apis/edgemodel.io/v1alpha1/namespaces/{NAMESPACE}/edgemodels"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
SECRETS = f"/api/v1/namespaces/{SYSTEM}/secrets"
ONE, TWO = "1" * 64, "2" * 64


class Pod:
    """Answers with its version; slowly, with an error, or by breaking off where it is told to."""

    def __init__(
        self, site: "Site", name: str, address: str, version: str, node: FarNode | None = None
    ) -> None:
        self._site, self.name, self.address, self.version = site, name, address, version
        self._node = node
        self.answered = 0
        self.inflight = 0
        self.heads: collections.deque[str] = collections.deque(maxlen=100)
        """Of the requests that it answered last, in lower case."""
        self.status = 200
        self.hold: asyncio.Event | None = None
        """While set, requests wait for it."""
        self.seconds = 0.0
        """How long a request takes, one after the other."""
        self._one = asyncio.Lock()
        self.breaks = 0
        """How many requests it reads and never answers."""
        self.content: bytes | None = None
        """What it answers, instead of its version."""
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def listen(self) -> None:
        if self._node is None:
            self._server = await asyncio.start_server(self._serve, self.address, self._site.pod_port)
        else:
            listener = await self._node.listener(self.address, self._site.pod_port)
            self._server = await asyncio.start_server(self._serve, sock=listener)

    def kill(self) -> None:
        """Go without a word, as a process does that is killed."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.partition("content-length:")[2].split("\r\n")[0] or 0)
                await reader.readexactly(length)
                if self.breaks:
                    self.breaks -= 1
                    break
                self.inflight += 1
                try:
                    if self.hold is not None:
                        await self.hold.wait()
                    if self.seconds:
                        async with self._one:
                            await asyncio.sleep(self.seconds)
                finally:
                    self.inflight -= 1
                self.answered += 1
                text = self.content or f"{self.version} {head.split()[1]} {length}".encode()
                self.heads.append(head)
                writer.write(
                    f"HTTP/1.1 {self.status} X\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def show(self, *, ready: bool = True, going: bool = False) -> None:
        """Have the API server say this of it."""
        self._site.server.put(
            f"{PODS}/{self.name}",
            {
                "metadata": {
                    "labels": {
                        "edgemodel.io/model": self._site.of[self.name],
                        "edgemodel.io/digest": self.version[:16],
                    },
                    **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if going else {}),
                },
                "spec": {"containers": [{"ports": [{"name": "http", "containerPort": self._site.pod_port}]}]},
                "status": {
                    "phase": "Running",
                    "podIP": self.address,
                    "conditions": [{"type": "Ready", "status": str(ready)}],
                },
            },
        )

    def remove(self) -> None:
        self._site.server.remove(f"{PODS}/{self.name}")


class Site:
    """See the module's docstring."""

    def __init__(self, server: ApiServerSimulator, folder: Path, **more: Any) -> None:
        self.server = server
        self.settings = GatewaySettings(
            access_secret="access",
            tls_secret=more.pop("tls_secret", ""),
            namespaces=(NAMESPACE,),
            state_folder=folder,
            http_port=free_port(),
            https_port=free_port(),
            haproxy_port=free_port(),
            threads=1,
            port=0,
            drain_seconds=2,
            max_connections=1024,
            **more,
        )
        self.pod_port = free_port()
        self.of: dict[str, str] = {}
        self.pods: list[Pod] = []
        self._numbers = itertools.count(1)
        self.gateway: Gateway
        self.problem: BaseException | None = None

    def silent_pod(self, name: str, address: str, version: str, model: str = "detector") -> Pod:
        """Return a pod that is to be shown, and at whose address something else listens."""
        pod = Pod(self, name, address, version)
        self.of[name] = model
        return pod

    async def pod(
        self, model: str = "detector", version: str = ONE, *, node: FarNode | None = None, **shown: bool
    ) -> Pod:
        """Run a pod, on this machine or on a node far away."""
        number = next(self._numbers)
        address = node.address(number) if node else f"127.0.2.{number}"
        pod = Pod(self, f"{model}-{number}", address, version, node)
        self.of[pod.name] = model
        self.pods.append(pod)
        await pod.listen()
        pod.show(**shown)
        return pod

    def model(
        self,
        name: str = "detector",
        *,
        port: int | None = None,
        active: str | None = ONE,
        candidate: str | None = None,
        weight: int = 0,
        **spec: Any,
    ) -> int:
        """Have the API server say this of a model; return its port."""
        path = f"{MODELS}/{name}"
        port = port or self.server.objects.get(path, {}).get("status", {}).get("gatewayPort") or free_port()
        slots = {
            slot: {"digest": f"sha256:{digest}", "image": f"r/m@sha256:{digest}"}
            for slot, digest in (("active", active), ("candidate", candidate))
            if digest is not None
        }
        status: dict[str, Any] = {"slots": slots, "gatewayPort": port}
        if candidate is not None:
            status["rollout"] = {"weight": weight, "step": 1}
        self.server.put(path, {"spec": {"image": "r/m:1", **spec}, "status": status})
        return port

    def remove(self, name: str) -> None:
        """Have the API server say that a model was deleted."""
        self.server.remove(f"{MODELS}/{name}")

    def access(self, **entries: dict[str, Any]) -> None:
        """Have the operator say who may call, by model."""
        self.secret(
            "access", {f"{NAMESPACE}.{name}.json": json.dumps(entry) for name, entry in entries.items()}
        )

    def secret(self, name: str, data: dict[str, str]) -> None:
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        self.server.put(f"{SECRETS}/{name}", {"data": encoded})

    def changes(self, way: str) -> float:
        found = self.gateway.metrics.registry.get_sample_value(
            "edgemodel_gateway_changes_total", {"way": way}
        )
        return found or 0.0

    @asynccontextmanager
    async def supervised(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run the supervisor, with HAProxy and no agent."""
        process = await asyncio.create_subprocess_exec(*supervisor(self.settings, "haproxy", ()))
        try:
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
            await asyncio.wait_for(process.wait(), SECONDS)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Site"]:
        """Run the gateway, with its agent in this process; it is ready."""
        async with self.supervised(), self.agent():
            await until(lambda: self.gateway.unready() is None, "ready")
            yield self

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[asyncio.Task[None]]:
        """Run the agent in this process; cancel what is yielded and it is as if it was killed."""
        async with ApiServer(Address(self.server.url, SYSTEM)) as api:
            self.gateway = Gateway(self.settings, api)
            task = asyncio.create_task(self.gateway.run())
            try:
                yield task
            finally:
                self.gateway.stop()
                await asyncio.wait({task}, timeout=SECONDS)
                if not task.cancelled():
                    task.result()

    async def close(self) -> None:
        close_all()
        for pod in self.pods:
            pod.kill()
        await asyncio.sleep(0.05)  # transports close in the loop's next rounds


@asynccontextmanager
async def made(**more: Any) -> AsyncIterator[Site]:
    """Yield a site whose gateway does not run yet."""
    # Not pytest's folder: the path of a Unix socket is short.
    folder = Path(tempfile.mkdtemp(prefix="gateway-"))
    try:
        async with ApiServerSimulator().running() as server:
            site = Site(server, folder, **more)
            yield site
            await site.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
