"""One node of a testbed of our own: its agent, its files as this machine sees them, and what can happen to a machine.

The verbs are those of ``hack/cluster/cluster node``.
"""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.footprint import CLUSTER, layout_of, status
from testbed.installation import Testbed, processes_of
from testbed.kube import OWN_CONTEXT_PREFIX
from testbed.shell import run
from testbed.waiting import until


@dataclass(frozen=True)
class EdgeNode:
    """A node, by name."""

    bed: Testbed
    name: str

    @property
    def cluster(self) -> str:
        """Name of the cluster that the node is of."""
        return self.bed.kube.context.removeprefix(OWN_CONTEXT_PREFIX)

    @property
    def store(self) -> Path:
        """The agent's store, on this machine."""
        return Path(status(self.cluster)["nodeFacts"][self.name]["store"])

    @property
    def object(self) -> dict[str, Any]:
        """The EdgeNode; LookupError while there is none."""
        return self.bed.kube.get("edgenode", self.name)

    def held(self, namespace: str, digest: str) -> dict[str, Any]:
        """Return what the node says of a version of a namespace's models; empty while it says nothing."""
        for model in self.object.get("status", {}).get("models", []):
            if (model["namespace"], model["digest"]) == (namespace, digest):
                return dict(model)
        return {}

    def agent_pid(self) -> int:
        """Return the agent's process id on this machine; LookupError while there is none."""
        pods = [pod for pod in self.bed.agent_pods() if pod["spec"].get("nodeName") == self.name]
        pids = processes_of(pods, b"node\0agent")
        if not pids:
            raise LookupError(f"no agent runs on {self.name}")
        return min(pids)

    def kill_agent(self) -> None:
        """Kill the agent as a power cut would, and wait until the kubelet has started it again."""
        killed = self.agent_pid()
        os.kill(killed, signal.SIGKILL)
        until(lambda: self.agent_pid() != killed, f"the agent of {self.name} to be back", timeout=90)

    def reboot(self) -> None:
        """Kill everything on the node at once and start it again; its disks stay. Returns when it is Ready."""
        self._do("reboot")

    def restart_kubelet(self) -> None:
        """Kill the kubelet alone and start it again; pods run on. Returns when the node is Ready by the new one."""
        self._do("restart-kubelet")

    def cut(self) -> float:
        """Pull its network cable; return when it was out (POSIX time)."""
        # Not by the tool, whose start takes longer than what is measured from here.
        number = int(self.name.rpartition("-")[2])
        run("ip", "link", "set", layout_of(self.cluster).node(number).link, "down")
        return time.time()

    def join(self) -> None:
        """Plug it in again."""
        self._do("join")

    def throttle(self, rate: str) -> None:
        """Let no more than this through its cable (``10mbit``), in each direction; ``off`` ends it."""
        self._do("throttle", "--rate", rate)

    def inside(self, *command: str) -> str:
        """Run a command with the node's network and its view of the machine's files; return what it printed."""
        facts = status(self.cluster)["nodeFacts"][self.name]
        entered = (f"--net={facts['netNamespace']}", f"--mount={facts['mountNamespace']}")
        return run("nsenter", *entered, "--", *command).stdout

    def _do(self, action: str, *arguments: str) -> None:
        run(CLUSTER, "node", action, self.name, *arguments, "--name", self.cluster)


def edge_nodes(bed: Testbed) -> list[EdgeNode]:
    """Return the nodes of a testbed of our own."""
    cluster = bed.kube.context.removeprefix(OWN_CONTEXT_PREFIX)
    return [EdgeNode(bed, name) for name in status(cluster)["nodeFacts"]]
