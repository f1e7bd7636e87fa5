"""The same server by gRPC, on h2: what a load client sees of it, with switches for what can go wrong."""

import asyncio
import ssl
from collections.abc import Callable
from types import TracebackType

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, RequestReceived, StreamEnded

from inference_server.proto import inference_pb2 as pb

Reply = Callable[[int], tuple[int, str] | None]

METADATA = pb.ModelMetadataResponse(name="m", versions=["1"])
METADATA.inputs.add(name="x", datatype="FP32", shape=[-1, 4])
_HEAD = [(":status", "200"), ("content-type", "application/grpc")]


class GrpcModelServer:
    """Listens on loopback while it is entered.

    Attributes:
        metadata: answered to ModelMetadata.
        reply: status and message to answer the n-th inference with; None closes the connection without a word.
        stalls: by number of the inference, seconds for which the whole server answers nothing from then on.
        heads: of the calls that came.
        requests: the inferences.
        connections: that were opened.
    """

    def __init__(self, reply: Reply = lambda _: (0, ""), tls: ssl.SSLContext | None = None) -> None:
        self.metadata = METADATA
        self.reply = reply
        self.stalls: dict[int, float] = {}
        self.heads: list[dict[str, str]] = []
        self.requests: list[pb.ModelInferRequest] = []
        self.connections = 0
        self._tls = tls
        self._until = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "GrpcModelServer":
        if self._tls is not None:
            self._tls.set_alpn_protocols(["h2"])
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"grpc{'s' if self._tls else ''}://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        h2.initiate_connection()
        bodies: dict[int, bytes] = {}
        try:
            while data := await reader.read(65_536):
                for event in h2.receive_data(data):
                    if not await self._take(h2, bodies, event):
                        return
                writer.write(h2.data_to_send())
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _take(self, h2: H2Connection, bodies: dict[int, bytes], event: Event) -> bool:
        if isinstance(event, RequestReceived):
            self.heads.append(dict(event.headers))
            bodies[event.stream_id] = b""
        elif isinstance(event, DataReceived):
            bodies[event.stream_id] += event.data
            h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            return await self._answer(h2, event.stream_id, bodies.pop(event.stream_id)[5:])
        return True

    async def _answer(self, h2: H2Connection, stream: int, message: bytes) -> bool:
        answer, said = self.metadata.SerializeToString(), (0, "")
        if self.heads[-1][":path"].endswith("/ModelInfer"):
            number, answer = len(self.requests), b""
            self.requests.append(pb.ModelInferRequest.FromString(message))
            now = asyncio.get_running_loop().time()
            self._until = max(self._until, now + self.stalls.get(number, 0.0))
            if self._until > now:
                await asyncio.sleep(self._until - now)
            replied = self.reply(number)
            if replied is None:
                return False
            said = replied
        status, words = said
        trailers = [("grpc-status", str(status)), ("grpc-message", words)]
        if status:
            h2.send_headers(stream, [*_HEAD, *trailers], end_stream=True)
        else:
            h2.send_headers(stream, _HEAD)
            h2.send_data(stream, b"\0" + len(answer).to_bytes(4, "big") + answer)
            h2.send_headers(stream, trailers, end_stream=True)
        return True
