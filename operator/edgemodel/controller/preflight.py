"""Checks, before anything is watched, that the cluster offers what the operator needs.

Says what is missing and what to do. kopf without these checks would start, log one warning and stay blind.
"""

import asyncio
import time

from edgemodel.api.meta import API_VERSION
from edgemodel.cluster.client import ApiServer, Forbidden
from edgemodel.cluster.kinds import EDGE_MODEL, MODEL_TRUST_POLICY, Kind
from edgemodel.errors import Stalled, Transient

WAIT = 30.0
"""Seconds that the CRDs get to be served: Helm applies them moments before the operator."""


async def check(
    api: ApiServer,
    watched: tuple[Kind, ...],
    namespaces: tuple[str, ...],
    *,
    own: tuple[Kind, ...] = (EDGE_MODEL, MODEL_TRUST_POLICY),
    wait: float = WAIT,
) -> None:
    """Return when all is there.

    Args:
        api: the API server.
        watched: kinds that will be listed and watched besides our own.
        namespaces: namespaces to be watched; empty means all.
        own: our own kinds that will be.
        wait: seconds to wait for the CRDs and for the API server.

    Raises:
        Stalled: a kind is not served, or a permission is missing; the message says which and what to do.
        Transient: the API server could not be reached in time.
    """
    ends = time.monotonic() + wait
    while True:
        try:
            missing = await _unserved(api, own)
            if not missing:
                break
            if time.monotonic() >= ends:
                raise Stalled(
                    "InvalidSpec",
                    f"the API server does not serve {', '.join(missing)} in {API_VERSION}; "
                    "install the CRDs (kubectl apply -f crds/, or the Helm chart)",
                )
        except Transient:
            if time.monotonic() >= ends:
                raise
        await asyncio.sleep(1.0)
    for kind in (*own, *watched):
        for namespace in namespaces if kind.namespaced and namespaces else (None,):
            try:
                await api.probe(kind, namespace)
            except Forbidden as error:
                raise Stalled("InvalidSpec", error.message) from error


async def _unserved(api: ApiServer, own: tuple[Kind, ...]) -> list[str]:
    served = await api.read(f"/apis/{API_VERSION}") or {}
    plurals = {resource["name"] for resource in served.get("resources", ())}
    return [kind.plural for kind in own if kind.plural not in plurals]
