"""The life of a further process of a server: load what the first one found out, listen, serve, drain when it says so.

What it promises beyond `app`: nothing waits in the queue of its socket before it can serve, and it calls itself dead when
the first process is.
"""

import socket
from pathlib import Path

from inference_server.app import App
from inference_server.engine.plan import Plan
from inference_server.files.model_directory import ModelFiles
from inference_server.processes.job import Job
from inference_server.processes.link import Link
from inference_server.processes.pulse import Pulse
from inference_server.serving.activation import Known
from inference_server.telemetry.board import Board


class Member(App):
    """One further process.

    Args:
        job: What the first process told it to do.
        link: The way to that one.
    """

    def __init__(self, job: Job, link: Link) -> None:
        self._job = job
        self._link = link
        board = Board(job.rows, job.row, job.board)
        self._first = Pulse(board, 0)
        super().__init__(job.settings, board, job.known)

    def _find(self, model: Path) -> ModelFiles:
        del model  # it was found, and may be another one now
        return self._job.files

    def _obey(self) -> None:
        self._link.follow(self.stop)

    async def _begin(self) -> bool:
        self._job.check_unchanged()
        if not await self._load():
            return False
        self._server = await self._accept(socket.socket(fileno=self._job.listener))
        self._link.ready()
        return True

    def _settle(self, known: Known) -> Plan:
        self.dataplane.divide(known.plan.processes)
        self._peers.divide(known.plan.processes)
        return known.plan

    async def _drain(self) -> int:
        left = await super()._drain()
        self._link.stopped(left)
        return left

    def _look_at_others(self) -> None:
        # A probe may be answered by any process, and the first one's end is the server's.
        self.dataplane.watchdog.alive &= self._first.alive()
