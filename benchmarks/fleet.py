"""What twenty nodes that update at the same moment ask of one registry: by delta, in full, and in a download window.

Twenty agents with a store each, one registry behind a link of 100 Mbit/s that they share. All hold the old version; then
all EdgeNodes name the new one within a few milliseconds, which is worse than the operator does. Counted: requests (the
registry's own log), bytes and connections (the link), when each agent began and when it was Ready. For the window, the
version is a candidate whose download window opens at the next full minute: agents begin spread over a minute. All agents
share this machine's cores, so "all ready" by delta is mostly twenty children that apply in turn: real nodes do not.
"""

import asyncio
import statistics
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.agents import Agent, entry, until
from benchmarks.figures import Report
from benchmarks.models import matmul_model
from testbed.local_registry import LocalRegistry, local_registry
from testbed.publisher import Key, Publisher
from testbed.slow_link import SlowLink, slow_link
from tests.simulators.apiserver import ApiServerSimulator

AGENTS = 20
MEGABYTES = 20
RATE = 100e6
"""Bits a second of the link."""
MODELS = ("delta", "full", "window")


@dataclass
class Wave:
    """What one update of all cost."""

    requests: int
    megabytes: float
    most_open: int
    begun: list[float]
    """Seconds after the change at which each agent had its first byte, or was Ready."""
    ready: list[float]
    kinds: list[str]


def run() -> bool:
    """Run the benchmark; True when every goal is met."""
    report = Report("fleet")
    with tempfile.TemporaryDirectory(prefix="edgemodel-bench-") as name:
        folder = Path(name)
        with local_registry(folder) as registry, slow_link(registry.host, rate=RATE) as link:
            publisher = Publisher(folder, registry.host)
            images = {model: _publish(publisher, folder, model, link.address) for model in MODELS}
            waves = asyncio.run(_waves(folder, registry, link, publisher.key(), images))
    for model, wave in waves.items():
        report.add(f"fleet_{model}_bytes_per_node", wave.megabytes / AGENTS, "MB")
        report.add(f"fleet_{model}_requests_per_node", wave.requests / AGENTS, "")
        report.add(f"fleet_{model}_most_connections", wave.most_open, "")
        report.add(f"fleet_{model}_begun_spread", max(wave.begun) - min(wave.begun), "s")
        report.add(f"fleet_{model}_all_ready", max(wave.ready), "s")
        report.notes[model] = {
            "begun": [round(one, 2) for one in sorted(wave.begun)],
            "ready": [round(one, 2) for one in sorted(wave.ready)],
            "kinds": {kind: wave.kinds.count(kind) for kind in sorted(set(wave.kinds))},
        }
    report.add(
        "fleet_delta_over_full_bytes", waves["delta"].megabytes / waves["full"].megabytes, "x", "<=", 0.6
    )
    report.add("fleet_all_by_delta", waves["delta"].kinds.count("Delta") / AGENTS, "", ">=", 1)
    # Twenty numbers, evenly drawn from a minute, have a standard deviation of 17 s.
    report.add("fleet_window_begun_deviation", statistics.pstdev(waves["window"].begun), "s", ">=", 10)
    return report.finish()


def _publish(publisher: Publisher, folder: Path, model: str, host: str) -> tuple[str, str]:
    """Publish two versions, the second with a delta unless it is to come in full; return their pinned references."""
    seed = MODELS.index(model)
    path = folder / model / "model.onnx"
    path.parent.mkdir()
    found = []
    for version in (1, 2):
        matmul_model(path, megabytes=MEGABYTES, seed=seed, tuned=version == 2)
        offer = version == 2 and model != "full"
        more = ("--delta-from", f"{publisher.registry}/models/{model}:1") if offer else ()
        digest = publisher.publish(
            path,
            f"models/{model}:{version}",
            version=str(version),
            sequence=version,
            key=publisher.key(),
            more=more,
        )
        found.append(f"{host}/models/{model}@{digest}")
    return found[0], found[1]


async def _waves(
    folder: Path, registry: LocalRegistry, link: SlowLink, key: Key, images: dict[str, tuple[str, str]]
) -> dict[str, Wave]:
    old = [entry(model, before) for model, (before, _) in images.items()]
    async with ApiServerSimulator().running() as api:
        agents = [
            Agent(folder / f"node-{n}", api, [link.address], key=key, name=f"node-{n:02}")
            for n in range(AGENTS)
        ]
        try:
            for agent in agents:
                await agent.start()
                agent.want(*old)
            for agent in agents:
                for before, _ in images.values():
                    await agent.holds(before)
            waves, now = {}, old
            for model, (_, after) in images.items():
                changed: dict[str, Any] = entry(model, after)
                if model == "window":
                    changed |= {"role": "Candidate", "window": _window()}
                now = [*now, changed]
                waves[model] = await _wave(agents, registry, link, after, now)
            return waves
        finally:
            for agent in agents:
                await agent.close()


def _window() -> dict[str, str]:
    """Return a window that opens at the next full minute that is at least 15 s away."""
    opens = (datetime.now(UTC) + timedelta(seconds=75)).replace(second=0, microsecond=0)
    return {"schedule": f"{opens.minute} {opens.hour} * * *", "duration": "30m", "timeZone": "UTC"}


async def _wave(
    agents: list[Agent], registry: LocalRegistry, link: SlowLink, image: str, models: list[dict[str, Any]]
) -> Wave:
    registry.asked()
    # Those that were kept alive since the wave before count: the registry has them open.
    link.received, link.sent, link.most_open = 0, 0, link.open
    changed = time.perf_counter()
    for agent in agents:
        agent.want(*models)
    begun: dict[str, float] = {}
    ready: dict[str, float] = {}
    kinds = []

    def all_ready() -> bool:
        for agent in agents:
            line = agent.said(image)
            after = time.perf_counter() - changed
            if line is not None and line["state"] != "Pending":
                begun.setdefault(agent.name, after)
            if agent.name not in ready and agent.ready(image):
                ready[agent.name] = after
                kinds.append(str(line["kind"]) if line is not None else "")
        return len(ready) == len(agents)

    await until(all_ready, f"{len(agents)} agents to have {image}", within=400, every=0.02)
    megabytes = (link.received + link.sent) / 1e6
    return Wave(
        len(registry.asked()), megabytes, link.most_open, list(begun.values()), list(ready.values()), kinds
    )
