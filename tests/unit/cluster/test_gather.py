"""Gathering: what is ours, what is not, what cannot be read."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from edgemodel.api.conditions import Reason
from edgemodel.api.v1alpha1 import EdgeModel
from edgemodel.artifact.registry_connections import Connections
from edgemodel.artifact.registry_settings import HostSettings, RegistrySettings
from edgemodel.artifact.signature import PrivateKey
from edgemodel.cluster.access import AccessSecret
from edgemodel.cluster.artifacts import ArtifactCache
from edgemodel.cluster.client import ApiServer
from edgemodel.cluster.fleet import Fleet
from edgemodel.cluster.gateway_pods import Gateways
from edgemodel.cluster.gateway_view import GatewayView
from edgemodel.cluster.gather import Gatherer
from edgemodel.cluster.ports import Ports
from edgemodel.errors import Stalled, Transient
from edgemodel.reconcile.observed import Judged, Observed, Settings, Unresolved
from edgemodel.rollout.evidence import CandidateEvidence
from tests.simulators.apiserver import ApiServerSimulator, Fault
from tests.simulators.publisher import Publisher
from tests.simulators.registry import RegistrySimulator

KEY = PrivateKey.generate()
CORE, OURS = "/api/v1/namespaces/vision", "/apis/edgemodel.io/v1alpha1"
MODEL = f"{OURS}/namespaces/vision/edgemodels/detector"
LABELS = {"edgemodel.io/model": "detector"}
REPLICA_SET = {
    "apiVersion": "apps/v1",
    "kind": "ReplicaSet",
    "name": "detector-01234567-x",
    "controller": True,
}
POD = {"labels": {**LABELS, "edgemodel.io/digest": "0123456789abcdef"}, "ownerReferences": [REPLICA_SET]}


class Watched:
    """Takes down what it is shown, and knows the same of every candidate."""

    def __init__(self) -> None:
        self.pods: list[int] = []
        self.forgotten: list[tuple[str, str]] = []
        self.known = CandidateEvidence("sha256:candidate")

    def observe(self, observed: Observed) -> CandidateEvidence:
        self.pods.append(len(observed.pods))
        return self.known

    def forget(self, namespace: str, name: str) -> None:
        self.forgotten.append((namespace, name))


class World:
    """One EdgeModel on a simulated API server, its artifact on a simulated registry."""

    def __init__(
        self, server: ApiServerSimulator, registry: RegistrySimulator, gatherer: Gatherer, watched: Watched
    ) -> None:
        self.server = server
        self.watched = watched
        self.registry = registry
        self.gatherer = gatherer
        self.digest = Publisher(registry).publish("models/detector", "stable", keys=(KEY,))
        server.put("/api/v1/namespaces/vision", {"kind": "Namespace"})
        self.model()

    def model(self, status: dict[str, Any] | None = None, **spec: Any) -> None:
        image = f"{self.registry.host}/models/detector:stable"
        self.server.put(
            MODEL,
            {
                "apiVersion": "edgemodel.io/v1alpha1",
                "kind": "EdgeModel",
                "spec": {"image": image, **spec},
                "status": status or {},
            },
        )

    def policy(self, name: str = "site", **spec: Any) -> None:
        authority = {"name": "k", "publicKey": KEY.public.pem}
        self.server.put(
            f"{OURS}/modeltrustpolicies/{name}",
            {"spec": {"match": {"images": [f"{self.registry.host}/**"]}, "authorities": [authority], **spec}},
        )

    def child(self, path: str, kind: str, *, owned: bool = True, labelled: bool = True) -> None:
        uid = self.server.objects[MODEL]["metadata"]["uid"] if owned else "somebody"
        owner = {"kind": "EdgeModel", "name": "detector", "uid": uid, "controller": True}
        self.server.put(
            path,
            {"kind": kind, "metadata": {"labels": LABELS if labelled else {}, "ownerReferences": [owner]}},
        )

    async def gathered(self) -> Observed:
        observed = await self.gatherer.gather("vision", "detector")
        assert observed is not None
        return observed


@pytest.fixture
async def world(server: ApiServerSimulator, api: ApiServer) -> AsyncIterator[World]:
    async with RegistrySimulator() as registry:
        registries = RegistrySettings({registry.host: HostSettings(plain_http=True)})
        async with Connections(registries) as connections:
            cache = ArtifactCache(connections, changed=lambda *_: None)
            settings = Settings(server_image="server:1", node_image="node:1")
            watched = Watched()
            gatherer = Gatherer(api, cache, settings=settings, registries=registries, evidence=watched)
            yield World(server, registry, gatherer, watched)
            await cache.close()


async def test_a_model_that_is_gone_or_going_is_nothing(world: World) -> None:
    assert await world.gatherer.gather("vision", "absent") is None
    world.server.objects[MODEL]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert await world.gatherer.gather("vision", "detector") is None


async def test_what_is_known_of_a_candidate_is_there_and_is_forgotten_with_its_model(world: World) -> None:
    world.server.put(f"{CORE}/pods/detector-01234567-x-y", {"metadata": POD})
    world.server.put(f"{CORE}/pods/detector-01234567-x-z", {"metadata": {**POD, "ownerReferences": []}})
    assert (await world.gathered()).evidence is world.watched.known
    assert world.watched.pods == [1]
    assert world.watched.forgotten == []
    world.server.objects[MODEL]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    await world.gatherer.gather("vision", "detector")
    assert world.watched.forgotten == [("vision", "detector")]


async def test_a_policy_whose_key_may_not_be_read_holds_up_nothing_but_what_it_governs(world: World) -> None:
    key = {"name": "k", "publicKeySecret": {"namespace": "security", "name": "keys"}}
    world.policy()
    world.policy("other", match={"images": ["elsewhere.local/**"]}, authorities=[key])
    world.server.faults.append(Fault(lambda _, path: path.endswith("/security/secrets/keys"), status=403))
    observed = await world.gathered()
    assert isinstance(observed.target, Judged)
    assert observed.target.refusal is None
    world.policy("other", authorities=[key])
    observed = await world.gathered()
    assert isinstance(observed.target, Judged)
    assert observed.target.refusal is not None
    assert observed.target.refusal[0] is Reason.KEY_UNKNOWN
    assert "may not read Secret keys in namespace security" in observed.target.refusal[1]


async def test_in_a_namespace_that_is_going_nothing_is_made_any_more(world: World) -> None:
    world.server.objects["/api/v1/namespaces/vision"]["metadata"]["deletionTimestamp"] = (
        "2026-01-01T00:00:00Z"
    )
    assert await world.gatherer.gather("vision", "detector") is None


async def test_all_that_bears_on_a_decision_is_there(world: World) -> None:
    world.policy()
    world.child("/apis/apps/v1/namespaces/vision/deployments/detector-1", "Deployment")
    world.child(f"{CORE}/services/detector", "Service")
    world.server.put(f"{CORE}/pods/detector-01234567-x-y", {"metadata": POD})
    observed = await world.gathered()
    assert isinstance(observed.target, Judged)
    assert observed.target.digest == world.digest
    assert observed.target.refusal is None
    assert {(it["apiVersion"], it["kind"]) for it in observed.children} == {
        ("apps/v1", "Deployment"),
        ("v1", "Service"),
    }
    assert len(observed.pods) == 1
    assert observed.settings.node_image == "node:1"
    (policy,) = json.loads(observed.delivery_config["policies.json"])
    assert policy["metadata"]["name"] == "site"
    assert json.loads(observed.delivery_config["registries.json"]) == {
        world.registry.host: {"plainHTTP": True}
    }


async def test_an_object_with_our_labels_and_another_owner_is_not_ours(world: World) -> None:
    world.child(f"{CORE}/services/detector", "Service", owned=False)
    assert (await world.gathered()).children == ()


@pytest.mark.parametrize(
    "owners",
    [
        [],
        [{**REPLICA_SET, "controller": False}],
        [{**REPLICA_SET, "kind": "Job"}],
        [{**REPLICA_SET, "name": "other-01234567-x"}],
        [{**REPLICA_SET, "name": "detector-76543210-x"}],
    ],
)
async def test_a_pod_with_our_labels_and_another_maker_does_not_count(
    world: World, owners: list[dict[str, Any]]
) -> None:
    world.server.put(f"{CORE}/pods/p", {"metadata": {**POD, "ownerReferences": owners}})
    assert (await world.gathered()).pods == ()


async def test_claiming_finds_what_lost_its_label_and_what_belongs_to_somebody_else(world: World) -> None:
    observed = await world.gathered()
    wanted = [
        {"apiVersion": "v1", "kind": kind, "metadata": {"name": "detector", "namespace": "vision"}}
        for kind in ("Service", "ConfigMap")
    ]
    assert await world.gatherer.claim(observed, wanted) is observed
    world.child(f"{CORE}/services/detector", "Service", labelled=False)
    world.child(f"{CORE}/configmaps/detector", "ConfigMap", owned=False)
    claimed = await world.gatherer.claim(observed, wanted)
    assert [it["kind"] for it in claimed.children] == ["Service"]
    assert claimed.conflicts == ("ConfigMap/detector",)


@pytest.mark.parametrize(
    "path",
    ["modeltrustpolicies", "namespaces/vision", "pods", "deployments", "secrets/pull", "edgemodels/detector"],
)
async def test_what_cannot_be_read_is_an_error_and_never_taken_for_absent(world: World, path: str) -> None:
    world.policy()
    world.model(pullSecrets=[{"name": "pull"}])
    world.server.faults.append(Fault(lambda _, at: at.endswith(path), status=500))
    with pytest.raises(Transient):
        await world.gathered()


async def test_a_policys_key_comes_from_a_secret_and_its_absence_lets_nothing_in(world: World) -> None:
    ref = {"namespace": "vision", "name": "keys", "key": "cosign.pub"}
    world.policy(authorities=[{"name": "k", "publicKeySecret": ref}])
    refused = (await world.gathered()).target
    assert isinstance(refused, Judged)
    assert refused.refusal is not None
    assert refused.refusal[0] == Reason.KEY_UNKNOWN
    pem = base64.b64encode(KEY.public.pem.encode()).decode()
    world.server.put(f"{CORE}/secrets/keys", {"data": {"cosign.pub": pem}})
    accepted = await world.gathered()
    assert isinstance(accepted.target, Judged)
    assert accepted.target.refusal is None
    assert KEY.public.pem.splitlines()[1] in accepted.delivery_config["policies.json"]


async def test_a_policy_that_cannot_be_used_is_delivered_so_that_pods_refuse_too(world: World) -> None:
    from edgemodel.artifact.policy import Policy

    ref = {"namespace": "vision", "name": "keys", "key": "cosign.pub"}
    world.policy(authorities=[{"name": "k", "publicKeySecret": ref}])
    (document,) = json.loads((await world.gathered()).delivery_config["policies.json"])
    with pytest.raises(Stalled, match="public key is missing"):
        Policy.from_json(json.dumps(document))


async def test_policies_of_other_places_and_namespaces_are_not_delivered(world: World) -> None:
    world.policy()
    world.policy("elsewhere", match={"images": ["other.example/**"]})
    world.policy(
        "selective",
        match={"images": ["**"], "namespaceSelector": {"matchLabels": {"tier": "edge"}}},
    )
    delivered = json.loads((await world.gathered()).delivery_config["policies.json"])
    assert [it["metadata"]["name"] for it in delivered] == ["site"]
    world.server.put("/api/v1/namespaces/vision", {"metadata": {"labels": {"tier": "edge"}}})
    delivered = json.loads((await world.gathered()).delivery_config["policies.json"])
    assert [it["metadata"]["name"] for it in delivered] == ["selective", "site"]


async def test_the_active_versions_policies_are_delivered_though_the_image_now_lies_elsewhere(
    world: World,
) -> None:
    world.policy("old", match={"images": [f"{world.registry.host}/models/old"]})
    world.policy("new", match={"images": [f"{world.registry.host}/models/detector"]})
    pinned = f"{world.registry.host}/models/old@{world.digest}"
    world.model(status={"slots": {"active": {"digest": world.digest, "image": pinned}}})
    delivered = json.loads((await world.gathered()).delivery_config["policies.json"])
    assert [it["metadata"]["name"] for it in delivered] == ["new", "old"]


async def test_nodes_are_there_when_a_fleet_is_given(world: World, api: ApiServer) -> None:
    world.server.put("/api/v1/nodes/n1", {})
    world.server.put(f"{OURS}/edgenodes/n1", {})
    assert (await world.gathered()).nodes == ()
    world.gatherer._fleet = Fleet(api, lease_namespace="system")
    (node,) = (await world.gathered()).nodes
    assert node.edge_node is not None
    world.server.faults.append(Fault(lambda _, at: at.endswith("/edgenodes"), status=500))
    world.gatherer._fleet = Fleet(api, lease_namespace="system")
    with pytest.raises(Transient):
        await world.gathered()


async def test_an_image_that_is_no_reference_is_stalled(world: World) -> None:
    world.model(image="detector")
    target = (await world.gathered()).target
    assert isinstance(target, Unresolved)
    assert target.stalled
    assert target.reason == Reason.INVALID_SPEC


async def test_a_model_this_version_cannot_read_names_the_field(world: World) -> None:
    world.model(replicas="many")
    with pytest.raises(Stalled, match=r"spec\.replicas"):
        await world.gathered()


async def test_service_monitors_are_looked_for_once_in_a_while(
    world: World, server: ApiServerSimulator
) -> None:
    clock = [0.0]
    world.gatherer._clock = lambda: clock[0]
    assert not (await world.gathered()).service_monitors
    server.objects["/apis/monitoring.coreos.com/v1"] = {"resources": [{"name": "servicemonitors"}]}
    assert not (await world.gathered()).service_monitors
    clock[0] += 301
    assert (await world.gathered()).service_monitors


async def test_pull_secrets_are_those_of_the_models_own_namespace(
    world: World, server: ApiServerSimulator
) -> None:
    world.policy()
    world.registry.auth = "basic"
    world.registry.users["edge"] = "right"
    config = {"auths": {world.registry.host: {"username": "edge", "password": "right"}}}
    secret = {"data": {".dockerconfigjson": base64.b64encode(json.dumps(config).encode()).decode()}}
    server.put("/api/v1/namespaces/other/secrets/pull", secret)
    world.model(pullSecrets=[{"name": "pull"}])
    target = (await world.gathered()).target
    assert isinstance(target, Unresolved)
    assert target.reason == Reason.AUTHENTICATION_FAILED
    server.put(f"{CORE}/secrets/pull", secret)
    observed = await world.gathered()
    assert isinstance(observed.target, Judged)
    assert "right" not in repr(observed)


@pytest.mark.parametrize("selects", [True, False])
async def test_a_gateways_pods_are_asked_only_while_a_live_service_leads_to_pods(
    world: World, server: ApiServerSimulator, api: ApiServer, selects: bool
) -> None:
    labels = {"app": "gateway"}
    listening = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    conditions = [{"type": "Ready", "status": "True"}]
    pod = {"metadata": {"labels": labels}, "status": {"podIP": "127.0.0.1", "conditions": conditions}}
    server.put("/api/v1/namespaces/system/pods/gw", pod)
    world.child(f"{CORE}/services/detector", "Service")
    if selects:
        server.objects[f"{CORE}/services/detector"]["spec"] = {"selector": {"a": "b"}}

    class OnePort(Ports):
        async def port(self, model: EdgeModel, made: str) -> int:
            return port

    view = GatewayView(
        api,
        gateways=Gateways(api, namespace="system", labels=labels),
        ports=OnePort(api),
        access=AccessSecret(api, namespace="system"),
    )
    world.gatherer._gateway = view
    async with listening:
        observed = await world.gathered()
    assert observed.gateway_port == port
    assert [pod.listening for pod in observed.gateway or ()] == [selects]
    assert observed.closed == ""


async def test_slices_of_the_models_service_that_others_made_are_told_apart(world: World) -> None:
    slices = "/apis/discovery.k8s.io/v1/namespaces/vision/endpointslices"
    labels = {**LABELS, "kubernetes.io/service-name": "detector"}
    world.child(f"{slices}/detector-gateway", "EndpointSlice")
    world.server.put(f"{slices}/detector-x7k2p", {"metadata": {"labels": labels}})
    elsewhere = {**labels, "kubernetes.io/service-name": "other"}
    world.server.put(f"{slices}/other-x7k2p", {"metadata": {"labels": elsewhere}})
    observed = await world.gathered()
    assert [it["metadata"]["name"] for it in observed.children] == ["detector-gateway"]
    assert [it["metadata"]["name"] for it in observed.foreign_slices] == ["detector-x7k2p"]
