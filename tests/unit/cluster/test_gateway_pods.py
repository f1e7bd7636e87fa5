"""The gateway's pods: what of them passes see, that one reading is enough, and whether one answers at a port."""

import asyncio
from typing import Any

import pytest

from edgemodel.cluster.client import ApiServer
from edgemodel.cluster.gateway_pods import Gateways, gateway_pod, listening, without_silent
from edgemodel.reconcile.observed import GatewayPod
from tests.simulators.apiserver import ApiServerSimulator

LABELS = {"app.kubernetes.io/component": "gateway"}
PODS = "/api/v1/namespaces/system/pods"


def pod(
    address: str = "10.42.0.9", *, ready: bool = True, phase: str = "Running", **meta: Any
) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {
        "metadata": {"name": "gw", "uid": "u", "labels": LABELS, **meta},
        "spec": {"nodeName": "n1"},
        "status": {"phase": phase, "podIP": address, "conditions": conditions},
    }


@pytest.mark.parametrize(
    ("live", "seen"),
    [
        (pod(), GatewayPod("gw", "u", "10.42.0.9", "n1", ready=True)),
        (pod(ready=False), GatewayPod("gw", "u", "10.42.0.9", "n1", ready=False)),
        (
            pod(deletionTimestamp="2026-01-01T00:00:00Z"),
            GatewayPod("gw", "u", "10.42.0.9", "n1", ready=True, going=True),
        ),
        (pod(""), None),
        (pod(phase="Failed"), None),
        (pod(phase="Succeeded"), None),
        ({"metadata": {"name": "gw"}}, None),
    ],
)
def test_what_is_seen_of_a_pod(live: dict[str, Any], seen: GatewayPod | None) -> None:
    assert gateway_pod(live) == seen


async def test_passes_share_a_reading_until_something_changes(
    server: ApiServerSimulator, api: ApiServer
) -> None:
    server.put(f"{PODS}/b", pod("10.42.0.2"))
    server.put(f"{PODS}/a", pod("10.42.0.1"))
    server.put(f"{PODS}/operator", pod(labels={"app.kubernetes.io/component": "operator"}))
    gateways = Gateways(api, namespace="system", labels=LABELS)
    found = (await asyncio.gather(*(gateways.read() for _ in range(50))))[0]
    assert [(it.name, it.address) for it in found] == [("a", "10.42.0.1"), ("b", "10.42.0.2")]
    assert len(server.seen) == 1
    server.remove(f"{PODS}/a")
    gateways.changed()
    assert [it.name for it in await gateways.read()] == ["b"]


async def test_a_pod_listens_when_it_accepts_a_connection() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    one = GatewayPod("gw", "u", "127.0.0.1", "n1", ready=True)
    going = GatewayPod("old", "v", "127.0.0.1", "n1", ready=True, going=True)
    async with server:
        assert [it.listening for it in await listening((one, going), port)] == [True, False]
    await server.wait_closed()
    assert [it.listening for it in await listening((one,), port)] == [False]


async def test_a_watch_tells_first_what_there_is_and_then_what_happens(
    server: ApiServerSimulator, api: ApiServer
) -> None:
    from edgemodel.cluster.kinds import POD

    server.put(f"{PODS}/a", pod())
    watch = api.watch(POD, "system", labels=LABELS)
    kind, first = await anext(watch)
    assert (kind, first["metadata"]["name"]) == ("ADDED", "a")
    server.remove(f"{PODS}/a")
    kind, last = await anext(watch)
    assert (kind, last["metadata"]["name"]) == ("DELETED", "a")
    await watch.aclose()
    assert server.seen[0].query["labelSelector"] == "app.kubernetes.io/component=gateway"


def test_silent_pods_take_no_requests_unless_nobody_else_does() -> None:
    one, two, three = (
        GatewayPod(name, name, "10.42.0.9", "n1", ready=True, going=name == "three")
        for name in ("one", "two", "three")
    )
    assert [pod.ready for pod in without_silent((one, two, three), {"one"})] == [False, True, True]
    assert without_silent((one, two, three), {"one", "two"}) == (one, two, three)
    assert without_silent((one, three), {"one"}) == (one, three)
    assert without_silent((), {"one"}) == ()


def test_a_pod_is_asked_at_the_ports_that_it_names() -> None:
    named = {"spec": {"containers": [{"ports": [{"name": "haproxy", "containerPort": 9000}]}]}}
    found = gateway_pod({**pod(), **named})
    assert found is not None
    assert (found.haproxy_port, found.agent_port) == (9000, 8083)
