"""How long a node takes to have a new version, by delta and in full, over links of 10, 50 and 200 Mbit/s and a fast one.

The version is a fine-tune of a model of 91 MB in float32, and the old one came over the same link, so that the agent knows
what the link gives. Time runs from the change of the EdgeNode's spec to the agent's word that the version is Ready:
verified, rebuilt, hashed, flushed to disk, installed, said. Peer: another agent on the same link, to which no delta is
offered. On the fast link the whole file is sooner there than a delta could be applied, and the agent is to see that.
"""

import asyncio
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import finetune
from benchmarks.agents import Agent, entry
from benchmarks.figures import Report
from testbed.local_registry import local_registry
from testbed.publisher import Key, Publisher
from testbed.slow_link import slow_link
from tests.simulators.apiserver import ApiServerSimulator

LINKS = {"10mbit": 10e6, "50mbit": 50e6, "200mbit": 200e6, "fast": 0.0}
"""Bits a second; 0 is what this machine gives."""
GOALS = {"10mbit": 0.5, "50mbit": 0.6, "fast": 1.1}
DELTAS, WHOLE = "models/deltas", "models/whole"


@dataclass(frozen=True)
class Update:
    """How one came."""

    seconds: float
    megabytes: float
    """Over the link, requests and signatures included."""
    kind: str


def run() -> bool:
    """Run the benchmark; True when every goal is met."""
    report = Report("update")
    with tempfile.TemporaryDirectory(prefix="edgemodel-bench-") as name:
        folder = Path(name)
        with local_registry(folder) as registry:
            publisher = Publisher(folder, registry.host)
            versions, report.notes["model"] = publish(publisher, folder)
            for link, rate in LINKS.items():
                offered, whole = asyncio.run(
                    _link(folder / link, registry.host, publisher.key(), versions, rate)
                )
                report.add(
                    f"update_{link}_ratio", offered.seconds / whole.seconds, "x", "<=", GOALS.get(link)
                )
                report.add(f"update_{link}_seconds", offered.seconds, "s")
                report.add(f"update_{link}_full_seconds", whole.seconds, "s")
                report.add(f"update_{link}_bytes", offered.megabytes, "MB")
                report.add(f"update_{link}_full_bytes", whole.megabytes, "MB")
                report.notes[f"kind_{link}"] = offered.kind
            report.add("update_fast_is_full", float(report.notes["kind_fast"] == "Full"), "", ">=", 1)
    return report.finish()


def publish(publisher: Publisher, folder: Path) -> tuple[dict[str, str], str]:
    """Publish old and new, the latter with a delta in one repository and without in the other.

    Returns ``repository@sha256:…`` for ``old``, ``offered`` and ``whole``, and words that say what the model is.
    """
    old, new, words = finetune.versions(folder)
    graph = finetune.entry_file(folder)
    before, after = (finetune.linked(path, folder / name) for name, path in (("before", old), ("after", new)))
    key = publisher.key()

    def put(weights: Path, repository: str, sequence: int, *more: str) -> str:
        digest = publisher.publish(
            weights,
            f"{repository}:{sequence}",
            version=str(sequence),
            sequence=sequence,
            key=key,
            extra=(graph,),
            more=more,
        )
        return f"{repository}@{digest}"

    return {
        "old": put(before, DELTAS, 1),
        "offered": put(after, DELTAS, 2, "--delta-from", f"{publisher.registry}/{DELTAS}:1"),
        "whole": put(after, WHOLE, 2),
    }, words


async def _link(
    folder: Path, registry: str, key: Key, versions: dict[str, str], rate: float
) -> tuple[Update, Update]:
    """Update one agent with a delta on offer, and another without, over a link of their own each."""
    found = []
    for name, wanted in (("offered", ("old", "offered")), ("whole", ("whole",))):
        with slow_link(registry, rate=rate) as link:
            async with ApiServerSimulator().running() as api:
                agent = Agent(folder / name, api, [link.address], key=key)
                try:
                    await agent.start()
                    for version in wanted:
                        image = f"{link.address}/{versions[version]}"
                        before, begun = link.received + link.sent, time.perf_counter()
                        agent.want(entry("detector", image))
                        line = await agent.holds(image)
                        seconds = time.perf_counter() - begun
                    megabytes = (link.received + link.sent - before) / 1e6
                    found.append(Update(seconds, megabytes, str(line["kind"])))
                finally:
                    await agent.close()
    return found[0], found[1]
