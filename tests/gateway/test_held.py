"""HAProxy's listening sockets outlive it: connections wait for the next one, and for nothing else."""

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edgemodel.gateway.held import Held
from edgemodel.gateway.launch import supervisor
from tests.gateway.clients import SECONDS, Client, Load, answering, free_port, until
from tests.gateway.listeners import refused, sockets_at, sockets_of, until_refused
from tests.gateway.site import Site
from tests.gateway.whole import more, whole

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

KILLS = 6


class Hindered:
    """A supervisor whose HAProxy starts only while it may, beside an agent in this process."""

    def __init__(self, site: Site) -> None:
        self._site = site
        folder = site.settings.state_folder
        self._bar = folder / "not-yet"
        self._binary = folder / "haproxy-when-it-may"
        self._binary.write_text(
            f'#!/bin/sh\nwhile [ -e {self._bar} ]; do sleep 0.02; done\nexec haproxy "$@"\n', encoding="ascii"
        )
        self._binary.chmod(0o700)
        self.process: asyncio.subprocess.Process

    @asynccontextmanager
    async def running(self, hold_seconds: float = 5.0) -> AsyncIterator["Hindered"]:
        python, *isolated, program, root, folder, _, drain = supervisor(self._site.settings, "", ())
        program = program.replace(
            "; sys.exit",
            f"; import edgemodel.gateway.supervisor as it; it.HOLD_SECONDS = {hold_seconds}"
            "; it.IDLE_SECONDS = 0.5; sys.exit",
        )
        command = (python, *isolated, program, root, folder, str(self._binary), drain)
        self.process = await asyncio.create_subprocess_exec(*command)
        try:
            async with self._site.agent():
                yield self
        finally:
            self.start()
            if self.process.returncode is None:
                self.process.terminate()
            await asyncio.wait_for(self.process.wait(), SECONDS)

    async def kill(self) -> None:
        """Kill HAProxy, master process and workers, and let none start."""
        await until(lambda: self._site.gateway.haproxy.alive, "it to be known")
        self._bar.touch()
        master = self._site.gateway.haproxy.master
        assert master is not None
        os.killpg(master, signal.SIGKILL)
        await until(lambda: not self._site.gateway.haproxy.alive, "its death")

    def start(self) -> None:
        self._bar.unlink(missing_ok=True)

    async def held(self, port: int) -> None:
        """Wait until the supervisor holds the socket of a port, alone or beside HAProxy."""
        await until(lambda: sockets_at(port) & sockets_of(self.process.pid), "it to be held")


@pytest.mark.parametrize("victim", ["all", "worker"])
async def test_no_request_fails_of_clients_that_send_once_more(still: Site, victim: str) -> None:
    await still.pod()
    port = still.model()
    async with whole(still) as gateway:
        await answering(port)
        async with Load(port, again=True) as kept, Load(port, 2, again=True, fresh=True) as fresh:
            for _ in range(KILLS):
                await more(kept)
                await more(fresh)
                [master] = gateway.masters()
                if victim == "all":
                    os.killpg(master, signal.SIGKILL)
                else:
                    os.kill(await gateway.worker(), signal.SIGKILL)
                await until(lambda gone=master: gateway.masters() not in ([], [gone]), "another HAProxy")
            await more(kept)
            await more(fresh)
        assert kept.wrong == []
        assert fresh.wrong == []
        assert kept.broken + fresh.broken > 0


async def test_who_connects_while_it_is_away_is_answered(still: Site) -> None:
    await still.pod()
    port = still.model()
    async with Hindered(still).running() as gateway:
        await answering(port)
        await gateway.held(port)
        await gateway.kill()
        asked = [asyncio.create_task(Client(at).ask()) for at in (port, port)]
        by_path = asyncio.create_task(Client(still.settings.http_port).ask("/vision/detector/v2/infer"))
        await asyncio.sleep(0)
        gateway.start()
        for answer in await asyncio.gather(*asked, by_path):
            assert answer.status == 200


async def test_one_that_does_not_come_back_is_not_waited_for(still: Site) -> None:
    await still.pod()
    port = still.model()
    async with Hindered(still).running(hold_seconds=0.5) as gateway:
        await answering(port)
        await gateway.held(port)
        await gateway.kill()
        with pytest.raises((ConnectionError, EOFError)):
            await asyncio.wait_for(Client(port).ask(), SECONDS)
        await until_refused(port)
        gateway.start()
        await answering(port)
        await gateway.held(port)


async def test_what_is_held_follows_each_reload_before_a_death_and_after(still: Site) -> None:
    await still.pod()
    port, other = still.model(), still.model("other")
    async with Hindered(still).running() as gateway:
        for round_ in range(2):
            await answering(port)
            await gateway.held(port)
            await gateway.held(other)
            still.remove("other")
            await until_refused(other)
            async with Load(port, 2, fresh=True) as load:
                for number in range(2):
                    new = still.model(f"new-{round_}-{number}")
                    await until(lambda at=new: sockets_at(at), "the new port")
                    await gateway.held(new)
                await more(load)
            assert load.wrong == []
            for at in (port, new):
                assert sockets_at(at) <= sockets_of(gateway.process.pid)
            await gateway.kill()
            assert await refused(other)
            waiting = asyncio.create_task(Client(new).ask())
            await asyncio.sleep(0)
            gateway.start()
            assert (await waiting).status == 503  # led to, and without pods
            other = still.model("other", port=other)
            await until(lambda at=other: sockets_at(at), "the port to be back")


async def test_at_the_end_nobody_waits(still: Site) -> None:
    pod = await still.pod()
    port = still.model()
    async with Hindered(still).running() as gateway:
        client = await answering(port)
        await gateway.held(port)
        pod.hold = asyncio.Event()
        under_way = asyncio.create_task(client.ask())
        await until(lambda: pod.inflight == 1, "a request under way")
        gateway.process.terminate()
        await until_refused(port)
        assert gateway.process.returncode is None
        pod.hold.set()
        assert (await under_way).status == 200


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), SECONDS) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(1000)
    except ConnectionRefusedError:
        return False


def test_hundreds_of_sockets_pass_from_one_haproxy_to_the_next(tmp_path: Path) -> None:
    ports = sorted({free_port() for _ in range(520)})
    runtime_socket, held_socket = str(tmp_path / "haproxy.sock"), str(tmp_path / "held.sock")
    binds = "".join(f"    bind 127.0.0.1:{port}\n" for port in ports)
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(
        f"global\n    stats socket {runtime_socket} expose-fd listeners\n"
        f"defaults\n    mode http\n    timeout client 5s\n"
        f"frontend all\n{binds}    http-request return status 200\n",
        encoding="ascii",
    )
    held, inherited = Held(), set()
    command = ("haproxy", "-W", "-db", "-f", str(configuration))
    for more_arguments in ((), ("-x", held_socket)):
        if held:
            inherited = sockets_of(os.getpid())
            held.give(held_socket)
        with subprocess.Popen([*command, *more_arguments], start_new_session=True) as process:
            if held:
                assert os.waitpid(held.giver, 0)[1] == 0
                held.giver = 0
            else:
                while not answers(ports[0]):
                    time.sleep(0.02)
            assert answers(ports[-1])
            try:
                held.take(runtime_socket)
                assert len(held) == len(ports)
            finally:
                os.killpg(process.pid, signal.SIGKILL)
    assert inherited & sockets_of(os.getpid()) == inherited
    held.let_go()
    assert not any(answers(port) for port in ports[::40])
