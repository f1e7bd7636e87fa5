"""The whole gateway may die at once: its sockets are held beside it, for the next one and not for longer than a moment."""

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack

import pytest

from edgemodel.gateway.held import HOLD_SECONDS, KEEPER_SOCKET
from tests.gateway.clients import SECONDS, Client, Load, answering, until
from tests.gateway.listeners import refused, sockets_at, until_refused
from tests.gateway.site import Site
from tests.gateway.whole import keeper, more, resident, whole

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]

KILLS = 6
KUBELET_SECONDS = 1.0
"""Until it has noticed the container's death."""


async def test_no_request_fails_of_clients_that_send_once_more(still: Site) -> None:
    await still.pod()
    port = still.model()
    kept, fresh = Load(port, again=True), Load(port, 2, again=True, fresh=True)
    async with keeper(still.settings.state_folder) as keeping, AsyncExitStack() as loads:
        for deaths in range(KILLS + 1):
            async with whole(still) as gateway:
                if not deaths:
                    await answering(port)
                    for load in (kept, fresh):
                        await loads.enter_async_context(load)
                await until(lambda: keeping.has(port), "it to be held")
                await more(kept)
                await more(fresh)
                if deaths == KILLS:
                    await loads.aclose()
                    break
                gateway.kill()
            await asyncio.sleep(KUBELET_SECONDS)
        assert keeping.said("the supervisor is gone") == KILLS
    print(f"{kept.total + fresh.total} requests, {kept.broken + fresh.broken} of them sent once more")
    assert kept.wrong == []
    assert fresh.wrong == []
    assert kept.broken + fresh.broken > 0


async def test_one_that_does_not_come_back_is_not_waited_for(still: Site) -> None:
    await still.pod()
    port = still.model()
    async with keeper(still.settings.state_folder) as keeping:
        async with whole(still) as gateway:
            await answering(port)
            await until(lambda: keeping.has(port), "it to be held")
            gateway.kill()
        died = time.monotonic()
        with pytest.raises((ConnectionError, EOFError)):
            await asyncio.wait_for(Client(port).ask(), HOLD_SECONDS + 2)
        await until_refused(port)
        assert HOLD_SECONDS - 1 < time.monotonic() - died < HOLD_SECONDS + 2
        async with whole(still):
            await answering(port)
            await until(lambda: keeping.has(port), "it to be held")


async def test_a_keeper_that_dies_costs_nothing_and_the_next_one_holds_the_same(still: Site) -> None:
    await still.pod()
    port = still.model()
    folder = still.settings.state_folder
    async with whole(still) as gateway:
        await answering(port)
        async with Load(port, 2) as kept, Load(port, 2, fresh=True) as fresh:
            for _ in range(2):
                async with keeper(folder) as keeping:
                    await until(lambda it=keeping: it.has(port), "it to be held")
                    keeping.kill()
                await more(kept)
                await more(fresh)
            async with keeper(folder) as keeping:
                await until(lambda: keeping.has(port), "it to be held")
                await more(fresh)
                assert kept.wrong == fresh.wrong == []
                await until(lambda: gateway.said("is back") == 2, "the supervisor to say so")
                assert gateway.said("the keeper of HAProxy's sockets does not hold them") == 2
                gateway.kill()
                assert not await refused(port)


async def test_a_keeper_that_hangs_costs_a_moment_and_a_warning(still: Site) -> None:
    await still.pod()
    port = still.model()
    async with keeper(still.settings.state_folder) as keeping:
        os.kill(keeping.process.pid, signal.SIGSTOP)
        async with whole(still) as gateway:
            await answering(port)
            other = still.model("other")
            await until(lambda: sockets_at(other), "a reload")
            [master] = gateway.masters()
            async with Load(port, again=True) as load:
                os.killpg(master, signal.SIGKILL)
                await more(load)
            assert load.wrong == []
            assert gateway.said("the keeper of HAProxy's sockets does not hold them") == 1
        os.kill(keeping.process.pid, signal.SIGCONT)


async def test_what_is_kept_follows_each_reload(still: Site) -> None:
    await still.pod()
    port, other = still.model(), still.model("other")
    async with keeper(still.settings.state_folder) as keeping:
        async with whole(still) as gateway:
            await answering(port)
            await until(lambda: keeping.has(port) and keeping.has(other), "they to be held")
            still.remove("other")
            await until_refused(other)
            new = still.model("new")
            await until(lambda: keeping.has(new), "the new one to be held")
            gateway.kill()
        assert await refused(other)
        waiting = [asyncio.create_task(Client(at).ask()) for at in (port, new)]
        await asyncio.sleep(0)
        async with whole(still):
            assert [(await one).status for one in waiting] == [200, 503]  # led to, and without pods


async def test_at_the_pods_end_nobody_waits_and_the_keeper_goes_with_the_gateway(still: Site) -> None:
    pod = await still.pod()
    port = still.model()
    async with keeper(still.settings.state_folder) as keeping, whole(still) as gateway:
        client = await answering(port)
        await until(lambda: keeping.has(port), "it to be held")
        # The kubelet tells the keeper at once, and the gateway once its preStop hook has ended.
        keeping.process.terminate()
        await more_of(client)
        assert keeping.process.returncode is None
        pod.hold = asyncio.Event()
        under_way = asyncio.create_task(client.ask())
        await until(lambda: pod.inflight == 1, "a request under way")
        gateway.process.terminate()
        await until_refused(port)
        assert await asyncio.wait_for(keeping.process.wait(), SECONDS) == 0
        assert gateway.process.returncode is None
        pod.hold.set()
        assert (await under_way).status == 200


async def more_of(client: Client) -> None:
    for _ in range(20):
        assert (await client.ask()).status == 200


async def test_a_gateway_that_dies_while_its_pod_ends_is_not_waited_for(still: Site) -> None:
    await still.pod()
    port = still.model()
    async with keeper(still.settings.state_folder) as keeping, whole(still) as gateway:
        await answering(port)
        await until(lambda: keeping.has(port), "it to be held")
        keeping.process.terminate()
        gateway.kill()
        assert await asyncio.wait_for(keeping.process.wait(), HOLD_SECONDS / 2) == 0
        await until_refused(port)


async def test_only_the_same_user_may_connect_and_it_is_small(still: Site) -> None:
    await still.pod()
    port = still.model()
    folder = still.settings.state_folder
    async with keeper(folder) as keeping, whole(still):
        await answering(port)
        await until(lambda: keeping.has(port), "it to be held")
        assert (folder / KEEPER_SOCKET).stat().st_mode & 0o777 == 0o600
        assert resident(keeping.process.pid) <= 11 * 1024
