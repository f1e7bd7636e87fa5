"""What the agent takes on a node: memory at rest and while it applies a delta, idle traffic, time of a mount and of tidying.

Memory while applying is of agent and child together, sampled a hundred times a second over a real update of 91 MB.
``rss`` counts what the two share (the interpreter, libraries) twice; ``pss`` counts it once, which is what the node
loses. Idle traffic is counted by a relay between the agent and the simulated API server: HTTP without TLS, TCP and IP. A
mount is NodePublishVolume over the driver's socket with a connection of its own, as the kubelet does it; mounts are real,
in a mount namespace that ends with the agent (so this needs root).
"""

import asyncio
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from grpclib.client import Channel, UnaryUnaryMethod

from benchmarks.agents import NAMESPACE, Agent, entry, until
from benchmarks.figures import Report
from benchmarks.footprint import family
from benchmarks.memory import anonymous, proportional, resident
from benchmarks.models import matmul_model
from benchmarks.update import publish
from edgemodel.artifact.digest import Digest
from edgemodel.node.csi.proto import csi_pb2 as csi
from edgemodel.node.csi.server import endpoints
from edgemodel.node.store import NodeStore
from testbed.local_registry import local_registry
from testbed.publisher import Key, Publisher
from testbed.slow_link import SlowLink, slow_link
from tests.simulators.apiserver import ApiServerSimulator

IDLE_SECONDS = 180.0
WATCH_SECONDS = 290.0
"""How long the agent lets a watch last; then it opens another."""
MODELS, MEGABYTES = 50, 20
MOUNTS = 200
RATE = 200e6
"""Bits a second of the link by which the update comes; a delta is sooner there."""
ROUNDS = 5
OWN_MOUNTS = ("unshare", "--mount", "--propagation", "private")


def run() -> bool:
    """Run the benchmark; True when every goal is met."""
    report = Report("node")
    with tempfile.TemporaryDirectory(prefix="edgemodel-bench-") as name:
        folder = Path(name)
        with local_registry(folder) as registry, slow_link(registry.host, rate=0) as link:
            publisher = Publisher(folder, registry.host)
            key = publisher.key()
            versions, report.notes["model"] = publish(publisher, folder)
            asyncio.run(_memory_and_traffic(report, folder / "one", link, key, versions))
            images = _many(publisher, folder)
            asyncio.run(_mounts(report, folder / "many", registry.host, key, images))
        _collect(report, folder / "many" / "store", [Digest(image.partition("@")[2]) for image in images])
    return report.finish()


# -- memory and traffic -------------------------------------------------------------------------------------------------


async def _memory_and_traffic(
    report: Report, folder: Path, link: SlowLink, key: Key, versions: dict[str, str]
) -> None:
    async with ApiServerSimulator().running() as api:
        with slow_link(api.url.removeprefix("http://"), rate=0, latency=0) as wire:
            agent = Agent(folder, api, [link.address], key=key, api_url=f"http://{wire.address}")
            try:
                await agent.start()
                old, new = (f"{link.address}/{versions[one]}" for one in ("old", "offered"))
                agent.want(entry("detector", old))
                await agent.holds(old)
                # A new process, as after a reboot: it knows nothing of the link yet, and the bytes decide.
                await agent.end()
                await agent.start()
                await agent.holds(old)
                await _traffic(report, api, wire)
                report.add("agent_rss_idle", resident([agent.pid]), "MB", "<=", 60)
                report.add("agent_anonymous_idle", anonymous(agent.pid), "MB")
                link.rate = RATE
                agent.want(entry("detector", new))
                held = await _peaks(agent, new)
                line = agent.ready(new)
                assert line is not None
                if line["kind"] != "Delta":
                    raise AssertionError(f"expected it to come by delta, found {line}")
                report.add("agent_and_child_rss_applying", held["rss"], "MB", "<=", 130)
                report.add("agent_and_child_pss_applying", held["pss"], "MB")
                report.add("agent_rss_applying", held["agent"], "MB")
                report.add("agent_rss_after", resident([agent.pid]), "MB")
            finally:
                await agent.close()
                link.rate = 0


async def _traffic(report: Report, api: ApiServerSimulator, wire: SlowLink) -> None:
    """Count what an agent says and hears while nothing changes."""
    await asyncio.sleep(5)  # what the start left to say
    before, writes = wire.received + wire.sent, len(api.writes)
    await asyncio.sleep(IDLE_SECONDS)
    beats = wire.received + wire.sent - before
    report.notes["idle_writes"] = sorted({seen.path for seen in api.writes[writes:]})
    # A watch that ends is opened anew; the simulator ends none by itself.
    before, asked = wire.received + wire.sent, len(api.seen)
    api.end_watches()
    await until(lambda: any(seen.query.get("watch") for seen in api.seen[asked:]), "the watch to be back")
    await asyncio.sleep(1)
    watch = wire.received + wire.sent - before
    report.add("idle_bytes_per_hour", beats * 3600 / IDLE_SECONDS + watch * 3600 / WATCH_SECONDS, "bytes")
    report.notes["idle"] = {
        "seconds": IDLE_SECONDS,
        "writes": len(api.writes) - writes,
        "bytes": beats,
        "bytes_of_a_new_watch": watch,
    }


