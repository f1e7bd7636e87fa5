# ruff: noqa: T201
"""Prints what a gRPC server on a unix socket adds to a process's memory: ``python docs/adr/0010_grpc_servers.py``.

Each library in a process of its own, which has httpx loaded as the agent has; protobuf included; after 100 calls.
grpcio comes with grpcio-tools, of the ``dev`` extra.
"""

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx

_PATH = "/pluginregistration.Registration/GetInfo"


def resident() -> int:
    """Return KiB."""
    line = next(
        one for one in Path("/proc/self/smaps_rollup").read_text().splitlines() if one.startswith("Rss")
    )
    return int(line.split()[1])


async def _grpclib(socket: str) -> int:
    before = resident()
    from grpclib.server import Server

    from edgemodel.node.csi.calls import Service, unary
    from edgemodel.node.csi.proto import pluginregistration_pb2 as messages

    async def info(_: messages.InfoRequest) -> messages.PluginInfo:
        return messages.PluginInfo(name="grpclib")

    server = Server([Service({_PATH: unary(info, messages.InfoRequest, messages.PluginInfo)})])
    await server.start(path=socket)
    await _call(socket)
    used = resident() - before
    server.close()
    return used


async def _grpcio(socket: str) -> int:
    before = resident()
    import grpc.aio

    from edgemodel.node.csi.proto import pluginregistration_pb2 as messages

    async def info(_: messages.InfoRequest, __: object) -> messages.PluginInfo:
        return messages.PluginInfo(name="grpcio")

    handler = grpc.unary_unary_rpc_method_handler(
        info,
        request_deserializer=messages.InfoRequest.FromString,
        response_serializer=messages.PluginInfo.SerializeToString,
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("pluginregistration.Registration", {"GetInfo": handler}),)
    )
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    await _call(socket)
    used = resident() - before
    await server.stop(0)
    return used


async def _call(socket: str) -> None:
    child = await asyncio.create_subprocess_exec(sys.executable, __file__, "call", socket)
    if await child.wait():
        raise RuntimeError("the calls failed")


async def _client(socket: str) -> None:
    from grpclib.client import Channel, UnaryUnaryMethod

    from edgemodel.node.csi.proto import pluginregistration_pb2 as messages

    for _ in range(100):
        channel = Channel(path=socket)
        await UnaryUnaryMethod(channel, _PATH, messages.InfoRequest, messages.PluginInfo)(
            messages.InfoRequest()
        )
        channel.close()


def main() -> None:
    """Measure both, or be one of them."""
    match sys.argv[1:]:
        case []:
            for name in ("grpclib", "grpcio"):
                subprocess.run([sys.executable, __file__, name], check=True)
        case ["call", socket]:
            asyncio.run(_client(socket))
        case [name]:
            httpx.AsyncClient()
            with tempfile.TemporaryDirectory() as folder:
                measured = {"grpclib": _grpclib, "grpcio": _grpcio}[name](f"{folder}/s")
                print(f"{name}: {asyncio.run(measured) / 1024:.1f} MiB")


if __name__ == "__main__":
    main()
