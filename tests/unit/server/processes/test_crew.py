"""Further processes are started, looked after, started again and drained; the other side is simulated."""

import asyncio
import os
import socket
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from inference_server.engine.plan import Plan
from inference_server.files.model_directory import ModelFiles
from inference_server.host.listening import bind_beside, listen
from inference_server.messages import ABSENT
from inference_server.processes.crew import Crew, how
from inference_server.processes.job import Job, stamp_of
from inference_server.serving.activation import Known
from inference_server.settings import Settings
from inference_server.telemetry.board import Board
from tests.unit.server.conftest import until

ROOT = Path(__file__).parents[4]
WORKER = (sys.executable, str(Path(__file__).with_name("simulated_worker.py")))
FILES = ModelFiles(Path(__file__), Path(__file__).parent, "m", "1", "")


class Site:
    """A crew of one, and what the first process does for it."""

    def __init__(self, fault):
        self.board = Board(2)
        self.listener = listen("127.0.0.1", 0, shared=True)
        self.accepted = 0
        self.servers = []
        self.crew = Crew(
            self.board,
            2,
            lambda row, descriptor: Job(
                Settings(name=fault),
                FILES,
                stamp_of(FILES),
                Known(Plan(processes=2), ABSENT),
                row,
                2,
                self.board.fd,
                descriptor,
                os.getpid(),
            ),
            lambda: bind_beside(self.listener),
            self.serve,
            WORKER,
        )

    async def serve(self, beside):
        def accept():
            self.accepted += 1
            return asyncio.Protocol()

        server = await asyncio.get_running_loop().create_server(accept, sock=beside.dup())
        self.servers.append(server)
        return server

    @property
    def lives(self):
        cells = self.board.gather("lives").get((), [])
        return sum(row[0] for row in cells)

    async def close(self):
        processes = [member.process for member in self.crew._members.values()]
        self.crew.abandon()
        await asyncio.gather(*self.crew._tasks, return_exceptions=True)
        for process in processes:
            await process.wait()
        self.listener.close()
        for server in self.servers:
            server.close()


@asynccontextmanager
async def crew_of_one(fault, monkeypatch, program=None):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    site = Site(fault)
    if program is not None:
        site.crew.program = program
    site.crew.start()
    try:
        yield site
    finally:
        await site.close()


def warned(caplog):
    return [
        record.fields
        for record in caplog.records
        if record.name == "inference_server.processes.crew" and record.levelname == "WARNING"
    ]


@pytest.mark.parametrize("fault", ["dies", "refuses"])
async def test_what_ended_is_started_again_and_said(fault, monkeypatch, caplog):
    async with crew_of_one(fault, monkeypatch) as site:
        await until(lambda: site.lives == 2 and site.crew.serving == 2)
        (told,) = warned(caplog)
        assert told["ended"] == {"dies": "signal 9 (Killed)", "refuses": "exit code 10"}[fault]
        assert (told["processes_serving"], told["processes"], told["process"]) == (1, 2, 1)


async def test_the_queue_of_a_dead_process_is_answered_until_the_next_one_has_it(monkeypatch):
    async with crew_of_one("dies", monkeypatch) as site:
        await until(lambda: site.servers)
        # Only the dead one's socket listens beside the first's, from which nobody accepts here.
        site.listener.close()
        port = site.servers[0].sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        await until(lambda: site.accepted == 1)
        writer.close()
        await until(lambda: site.crew.serving == 2)
        assert not site.servers[0].is_serving()


async def test_a_stuck_process_is_ended_and_another_comes(monkeypatch):
    async with crew_of_one("stuck", monkeypatch) as site:
        await until(lambda: site.board.stuck(1))
        site.crew.look()
        await until(lambda: site.lives == 2 and site.crew.serving == 2)
        site.crew.look()
        assert not site.board.stuck(1)
        assert site.crew.serving == 2


async def test_at_the_end_their_requests_that_were_cut_off_are_counted(monkeypatch):
    async with crew_of_one("", monkeypatch) as site:
        await until(lambda: site.crew.serving == 2)
        site.crew.stop()
        assert await site.crew.ended(10) == 3
        assert site.crew.serving == 1
        assert site.lives == 1


async def test_who_does_not_drain_is_not_waited_for(monkeypatch):
    async with crew_of_one("lingers", monkeypatch) as site:
        await until(lambda: site.crew.serving == 2)
        (member,) = site.crew._members.values()
        site.crew.stop()
        assert await site.crew.ended(0.01) == 0
        site.crew.abandon()
        await until(
            lambda: not Path(f"/proc/{member.process.pid}").exists() or member.process.returncode == -9
        )


async def test_a_process_that_cannot_be_started_is_tried_again(monkeypatch, caplog, tmp_path):
    async with crew_of_one("", monkeypatch, (str(tmp_path / "none"),)) as site:
        await until(lambda: warned(caplog))
        assert warned(caplog)[0]["ended"] == "could not be started: No such file or directory"
        site.crew.program = WORKER
        await until(lambda: site.crew.serving == 2)


async def test_the_end_does_not_wait_for_one_that_is_to_be_started_much_later(monkeypatch, caplog, tmp_path):
    async with crew_of_one("", monkeypatch, (str(tmp_path / "none"),)) as site:
        site.crew._places[0].ends = 100
        await until(lambda: warned(caplog))
        site.crew.stop()
        assert await site.crew.ended(10) == 0
        assert all(task.done() for task in site.crew._tasks)


def test_ends_are_said_in_words():
    assert how(-11) == "signal 11 (Segmentation fault)"
    assert how(70) == "exit code 70"


def test_a_socket_of_a_shared_port_gets_nothing_before_it_listens():
    with listen("127.0.0.1", 0, shared=True) as first, bind_beside(first) as beside:
        assert beside.getsockname() == first.getsockname()
        for _ in range(20):
            with socket.create_connection(first.getsockname()):
                first.accept()[0].close()
