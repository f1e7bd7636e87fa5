"""A real API server and controller manager, the operator as a process, a simulated registry, a fake kubelet.

No node, no kubelet, no container: whether the operator's writes are what a real API server takes, and whether it converges.
"""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from edgemodel.cluster.client import ApiServer, connect
from edgemodel.cluster.kinds import Kind
from tests.control_plane import own_cluster
from tests.control_plane.fake_kubelet import FakeKubelet
from tests.control_plane.operator_process import OperatorProcess, operator
from tests.control_plane.site import Site
from tests.control_plane.waiting import until
from tests.simulators.registry import RegistrySimulator

CRD = Kind(
    "apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False
)
_numbers = itertools.count(1)

Start = Callable[..., AbstractAsyncContextManager[OperatorProcess]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.control_plane)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(120))


@pytest.fixture(scope="session")
def kubeconfig() -> Iterator[Path]:
    with own_cluster.kubeconfig() as path:
        yield path


@pytest.fixture
async def api(kubeconfig: Path) -> AsyncIterator[ApiServer]:
    async with await connect(kubeconfig=kubeconfig) as client:
        client._api.user_agent = "edgemodel-tests"  # what operators write is told apart by it
        for crd in own_cluster.custom_resources():
            await client.apply(CRD, crd, manager="tests")

        async def served() -> bool:
            found = await client.read("/apis/edgemodel.io/v1alpha1") or {}
            return len([it for it in found.get("resources", ()) if "/" not in it["name"]]) >= 2

        await until(served, "CRDs are served")
        yield client


@pytest.fixture
async def registry() -> AsyncIterator[RegistrySimulator]:
    async with RegistrySimulator() as simulator:
        yield simulator


@pytest.fixture
async def sites(api: ApiServer, registry: RegistrySimulator) -> AsyncIterator[Callable[[], Any]]:
    opened: list[Site] = []

    async def open_site() -> Site:
        site = Site(api, registry, f"t{os.getpid()}-{next(_numbers)}")
        await site.open()
        opened.append(site)
        return site

    yield open_site
    for site in opened:
        await site.close()


@pytest.fixture
async def site(sites: Callable[[], Any]) -> Site:
    opened: Site = await sites()
    return opened


@pytest.fixture
async def kubelet(api: ApiServer) -> AsyncIterator[FakeKubelet]:
    fake = FakeKubelet(api)
    task = asyncio.create_task(fake.run())
    yield fake
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def start(tmp_path: Path, kubeconfig: Path, registry: RegistrySimulator, site: Site) -> Start:
    """Start an operator that serves the test's namespace and reaches the test's registry."""

    def started(**settings: Any) -> AbstractAsyncContextManager[OperatorProcess]:
        merged = {
            "registries": {registry.host: {"plainHTTP": True}},
            "namespaces": [site.namespace],
            "logLevel": "debug",
            **settings,
        }
        return operator(tmp_path, kubeconfig, **merged)

    return started


@pytest.fixture
async def running(start: Start, kubelet: FakeKubelet) -> AsyncIterator[OperatorProcess]:
    """An operator at work, with pods that get ready."""
    async with start() as process:
        yield process
