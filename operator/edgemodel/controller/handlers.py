"""Binds kopf: what is watched, how, and the login. Handlers do nothing but pass on that something happened.

Only ``on.event`` is used: kopf then writes nothing to any object, needs no finalizer and keeps no state
that a restart could lose. Retries, timing and writes are the work queue's and the worker's. The reasons for
each setting stand in ``docs/adr/0001-level-triggered-on-kopf.md``.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import kopf

from edgemodel.api.meta import GROUP, LABELS_MANAGED, VERSION
from edgemodel.cluster.client import Credentials
from edgemodel.cluster.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    EDGE_NODE,
    ENDPOINT_SLICE,
    NODE,
    POD,
    POD_DISRUPTION_BUDGET,
    SERVICE,
    Kind,
)
from edgemodel.controller.node_sightings import NodeSightings
from edgemodel.controller.sightings import Sightings

WATCHED = (DEPLOYMENT, SERVICE, ENDPOINT_SLICE, POD_DISRUPTION_BUDGET, CONFIG_MAP, POD)
"""Watched besides our own kinds, and only where they carry the operator's label (Kubernetes copies it from a Service to its
EndpointSlices)."""


def register(
    sightings: Sightings,
    login: Callable[[], Awaitable[Credentials]],
    started: Callable[[], None],
    nodes: NodeSightings | None = None,
) -> kopf.OperatorRegistry:
    """Return a registry of handlers; nothing is registered globally.

    Args:
        sightings: is told everything.
        login: returns the API server's address and credentials as they are now.
        started: called once kopf has set itself up.
        nodes: is told of Nodes and EdgeNodes, which are watched for it only.
    """
    registry = kopf.OperatorRegistry()

    @kopf.on.startup(registry=registry)
    async def on_startup(**_: Any) -> None:
        started()

    @kopf.on.login(registry=registry)
    async def on_login(**_: Any) -> kopf.ConnectionInfo:
        now = await login()
        return kopf.ConnectionInfo(
            server=now.server,
            ca_path=now.ca_file,
            certificate_path=now.certificate_file,
            private_key_path=now.key_file,
            token=now.token,
            insecure=not now.verify,
        )

    @kopf.on.event(GROUP, VERSION, "edgemodels", registry=registry)
    async def on_model(
        type: str | None,  # noqa: A002 - kopf's name
        meta: Mapping[str, Any],
        status: Mapping[str, Any],
        **_: Any,
    ) -> None:
        sightings.model(type, meta, status)

    @kopf.on.event(GROUP, VERSION, "modeltrustpolicies", registry=registry)
    async def on_policy(type: str | None, meta: Mapping[str, Any], **_: Any) -> None:  # noqa: A002 - kopf's name
        sightings.policy(type, meta)

    async def on_child(meta: Mapping[str, Any], **_: Any) -> None:
        sightings.child(meta)

    if nodes is not None:
        _register_nodes(registry, nodes)
    for kind in WATCHED:
        kopf.on.event(*_selector(kind), id=f"on_{kind.plural}", registry=registry)(on_child)
    return registry


def _register_nodes(registry: kopf.OperatorRegistry, nodes: NodeSightings) -> None:
    @kopf.on.event(*_selector(NODE), registry=registry)
    async def on_node(type: str | None, body: Mapping[str, Any], **_: Any) -> None:  # noqa: A002 - kopf's name
        nodes.node(type, body)

    @kopf.on.event(*_selector(EDGE_NODE), registry=registry)
    async def on_edge_node(type: str | None, body: Mapping[str, Any], **_: Any) -> None:  # noqa: A002 - kopf's name
        nodes.edge_node(type, body)


def settings() -> kopf.OperatorSettings:
    """Return kopf's settings: no posting, no peering, no scan of CRDs or namespaces, bounded waits."""
    ours = kopf.OperatorSettings()
    ours.posting.enabled = False
    ours.peering.standalone = True
    ours.scanning.disabled = True
    ours.watching.server_timeout = 300
    ours.watching.client_timeout = 310
    ours.watching.connect_timeout = 10
    ours.watching.inactivity_timeout = 70
    ours.watching.chunk_size = 250
    ours.networking.request_timeout = 15
    ours.networking.connect_timeout = 5
    # Only watches make requests, so a long retry holds up nothing; a restarting API server answers 503 and 403 for a while.
    ours.networking.error_backoffs = (1, 2, 4, 8, 15)
    ours.networking.trust_env = False
    ours.queueing.idle_timeout = 1.0
    ours.queueing.exit_timeout = 1.0
    ours.process.ultimate_exiting_timeout = 20
    managed = ",".join(f"{key}={value}" for key, value in LABELS_MANAGED.items())
    for kind in WATCHED:
        ours.watching.label_selectors[_selector(kind)] = managed
    return ours


def _selector(kind: Kind) -> tuple[str, str, str]:
    return kind.group, kind.api_version.rpartition("/")[2], kind.plural
