"""From EdgeModels and pods to routes: which pods answer for which model, and what part of requests a candidate gets. Pure.

Promises: one object that cannot be read, or contradicts another, costs its own route and no other; what is left out is
said, in words. A model that asks who calls (``spec.access``) and of which no answer is known lets nobody in.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Any

from pydantic import ValidationError

from edgemodel.api.meta import LABEL_DIGEST, LABEL_MODEL, seconds
from edgemodel.api.v1alpha1 import EdgeModel

Object = Mapping[str, Any]

POD_PORT = "http"
"""Name of the container port that answers."""
DEFAULT_PORT = 8080
_DIGEST_LABEL = 16
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DNS = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Server:
    """One pod that answers, or did until just now."""

    name: str
    """Unique for each pod that ever was, and the same for as long as it lives."""
    address: str
    port: int
    taking: bool = True
    """It gets new requests; if not, it ends those it has."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call; empty means nobody, None (of ``Route.access``) means everybody."""

    tokens: tuple[str, ...] | None = field(default=None, repr=False)
    """Sha256 of each token that is let in, in hex; None where no token is asked for."""
    client_ca: str | None = None
    """PEM of the authorities whose clients are let in; None where no certificate is asked for."""

    @property
    def closed(self) -> bool:
        """Nobody is let in."""
        return self.tokens is None and self.client_ca is None


@dataclass(frozen=True, slots=True)
class Route:
    """One model."""

    namespace: str
    name: str
    port: int
    """At which its Service's requests arrive."""
    active: tuple[Server, ...] = ()
    candidate: tuple[Server, ...] = ()
    weight: int = 0
    """Percent of requests that the candidate gets."""
    queue_limit: int = 128
    queue_seconds: float = 5.0
    max_inflight: int | None = None
    """Requests that one pod gets at the same time."""
    sticky: bool = False
    access: Access | None = None
    shadow_percent: int = 0
    """Percent of the active version's requests that a candidate is to get copies of, when there is one."""
    shadow: int = 0
    """The same, now: 0 as long as no candidate can take copies, or none is left to be made."""
    candidate_digest: str = ""

    @property
    def key(self) -> str:
        """``namespace/name``: how paths, maps and logs call it."""
        return f"{self.namespace}/{self.name}"

    @property
    def backend(self) -> str:
        """What its two backends' names begin with; a dot is in no name of a namespace."""
        return f"{self.namespace}.{self.name}"

    @property
    def shape(self) -> "Route":
        """What of it can only be changed by a new configuration."""
        return replace(self, active=(), candidate=(), weight=0, shadow=0, candidate_digest="")


@dataclass(frozen=True, slots=True)
class Routes:
    """All of them, and what was left out."""

    routes: tuple[Route, ...]
    """By key."""
    problems: tuple[tuple[str, str], ...] = ()
    """Key and reason of each EdgeModel that has none though it should."""


def read_routes(models: Iterable[Object], pods: Iterable[Object], access: Mapping[str, str]) -> Routes:
    """Return the routes of all EdgeModels that have a port.

    Args:
        models: live EdgeModels.
        pods: live pods of models.
        access: by ``<namespace>.<name>.json``, what the operator says of who may call.
    """
    by_model: dict[tuple[str, str], list[Object]] = {}
    for pod in pods:
        meta = pod.get("metadata") or {}
        name = str((meta.get("labels") or {}).get(LABEL_MODEL, ""))
        by_model.setdefault((str(meta.get("namespace", "")), name), []).append(pod)
    routes: dict[int, Route] = {}
    problems: list[tuple[str, str]] = []
    for live in sorted(models, key=_age):
        meta = live.get("metadata") or {}
        key = f"{meta.get('namespace', '')}/{meta.get('name', '')}"
        try:
            model = EdgeModel.model_validate(live)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            problems.append((key, f"{'.'.join(map(str, first['loc']))}: {first['msg']}"))
            continue
        port = model.status.gateway_port
        if port is None or model.metadata.deletion_timestamp is not None:
            continue
        if not (_DNS.fullmatch(model.metadata.name) and _DNS.fullmatch(model.metadata.namespace)):
            problems.append((key, "its name is no DNS name"))
        elif port in routes:
            problems.append((key, f"port {port} is that of {routes[port].key}, which is older"))
        else:
            own = by_model.get((model.metadata.namespace, model.metadata.name), [])
            routes[port] = _route(model, port, own, access)
    return Routes(tuple(sorted(routes.values(), key=lambda route: route.key)), tuple(problems))


