"""The kopf shell: it only watches, writes nothing, waits for nothing long, and imports nothing it need not."""

import subprocess
import sys

import kopf
import pytest

from edgemodel.cluster.client import Credentials
from edgemodel.controller import handlers
from edgemodel.controller.node_sightings import NodeSightings
from edgemodel.controller.sightings import Key, Sightings
from edgemodel.controller.workqueue import WorkQueue


async def login() -> Credentials:
    return Credentials("https://10.0.0.1", "/ca.crt", None, None, "token", True)


@pytest.fixture
def registry() -> kopf.OperatorRegistry:
    queue: WorkQueue[Key] = WorkQueue()
    return handlers.register(Sightings(queue), login, lambda: None)


def test_nothing_but_event_handlers_is_registered_so_kopf_writes_to_no_object(
    registry: kopf.OperatorRegistry,
) -> None:
    assert len(registry._watching.get_all_handlers()) == 2 + len(handlers.WATCHED)
    for writing in (registry._changing, registry._spawning, registry._indexing, registry._webhooks):
        assert list(writing.get_all_handlers()) == []


async def test_nodes_are_watched_only_where_there_is_somebody_to_tell() -> None:
    queue: WorkQueue[Key] = WorkQueue()
    sightings = Sightings(queue)
    read: list[str] = []
    nodes = NodeSightings(
        queue,
        sightings,
        nodes_changed=lambda: read.append("nodes"),
        edge_nodes_changed=lambda: read.append("edge nodes"),
        models_changed=lambda: None,
    )
    found = handlers.register(sightings, login, lambda: None, nodes)
    events = {it.id: it for it in found._watching.get_all_handlers()}
    assert len(events) == 4 + len(handlers.WATCHED)
    for name in ("on_node", "on_edge_node"):
        (handler,) = [it for id_, it in events.items() if id_.endswith(name)]
        await handler.fn(type="ADDED", body={"metadata": {"name": "n1", "uid": "1"}})
    assert read == ["nodes", "edge nodes"]


def test_nothing_is_registered_globally(registry: kopf.OperatorRegistry) -> None:
    default = kopf.get_default_registry()
    assert list(default._watching.get_all_handlers()) == []


def test_children_and_pods_are_selected_by_the_api_server() -> None:
    settings = handlers.settings()
    selectors = settings.watching.label_selectors
    assert len(selectors) == len(handlers.WATCHED)
    assert set(selectors.values()) == {"app.kubernetes.io/managed-by=edgemodel-operator"}


def test_kopf_posts_nothing_scans_nothing_and_ends_soon() -> None:
    settings = handlers.settings()
    assert not settings.posting.enabled
    assert settings.peering.standalone
    assert settings.scanning.disabled
    assert settings.queueing.worker_limit is None
    assert settings.process.ultimate_exiting_timeout == 20
    assert settings.watching.server_timeout < settings.watching.client_timeout


async def test_kopf_logs_in_with_our_own_credentials(registry: kopf.OperatorRegistry) -> None:
    (handler,) = [it for it in registry._activities.get_all_handlers() if "login" in it.id]
    info = await handler.fn()
    assert (info.server, info.ca_path, info.token, info.insecure) == (
        "https://10.0.0.1",
        "/ca.crt",
        "token",
        False,
    )


def test_the_operator_loads_neither_the_synchronous_client_nor_what_other_parts_need() -> None:
    """Each is megabytes of memory; see ``edgemodel.cluster.kubernetes_package``."""
    code = "import sys, edgemodel.controller.app; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    unwanted = {
        "requests",
        "oauthlib",
        "websocket",
        "kubernetes.config",
        "kubernetes.aio.dynamic",
        "oras",
        "onnx",
    }
    unwanted |= {"numpy", "onnxruntime", "kubernetes.client.api"}
    assert loaded & unwanted == set()
    assert "kubernetes.aio.client.api_client" in loaded