async def _peaks(agent: Agent, image: str) -> dict[str, float]:
    """Return the most memory that agent and child held until a version is Ready."""
    held = {"rss": 0.0, "pss": 0.0, "agent": 0.0}

    def sample() -> bool:
        with suppress(OSError):  # the child ends meanwhile
            pids = family(agent.pid)
            for name, value in (
                ("rss", resident(pids)),
                ("pss", proportional(pids)),
                ("agent", resident([agent.pid])),
            ):
                held[name] = max(held[name], value)
        return agent.ready(image) is not None

    await until(sample, f"{agent.name} to have {image}")
    return held


# -- mounts and tidying -------------------------------------------------------------------------------------------------


def _many(publisher: Publisher, folder: Path) -> list[str]:
    """Publish models of different weights; return their pinned references."""
    key, path = publisher.key(), folder / "model.onnx"
    images = []
    for n in range(MODELS):
        matmul_model(path, megabytes=MEGABYTES, seed=n)
        digest = publisher.publish(path, f"models/m{n}:1", version="1", sequence=1, key=key)
        images.append(f"{publisher.registry}/models/m{n}@{digest}")
    return images


async def _mounts(report: Report, folder: Path, registry: str, key: Key, images: list[str]) -> None:
    async with ApiServerSimulator().running() as api:
        agent = Agent(folder, api, [registry], key=key, wrap=OWN_MOUNTS)
        try:
            await agent.start()
            entries = [entry(f"m{n}", image) for n, image in enumerate(images)]
            socket, _ = endpoints(agent.kubelet)
            for count in (1, MODELS):
                agent.want(*entries[:count])
                for image in images[:count]:
                    await agent.holds(image)
                times = []
                for _ in range(MOUNTS // count):
                    wishes = [_wish(agent.kubelet, one) for one in entries[:count]]
                    for wish in wishes:
                        begun = time.perf_counter()
                        await _call(socket, "Publish", wish)
                        times.append((time.perf_counter() - begun) * 1e3)
                    for wish in wishes:
                        await _call(socket, "Unpublish", wish)
                cuts = statistics.quantiles(times, n=100)
                report.add(f"publish_p50_{count}_models", cuts[49], "ms")
                report.add(f"publish_p99_{count}_models", cuts[98], "ms", "<=", 50)
            report.add(f"agent_rss_{MODELS}_models", resident([agent.pid]), "MB")
            await agent.end()
        finally:
            await agent.close()


def _wish(kubelet: Path, model: dict[str, str]) -> csi.NodePublishVolumeRequest:
    """Return what the kubelet asks for a new pod of a model."""
    uid = str(uuid.uuid4())
    volume = kubelet / "pods" / uid / "volumes" / "kubernetes.io~csi" / "model"
    volume.mkdir(parents=True)
    mode = csi.VolumeCapability.AccessMode(mode=csi.VolumeCapability.AccessMode.SINGLE_NODE_WRITER)
    return csi.NodePublishVolumeRequest(
        volume_id=f"csi-{uid}",
        target_path=str(volume / "mount"),
        readonly=True,
        volume_capability=csi.VolumeCapability(mount=csi.VolumeCapability.MountVolume(), access_mode=mode),
        volume_context={
            "csi.storage.k8s.io/ephemeral": "true",
            "csi.storage.k8s.io/pod.name": "pod",
            "csi.storage.k8s.io/pod.namespace": NAMESPACE,
            "csi.storage.k8s.io/pod.uid": uid,
            "model": model["name"],
            "digest": model["digest"],
        },
    )


async def _call(socket: Path, what: str, wish: csi.NodePublishVolumeRequest) -> None:
    connection = Channel(path=str(socket))
    try:
        if what == "Publish":
            await UnaryUnaryMethod(
                connection,
                "/csi.v1.Node/NodePublishVolume",
                csi.NodePublishVolumeRequest,
                csi.NodePublishVolumeResponse,
            )(wish)
        else:
            await UnaryUnaryMethod(
                connection,
                "/csi.v1.Node/NodeUnpublishVolume",
                csi.NodeUnpublishVolumeRequest,
                csi.NodeUnpublishVolumeResponse,
            )(csi.NodeUnpublishVolumeRequest(volume_id=wish.volume_id, target_path=wish.target_path))
    finally:
        connection.close()


def _collect(report: Report, root: Path, digests: list[Digest]) -> None:
    """Time the collector: with all models held, and when half of them must go."""
    store = NodeStore(root)
    used = store.used()
    assert used >= MODELS * (MEGABYTES - 1) * 1e6, f"expected {MODELS} models, found {used} bytes"

    def timed(work: Callable[[], list[Digest]], gone: int) -> float:
        begun = time.perf_counter()
        evicted = work()
        seconds = time.perf_counter() - begun
        assert len(evicted) == gone, f"expected {gone} models to go, found {len(evicted)}"
        return seconds

    held = statistics.median(timed(lambda: store.collect(digests, ()), 0) for _ in range(ROUNDS))
    report.add(f"collect_{MODELS}_models", held, "s", "<=", 1)
    store.budget = used // 2
    half = MODELS // 2
    report.add(
        f"collect_evicting_{half}", timed(lambda: store.collect(digests[:half], ()), half), "s", "<=", 1
    )