def _age(live: Object) -> tuple[str, str, str]:
    meta = live.get("metadata") or {}
    return (
        str(meta.get("creationTimestamp", "")),
        str(meta.get("namespace", "")),
        str(meta.get("name", "")),
    )


def _route(model: EdgeModel, port: int, pods: Iterable[Object], access: Mapping[str, str]) -> Route:
    slots, traffic, rollout = model.status.slots, model.spec.traffic, model.status.rollout
    # A first version is no active one yet: nobody gets to it before the operator found it good.
    first, second = slots.active, slots.candidate if slots.active is not None else None
    servers: dict[str, list[Server]] = {}
    for pod in pods:
        server = read_server(pod)
        label = str(((pod.get("metadata") or {}).get("labels") or {}).get(LABEL_DIGEST, ""))
        if server is not None:
            servers.setdefault(label, []).append(server)

    def of(digest: str | None) -> tuple[Server, ...]:
        found = servers.get((digest or "").removeprefix("sha256:")[:_DIGEST_LABEL], []) if digest else []
        return tuple(sorted(found, key=lambda server: server.name))

    candidate = of(second.digest if second else None)
    weight = min(100, max(0, rollout.weight)) if second is not None and rollout is not None else 0
    shadow = 0
    # Not before its golden samples passed, and not once it has all requests itself.
    if rollout is not None and rollout.step > 0 and weight < 100 and any(it.taking for it in candidate):
        shadow = traffic.shadow.percent
    return Route(
        namespace=model.metadata.namespace,
        name=model.metadata.name,
        port=port,
        active=of(first.digest if first else None),
        candidate=candidate,
        weight=weight,
        queue_limit=traffic.queue.limit,
        queue_seconds=seconds(traffic.queue.timeout),
        max_inflight=traffic.max_inflight_per_pod,
        sticky=traffic.sticky,
        access=_access(model, access),
        shadow_percent=traffic.shadow.percent,
        shadow=shadow,
        candidate_digest=second.digest if second is not None else "",
    )


def read_server(pod: Object) -> Server | None:
    """Return a live pod as a server; None while it has no address, was never ready, or has ended."""
    meta, status = pod.get("metadata") or {}, pod.get("status") or {}
    name = str(meta.get("name", ""))
    try:
        address = str(ip_address(str(status.get("podIP") or "")))
    except ValueError:
        return None
    if not _DNS.fullmatch(name) or status.get("phase") in ("Succeeded", "Failed"):
        return None
    going = bool(meta.get("deletionTimestamp"))
    ready = any(
        it.get("type") == "Ready" and it.get("status") == "True" for it in status.get("conditions") or ()
    )
    # One that is not ready is kept, and gets nothing: it may be busy with requests that it has.
    # A pod that its node had to set up again has another address, and is another server.
    return Server(f"{name}_{address.replace(':', '_')}", address, _pod_port(pod), taking=ready and not going)


def _pod_port(pod: Object) -> int:
    for container in (pod.get("spec") or {}).get("containers") or ():
        for port in container.get("ports") or ():
            if port.get("name") == POD_PORT and isinstance(port.get("containerPort"), int):
                return int(port["containerPort"])
    return DEFAULT_PORT


def _access(model: EdgeModel, entries: Mapping[str, str]) -> Access | None:
    asked = model.spec.access
    if asked is None or not (asked.bearer_tokens or asked.client_certificates):
        return None
    text = entries.get(f"{model.metadata.namespace}.{model.metadata.name}.json", "")
    try:
        entry = json.loads(text)
        tokens, client_ca = entry.get("tokens"), entry.get("clientCA")
    except (ValueError, AttributeError, RecursionError):
        return Access()
    told = Access(
        tokens=tuple(sorted(tokens))
        if isinstance(tokens, list) and all(isinstance(it, str) and _SHA256.fullmatch(it) for it in tokens)
        else None,
        client_ca=client_ca if isinstance(client_ca, str) and client_ca else None,
    )
    # An entry from before the spec asked for more says nothing about what it asks for now.
    missing = (asked.bearer_tokens and told.tokens is None) or (
        asked.client_certificates and told.client_ca is None
    )
    return Access() if missing else told
