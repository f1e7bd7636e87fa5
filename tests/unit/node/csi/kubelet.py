"""The kubelet's side of a CSI driver: real gRPC over the real sockets, the paths and contexts that the kubelet makes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from edgemodel.node.csi.holdings import Failed, NotEntitled, NotReady
from edgemodel.node.csi.proto import csi_pb2 as csi
from edgemodel.node.csi.proto import pluginregistration_pb2 as registration

DIGEST = "sha256:" + "a" * 64
UID = "0f7a9c1e-0000-4000-8000-000000000001"


def directories(root: Path) -> tuple[Path, Path]:
    """Make and return a kubelet's directory and a store's models."""
    kubelet, models = root / "k", root / "s" / "models"
    (kubelet / "plugins_registry").mkdir(parents=True)
    models.mkdir(parents=True)
    return kubelet, models


def model(models: Path, key: str = "a" * 64) -> Path:
    """Make a model directory with a file in it."""
    directory = models / key
    directory.mkdir()
    (directory / "model.onnx").write_bytes(b"weights")
    return directory


def target(kubelet: Path, uid: str = UID, *, make: bool = True) -> Path:
    """Return a volume's target; its parent is there, as the kubelet makes it."""
    path = kubelet / "pods" / uid / "volumes" / "kubernetes.io~csi" / "model" / "mount"
    if make:
        path.parent.mkdir(parents=True, exist_ok=True)
    return path


def request(path: Path | str, uid: str = UID, **changed: Any) -> csi.NodePublishVolumeRequest:
    """Return what the kubelet sends for a pod of namespace vision; ``context`` adds to or (None) removes from it."""
    context = {
        "csi.storage.k8s.io/ephemeral": "true",
        "csi.storage.k8s.io/pod.name": "detector-1",
        "csi.storage.k8s.io/pod.namespace": "vision",
        "csi.storage.k8s.io/pod.uid": uid,
        "csi.storage.k8s.io/serviceAccount.name": "default",
        "model": "detector",
        "digest": DIGEST,
        **changed.pop("context", {}),
    }
    mode = csi.VolumeCapability.AccessMode(mode=csi.VolumeCapability.AccessMode.SINGLE_NODE_WRITER)
    fields = {
        "volume_id": "csi-0123",
        "target_path": str(path),
        "readonly": True,
        "volume_capability": csi.VolumeCapability(mount=csi.VolumeCapability.MountVolume(), access_mode=mode),
        "volume_context": {key: value for key, value in context.items() if value is not None},
        **changed,
    }
    return csi.NodePublishVolumeRequest(**{key: value for key, value in fields.items() if value is not None})


class Shelf:
    """Holdings that a test fills; a model that is on its way waits for an event."""

    def __init__(self) -> None:
        self.models: dict[tuple[str, str, str], Path] = {}
        self.coming: dict[str, asyncio.Event] = {}
        self.failure: Failed | NotReady | None = None
        self.waiting = 0

    async def directory(self, namespace: str, model: str, digest: str) -> Path:
        if self.failure is not None:
            raise self.failure
        if (namespace, model, digest) not in self.models:
            raise NotEntitled(f"namespace {namespace} has no EdgeModel {model} at {digest} for this node")
        if digest in self.coming:
            self.waiting += 1
            try:
                await self.coming[digest].wait()
            finally:
                self.waiting -= 1
        return self.models[namespace, model, digest]


@asynccontextmanager
async def channel(path: Path) -> AsyncIterator[Channel]:
    """Connect as the kubelet does, one connection for one operation."""
    connection = Channel(path=str(path))
    try:
        yield connection
    finally:
        connection.close()


async def call(path: Path, method: str, message: Any, reply: Any, *, deadline: float | None = None) -> Any:
    """Make one call."""
    async with channel(path) as connection:
        return await UnaryUnaryMethod(connection, method, type(message), reply)(message, timeout=deadline)


async def publish(
    socket: Path, message: csi.NodePublishVolumeRequest, *, deadline: float | None = None
) -> None:
    await call(
        socket, "/csi.v1.Node/NodePublishVolume", message, csi.NodePublishVolumeResponse, deadline=deadline
    )


async def unpublish(socket: Path, path: Path | str, volume_id: str = "csi-0123") -> None:
    message = csi.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path=str(path))
    await call(socket, "/csi.v1.Node/NodeUnpublishVolume", message, csi.NodeUnpublishVolumeResponse)


async def register(socket: Path, *, error: str = "") -> registration.PluginInfo:
    """Do what the plugin watcher does when it sees a socket."""
    info = await call(
        socket,
        "/pluginregistration.Registration/GetInfo",
        registration.InfoRequest(),
        registration.PluginInfo,
    )
    told = registration.RegistrationStatus(plugin_registered=not error, error=error)
    await call(
        socket,
        "/pluginregistration.Registration/NotifyRegistrationStatus",
        told,
        registration.RegistrationStatusResponse,
    )
    assert isinstance(info, registration.PluginInfo)
    return info


async def refusal(awaited: Any) -> tuple[Status, str]:
    """Return code and message of a call that must be refused."""
    try:
        await awaited
    except GRPCError as error:
        return error.status, error.message or ""
    raise AssertionError("expected a refusal, found success")
