"""One pass: in which order it writes, what each kind of error does, and that nothing is announced that was not written."""

import json
import logging
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kubernetes.aio.client.configuration import Configuration

from edgemodel.artifact.registry_connections import Connections
from edgemodel.artifact.registry_settings import HostSettings, RegistrySettings
from edgemodel.artifact.signature import PrivateKey
from edgemodel.cluster.artifacts import ArtifactCache
from edgemodel.cluster.client import ApiServer
from edgemodel.cluster.events import EventRecorder
from edgemodel.cluster.fleet import Fleet
from edgemodel.cluster.gather import Gatherer
from edgemodel.cluster.placements import Placements
from edgemodel.controller.edge_nodes import EdgeNodes
from edgemodel.controller.evictions import AGAIN
from edgemodel.controller.metrics import Metrics
from edgemodel.controller.policy_status import PolicyStatus
from edgemodel.controller.sightings import Key
from edgemodel.controller.worker import REJECTED_AGAIN, Worker
from edgemodel.errors import Stalled, Transient
from edgemodel.reconcile.observed import Settings
from tests.simulators.apiserver import ApiServerSimulator, Fault
from tests.simulators.publisher import Publisher
from tests.simulators.registry import RegistrySimulator

SIGNER = PrivateKey.generate()
OURS = "/apis/edgemodel.io/v1alpha1"
MODEL = f"{OURS}/namespaces/vision/edgemodels/detector"
ALTERED = "2026-06-01T00:00:00Z"
KEY = Key("EdgeModel", "vision", "detector")


class Bench:
    """A worker between a simulated API server and a simulated registry."""

    def __init__(
        self,
        server: ApiServerSimulator,
        api: ApiServer,
        registry: RegistrySimulator,
        connections: Connections,
    ):
        self.now = datetime(2026, 6, 1, tzinfo=UTC)
        self.server = server
        self.publisher = Publisher(registry)
        self.artifacts = ArtifactCache(connections, changed=lambda *_: None)
        self.metrics = Metrics(depth=lambda: 0)
        settings = Settings(server_image="server:1", node_image="node:1")
        self.fleet = Fleet(api, lease_namespace="system", wall=lambda: self.now)
        gatherer = Gatherer(
            api, self.artifacts, settings=settings, registries=RegistrySettings(), fleet=self.fleet
        )
        self.host = registry.host
        self.make: Callable[[EdgeNodes | None], Worker] = lambda edge_nodes: Worker(
            api=api,
            gatherer=gatherer,
            artifacts=self.artifacts,
            recorder=EventRecorder(api, instance="test"),
            metrics=self.metrics,
            policies=PolicyStatus(api, namespaces=()),
            edge_nodes=edge_nodes,
            clock=lambda: self.now,
        )
        self.edge_nodes = EdgeNodes(api, self.fleet, Placements(api, namespaces=()), settings)
        self.work = self.make(None)
        self.digest = self.publisher.publish("models/detector", "stable", keys=(SIGNER,))
        server.put("/api/v1/namespaces/vision", {})
        self.model(image=f"{registry.host}/models/detector:stable")
        authority = {"name": "k", "publicKey": SIGNER.public.pem}
        spec = {"match": {"images": [f"{registry.host}/**"]}, "authorities": [authority]}
        server.put(f"{OURS}/modeltrustpolicies/site", {"spec": spec})

    def model(self, *, generation: int = 1, **spec: Any) -> None:
        live = self.server.objects.get(MODEL, {})
        manifest = {"spec": {**live.get("spec", {}), **spec}, "status": live.get("status", {})}
        self.server.put(MODEL, {**manifest, "metadata": {"generation": generation}})

    def condition(self, kind: str) -> tuple[str, str, str]:
        (found,) = [it for it in self.server.objects[MODEL]["status"]["conditions"] if it["type"] == kind]
        return found["status"], found["reason"], found["message"]

    def passes(self, result: str) -> float:
        return self.metrics.registry.get_sample_value("edgemodel_reconcile_total", {"result": result}) or 0.0

    def written(self) -> list[str]:
        return [request.path.rsplit("/vision/", 1)[-1] for request in self.server.writes]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with (
        ApiServerSimulator().running() as server,
        ApiServer(Configuration(host=server.url)) as api,
        RegistrySimulator() as registry,
        Connections(RegistrySettings({registry.host: HostSettings(plain_http=True)})) as connections,
    ):
        bench = Bench(server, api, registry, connections)
        yield bench
        await bench.artifacts.close()


def on(method: str, ending: str) -> Callable[[str, str], bool]:
    return lambda sent, path: sent == method and path.endswith(ending)


