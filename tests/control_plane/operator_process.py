"""Runs the operator as a process of its own, as it runs in a pod, and reads its metrics, health and log."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.control_plane.waiting import until

_ABSENT = ("backports.zstd", "h2", "rich", "pygments")
"""Installed here for other parts and not in the operator's image: httpx and aiohttp load them wherever they find them, at
6 MiB of memory."""
_START = f"""
import sys
sys.modules.update(dict.fromkeys({_ABSENT}))
from edgemodel.controller.app import main
sys.exit(main())
"""


class OperatorProcess:
    """One running operator."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self.log = log
        self.port = 0

    def lines(self) -> list[dict[str, Any]]:
        """Return its log."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def said(self, message: str) -> list[dict[str, Any]]:
        """Return the log lines with this message."""
        return [line for line in self.lines() if line["message"] == message]

    async def get(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False) as client:
            return await client.get(f"http://127.0.0.1:{self.port}{path}", timeout=5)

    async def metric(self, name: str, /, **labels: str) -> float:
        """Return the value of a sample; 0 when there is none."""
        text = (await self.get("/metrics")).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    @property
    def rss(self) -> float:
        """Resident memory in MiB."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        return 0.0

    async def started(self) -> None:
        """Wait until it serves its probes."""
        served = await until(
            lambda: self.said("serving metrics and health") or self.process.returncode is not None,
            "operator starts",
        )
        assert isinstance(served, list), self.log.read_text()
        self.port = int(served[0]["port"])

    async def watching(self) -> None:
        """Wait until it acts."""
        await until(lambda: self.said("watching"), f"operator watches ({self.log})")

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it and return its exit code."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), 15)


@asynccontextmanager
async def operator(
    folder: Path, kubeconfig: Path, *, wait: bool = True, **settings: Any
) -> AsyncIterator[OperatorProcess]:
    """Run an operator with these settings (names as in its settings file); kill it at the end."""
    number = len(list(folder.glob("operator-*.log")))  # noqa: ASYNC240 - a few local files
    file = folder / f"operator-{number}.yaml"
    file.write_text(yaml.safe_dump({"host": "127.0.0.1", "port": 0, **settings}))
    log = folder / f"operator-{number}.log"
    with log.open("wb") as stream:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _START),
            *("--settings", str(file), "--kubeconfig", str(kubeconfig)),
            stderr=stream,
            stdout=stream,
        )
    running = OperatorProcess(process, log)
    try:
        await running.started()
        if wait:
            await running.watching()
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
