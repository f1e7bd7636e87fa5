"""Runs the inference server as users do, and clients that behave as well-behaved HTTP clients do."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 30.0


class ServerProcess:
    """One `python -m inference_server`, and the lines it logs."""

    def __init__(self, *arguments, model=None, stdout=None, environment=None):
        given = ["--model", str(model)] if model is not None else []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "inference_server", *given, "--host", "127.0.0.1", *map(str, arguments)],
            stdout=stdout,
            stderr=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
            text=True,
            cwd=Path(__file__).parents[2],
        )
        self.lines = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stderr:
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self.process.stderr.close()
            self._changed.notify_all()

    def event(self, name, nth=1):
        """Wait for a log line, the `nth` of its name, and return it."""
        deadline = time.monotonic() + PATIENCE
        with self._changed:
            while True:
                documents = (json.loads(line) for line in self.lines if line.startswith("{"))
                found = [document for document in documents if document["event"] == name]
                if len(found) >= nth:
                    return found[nth - 1]
                left = deadline - time.monotonic()
                assert left > 0, f"no {name!r} in time: {self.lines}"
                assert not self.process.stderr.closed, f"no {name!r} before the end: {self.lines}"
                self._changed.wait(left)

    @property
    def port(self):
        return self.event("listening")["port"]

    def exit_code(self):
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def resident_bytes(self):
        """Resident memory of the process and all its children."""
        family = [self.process.pid]
        for parent in family:
            family += [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
        return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 for pid in family)


@contextmanager
def running(*arguments, **options):
    server = ServerProcess("--port", 0, *arguments, **options)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.exit_code()


async def request(reader, writer, method, target, body=b"", headers=()):
    """One exchange on an open connection; returns `(status, headers, body)`."""
    more = "".join(f"{name}: {value}\r\n" for name, value in dict(headers).items())
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    raw = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
    first, *lines = raw.decode().rstrip().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    answer = await asyncio.wait_for(reader.readexactly(int(headers["content-length"])), PATIENCE)
    return int(first.split()[1]), headers, answer


async def ask(port, method, target, body=b"", headers=()):
    """One exchange on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await request(reader, writer, method, target, body, headers)
    finally:
        writer.close()


class Endpoints:
    """Ready servers, kept as Kubernetes keeps a Service's endpoints: by their readiness, a little late."""

    def __init__(self, *ports):
        self.all = ports
        self.ready = list(ports)

    async def watch(self):
        while True:
            for port in self.all:
                try:
                    status, _, _ = await ask(port, "GET", "/v2/health/ready")
                except OSError:
                    status = 0
                if status != 200 and port in self.ready:
                    self.ready.remove(port)
            await asyncio.sleep(0.1)


class Load:
    """Clients that keep their connection until told `Connection: close`, then connect to a ready endpoint."""

    def __init__(self, endpoints, target, body):
        self.endpoints, self.target, self.body = endpoints, target, body
        self.answered = dict.fromkeys(endpoints.all, 0)
        self.told_to_move = 0
        self.failures = []
        self.done = False

    async def client(self, number):
        turn = number
        while not self.done:
            port = self.endpoints.ready[turn % len(self.endpoints.ready)]
            turn += 1
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    while not self.done:
                        status, headers, _ = await request(reader, writer, "POST", self.target, self.body)
                        assert status == 200, status
                        self.answered[port] += 1
                        if headers["connection"] == "close":
                            self.told_to_move += 1
                            break
                finally:
                    writer.close()
            except (OSError, EOFError, TimeoutError, AssertionError) as error:
                self.failures.append(repr(error))
