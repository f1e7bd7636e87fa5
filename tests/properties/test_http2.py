"""Whatever a peer sends after the preface of HTTP/2, it gets frames or an end, and nothing is left in memory.

``tests/corpus/http2`` keeps one input for everything that the server can say (``grow.py`` there adds to it).
"""

import asyncio
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference_server.errors import InvalidRequest
from inference_server.grpc.messages import Code, error_trailers
from inference_server.http2 import frames as h2
from inference_server.http2.headers import HeaderBlocks, literal
from inference_server.messages import InferenceRequest
from inference_server.oip.grpc import Inference, split_raw
from inference_server.oip.grpc_heads import Heads
from inference_server.proto import inference_pb2 as pb
from tests.corpus.http2.grow import mutate, seeds
from tests.corpus.http2.memory_peer import MemoryPeer
from tests.unit.server.conftest import Doubler

CORPUS = Path(__file__).parents[1] / "corpus/http2"


def test_what_fuzzing_has_found_still_ends_well():
    async def play():
        peer, said = MemoryPeer(), set()
        for path in sorted((CORPUS / "found").iterdir()):
            said |= await peer.play(path.read_bytes())
        return said

    said = asyncio.run(play())
    for word in (
        "PROTOCOL_ERROR",
        "FRAME_SIZE_ERROR",
        "COMPRESSION_ERROR",
        "FLOW_CONTROL_ERROR",
        "STREAM_CLOSED",
    ):
        assert any(word in one for one in said), word


@given(
    choose=st.randoms(use_true_random=False),
    number=st.integers(0, len(seeds()) - 1),
    pieces=st.lists(st.integers(1, 60), max_size=8),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_frames_get_frames_or_an_end(choose, number, pieces):
    async def play():
        await MemoryPeer().play(mutate(seeds()[number], seeds(), choose), pieces)

    asyncio.run(play())


@given(sent=st.binary(max_size=300), pieces=st.lists(st.integers(1, 60), max_size=8))
@settings(max_examples=200, deadline=None)
def test_any_bytes_get_frames_or_an_end(sent, pieces):
    async def play():
        await MemoryPeer().play(h2.settings_frame({}) + sent, pieces)

    asyncio.run(play())


FIELDS = st.lists(
    st.tuples(
        st.sampled_from([b":path", b":method", b":scheme", b"content-type", b"te", b"x"])
        | st.binary(max_size=8),
        st.binary(max_size=200),
    ),
    max_size=6,
)


@given(fields=FIELDS)
@settings(max_examples=200, deadline=None)
def test_a_block_that_is_made_is_read_as_it_was(fields):
    assert HeaderBlocks(lambda head: head).decode(literal(fields)) == fields


@given(message=st.text(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_text_travels_as_trailers(message):
    for _, value in HeaderBlocks(lambda head: head).decode(error_trailers(Code.INTERNAL, message)):
        assert all(0x20 <= octet < 0x7F for octet in value)
        assert value.strip(b" ") == value


@given(data=st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_message_is_a_request_or_refused(data):
    try:
        request = Inference(memoryview(data)).decode(Doubler.metadata)
    except InvalidRequest:
        return
    assert isinstance(request, InferenceRequest)


@given(
    first=st.binary(min_size=4, max_size=4),
    second=st.binary(min_size=4, max_size=4),
    change=st.tuples(st.integers(0, 60), st.integers(0, 255)),
)
@settings(max_examples=300, deadline=None)
def test_what_is_remembered_changes_no_answer(first, second, change):
    def message(values):
        request = pb.ModelInferRequest(model_name="m", id="i", raw_input_contents=[values])
        request.inputs.add(name="x", datatype="FP32", shape=[1])
        return bytearray(request.SerializeToString())

    def decoded(data, heads):
        try:
            found = Inference(memoryview(data), heads).decode(Doubler.metadata)
        except InvalidRequest as error:
            return str(error)
        return found.inputs["x"].tobytes(), found.outputs, found.id, found.timeout

    heads = Heads()
    decoded(message(first), heads)
    data = message(second)
    data[change[0] % len(data)] = change[1]
    assert decoded(data, heads) == decoded(data, None)


@given(
    raw=st.lists(st.binary(max_size=300), max_size=4),
    name=st.text(max_size=10),
    identity=st.text(max_size=10),
)
@settings(max_examples=200, deadline=None)
def test_a_message_taken_apart_is_the_same_message(raw, name, identity):
    message = pb.ModelInferRequest(model_name=name, id=identity, raw_input_contents=raw)
    rest, found = split_raw(memoryview(message.SerializeToString()))
    assert [bytes(one) for one in found] == raw
    message.ClearField("raw_input_contents")
    assert pb.ModelInferRequest.FromString(rest) == message
