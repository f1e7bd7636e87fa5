"""Agent and HAProxy may be killed at any moment: who asks notices nothing of the first, and little of the second."""

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Iterable

import pytest

from edgemodel.gateway import haproxy, runtime, state
from edgemodel.gateway.launch import supervisor
from tests.gateway.clients import SECONDS, Client, Load, answering, until, versions
from tests.gateway.site import TWO, Site
from tests.gateway.whole import alive, more, resident, whole

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

GAP_SECONDS = 0.5
"""From HAProxy's death to its first answer: 0.05 to 0.3 s, on two cores that tests share."""


async def test_an_agent_that_is_killed_costs_no_request_and_the_next_one_goes_on(still: Site) -> None:
    pod = await still.pod()
    port = still.model()
    async with whole(still) as gateway:
        await answering(port)
        masters, worker = gateway.masters(), await gateway.worker()
        async with Load(port) as load:
            for _ in range(3):
                await more(load)
                await gateway.another_agent(gateway.kill_agent())
            await more(load)
            assert gateway.masters() == masters
            assert await gateway.worker() == worker  # nothing had changed: not even a reload
            # What changes while there is none is made up for.
            killed = gateway.kill_agent()
            new = await still.pod()
            pod.show(going=True)
            other = still.model("other")
            await gateway.another_agent(killed)
            await until(lambda: new.answered > 0, "the new pod")
            assert (await Client(other).ask()).status == 503
            done = pod.answered
            await more(load)
            assert pod.answered == done
        assert load.wrong == []
        assert gateway.masters() == masters


async def test_an_agent_may_die_at_any_moment_of_many_changes(still: Site) -> None:
    chance = random.Random(5)
    pods = [await still.pod(), await still.pod(version=TWO)]
    port = still.model(candidate=TWO, weight=50)
    async with whole(still) as gateway:
        # Before HAProxy was started, too.
        await until(gateway.agents, "an agent")
        gateway.kill_agent()
        await answering(port)
        [master] = gateway.masters()
        async with Load(port) as load:
            for number in range(8):
                still.model(f"other-{number}")  # a reload
                still.model(candidate=TWO, weight=chance.choice((10, 50, 100)))
                pods.append(await still.pod())
                pods[-3].show(ready=chance.random() < 0.5)
                await asyncio.sleep(chance.random() * 0.8)
                for pid in gateway.agents():
                    os.kill(pid, signal.SIGKILL)
                assert len(gateway.agents()) <= 1
            pods[-1].show()
            still.model(active=TWO)
            pods[1].show()
            await until(lambda: gateway.agents() != [], "an agent")
            last = still.model("last")
            await answering_at_all(last)
            await more(load, 400)
            assert set(await versions(await answering(port), 50)) == {TWO}
        assert load.wrong == []
        assert gateway.masters() == [master]


async def answering_at_all(port: int) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await Client(port).ask()
            except (OSError, EOFError):
                await asyncio.sleep(0.05)
            else:
                return


@pytest.mark.parametrize("moment", ["written", "linked", "reloading", "taken", "telling"])
async def test_an_agent_that_died_between_two_steps_leaves_nothing_half_done(
    still: Site, moment: str
) -> None:
    """The files of each moment are laid out as the dead agent left them, beside an HAProxy that runs."""
    await still.pod()
    port = still.model()
    folder = str(still.settings.state_folder)
    async with still.supervised():
        async with still.agent() as agent:
            await answering(port)
            await until(lambda: still.gateway.haproxy.known() is not None, "it to be known")
            worker = await runtime.process_id(still.gateway.place.runtime_socket)
            good = state.led_to(folder, state.GOOD)
            assert good is not None
            agent.cancel()
        files = state.read(folder, good)
        if moment == "telling":
            still.gateway.haproxy.doubt()
        else:
            name = state.write(folder, {**files, "weights.map": "ending 0\n"})
            if moment != "written":
                state.lead(folder, state.NOW, name)
            if moment in ("reloading", "taken"):
                asked = runtime.ask(f"{folder}/master.sock", "reload")
                with contextlib.suppress(runtime.CommandRefused):
                    await asked
            if moment == "taken":
                state.lead(folder, state.GOOD, name)
        async with Load(port) as load, still.agent():
            await until(lambda: still.changes("adoption") + still.changes("reload") > 0, "it to take over")
            await more(load)
            known = still.gateway.haproxy.known()
        assert load.wrong == []
        assert known == files
        same = await runtime.process_id(still.gateway.place.runtime_socket) == worker
        assert same == (moment == "written")


async def test_a_second_agent_does_not_start(still: Site) -> None:
    async with whole(still) as gateway:
        await until(lambda: gateway.said('"HAProxy runs"') == 1, "the first")
        second = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-m",
                "edgemodel",
                "gateway",
                "--agent",
                still.settings.model_dump_json(by_alias=True),
            ),
            *("--api-server", still.server.url),
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await asyncio.wait_for(second.communicate(), SECONDS)
        assert second.returncode == 2
        assert b"another agent uses" in said
        third = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "edgemodel", "gateway", "--settings", f"{gateway.folder}-settings"),
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await asyncio.wait_for(third.communicate(), SECONDS)
        assert third.returncode == 1
        assert b"another gateway runs with the state folder" in said
        assert len(gateway.masters()) == 1


