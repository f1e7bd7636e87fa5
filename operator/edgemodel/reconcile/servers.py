"""Where a live pod's inference server can be asked, and how often it has ended: where evidence about a version begins."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgemodel.reconcile.pods import read_pod
from edgemodel.rollout.evidence import Life


@dataclass(frozen=True, slots=True)
class Server:
    """One pod's server."""

    uid: str
    name: str
    """The pod's."""
    digest: str
    """Value of its digest label."""
    url: str
    """Where it answers; empty while it does not, or is about to go."""
    life: Life


def read_server(pod: Mapping[str, Any], port: int) -> Server | None:
    """Read a live pod as the API server sent it; None when it goes or has ended.

    Args:
        pod: the object.
        port: at which servers answer.
    """
    facts = read_pod(pod)
    if facts.going or facts.ended or not facts.uid:
        return None
    status = pod.get("status") or {}
    server: Mapping[str, Any] = next(
        (it for it in status.get("containerStatuses") or () if it.get("name") == "server"), {}
    )
    state, last = server.get("state") or {}, server.get("lastState") or {}
    end = state.get("terminated") or last.get("terminated") or {}
    restarts = server.get("restartCount")
    # The kubelet counts a restart when it has happened; an end that waits for it is one already.
    waits = bool(end) and "running" not in state
    life = Life(
        name=facts.name,
        ends=(restarts if isinstance(restarts, int) else 0) + waits,
        out_of_memory=end.get("reason") == "OOMKilled",
    )
    url = _url(status.get("podIP"), port) if facts.ready else ""
    return Server(facts.uid, facts.name, facts.digest, url, life)


def _url(address: object, port: int) -> str:
    """Return the server's address; empty for what is no IP address, so that nothing else is ever asked."""
    try:
        ip = ipaddress.ip_address(str(address))
    except ValueError:
        return ""
    return f"http://{f'[{ip}]' if ip.version == 6 else ip}:{port}"
