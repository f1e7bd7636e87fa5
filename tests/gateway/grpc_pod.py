"""A pod that speaks gRPC and HTTP at one port: the inference server's own connections in this process, and a model that
answers with its version. And a client that calls it by gRPC, as gRPC's own library does."""

import asyncio
import functools
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import numpy as np

from inference_server.grpc.api import GrpcApi
from inference_server.http.api import HttpApi
from inference_server.http.connection import HttpConnection
from inference_server.http.peers import Peers
from inference_server.http2.connection import Http2Connection
from inference_server.messages import ModelMetadata
from inference_server.proto import inference_pb2 as pb
from inference_server.serving.dataplane import DataPlane
from inference_server.telemetry.metrics import Metrics
from inference_server.tensors import TensorSpec
from tests.gateway.clients import SECONDS
from tests.gateway.far_node import FarNode
from tests.gateway.site import Pod, Site

INFER = "/inference.GRPCInferenceService/ModelInfer"
_BYTES = 1 << 20


class _Model:
    """Its one output is the number of its pod's version; it can be made to wait, or to be slow."""

    metadata = ModelMetadata("m", "1", (TensorSpec("x", "FP32", (1,)),), (TensorSpec("y", "FP32", (1,)),))
    digest, load_seconds, memory_bytes = "", 0.0, 0

    def __init__(self, version: str) -> None:
        self._answer = np.array([float(version[0])], np.float32)
        self.go = threading.Event()
        self.go.set()
        self.runs = self.waiting = 0

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Any]) -> list[Any]:
        del inputs
        self.waiting += 1
        try:
            self.go.wait(SECONDS)
        finally:
            self.waiting -= 1
        self.runs += 1
        return [self._answer for _ in outputs]


class GrpcPod(Pod):
    """One of a site's pods; ``grpc_pod`` makes one."""

    async def listen(self) -> None:
        self.model = _Model(self.version)
        self.dataplane = DataPlane(Metrics())
        self.dataplane.add(self.model)
        http2 = functools.partial(Http2Connection.take_over, GrpcApi(self.dataplane, _BYTES))
        self.peers = Peers(HttpApi(self.dataplane, _BYTES), _BYTES, http2=http2)
        loop = asyncio.get_running_loop()
        if self._node is None:
            to: dict[str, Any] = {"host": self.address, "port": self._site.pod_port}
        else:
            to = {"sock": await self._node.listener(self.address, self._site.pod_port)}
        self._listener = await loop.create_server(lambda: HttpConnection(self.peers, loop), **to)

    def kill(self) -> None:
        self.model.go.set()
        self._listener.close()
        for connection in tuple(self.peers.connections):
            connection.abort()


async def grpc_pod(
    site: Site, model: str = "detector", version: str = "1" * 64, *, node: FarNode | None = None
) -> GrpcPod:
    """Run a pod of a site, on this machine or on a node far away."""
    number = len(site.pods) + 1
    address = node.address(number) if node else f"127.0.2.{number}"
    pod = GrpcPod(site, f"{model}-{number}", address, version, node)
    site.of[pod.name] = model
    site.pods.append(pod)
    await pod.listen()
    pod.show()
    return pod


class GrpcClient:
    """One channel, which is one connection."""

    def __init__(self, port: int, authority: str = "") -> None:
        options = [("grpc.default_authority", authority)] if authority else []
        # Of its own, not one that another channel to the same address has.
        options.append(("grpc.use_local_subchannel_pool", 1))
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)

    async def ask(self, method: str = INFER, request: Any = None, **metadata: str) -> Any:
        """Return the answer of a pod: the first digit of its version."""
        if request is None:
            request = pb.ModelInferRequest(model_name="m")
            request.inputs.add(name="x", datatype="FP32", shape=[1]).contents.fp32_contents.append(0)
        call = self.channel.unary_unary(method)
        raw = await call(request.SerializeToString(), timeout=SECONDS, metadata=tuple(metadata.items()))
        return int(pb.ModelInferResponse.FromString(raw).outputs[0].contents.fp32_contents[0])

    async def refusal(self, **metadata: str) -> tuple[grpc.StatusCode, str]:
        """Return the status of a call that is not answered."""
        try:
            await self.ask(**metadata)
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details() or ""
        raise AssertionError("expected a refusal, found an answer")

    async def answers(self) -> "GrpcClient":
        """Wait until the model is led to."""
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    await self.ask()
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.02)
                else:
                    return self
