"""What of the gateway makes passes: a pod that comes, changes or goes, and who may call."""

import asyncio
import base64
from typing import Any

import pytest

from edgemodel.cluster.client import ApiServer
from edgemodel.controller.gateway_routes import ACCESS, ACCESS_SECONDS, SPECS_DELAY, GatewayRoutes
from edgemodel.controller.settings import OperatorSettings
from edgemodel.controller.sightings import Key, Sightings
from tests.simulators.apiserver import ApiServerSimulator, Fault
from tests.unit.controller.told_queue import Queue

DETECTOR, SPEAKER = Key("EdgeModel", "vision", "detector"), Key("EdgeModel", "audio", "speaker")
LABELS = {"app.kubernetes.io/component": "gateway"}
POD = "/api/v1/namespaces/system/pods/gw-1"


class Site:
    """An operator's part that is about the gateway, two models, and an API server."""

    def __init__(self, server: ApiServerSimulator, api: ApiServer) -> None:
        self.server = server
        self.queue = Queue()
        self.sightings = Sightings(self.queue)
        self.routes = GatewayRoutes(
            OperatorSettings(gateway=True), api, self.queue, self.sightings, namespace="system", again=0.05
        )
        for key in (DETECTOR, SPEAKER):
            self.sightings.model(None, {"namespace": key.namespace, "name": key.name, "generation": 1})
        self.queue.taken()

    async def told(self, wanted: Any) -> None:
        async with asyncio.timeout(1.5):
            while wanted not in self.queue.told:  # noqa: ASYNC110 - a list, and no event to wait for
                await asyncio.sleep(0.01)


@pytest.fixture
def site(served: tuple[ApiServerSimulator, ApiServer]) -> Site:
    return Site(*served)


def pod(*, ready: bool = True, address: str = "10.42.0.9", **meta: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {
        "metadata": {"name": "gw-1", "uid": "u", "labels": LABELS, **meta},
        "status": {"phase": "Running", "podIP": address, "conditions": conditions},
    }


async def until_asked(site: Site, *, before: int) -> None:
    async with asyncio.timeout(1.5):
        while len(site.server.seen) < before + 2:  # noqa: ASYNC110 - a list, and no event to wait for
            await asyncio.sleep(0.01)


def test_a_change_of_a_pod_is_a_pass_of_every_model_and_what_changes_nothing_is_none(site: Site) -> None:
    site.routes.pod("ADDED", pod())
    assert site.queue.taken() == [DETECTOR, SPEAKER]
    site.routes.pod("MODIFIED", pod(resourceVersion="7"))
    assert site.queue.taken() == []
    for change in (pod(ready=False), pod(), pod(deletionTimestamp="2026-01-01T00:00:00Z")):
        site.routes.pod("MODIFIED", change)
        assert site.queue.taken() == [DETECTOR, SPEAKER]
    site.routes.pod("DELETED", pod())
    assert site.queue.taken() == [DETECTOR, SPEAKER]


async def test_its_pods_are_watched_and_a_watch_that_breaks_begins_anew(site: Site) -> None:
    watching = asyncio.create_task(site.routes.run())
    await site.told(ACCESS)
    site.server.put(POD, pod())
    await site.told(DETECTOR)
    assert [it.address for it in await site.routes.view.gateways.read()] == ["10.42.0.9"]
    site.queue.taken()
    site.server.faults.append(Fault(lambda *_: True))
    site.server.end_watches()
    site.server.remove(POD)
    await until_asked(site, before=len(site.server.seen))
    assert site.queue.taken() == [], "an API server that is away is no reason for passes"
    site.server.faults.clear()
    await site.told(DETECTOR)  # what went meanwhile is told by no watch
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


def test_a_spec_that_changes_is_a_look_at_who_may_call(site: Site) -> None:
    meta = {"namespace": "vision", "name": "detector", "generation": 2}
    site.sightings.model("MODIFIED", meta)
    assert (ACCESS, SPECS_DELAY) in site.queue.taken()
    site.sightings.model("MODIFIED", {**meta, "resourceVersion": "9"})
    assert (ACCESS, SPECS_DELAY) not in site.queue.taken()
    site.sightings.model("DELETED", meta)
    assert (ACCESS, SPECS_DELAY) in site.queue.taken()


async def test_who_may_call_is_looked_at_again_as_long_as_somebody_is_asked_who_he_is(site: Site) -> None:
    assert await site.routes.update_access() == (False, None)
    site.server.put("/api/v1/namespaces/system/secrets/edgemodel-gateway-access", {"kind": "Secret"})
    path = "/apis/edgemodel.io/v1alpha1/namespaces/vision/edgemodels/detector"
    access = {"bearerTokens": {"secretName": "callers"}}
    site.server.put(path, {"spec": {"image": "x/y:z", "access": access}})
    assert await site.routes.update_access() == (False, ACCESS_SECONDS)
    assert site.queue.taken() == [DETECTOR]
    token = base64.b64encode(b"token-of-the-camera").decode()
    site.server.put("/api/v1/namespaces/vision/secrets/callers", {"data": {"camera": token}})
    assert await site.routes.update_access() == (True, ACCESS_SECONDS)
    assert site.queue.taken() == [DETECTOR], "its condition says that it is open to them now"
    assert await site.routes.update_access() == (False, ACCESS_SECONDS)
    assert site.queue.taken() == []


async def test_a_pod_that_does_not_answer_is_a_pass_of_every_model_in_which_it_is_not_ready(
    site: Site,
) -> None:
    answering = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = answering.sockets[0].getsockname()[1]
    spec = {"containers": [{"ports": [{"name": "haproxy", "containerPort": port}]}]}
    for name, address in (("gw-1", "127.0.0.2"), ("gw-2", "127.0.0.1")):
        one = {**pod(address=address, uid=name), "spec": spec}
        one["metadata"]["name"] = name
        site.routes.pod("ADDED", site.server.put(f"/api/v1/namespaces/system/pods/{name}", one))
    site.queue.taken()
    await site.routes.health.look()
    assert site.queue.taken() == []
    await site.routes.health.look()
    assert site.queue.taken() == [DETECTOR, SPEAKER]
    found = await site.routes.view.gateways.read()
    assert [(it.name, it.ready) for it in found] == [("gw-1", False), ("gw-2", True)]
    answering.close()
