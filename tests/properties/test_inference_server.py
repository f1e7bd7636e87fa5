"""Whatever bytes come: an answer of the protocol, never a 500, a hang or a dead server."""

import asyncio
import json

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference_server.errors import InvalidRequest
from inference_server.http.api import HttpApi
from inference_server.http.connection import HttpConnection
from inference_server.http.messages import Request
from inference_server.http.peers import Peers
from inference_server.messages import InferenceRequest
from inference_server.oip.json import decode_request
from inference_server.serving.dataplane import DataPlane
from inference_server.telemetry.metrics import Metrics
from inference_server.tensors import NUMPY_TYPES, decode_data, encode_data
from tests.unit.server.conftest import Doubler

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner)
)
NAMES = st.sampled_from(["x", "y", "", "z"])
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": NAMES | JSON,
        "datatype": st.sampled_from([*NUMPY_TYPES, "FP8", ""]) | JSON,
        "shape": st.lists(st.integers(-1, 4) | st.integers(2**31, 2**65), max_size=3) | JSON,
        "data": st.lists(SCALARS, max_size=6) | JSON,
        "parameters": JSON,
    },
)
# Close to right, so that the search gets past the first check.
REQUESTS = st.fixed_dictionaries(
    {"inputs": st.lists(TENSORS, max_size=3) | JSON},
    optional={"id": JSON, "outputs": st.lists(TENSORS, max_size=3) | JSON, "parameters": JSON},
)


def api():
    plane = DataPlane(Metrics())
    plane.add(Doubler())
    return HttpApi(plane, 4096)


def dumped(document) -> bytes:
    return json.dumps(document).encode("utf-8", "surrogatepass")


@given(body=st.binary(max_size=200) | (JSON | REQUESTS).map(dumped))
@settings(max_examples=400, deadline=None)
def test_any_body_is_a_request_or_refused(body):
    try:
        request = decode_request(body, Doubler.metadata).request
    except InvalidRequest:
        return
    assert isinstance(request, InferenceRequest)
    assert set(request.inputs) == {"x"}


@given(body=(JSON | REQUESTS).map(dumped))
@settings(max_examples=100, deadline=None)
def test_any_json_gets_a_200_or_a_400(body):
    async def ask():
        return await asyncio.wait_for(
            api().handle(Request("POST", b"/v2/models/m/infer", {}, body)),
            2,
        )

    response = asyncio.run(ask())
    assert response.status in (200, 400)
    assert ("error" in json.loads(b"".join(response.body))) == (response.status == 400)


@given(
    data=st.data(),
    datatype=st.sampled_from(sorted(set(NUMPY_TYPES) - {"FP16", "FP32", "BF16"})),
    shape=st.lists(st.integers(0, 3), max_size=3),
)
@settings(max_examples=300, deadline=None)
def test_what_is_taken_is_given_back_unchanged(data, datatype, shape):
    numpy_type = NUMPY_TYPES[datatype]
    elements = {
        "b": st.booleans(),
        "f": st.floats(allow_nan=False, allow_infinity=False),
        "O": st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    }
    element = elements.get(numpy_type.kind, st.integers(*_limits(numpy_type)))
    count = 1
    for size in shape:
        count *= size
    values = data.draw(st.lists(element, min_size=count, max_size=count))
    array = decode_data(orjson.loads(orjson.dumps(values)), tuple(shape), datatype, "x")
    assert array.shape == tuple(shape)
    assert orjson.loads(orjson.dumps(encode_data(array), option=orjson.OPT_SERIALIZE_NUMPY)) == values


@given(
    values=st.lists(
        st.floats(allow_nan=False, allow_infinity=False)
        | st.floats(-4e38, 4e38)
        | st.integers(-(2**63), 2**64 - 1)
        | st.integers(-300, 300)
        | st.sampled_from([None, "1", True, {}]),
        max_size=5,
    ),
    datatype=st.sampled_from(sorted(set(NUMPY_TYPES) - {"BYTES"})),
)
@settings(max_examples=400, deadline=None)
def test_flat_lists_are_judged_as_nested_ones_which_go_another_way(values, datatype):
    def decoded(data, shape):
        try:
            return decode_data(data, shape, datatype, "x").tobytes()
        except InvalidRequest as error:
            return str(error)

    assert decoded(values, (len(values), 1)) == decoded([[value] for value in values], (len(values), 1))


def _limits(numpy_type):
    bits, signed = 8 * numpy_type.itemsize, numpy_type.kind == "i"
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


GOOD = (
    b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 66\r\n\r\n"
    b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[4]}]}'
    b"POST /v2/models/m/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{} \r\n0\r\n\r\n"
    b"GET /v2 HTTP/1.1\r\nConnection: close\r\n\r\n"
)


class Wire(asyncio.Transport):
    """The kernel's end of a connection, in memory."""

    def __init__(self):
        super().__init__()
        self.written = b""
        self.ended = False

    def write(self, data):
        self.written += bytes(data)

    def close(self):
        self.ended = True

    abort = write_eof = close

    def can_write_eof(self):
        return True

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass


@given(
    raw=st.one_of(
        st.binary(max_size=300),
        st.tuples(st.integers(0, len(GOOD) - 1), st.binary(max_size=4)).map(
            lambda cut: GOOD[: cut[0]] + cut[1] + GOOD[cut[0] + len(cut[1]) :]
        ),
    ),
    pieces=st.lists(st.integers(1, 60), max_size=8),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes_on_the_wire_get_answers_or_an_end(raw, pieces):
    async def feed():
        peers = Peers(api(), 4096)
        connection = HttpConnection(peers, asyncio.get_running_loop())
        wire = Wire()
        connection.connection_made(wire)
        rest = raw
        for size in [*pieces, len(raw)]:
            connection.data_received(rest[:size])
            rest = rest[size:]
        async with asyncio.timeout(2):
            while connection.busy:  # noqa: ASYNC110 — busy is the connection's own word, no event
                await asyncio.sleep(0)
        connection.connection_lost(None)
        return wire, peers

    wire, peers = asyncio.run(feed())
    assert peers.held_bytes == 0
    assert not peers.connections
    assert b" 500 " not in wire.written
    assert wire.written == b"" or wire.written.startswith(b"HTTP/1.1 ")
