"""The load counts everything that a caller would notice, and nothing else, with a server that misbehaves as it is told."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from testbed.load import Answer, Case, Load
from testbed.load_client import Client, Judge

RIGHT = b'{"model_name":"m","model_version":"v1","outputs":[{"name":"y","data":[1.0,2.0]}]}'
WANTED = [{"v1": [1.0, 2.0], "v2": [3.0, 4.0]}]


def answer(body: bytes = RIGHT, status: str = "200 OK", extra: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode() + body


@asynccontextmanager
async def server(reply: Callable[[int], bytes | None]) -> AsyncIterator[int]:
    """Answer the n-th request with ``reply(n)``; None closes the connection without a word."""
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                said = reply(count)
                count += 1
                if said is None:
                    break
                writer.write(said)
                if b"Connection: close" in said:
                    break
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()


async def run(port: int, requests: int, capsys: pytest.CaptureFixture[str], **options: object) -> list[dict]:  # type: ignore[type-arg]
    """Run a client until so many requests are over; return what it printed."""
    target = {
        "url": f"http://127.0.0.1:{port}/v2/models/m/infer",
        "rate": 400.0,
        "connections": 4,
        "timeout": 1.0,
        "resend": False,
        "requests": requests,
        "cases": [{"body": "{}", "expected": WANTED[0]}],
        **options,
    }
    await Client(target, asyncio.get_running_loop()).run()
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def counted(windows: list[dict], kind: str) -> int:  # type: ignore[type-arg]
    return sum(len(window[kind]) for window in windows)


def right(windows: list[dict], version: str = "v1") -> int:  # type: ignore[type-arg]
    return sum(len(window["answers"].get(version, [])) for window in windows)


async def test_right_answers_are_counted_by_version(capsys: pytest.CaptureFixture[str]) -> None:
    other = RIGHT.replace(b'"v1"', b'"v2"').replace(b"[1.0,2.0]", b"[3.0,4.0]")
    async with server(lambda n: answer(other if n % 4 == 3 else RIGHT)) as port:
        windows = await run(port, 40, capsys)
    assert (right(windows), right(windows, "v2")) == (30, 10)
    assert counted(windows, "failed") == counted(windows, "wrong") == 0


@pytest.mark.parametrize(
    "bad",
    [
        answer(b"{}", "500 Internal Server Error"),
        answer(b"busy", "503 Service Unavailable", "Connection: close\r\n"),
        None,
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\nConnection: close\r\n\r\n{",
        b"220 mail.example ESMTP\r\n\r\nConnection: close",
    ],
    ids=["error", "unavailable", "closed", "cut-off", "not-http"],
)
async def test_what_a_caller_would_notice_is_a_failure(
    bad: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    async with server(lambda n: bad if n == 5 else answer()) as port:
        windows = await run(port, 20, capsys)
    assert right(windows) == 19
    assert counted(windows, "failed") == 1
    assert counted(windows, "wrong") == 0


async def test_an_answer_that_closes_its_connection_in_order_is_no_failure(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with server(lambda n: answer(extra="Connection: close\r\n")) as port:
        windows = await run(port, 20, capsys)
    assert right(windows) == 20


async def test_a_broken_connection_is_made_up_for_once_if_so_told(capsys: pytest.CaptureFixture[str]) -> None:
    async with server(lambda n: None if n == 5 else answer()) as port:
        windows = await run(port, 20, capsys, resend=True)
    assert right(windows) == 20
    assert sum(window["resent"] for window in windows) == 1
    async with server(lambda n: None) as port:
        windows = await run(port, 5, capsys, resend=True)
    assert counted(windows, "failed") == 5


async def test_nobody_listening_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    async with server(lambda n: answer()) as port:
        pass
    windows = await run(port, 5, capsys)
    assert counted(windows, "failed") == 5


async def test_no_answer_in_time_is_a_failure_and_latency_counts_the_wait(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with server(lambda n: b"" if n == 0 else answer()) as port:
        windows = await run(port, 10, capsys, connections=1, timeout=0.3)
    assert counted(windows, "failed") >= 1
    latencies = [latency for window in windows for told in window["answers"].values() for _, latency in told]
    assert len(latencies) + counted(windows, "failed") == 10
    assert all(latency > 0.2 for latency in latencies)


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, RIGHT, ("right", "v1")),
        (200, RIGHT.replace(b"1.0", b"1.000001"), ("right", "v1")),
        (200, RIGHT.replace(b"1.0", b"1.1"), "wrong"),
        (200, RIGHT.replace(b"1.0", b"null"), "wrong"),
        (200, RIGHT.replace(b"[1.0,2.0]", b"[1.0]"), "wrong"),
        (200, RIGHT.replace(b'"v1"', b'"v2"'), "wrong"),
        (200, RIGHT.replace(b'"v1"', b'"v3"'), "wrong"),
        (200, b"<html>", "wrong"),
        (200, b"[]", "wrong"),
        (404, b"{}", "failed"),
    ],
)
def test_verdicts(status: int, body: bytes, verdict: object) -> None:
    judge = Judge(WANTED)
    for _ in range(2):  # the second time it may be known
        told = judge.judge(0, status, body)
        assert verdict in (told, told[0])


def test_figures_of_a_load() -> None:
    load = Load("http://127.0.0.1:1", "m", [Case("{}", WANTED[0])])
    load._timeline = [Answer(at / 10, at / 1000, "v1" if at < 50 else "v2") for at in range(100) if at != 60]
    load._failed_at, load._wrong_at = [6.0], []
    assert load.last_at("v1") == 4.9
    assert load.last_at("v3") == 0
    assert load.longest_gap() == pytest.approx(0.2)
    assert load.longest_gap(since=7) == pytest.approx(0.1)
    assert load.percentile(0.5) == pytest.approx(0.049)
    assert load.percentile(1) == 0.099
    assert load.percentile(0.99, version="v1") == 0.049
    assert load.windows(1.0)[6] == (6.0, {"v2": 9, "failed": 1})
    with pytest.raises(LookupError):
        load.percentile(0.5, version="v3")