async def test_children_come_before_status_and_events_after_it(bench: Bench) -> None:
    after = await bench.work(KEY)
    written = bench.written()
    status = written.index("edgemodels/detector/status")
    assert all(not path.startswith("events") for path in written[:status])
    assert all(path.startswith("events") for path in written[status + 1 :])
    assert any(path.startswith("deployments/") for path in written[:status])
    assert bench.passes("wrote") == 1
    assert after is not None
    assert after <= 330


async def test_a_second_pass_over_the_same_world_writes_nothing(bench: Bench) -> None:
    await bench.work(KEY)
    before = len(bench.server.writes)
    await bench.work(KEY)
    assert bench.server.writes[before:] == []
    assert bench.passes("ok") == 1


async def test_nothing_is_announced_when_the_status_was_not_written(bench: Bench) -> None:
    bench.server.faults.append(Fault(on("PATCH", "/status"), status=500))
    with pytest.raises(Transient):
        await bench.work(KEY)
    assert not any("/events" in request.path for request in bench.server.writes)
    assert bench.metrics.registry.get_sample_value("edgemodel_condition", {}) is None
    assert bench.passes("retry") == 1
    bench.server.faults.clear()
    await bench.work(KEY)
    assert any("/events" in request.path for request in bench.server.writes)


async def test_a_lost_event_is_no_failure(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.server.faults.append(Fault(on("POST", "/events"), status=500))
    with caplog.at_level(logging.WARNING):
        await bench.work(KEY)
    assert bench.passes("wrote") == 1
    assert "event lost" in caplog.text


async def test_a_child_found_invalid_becomes_a_condition_and_is_not_tried_at_once_but_when_the_spec_changes(
    bench: Bench,
) -> None:
    fault = Fault(lambda method, path: method == "PATCH" and "/deployments/" in path, status=422)
    bench.server.faults.append(fault)
    await bench.work(KEY)
    status, reason, message = bench.condition("Stalled")
    assert (status, reason) == ("True", "InvalidSpec")
    assert "Deployment/detector-" in message
    tried = 1_000_000 - fault.times
    await bench.work(KEY)
    assert 1_000_000 - fault.times == tried
    bench.server.faults.clear()
    bench.model(generation=2, replicas=2)
    await bench.work(KEY)
    assert bench.condition("Stalled")[0] == "False"


async def test_a_child_that_was_refused_is_sent_again_later_since_a_quota_may_have_been_raised(
    bench: Bench,
) -> None:
    fault = Fault(lambda method, path: method == "PATCH" and "/deployments/" in path, status=422)
    bench.server.faults.append(fault)
    after = await bench.work(KEY)
    assert after is not None
    assert after <= REJECTED_AGAIN
    bench.server.faults.clear()
    bench.now += timedelta(seconds=REJECTED_AGAIN)
    await bench.work(KEY)
    assert bench.condition("Stalled")[0] == "False"
    assert any("/deployments/" in path for path in bench.server.objects)


async def test_a_refusal_is_not_held_against_a_model_that_was_deleted_and_made_anew(bench: Bench) -> None:
    fault = Fault(lambda method, path: method == "PATCH" and "/deployments/" in path, status=422)
    bench.server.faults.append(fault)
    await bench.work(KEY)
    bench.server.faults.clear()
    spec = bench.server.objects.pop(MODEL)["spec"]
    for path in [path for path in bench.server.objects if "/configmaps/" in path]:
        del bench.server.objects[path]
    bench.server.put(MODEL, {"spec": spec})
    await bench.work(KEY)
    assert bench.condition("Stalled")[0] == "False"


async def test_a_model_deleted_meanwhile_is_no_failure_that_lasts(bench: Bench) -> None:
    await bench.work(KEY)
    live = bench.server.objects.pop(MODEL)
    bench.server.put(MODEL, {"spec": live["spec"]})
    bench.server.faults.append(Fault(on("PATCH", "/status"), status=409, times=1))
    with pytest.raises(Transient):
        await bench.work(KEY)
    await bench.work(KEY)
    assert bench.server.objects[MODEL]["status"]["conditions"]


async def test_a_model_that_is_gone_leaves_no_metrics_and_no_looks(bench: Bench) -> None:
    await bench.work(KEY)
    labels = {"namespace": "vision", "name": "detector", "type": "Ready", "status": "True"}
    assert bench.metrics.registry.get_sample_value("edgemodel_condition", labels) is not None
    del bench.server.objects[MODEL]
    assert await bench.work(KEY) is None
    assert bench.metrics.registry.get_sample_value("edgemodel_condition", labels) is None
    assert bench.artifacts.next_look("vision", "detector") is None


async def test_a_model_that_cannot_be_read_is_said_in_the_log_and_left_alone(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.model(replicas="many")
    with caplog.at_level(logging.ERROR):
        assert await bench.work(KEY) is None
    assert bench.passes("stalled") == 1
    assert "pass stalled" in caplog.text
    assert bench.server.writes == []


async def test_a_spec_of_an_edge_node_that_is_refused_is_tried_again(bench: Bench) -> None:
    # The queue brings back what raises. Nothing else would: an EdgeNode has no condition to wait for a change with.
    node = f"{OURS}/edgenodes/n1"
    bench.server.put("/api/v1/nodes/n1", {})
    bench.server.put(node, {"spec": {}})
    bench.work = bench.make(bench.edge_nodes)
    bench.server.faults.append(Fault(lambda method, path: (method, path) == ("PATCH", node), status=422))
    with pytest.raises(Stalled):
        await bench.work(Key("EdgeNode", "", "n1"))
    assert bench.passes("stalled") == 1
    bench.server.faults.clear()
    assert await bench.work(Key("EdgeNode", "", "n1")) is None
    assert bench.server.objects[node]["metadata"]["ownerReferences"]


async def test_a_policys_pass_writes_its_status_once(bench: Bench) -> None:
    key = Key("ModelTrustPolicy", "", "site")
    await bench.work(key)
    status = bench.server.objects[f"{OURS}/modeltrustpolicies/site"]["status"]
    assert status["models"] == 1
    assert [(it["type"], it["status"]) for it in status["conditions"]] == [("Valid", "True")]
    writes = len(bench.server.writes)
    await bench.work(key)
    assert len(bench.server.writes) == writes
    assert await bench.work(Key("ModelTrustPolicy", "", "absent")) is None


async def test_a_key_of_an_edge_node_is_nothing_where_nodes_do_not_deliver(bench: Bench) -> None:
    assert await bench.work(Key("EdgeNode", "", "n1")) is None
    assert bench.server.seen == []


async def test_a_pod_that_cannot_be_evicted_keeps_back_no_status_and_is_tried_again_soon(
    bench: Bench,
) -> None:
    bench.model(delivery="Node")
    await bench.work(KEY)
    slot = {"digest": bench.digest, "image": f"{bench.host}/models/detector@{bench.digest}", "since": ALTERED}
    bench.server.objects[MODEL]["status"]["slots"] = {"active": slot}
    label = bench.digest.removeprefix("sha256:")[:16]
    bench.server.put("/api/v1/nodes/n1", {"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
    held = {"namespace": "vision", "name": "detector", "digest": bench.digest, "state": "Failed"}
    held |= {"reason": "TamperDetected", "message": "weights.bin changed", "alteredAt": ALTERED}
    noted = {"managedFields": [{"manager": "edgemodel-node", "subresource": "status", "time": ALTERED}]}
    bench.server.put(f"{OURS}/edgenodes/n1", {"metadata": noted, "status": {"models": [held]}})
    owner = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": f"detector-{label[:8]}-x",
        "controller": True,
    }
    bench.server.put(
        "/api/v1/namespaces/vision/pods/p",
        {
            "metadata": {
                "labels": {"edgemodel.io/model": "detector", "edgemodel.io/digest": label},
                "ownerReferences": [owner],
                "creationTimestamp": "2026-05-31T00:00:00Z",
            },
            "spec": {
                "nodeName": "n1",
                "volumes": [{"name": "model", "csi": {"driver": "models.edgemodel.io"}}],
            },
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
        },
    )
    bench.fleet.nodes_changed()
    bench.fleet.edge_nodes_changed()
    bench.server.faults.append(Fault(on("POST", "/eviction"), status=500))
    after = await bench.work(KEY)
    assert after is not None
    assert after <= AGAIN
    assert bench.condition("Degraded")[:2] == ("True", "IntegrityFailed")
    bench.server.faults.clear()
    await bench.work(KEY)
    assert "/api/v1/namespaces/vision/pods/p" not in bench.server.objects
    told = [it["reason"] for path, it in bench.server.objects.items() if "/events/" in path]
    assert {"TamperDetected", "PodEvicted"} <= set(told)


async def test_the_log_tells_each_write_and_no_secret(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    from edgemodel.process.logs import JsonFormatter

    with caplog.at_level(logging.INFO, "edgemodel"):
        await bench.work(KEY)
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    applied = [line for line in lines if line["message"] == "child applied"]
    assert {line["child"].split("/")[0] for line in applied} >= {"Deployment", "ConfigMap"}
    assert all((line["namespace"], line["object"]) == ("vision", "detector") for line in applied)
