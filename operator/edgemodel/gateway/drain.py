"""Holds a pod of the gateway that was told to end until no Service leads to it any more: the pod's preStop hook.

Models' Services lead to the gateway by EndpointSlices that the operator writes, so a pod that is deleted goes on getting
requests until the operator has noticed; and an upgrade may replace the operator at the same moment, with an image that takes
minutes to come. So the hook looks at the slices themselves, and the gateway, which is told to end only when the hook has
ended, answers all the while. What can't be looked at counts as not forgotten: without the API server nobody else learns of
the end either.
"""

import argparse
import asyncio
import os
import ssl
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from edgemodel.api.meta import LABELS_MANAGED

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
LOOK_SECONDS = 1.0
"""Seconds between two looks."""
SETTLE_SECONDS = 5.0
"""Seconds from the last slice that leads here until the proxies of all nodes have followed."""
_SECONDS = 10.0
_PAGE = 500


async def drain(
    client: httpx.AsyncClient,
    address: str,
    namespaces: Sequence[str] = (),
    *,
    limit: float,
    look: float = LOOK_SECONDS,
    settle: float = SETTLE_SECONDS,
) -> bool:
    """Return once no slice leads to ``address`` and proxies had time to follow, or after ``limit`` seconds.

    Args:
        client: of the API server, with its address and credentials.
        address: the pod's.
        namespaces: those whose models are led to the gateway; empty means all.
        limit: seconds after which it is given up.
        look: seconds between two looks.
        settle: seconds to stay on afterwards.

    Returns:
        Whether nobody is led here any more.
    """
    ends = time.monotonic() + limit
    while time.monotonic() < ends:
        if not await _led_to(client, address, namespaces):
            await asyncio.sleep(min(settle, max(0.0, ends - time.monotonic())))
            return True
        await asyncio.sleep(look)
    return False


async def _led_to(client: httpx.AsyncClient, address: str, namespaces: Sequence[str]) -> bool:
    """Tell whether any slice leads to ``address``, or that can't be found out."""
    try:
        for namespace in namespaces or (None,):
            if await _led_to_in(client, address, namespace):
                return True
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        sys.stderr.write(f"drain: {type(error).__name__}: {error}\n")
        return True
    return False


async def _led_to_in(client: httpx.AsyncClient, address: str, namespace: str | None) -> bool:
    within = f"/namespaces/{namespace}" if namespace else ""
    selector = ",".join(f"{key}={value}" for key, value in LABELS_MANAGED.items())
    query = {"labelSelector": selector, "limit": str(_PAGE)}
    while True:
        answer = await client.get(f"/apis/discovery.k8s.io/v1{within}/endpointslices", params=query)
        answer.raise_for_status()
        page = answer.json()
        for found in page["items"]:
            for endpoint in found.get("endpoints") or ():
                # One that is known to be going gets requests only where there is no other.
                if address in endpoint["addresses"] and (endpoint.get("conditions") or {}).get("ready"):
                    return True
        token = page["metadata"].get("continue")
        if not token:
            return False
        query["continue"] = token


def main(argv: Sequence[str] | None = None) -> int:
    """Be the preStop hook; whatever happens the pod ends afterwards."""
    parser = argparse.ArgumentParser(prog="python3 -m edgemodel.gateway.drain")
    parser.add_argument("--limit", type=float, required=True, help="seconds after which it is given up")
    parser.add_argument(
        "--namespaces", default="", help="namespaces that are served, by commas; all when empty"
    )
    arguments = parser.parse_args(argv)
    namespaces = [one for one in arguments.namespaces.split(",") if one]
    return asyncio.run(_in_pod(os.environ["POD_IP"], namespaces, arguments.limit))


async def _in_pod(address: str, namespaces: Sequence[str], limit: float) -> int:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    token = (ACCOUNT / "token").read_text(encoding="ascii").strip()
    async with httpx.AsyncClient(
        base_url=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        headers={"Authorization": f"Bearer {token}"},
        verify=ssl.create_default_context(cafile=ACCOUNT / "ca.crt"),
        timeout=_SECONDS,
        trust_env=False,
    ) as client:
        return 0 if await drain(client, address, namespaces, limit=limit) else 1


if __name__ == "__main__":
    sys.exit(main())
