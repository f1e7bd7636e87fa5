"""What a node's spec follows from: read once for a wave of nodes, sealed once, and lost in no failure."""

import base64
import json
from typing import Any

import pytest

from edgemodel.artifact.sealing import new_key, pull_secret_context, unpack_documents
from edgemodel.cluster.client import ApiServer
from edgemodel.cluster.placements import Placements
from edgemodel.errors import Transient
from tests.simulators.apiserver import ApiServerSimulator, Fault

OURS, CORE = "/apis/edgemodel.io/v1alpha1", "/api/v1/namespaces/vision"
MODEL = f"{OURS}/namespaces/vision/edgemodels/detector"
SECRET = f"{CORE}/secrets/pull"
DIGEST = "sha256:" + "a" * 64
KEY = new_key()
CONFIG = b'{"auths":{"registry.local":{"username":"edge","password":"swordfish"}}}'


class World:
    """One model that nodes hold, and nodes to ask about."""

    def __init__(self, server: ApiServerSimulator, api: ApiServer) -> None:
        self.server = server
        self.now = 0.0
        self.placements = Placements(api, namespaces=(), clock=lambda: self.now)
        server.put("/api/v1/namespaces/vision", {"metadata": {"labels": {"tier": "edge"}}})
        self.model()
        self.secret(CONFIG)

    def model(self, path: str = MODEL, *, nodes: bool = True, **spec: Any) -> None:
        slot = {"digest": DIGEST, "image": f"registry.local/detector@{DIGEST}"}
        status = {"slots": {"active": slot}, **({"nodes": {"total": 1}} if nodes else {})}
        self.server.put(path, {"spec": {"image": "registry.local/detector:1", **spec}, "status": status})

    def secret(self, content: bytes) -> None:
        self.server.put(SECRET, {"data": {".dockerconfigjson": base64.b64encode(content).decode()}})

    def policy(self, name: str, **match: Any) -> None:
        authority = {"name": "k", "publicKey": "no key; but it governs all the same"}
        spec = {"match": {"images": ["registry.local/**"], **match}, "authorities": [authority]}
        self.server.put(f"{OURS}/modeltrustpolicies/{name}", {"spec": spec})

    async def on(self, node: str = "n1", *, key: str = KEY.public, **labels: str) -> Any:
        return await self.placements.on({"metadata": {"name": node, "labels": labels}}, key)

    async def sealed(self, node: str = "n1", key: str = KEY.public) -> str | None:
        self.placements.changed()
        (placed,) = (await self.on(node, key=key)).placements
        sealed: str | None = placed.sealed
        return sealed

    def asked(self, ending: str) -> int:
        return sum(request.path.endswith(ending) for request in self.server.seen)


@pytest.fixture
def world(server: ApiServerSimulator, api: ApiServer) -> World:
    return World(server, api)


async def test_a_wave_of_nodes_costs_one_reading(world: World) -> None:
    world.model(pullSecrets=[{"name": "pull"}])
    for number in range(20):
        assert len((await world.on(f"n{number}")).placements) == 1
    assert [world.asked(it) for it in ("/edgemodels", "/modeltrustpolicies", "/namespaces", "/pull")] == [
        1
    ] * 4
    world.now = 10.0
    await world.on()
    assert world.asked("/edgemodels") == 2


async def test_after_a_change_the_next_node_sees_it(world: World) -> None:
    await world.on()
    world.server.objects.pop(MODEL)
    world.placements.changed()
    assert (await world.on()).placements == ()


async def test_a_model_that_its_pods_fetch_for_themselves_is_not_placed(world: World) -> None:
    world.model(nodes=False)
    assert (await world.on()).placements == ()
    assert world.asked("/pods") == 0


