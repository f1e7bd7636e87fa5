"""What a cluster of this machine leaves on it, for the tests of the cluster tool: nothing, once it is down."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster.layout import Layout, clusters_dir, existing_clusters, load_settings
from testbed.paths import ROOT
from testbed.shell import run
from testbed.waiting import until

CLUSTER = ROOT / "hack" / "cluster" / "cluster"
SHARED_PLACES = ("/run/netns", "/run/containerd/s", "/var/lib/cni/results", "/var/log/containers")


def layout_of(name: str) -> Layout:
    """Return where everything of a running cluster is."""
    settings = load_settings(name)
    assert settings is not None, f"cluster {name} is not there"
    return Layout(name, settings.index)


def status(name: str) -> dict[str, Any]:
    """Return what the tool says about a cluster."""
    done = run(CLUSTER, "status", "--name", name, "--output", "json", check=False)
    facts: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if facts["healthy"] else 1)
    return facts


def marks_of(cluster: Layout) -> Iterator[str]:
    """Texts that say that a link, a route or a file is another cluster's."""
    yield from (f"/{cluster.name}/", f"-{cluster.name}-", cluster.bridge)
    for address in cluster.directory.glob(
        "nodes/*/containerd-state/io.containerd.runtime.v2.task/*/*/address"
    ):
        with suppress(FileNotFoundError):  # its container has just ended
            yield address.read_text().rpartition("/")[2]
    for result in Path("/var/lib/cni/results").glob(f"edgemodel-{cluster.name}-*-eth0"):
        yield result.name.split("-")[-2]  # the sandbox's id


def footprint(name: str) -> dict[str, set[str]]:
    """Everything that a cluster of this name could leave on the machine.

    Its processes, mounts and cgroups have its name in them. What need not is everything there is, less what
    belongs to other clusters that run meanwhile.
    """
    others = [
        Layout(other, settings.index) for other, settings in existing_clusters().items() if other != name
    ]
    foreign = [mark for other in others for mark in marks_of(other)]

    def lines(*command: str) -> set[str]:
        text = re.sub(r"\[\d+:\d+\]", "", run(*command).stdout)  # a packet filter's counters
        return {line for line in text.splitlines() if not line.startswith("#")}

    mounts = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    cgroups = {path for path, _, _ in os.walk("/sys/fs/cgroup")}
    found = {
        "processes": {line for line in lines("ps", "-eo", "args") if f"{clusters_dir()}/{name}/" in line},
        "mounts": {path for path in mounts if path.startswith(f"{clusters_dir()}/{name}/")},
        "cgroups": {path for path in cgroups if f"edgemodel-{name}-" in path},
        "links": lines("ip", "-brief", "link"),
        "routes": lines("ip", "route", "show", "table", "all"),
        "packet filter": lines("iptables-save"),
        "disks": {
            line
            for line in lines("losetup", "--list", "--noheadings", "--output", "BACK-FILE")
            if f"/{name}/" in line
        },
    }
    for place in SHARED_PLACES:
        found[place] = {str(path.readlink() if path.is_symlink() else path) for path in Path(place).glob("*")}
    for what in ("links", "routes", "packet filter", *SHARED_PLACES):
        found[what] = {line for line in found[what] if not any(mark in line for mark in foreign)}
    return found


def until_nothing_is_left(name: str, before: dict[str, set[str]]) -> None:
    """Wait until the footprint is what it was before.

    The kernel takes a dead namespace's links away a moment after its last process, hence the wait.
    """

    def nothing_is_left() -> bool:
        left = {what: new for what, those in footprint(name).items() if (new := those - before[what])}
        assert not left, left
        return True

    until(nothing_is_left, "the machine to be as it was", timeout=10)
