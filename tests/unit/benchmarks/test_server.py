"""What the server benchmark sends, how it takes turns, and that its open loop leaves out no waiting."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial

import numpy as np
import pytest

from benchmarks.server import overload, rounds, wire
from benchmarks.server.load import Answer, Measured, Phase, WrongAnswers
from benchmarks.server.open_loop import Client

# Serialised by the protobuf messages of tritonclient 2.73.
REQUEST = "0a0562656e63682a0e0a01781204465033321a0301ac023a080001020304050607"
RESPONSE = "0a0562656e63681201311a017122070a016e120210032a0d0a01791204465033321a02010232080000c03f000000c0"


def test_a_grpc_request_is_what_protobuf_writes() -> None:
    x = np.frombuffer(bytes(range(8)) * 150, "f4").reshape(1, 300)
    message = wire.as_grpc("bench", {"x": x})
    assert message[:-1203] == bytes.fromhex(REQUEST)[:-10]
    assert message[-1200:] == x.tobytes()


def test_the_raw_output_is_found_in_what_protobuf_wrote() -> None:
    assert wire.from_grpc(bytes.fromhex(RESPONSE)).tolist() == [1.5, -2.0]


def test_a_binary_request_says_where_its_header_ends() -> None:
    x = np.arange(4, dtype="f4").reshape(1, 4)
    post = wire.as_binary("bench", {"x": x})
    length = int(post.headers[wire.HEADER_LENGTH])
    (tensor,) = json.loads(post.body[:length])["inputs"]
    assert tensor["parameters"]["binary_data_size"] == 16
    assert post.body[length:] == x.tobytes()


def test_a_binary_answer_is_read_with_and_without_its_headers() -> None:
    document = {"outputs": [{"name": "y", "parameters": {"binary_data_size": 8}}]}
    header = json.dumps(document).encode()
    body = header + np.asarray([1.5, -2.0], "f4").tobytes()
    assert wire.from_binary(body, {"inference-header-content-length": str(len(header))}).tolist() == [1.5, -2]
    assert wire.only_binary(body).tolist() == [1.5, -2]


def test_every_other_round_goes_backwards() -> None:
    order: list[str] = []

    def measure(name: str) -> int:
        order.append(name)
        return len(order)

    assert rounds.in_rounds(2, ["a", "b", "c"], measure) == {"a": [1, 6], "b": [2, 5], "c": [3, 4]}
    assert order == list("abccba")


def test_servers_side_by_side_take_turns_of_a_second():
    asked: list[str] = []

    def load(name: str, connections: int, seconds: float) -> Measured:
        asked.append(f"{name}{connections}")
        assert seconds == rounds.SLICE_SECONDS
        if len(asked) == 1:
            raise WrongAnswers("still coming up")
        return Measured(len(asked), 0.0, 0.0, 0.0)

    pace = rounds.Pace(seconds=2.0, rounds=2)
    found = rounds.side_by_side({name: partial(load, name) for name in ("a", "b")}, pace)
    assert set(found) == {1, 16, 64}
    assert [len(measured) for measured in found[16].values()] == [8, 8]
    assert asked[:8] == ["a16", "b16", "a1", "a16", "a64", "b1", "b16", "b64"]
    assert asked[8:14] == ["b1", "b16", "b64", "a1", "a16", "a64"]
    assert [rounds.rates(found[1][name])[:2] for name in ("a", "b")] == [[3, 12], [6, 9]]


def test_a_section_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_ONLY", "json,jsn")
    with pytest.raises(SystemExit, match="expected names of json, grpc, found jsn"):
        rounds.chosen(["json", "grpc"])


@pytest.mark.parametrize(
    ("answers", "seconds"),
    [
        ([Answer(10.1, 0.02, 200)], 0.0),
        ([Answer(10.1, 0.02, 503), Answer(10.2, 0.02, 200)], 0.1),
        ([Answer(10.1, 0.02, 200), Answer(10.4, 0.6, 200), Answer(10.5, 0.02, 200)], 0.4),
        ([Answer(10.3, 20.0, 0)], 0.3),
    ],
)
def test_recovery_ends_with_the_last_request_that_was_refused_or_slow(
    answers: list[Answer], seconds: float
) -> None:
    assert overload.recovery(answers, 10.0, 0.05) == pytest.approx(seconds)


@asynccontextmanager
async def server(seconds: float | None) -> AsyncIterator[int]:
    """Answer each request after so long; with None, close the connection instead."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"{}"):
                if seconds is None:
                    break
                await asyncio.sleep(seconds)  # what a request costs this server
                writer.write(
                    b"HTTP/1.1 200 OK\r\nInference-Header-Content-Length: 9\r\nContent-Length: 2\r\n\r\n{}"
                )
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()


def asked(port: int, rate: float, seconds: float, connections: int) -> Client:
    phases = [asdict(Phase(rate, seconds))]
    return Client({"port": port, "path": "/", "body": "{}", "phases": phases, "connections": connections})


async def test_waiting_for_a_connection_counts() -> None:
    cost = 0.02
    async with server(cost) as port:
        client = asked(port, rate=200, seconds=0.2, connections=1)
        await client.run()
    answers = sorted(client.answers)
    assert len(answers) > 20
    for number, (due, took, status) in enumerate(answers, 1):
        assert status == 200
        assert due + took >= number * cost  # one connection: each waits for all before it


async def test_a_broken_connection_is_an_answer_of_status_0() -> None:
    async with server(None) as port:
        client = asked(port, rate=100, seconds=0.1, connections=64)
        await client.run()
    assert client.answers
    assert {status for _, _, status in client.answers} == {0}
