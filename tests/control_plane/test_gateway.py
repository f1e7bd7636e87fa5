"""Services that lead to a gateway, on a real API server with the real controllers of EndpointSlices."""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edgemodel.cluster.kinds import EDGE_MODEL, ENDPOINT_SLICE, ENDPOINTS, SECRET, SERVICE
from edgemodel.errors import EdgeModelError
from tests.control_plane.conftest import Start
from tests.control_plane.fake_agent import FakeAgent
from tests.control_plane.fake_gateway import ACCESS, FakeGateway, fake_gateway
from tests.control_plane.site import Site
from tests.control_plane.test_node_delivery import fleet
from tests.control_plane.waiting import until

__all__ = ["fleet"]

OURS = "detector-gateway"
MANAGER = "endpointslice.kubernetes.io/managed-by"


@pytest.fixture
async def gateway(site: Site, kubeconfig: Path) -> AsyncIterator[FakeGateway]:
    async with fake_gateway(site.api, site.namespace, kubeconfig) as made:
        yield made


@pytest.fixture
def settings(site: Site, fleet: tuple[FakeAgent, ...]) -> dict[str, Any]:
    """Settings of an operator without a gateway, on nodes that run pods."""
    return {"nodeNamespace": site.namespace, "nodeLookInterval": 1}


async def slices(site: Site, name: str = "detector") -> dict[str, dict[str, Any]]:
    """Return the EndpointSlices of a model's Service."""
    labels = {"kubernetes.io/service-name": name}
    found = await site.api.list(ENDPOINT_SLICE, site.namespace, labels=labels)
    return {it["metadata"]["name"]: it for it in found}


async def led_to(site: Site, name: str = "detector") -> set[str]:
    """Return the addresses that the model's Service leads to."""
    return {
        address
        for it in (await slices(site, name)).values()
        for endpoint in it.get("endpoints") or ()
        if endpoint["conditions"].get("ready")
        for address in endpoint["addresses"]
    }


async def port_of(site: Site, name: str = "detector") -> int:
    async def told() -> int:
        return int((await site.status(name)).get("gatewayPort") or 0)

    return await until(told, f"{name} is given a port")


@asynccontextmanager
async def never_without_endpoints(site: Site) -> AsyncIterator[list[str]]:
    """Look at the Service's endpoints all the time; yield the list of moments at which there were none."""
    gaps: list[str] = []

    async def look() -> None:
        while True:
            try:
                if not await led_to(site):
                    gaps.append(str(sorted(await slices(site))))
            except EdgeModelError as error:
                gaps.append(str(error))
            await asyncio.sleep(0.02)

    looking = asyncio.create_task(look())
    yield gaps
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)


async def test_a_service_leads_to_the_gateway_and_follows_its_pods(
    site: Site, start: Start, settings: dict[str, Any], gateway: FakeGateway
) -> None:
    async with start(**settings, **gateway.settings()):
        await site.serve()
        service = await site.service()
        assert service is not None
        assert "selector" not in service["spec"]
        (found,) = (await slices(site)).values()
        assert found["metadata"]["name"] == OURS
        assert [port["port"] for port in found["ports"]] == [await port_of(site)]
        assert await led_to(site) == {gateway.address}
        assert await site.api.get(ENDPOINTS, site.namespace, "detector") is None
        await gateway.say(ready=False)
        await site.becomes("Ready", "False", "GatewayMissing")
        assert await led_to(site) == set()
        await gateway.say(ready=True)
        await site.becomes("Ready", "True", "Serving")
        assert await led_to(site) == {gateway.address}
        await site.api.merge(SERVICE, site.namespace, "detector", {"spec": {"selector": {"app": "mine"}}})
        await gateway.listen(await port_of(site))

        async def leads_nowhere_else() -> bool:
            live = await site.service()
            return live is not None and "selector" not in live["spec"] and set(await slices(site)) == {OURS}

        await until(leads_nowhere_else, "a selector that somebody set is taken away")


