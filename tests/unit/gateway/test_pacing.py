"""What HAProxy is asked and told about slow pods; its part is played by a socket that keeps what it is told."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge

from edgemodel.gateway.configuration import Place
from edgemodel.gateway.pace import FULL
from edgemodel.gateway.pacing import LOOK_SECONDS, LOOKS_FOR_GRPC, Pacing
from edgemodel.gateway.routes import Route, Server
from tests.simulators.response_times import Told

A, B, C = (Server(f"pod-{letter}", f"10.42.0.{number}", 8080) for number, letter in enumerate("abc", 1))
ROUTE = Route("vision", "detector", 20001, active=(A, B, C))
_COLUMNS = "# pxname,svname,qcur,scur,status,req_tot,rtime,rtime_max,uweight,econ,eresp,wretr,stot,"


class Talk:
    """HAProxy's runtime API, and a pacing that uses it."""

    def __init__(self, folder: Path) -> None:
        self.routes: tuple[Route, ...] = (ROUTE,)
        self.servers = {server.name: Told(server.name) for server in ROUTE.active}
        self.down: set[str] = set()
        self.asked: list[str] = []
        self.told: list[str] = []
        self.by_grpc = 0
        self.place = Place(str(folder))
        self.telling = asyncio.Lock()
        self.slow = Gauge("slow", "-", registry=CollectorRegistry())
        self.pacing = Pacing(self.place, lambda: self.routes, self.telling, self.slow)
        self._now = 0.0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        command = (await reader.read()).decode().strip()
        if command.startswith("show stat"):
            self.asked.append(command)
            backend = command.split()[2]
            rows = [
                f"{backend},{it.name},0,{it.inflight},"
                f"{'DOWN' if it.name in self.down else 'UP' if it.weight else 'DRAIN'},"
                f"{it.seen.answers},{it.seen.mean_ms},{it.seen.longest_ms},{it.weight},0,0,{it.failures},9,"
                for it in self.servers.values()
            ]
            writer.write(
                "\n".join(
                    [_COLUMNS, *rows, f"{backend},BACKEND,0,0,UP,9,1,1,9,0,0,0,{self.by_grpc},", ""]
                ).encode()
            )
        else:
            self.told.append(command)
            if command.startswith("set weight"):
                path, weight = command.split()[2:]
                self.servers[path.partition("/")[2]].weight = int(weight)
        writer.close()

    async def looks(self, count: int, slow: str | None = None) -> None:
        for _ in range(count):
            for name, server in self.servers.items():
                for _ in range(20 if server.weight == FULL else 0):
                    server.answer(400 if name == slow else 4)
            await self.pacing.look(self._now)
            self._now += LOOK_SECONDS


@asynccontextmanager
async def talking() -> AsyncIterator[Talk]:
    folder = Path(tempfile.mkdtemp(prefix="pacing-"))
    talk = Talk(folder)
    server = await asyncio.start_unix_server(talk.answer, talk.place.runtime_socket)
    try:
        yield talk
    finally:
        server.close()
        shutil.rmtree(folder, ignore_errors=True)


async def test_of_pods_that_are_alike_nothing_is_told() -> None:
    async with talking() as talk:
        await talk.looks(LOOKS_FOR_GRPC - 1)
        assert talk.asked == ["show stat vision.detector.active 6 -1"] * (LOOKS_FOR_GRPC - 1)
        assert talk.told == []


async def test_pods_are_asked_about_grpc_once_somebody_has_asked_them_by_it() -> None:
    async with talking() as talk:
        await talk.looks(LOOKS_FOR_GRPC)
        assert talk.asked[-2] == "show stat vision.detector.active.grpc 2 -1"
        assert sum(".grpc" in command for command in talk.asked) == 1
        talk.by_grpc = 1
        await talk.looks(LOOKS_FOR_GRPC)
        assert talk.asked[-1] == (
            "show stat vision.detector.active 6 -1;show stat vision.detector.active.grpc 6 -1"
        )
        talk.routes = ()
        await talk.looks(LOOKS_FOR_GRPC)
        talk.routes = (ROUTE,)
        await talk.looks(1)
        assert talk.asked[-1] == "show stat vision.detector.active 6 -1"


async def test_where_there_is_no_choice_nothing_is_asked() -> None:
    async with talking() as talk:
        talk.routes = (replace(ROUTE, active=(A,)), replace(ROUTE, name="other", sticky=True))
        await talk.looks(3)
        assert talk.asked == talk.told == []


async def test_a_slow_pod_is_told_of_once() -> None:
    async with talking() as talk:
        await talk.looks(6, slow="pod-a")
        assert talk.told == ["set weight vision.detector.active/pod-a 0"]
        assert next(iter(talk.slow.collect())).samples[0].value == 1


async def test_a_pod_that_is_down_or_going_is_let_be() -> None:
    async with talking() as talk:
        talk.down = {"pod-a"}
        talk.servers["pod-a"].weight = 7
        talk.routes = (replace(ROUTE, active=(A, replace(B, taking=False), C)),)
        talk.servers["pod-b"].weight = 0
        await talk.looks(6, slow="pod-a")
        assert talk.told == []


async def test_a_pod_that_begins_to_go_during_a_look_is_let_be() -> None:
    async with talking() as talk:
        await talk.looks(6, slow="pod-a")
        talk.servers["pod-b"].weight = 1  # whatever the reason: it would be told its whole weight
        async with talk.telling:
            look = asyncio.create_task(talk.looks(1, slow="pod-a"))
            while len(talk.asked) < 7:  # noqa: ASYNC110 - the other side of the socket
                await asyncio.sleep(0.001)
            talk.routes = (replace(ROUTE, active=(A, replace(B, taking=False), C)),)
        await look
        assert talk.servers["pod-b"].weight == 1


async def test_a_new_worker_is_told_again() -> None:
    async with talking() as talk:
        await talk.looks(6, slow="pod-a")
        for server in talk.servers.values():
            server.restart()
            server.weight = FULL
        await talk.looks(1, slow="pod-a")
        assert talk.told == ["set weight vision.detector.active/pod-a 0"] * 2


async def test_before_another_goes_a_slow_pod_has_its_weight_back() -> None:
    async with talking() as talk:
        await talk.looks(6, slow="pod-a")
        await talk.pacing.release((replace(ROUTE, active=(A, B, C, Server("pod-d", "10.42.0.4", 8080))),))
        assert talk.servers["pod-a"].weight == 0
        await talk.pacing.release((replace(ROUTE, active=(A, replace(B, taking=False), C)),))
        assert talk.servers["pod-a"].weight == FULL