async def death(load: Load, victims: Iterable[int]) -> float:
    """Kill something of HAProxy; return the seconds until it answers again."""
    wrong = len(load.wrong)
    began = time.monotonic()
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    await until(lambda: len(load.wrong) > wrong, "clients to notice")
    await more(load, 1)
    return time.monotonic() - began


@pytest.mark.parametrize("agent", ["alive", "dead"])
async def test_haproxy_that_dies_is_back_at_once(still: Site, agent: str) -> None:
    await still.pod()
    port = still.model()
    async with whole(still) as gateway:
        await answering(port)
        await until(lambda: state.led_to(gateway.folder, state.GOOD) is not None, "a good one")
        if agent == "dead":
            stopped = gateway.agents()[0]
            os.kill(stopped, signal.SIGSTOP)  # as good as dead, and nobody starts another
        clients = 4
        async with Load(port, clients) as load:
            await more(load)
            for name in ("master", "worker", "both"):
                [master], worker = gateway.masters(), await gateway.worker()
                victims = {"master": (master,), "worker": (worker,), "both": (worker, master)}[name]
                wrong = len(load.wrong)
                gap = await death(load, victims)
                print(f"{name}: back after {gap * 1000:.0f} ms, {len(load.wrong) - wrong} requests failed")
                assert gap < GAP_SECONDS
                lost = load.wrong[wrong:]
                # Under way, once each client, or twice where the worker died after the master process.
                assert all("IncompleteReadError" in one or "ResetError" in one for one in lost), lost
                assert len(lost) <= 2 * clients
                await more(load)
                assert len(gateway.masters()) == 1
        if agent == "dead":
            os.kill(stopped, signal.SIGCONT)
        new = await still.pod()
        async with Load(port):
            await until(lambda: new.answered > 0, "the agent to go on")


@pytest.mark.parametrize("file", ["haproxy.cfg", "weights.map", "files.sum"])
async def test_files_that_were_torn_are_not_started_with(still: Site, file: str) -> None:
    await still.pod()
    port = still.model()
    folder = still.settings.state_folder
    async with whole(still):
        await answering(port)
        await until(lambda: state.led_to(str(folder), state.GOOD) is not None, "a good one")
    name = state.led_to(str(folder), state.GOOD)
    torn = folder / "sets" / str(name) / file
    torn.write_bytes(torn.read_bytes()[:-9])
    for stale in ("master.sock", "haproxy.sock"):
        (folder / stale).unlink(missing_ok=True)
        (folder / stale).write_bytes(b"")
    async with whole(still) as gateway:
        await answering(port)
        assert gateway.said(f"this configuration is not started with: {file} of set {name} is torn") >= 1
        assert gateway.said("no configuration is whole") == 1


async def test_what_fails_to_start_again_and_again_is_tried_ever_more_rarely(still: Site) -> None:
    folder = str(still.settings.state_folder)
    state.lead(folder, state.GOOD, state.write(folder, {"haproxy.cfg": "nonsense\n"}))
    await still.pod()
    port = still.model()
    async with whole(still) as gateway:
        await answering(port)  # the agent knows better in the end
        assert gateway.said('"HAProxy ended"') < 12


async def test_nobody_is_left_when_it_ends_and_no_zombie_meanwhile(still: Site) -> None:
    await still.pod()
    port = still.model()
    async with whole(still) as gateway:
        await answering(port)
        await gateway.another_agent(gateway.kill_agent())
        os.kill(gateway.masters()[0], signal.SIGKILL)
        await answering(port)
        await until(lambda: all(alive(pid) for pid in gateway._children()), "the dead to be buried")
        everybody = [*gateway._children(), await gateway.worker()]
        gateway.process.terminate()
        await asyncio.wait_for(gateway.process.wait(), SECONDS)
        assert not any(alive(pid) for pid in everybody)


async def test_the_supervisor_is_small(still: Site) -> None:
    await still.pod()
    port = still.model()
    async with whole(still) as gateway:
        await answering(port)
        assert resident(gateway.process.pid) <= 10 * 1024


async def test_an_haproxy_that_hangs_is_killed_and_comes_back(
    still: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(haproxy, "ASK_SECONDS", 0.1)
    monkeypatch.setattr(haproxy, "SILENT_SECONDS", 1.0)
    await still.pod()
    port = still.model()
    async with still.running():
        await answering(port)
        hanging = await runtime.process_id(still.gateway.place.runtime_socket)
        assert hanging is not None
        os.kill(hanging, signal.SIGSTOP)
        await until(lambda: still.gateway.haproxy.starts == 2, "another HAProxy")
        await answering(port)
        assert not alive(hanging)


async def test_an_agent_that_hangs_is_killed_and_another_comes(still: Site) -> None:
    python, *isolated, program, root, folder, binary, drain = supervisor(still.settings, "haproxy", ())
    impatient = program.replace(
        "; sys.exit", "; import edgemodel.gateway.supervisor as it; it.BEAT_SECONDS = 0.5; sys.exit"
    )
    process = await asyncio.create_subprocess_exec(
        *(python, *isolated, impatient, root, folder, binary, drain),
        *("sleep", "600"),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    said = b""
    async with asyncio.timeout(SECONDS):
        while said.count(b"the agent started") < 3:
            said += await process.stderr.readline()
    process.terminate()
    _, rest = await asyncio.wait_for(process.communicate(), SECONDS)
    assert said.count(b"gave no sign of life") == 2
    assert b'"ended"' in rest
    assert process.returncode == 0