async def test_a_service_is_turned_to_the_gateway_and_back_without_a_moment_without_endpoints(
    site: Site, start: Start, settings: dict[str, Any], gateway: FakeGateway
) -> None:
    async with start(**settings) as operator:
        await site.serve()
        await until(lambda: led_to(site), "pods are led to")
        (pods,) = {frozenset(await led_to(site))}
        await operator.stop()
    async with never_without_endpoints(site) as gaps:
        async with start(**settings, **gateway.settings()) as operator:
            port = await port_of(site)
            await site.becomes("Degraded", "True", "GatewayMissing")
            assert await led_to(site) == pods, "nothing answers yet at the model's port"
            await gateway.listen(port)

            async def turned() -> bool:
                gone = await site.api.get(ENDPOINTS, site.namespace, "detector") is None
                return gone and set(await slices(site)) == {OURS}

            await until(turned, "only the gateway is led to")
            await site.becomes("Degraded", "False")
            assert await led_to(site) == {gateway.address}
            await operator.stop()
        async with start(**settings):

            async def back() -> bool:
                return OURS not in await slices(site) and await led_to(site) == pods

            await until(back, "only pods are led to")
            await site.becomes("Ready", "True", "Serving")
            assert await port_of(site) == port, "a gateway that drains goes by it"
    assert gaps == []


async def test_at_rest_nothing_is_written(
    site: Site, start: Start, settings: dict[str, Any], gateway: FakeGateway
) -> None:
    async with start(**settings, **gateway.settings()) as operator:
        await site.serve()
        before = await site.versions()
        passes = await operator.metric("edgemodel_reconcile_total")
        await gateway.say(ready=True)  # changes nothing
        await site.apply(pollInterval="1s", replicas=1)

        async def looked_again() -> bool:
            return await operator.metric("edgemodel_reconcile_total") >= passes + 2

        await until(looked_again, "passes are made")
        after = await site.versions()
        assert {key: after[key] for key in before if not key.startswith("EdgeModel")} == {
            key: version for key, version in before.items() if not key.startswith("EdgeModel")
        }


async def test_each_model_has_a_port_of_its_own_also_after_a_restore(
    site: Site, start: Start, settings: dict[str, Any], gateway: FakeGateway
) -> None:
    async with start(**settings, **gateway.settings()) as operator:
        await site.serve()
        first = await port_of(site)
        await site.apply("second")
        second = await port_of(site, "second")
        assert first != second
        await operator.stop()
    restored = {"status": {"gatewayPort": first}}
    await site.api.merge(EDGE_MODEL, site.namespace, "second", restored, subresource="status")
    async with start(**settings, **gateway.settings()):

        async def moved() -> bool:
            return await port_of(site, "second") != first

        await until(moved, "the younger one gets another port")
        assert await port_of(site) == first


async def test_who_may_call_is_told_to_the_gateway_and_nobody_may_for_want_of_a_secret(
    site: Site, start: Start, settings: dict[str, Any], gateway: FakeGateway
) -> None:
    async def told() -> dict[str, Any]:
        secret = await site.api.get(SECRET, site.namespace, ACCESS)
        assert secret is not None
        data = secret.get("data") or {}
        return {key: json.loads(base64.b64decode(value)) for key, value in data.items()}

    guarded: dict[str, Any] = {"access": {"bearerTokens": {"secretName": "callers"}}}
    key = f"{site.namespace}.detector.json"
    async with start(**settings, **gateway.settings()):
        site.publish("1.0.0")
        await site.policy()
        await site.apply(**guarded)
        message = await site.becomes("Ready", "False", "AccessClosed")
        assert "Secret callers" in message
        assert await told() == {}
        await site.secret("callers", "Opaque", "camera", "token-of-the-camera")
        await site.apply(replicas=2, **guarded)
        await site.becomes("Ready", "True", "Serving")

        async def written() -> bool:
            return key in await told()

        await until(written, "the gateway is told")
        assert await told() == {key: {"tokens": [hashlib.sha256(b"token-of-the-camera").hexdigest()]}}
        await site.delete()

        async def forgotten() -> bool:
            return await told() == {}

        await until(forgotten, "a model that is gone leaves no entry")


async def test_without_a_gateway_a_model_that_only_some_may_call_is_led_to_by_nobody(
    site: Site, start: Start, settings: dict[str, Any]
) -> None:
    site.publish("1.0.0")
    await site.policy()
    await site.secret("callers", "Opaque", "camera", "token-of-the-camera")
    async with start(**settings):
        await site.apply(access={"bearerTokens": {"secretName": "callers"}})
        await site.becomes("Ready", "False", "GatewayMissing")
        service = await site.service()
        assert service is not None
        assert "selector" not in service["spec"]
        assert await led_to(site) == set()
