"""The real process and gRPC clients that mean no good; ``make bench NAME=hostile`` does the same many more times."""

import asyncio
from urllib.parse import unquote

import pytest

from inference_server.grpc.messages import Code
from tests.server.bad_calls import BAD_CALLS, GOOD_CALL, INFER
from tests.server.bad_requests import BODY_BYTES
from tests.server.onnx_models import mlp, save
from tests.server.process import running
from tests.unit.server.http2_client import Http2Client

pytestmark = [pytest.mark.process, pytest.mark.timeout(90)]

GROWTH_BYTES = 8_000_000


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    model = save(mlp(), tmp_path_factory.mktemp("model") / "m.onnx")
    with running("--max-body-bytes", BODY_BYTES, model=model) as server:
        server.event("ready")
        yield server
        assert not any("Traceback" in line for line in server.lines)


class Peer:
    """The client's end of a connection to the real process."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def send(self, data):
        self.writer.write(data)

    async def closed(self):
        return await self.reader.read() == b""


class Server:
    def __init__(self, port):
        self.port = port

    async def connect(self):
        return Peer(*await asyncio.open_connection("127.0.0.1", self.port))


@pytest.fixture
async def client(server):
    client = await Http2Client.connect(Server(server.port))
    yield client
    client.leave()


async def told(client, bad):
    """What a call is answered: its code, and the message."""
    answer = await client.answer(await client.call(bad.path, bad.content, **bad.headers))
    assert answer.reset is None
    return answer.status, unquote(answer.headers.get("grpc-message", ""))


@pytest.mark.parametrize("bad", BAD_CALLS, ids=lambda bad: bad.name)
async def test_each_gets_its_code_and_the_name_of_what_is_wrong(client, bad):
    code, message = await told(client, bad)
    assert code == bad.code, message
    assert bad.words in message
    assert 0 < len(message) < 1000
    # The connection is as good as before.
    assert (await client.answer(await client.call(INFER, GOOD_CALL))).status == Code.OK


async def test_thousands_of_bad_calls_leave_no_trace(server, client):
    async def all_of_them():
        for bad in BAD_CALLS:
            assert (await told(client, bad))[0] == bad.code

    for _ in range(15):  # until allocators and caches have their size
        await all_of_them()
    before = server.resident_bytes()
    for _ in range(30):
        await all_of_them()
    assert server.resident_bytes() - before < GROWTH_BYTES