async def test_a_node_that_does_not_fit_any_more_keeps_what_its_pods_read(world: World) -> None:
    world.model(podTemplate={"nodeSelector": {"site": "north"}})
    assert len((await world.on(site="north")).placements) == 1
    assert world.asked("/pods") == 0
    assert (await world.on(site="south")).placements == ()
    labels = {"app.kubernetes.io/managed-by": "edgemodel-operator", "edgemodel.io/model": "detector"}
    world.server.put(f"{CORE}/pods/p", {"metadata": {"labels": labels}, "spec": {"nodeName": "n1"}})
    (placed,) = (await world.on(site="south")).placements
    assert placed.pods_here
    assert world.server.seen[-1].query["fieldSelector"] == "spec.nodeName=n1"


async def test_the_policies_are_those_that_govern_any_version_in_its_namespace(world: World) -> None:
    world.policy("site")
    world.policy("here", namespaceSelector={"matchLabels": {"tier": "edge"}})
    world.policy("elsewhere", images=["other.local/**"])
    world.policy("cloud", namespaceSelector={"matchLabels": {"tier": "cloud"}})
    (placed,) = (await world.on()).placements
    assert sorted(placed.policies) == ["here", "site"]
    assert json.loads(placed.policies["site"])["metadata"]["name"] == "site"


async def test_pull_secrets_are_sealed_to_the_node_and_again_only_when_they_or_its_key_change(
    world: World,
) -> None:
    world.model(pullSecrets=[{"name": "pull"}])
    first = await world.sealed()
    assert first is not None
    assert unpack_documents(KEY.open(first, pull_secret_context("n1", "vision", "detector"))) == (CONFIG,)
    assert await world.sealed() == first
    assert await world.sealed("n2") != first
    assert await world.sealed() == first
    world.secret(CONFIG + b" ")
    second = await world.sealed()
    assert second not in (None, first)
    other = new_key()
    third = await world.sealed(key=other.public)
    assert third not in (None, second)
    (document,) = unpack_documents(other.open(str(third), pull_secret_context("n1", "vision", "detector")))
    assert document == CONFIG + b" "


@pytest.mark.parametrize("key", ["", "no key", "AAAA"])
async def test_a_node_without_a_usable_key_is_sealed_nothing(world: World, key: str) -> None:
    world.model(pullSecrets=[{"name": "pull"}])
    assert await world.sealed(key=key) is None


async def test_a_secret_that_is_gone_is_sealed_no_more_and_one_that_cannot_be_read_stays(
    world: World,
) -> None:
    world.model(pullSecrets=[{"name": "pull"}])
    first = await world.sealed()
    fault = Fault(lambda _, path: path == SECRET, status=403)
    world.server.faults.append(fault)
    assert await world.sealed() == first
    world.server.faults.clear()
    world.server.put(SECRET, {"data": {".dockerconfigjson": "?"}})
    assert await world.sealed() == first
    del world.server.objects[SECRET]
    assert await world.sealed() is None


async def test_a_model_that_cannot_be_read_is_named_and_holds_up_no_other(world: World) -> None:
    world.model(f"{OURS}/namespaces/vision/edgemodels/newer", replicas="many")
    placed = await world.on()
    assert [it.model.metadata.name for it in placed.placements] == ["detector"]
    assert placed.unreadable == {("vision", "newer")}


@pytest.mark.parametrize("path", ["/edgemodels", "/modeltrustpolicies", "/namespaces", "/secrets/pull"])
async def test_a_failing_api_server_is_an_error_and_never_taken_for_nothing(world: World, path: str) -> None:
    world.model(pullSecrets=[{"name": "pull"}])
    world.server.faults.append(Fault(lambda _, at: at.endswith(path), status=500))
    with pytest.raises(Transient):
        await world.on()


async def test_only_served_namespaces_are_read(server: ApiServerSimulator, api: ApiServer) -> None:
    world = World(server, api)
    world.placements = Placements(api, namespaces=("audio",))
    assert (await world.on()).placements == ()
    world.placements = Placements(api, namespaces=("audio", "vision"))
    assert len((await world.on()).placements) == 1
