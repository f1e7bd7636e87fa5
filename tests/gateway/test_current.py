"""A gateway that was cut off is asked to look again: what it missed counts before it says that it is current."""

import asyncio
from collections.abc import Mapping

import pytest

from edgemodel.gateway import runtime
from tests.gateway.clients import answering, until, versions
from tests.gateway.site import MODELS, ONE, TWO, Site
from tests.simulators.apiserver import Fault

pytestmark = [pytest.mark.process, pytest.mark.timeout(60)]


async def test_what_it_missed_counts_before_it_says_that_it_is_current(site: Site) -> None:
    await site.pod()
    await site.pod(version=TWO)
    client = await answering(site.model())
    # No watch tells of it, as none does whose line is down.
    slot = site.server.objects[f"{MODELS}/detector"]["status"]["slots"]["active"]
    slot["digest"] = f"sha256:{TWO}"
    assert set(await versions(client, 10)) == {ONE}
    assert await site.gateway.outdated() is None
    assert set(await versions(client, 10)) == {TWO}
    # And it follows on from there.
    site.model(active=ONE)
    before = site.changes("runtime")
    await until(lambda: site.changes("runtime") > before, "the change")
    assert set(await versions(client, 10)) == {ONE}


async def test_what_comes_while_haproxy_is_being_told_counts_too(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.pod()
    await site.pod(version=TWO)
    told, go_on = asyncio.Event(), asyncio.Event()
    use, order = site.gateway.haproxy.use, runtime.order

    async def use_and_wait(files: Mapping[str, str]) -> None:
        await use(files)
        told.set()
        await go_on.wait()

    async def order_slowly(path: str, command: str) -> None:
        await asyncio.sleep(0.1)
        await order(path, command)

    monkeypatch.setattr(site.gateway.haproxy, "use", use_and_wait)
    monkeypatch.setattr(runtime, "order", order_slowly)
    client = await answering(site.model())
    await told.wait()
    slot = site.server.objects[f"{MODELS}/detector"]["status"]["slots"]["active"]
    slot["digest"] = f"sha256:{TWO}"
    asked = asyncio.create_task(site.gateway.outdated())
    await asyncio.sleep(0.3)  # all was read anew long ago
    go_on.set()
    assert await asked is None
    assert set(await versions(client, 10)) == {TWO}


async def test_without_the_api_server_it_does_not_say_so(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await site.pod()
    client = await answering(site.model())
    monkeypatch.setattr("edgemodel.gateway.agent.CURRENT_SECONDS", 0.5)
    site.server.faults.append(Fault(lambda _, path: path.endswith("/edgemodels"), status=503))
    assert await site.gateway.outdated() is not None
    assert set(await versions(client, 10)) == {ONE}
    site.server.faults.clear()
    monkeypatch.setattr("edgemodel.gateway.agent.CURRENT_SECONDS", 10)
    assert await site.gateway.outdated() is None
