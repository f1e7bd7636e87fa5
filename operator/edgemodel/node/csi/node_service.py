"""CSI's Node service: a model's directory in a pod, for as long as the pod lives.

Promises: only what ``Holdings`` gives to the pod's own namespace is mounted, read-only; the same call again changes nothing;
calls for one target take turns; a restart of this process never touches a mount in use, since all state is the kernel's.
A call that waits holds no thread. What the pod's context says comes from the kubelet (podInfoOnMount), what the volume's
attributes say from the pod, so the latter is checked like any stranger's word.
Source of all rules: CSI spec, "Node Service RPC"; kubernetes/pkg/volume/csi/csi_mounter.go.
"""

import asyncio
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from edgemodel.api.meta import CSI_ATTRIBUTE_DIGEST, CSI_ATTRIBUTE_MODEL
from edgemodel.errors import EdgeModelError
from edgemodel.node.csi import mounts, target
from edgemodel.node.csi.calls import Service, status, unary, unimplemented
from edgemodel.node.csi.holdings import Holdings, NotReady
from edgemodel.node.csi.proto import csi_pb2 as csi
from edgemodel.node.csi.target import Target
from edgemodel.node.csi.turns import Turns

log = logging.getLogger(__name__)

_POD = "csi.storage.k8s.io/"
_EPHEMERAL = _POD + "ephemeral"
_POD_NAME, _POD_NAMESPACE, _POD_UID = (_POD + f"pod.{key}" for key in ("name", "namespace", "uid"))
_MODEL_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MODES = (
    csi.VolumeCapability.AccessMode.SINGLE_NODE_WRITER,  # what the kubelet says of every inline volume
    csi.VolumeCapability.AccessMode.SINGLE_NODE_READER_ONLY,
    csi.VolumeCapability.AccessMode.MULTI_NODE_READER_ONLY,
)
_UNSERVED = ("StageVolume", "UnstageVolume", "GetVolumeStats", "ExpandVolume")
LONGEST_WAIT = 110.0
"""Seconds: the kubelet gives a call 120 and then shows nothing but "deadline exceeded"."""


@dataclass(frozen=True, slots=True)
class _Wish:
    target: Target
    pod: str
    namespace: str
    model: str
    digest: str

    @property
    def about(self) -> str:
        return f"model {self.namespace}/{self.model} at {self.digest[:19]}: "


class NodeService:
    """Publishes and unpublishes volumes."""

    def __init__(
        self, holdings: Holdings, *, kubelet_dir: Path, node_name: str, wait: float = LONGEST_WAIT
    ) -> None:
        self._holdings = holdings
        self._kubelet = kubelet_dir
        self._node_name = node_name
        self._wait = wait
        self._turns = Turns()
        self._mounting: dict[Path, int] = {}

    @property
    def mounting(self) -> set[Path]:
        """Model directories that are being mounted right now."""
        return set(self._mounting)

    async def publish(self, request: csi.NodePublishVolumeRequest) -> csi.NodePublishVolumeResponse:
        """Mount the model at the target."""
        wish = self._read(request)
        with self._turns.of(wish.target.path) as turn:
            withdrawn = turn.withdrawn
            source = await self._source(wish)
            # No await between the agent's word and this line: the directory is known as in use from here on.
            self._mounting[source] = self._mounting.get(source, 0) + 1
            try:
                async with turn.lock:
                    if turn.withdrawn != withdrawn:
                        raise GRPCError(
                            Status.ABORTED, wish.about + "the volume was unpublished while it waited"
                        )
                    try:
                        await _to_the_end(partial(self._mount, source, wish.target))
                    except EdgeModelError as error:
                        raise _refusal(error, wish.about) from error
            finally:
                self._mounting[source] -= 1
                if not self._mounting[source]:
                    del self._mounting[source]
        return csi.NodePublishVolumeResponse()

    async def _source(self, wish: _Wish) -> Path:
        try:
            async with asyncio.timeout(self._wait):
                return await self._holdings.directory(wish.namespace, wish.model, wish.digest)
        except TimeoutError:
            error = NotReady("still on its way to this node; the kubelet asks again by itself")
            raise status(error, wish.about) from None
        except EdgeModelError as error:
            raise status(error, wish.about) from error

    def _mount(self, source: Path, where: Target) -> None:
        target.check(self._kubelet, where)
        made = not where.path.exists()
        try:
            where.path.mkdir(mode=0o750, exist_ok=True)
            if mounts.bind(source, where.path):
                log.info("mounted %s at %s", source.name, where.path)
        except OSError as error:
            raise mounts.MountFailed(f"{where.path}: {error.strerror}") from error
        except mounts.MountFailed:
            if made:
                where.path.rmdir()
            raise

    async def unpublish(self, request: csi.NodeUnpublishVolumeRequest) -> csi.NodeUnpublishVolumeResponse:
        """Take the mount and its directory away; what is not there is fine."""
        _needed("volume_id", request.volume_id)
        where = self._target(request.target_path)
        with self._turns.of(where.path) as turn:
            turn.withdrawn += 1
            async with turn.lock:
                try:
                    await _to_the_end(partial(self._unmount, where))
                except EdgeModelError as error:
                    raise _refusal(error) from error
        return csi.NodeUnpublishVolumeResponse()

    def _unmount(self, where: Target) -> None:
        if not os.path.lexists(where.path):
            return
        target.check(self._kubelet, where)
        if mounts.unmount(where.path):
            log.info("unmounted %s", where.path)
        try:
            where.path.rmdir()
        except OSError as error:
            # A directory with something in it, and no mount: not ours to delete.
            raise mounts.MountFailed(
                f"{where.path}: expected an empty directory after unmounting, found: {error.strerror}"
            ) from error

    def _read(self, request: csi.NodePublishVolumeRequest) -> _Wish:
        _needed("volume_id", request.volume_id)
        where = self._target(request.target_path)
        context = request.volume_context
        if context.get(_EPHEMERAL) != "true":
            raise _invalid(
                f"volume_context[{_EPHEMERAL}]: expected true, found {_shown(context, _EPHEMERAL)}; this driver has "
                "no PersistentVolumes, only `csi:` volumes in a pod"
            )
        if not request.HasField("volume_capability"):
            raise _invalid("volume_capability: expected one, found none")
        capability = request.volume_capability
        if capability.WhichOneof("access_type") != "mount":
            raise _invalid(
                "volume_capability: expected a mounted file system, found a block device or nothing"
            )
        if capability.access_mode.mode not in _MODES:
            raise _invalid(
                f"volume_capability.access_mode: expected one node, or readers only, found {capability.access_mode.mode}"
            )
        if capability.mount.mount_flags:
            raise _invalid("volume_capability.mount.mount_flags: expected none, since all flags are fixed")
        if not request.readonly:
            raise _invalid("readonly: expected `readOnly: true` in the pod's csi volume, found false")
        if context.get(_POD_UID) != where.pod_uid:
            raise _invalid(
                f"volume_context[{_POD_UID}]: expected {where.pod_uid}, the pod of target_path, "
                f"found {_shown(context, _POD_UID)}; is podInfoOnMount set in the CSIDriver object?"
            )
        namespace = _needed(f"volume_context[{_POD_NAMESPACE}]", context.get(_POD_NAMESPACE, ""))
        return _Wish(
            where,
            context.get(_POD_NAME, ""),
            namespace,
            _attribute(context, CSI_ATTRIBUTE_MODEL, _MODEL_NAME, "the name of an EdgeModel"),
            _attribute(context, CSI_ATTRIBUTE_DIGEST, _DIGEST, "sha256: and 64 hex digits"),
        )

    def _target(self, path: str) -> Target:
        _needed("target_path", path)
        try:
            return target.parse(self._kubelet, path)
        except target.BadTarget as error:
            raise _refusal(error) from error

    async def _capabilities(self, _: csi.NodeGetCapabilitiesRequest) -> csi.NodeGetCapabilitiesResponse:
        return csi.NodeGetCapabilitiesResponse()

    async def _info(self, _: csi.NodeGetInfoRequest) -> csi.NodeGetInfoResponse:
        return csi.NodeGetInfoResponse(node_id=self._node_name)

    def service(self) -> Service:
        """Return the service; what it has no use for is answered with UNIMPLEMENTED."""
        other = (f"/csi.v1.Node/Node{name}" for name in _UNSERVED)
        return Service(
            {
                **{path: unimplemented(path, "a model is an ephemeral volume") for path in other},
                "/csi.v1.Node/NodePublishVolume": unary(
                    self.publish, csi.NodePublishVolumeRequest, csi.NodePublishVolumeResponse
                ),
                "/csi.v1.Node/NodeUnpublishVolume": unary(
                    self.unpublish, csi.NodeUnpublishVolumeRequest, csi.NodeUnpublishVolumeResponse
                ),
                "/csi.v1.Node/NodeGetCapabilities": unary(
                    self._capabilities, csi.NodeGetCapabilitiesRequest, csi.NodeGetCapabilitiesResponse
                ),
                "/csi.v1.Node/NodeGetInfo": unary(
                    self._info, csi.NodeGetInfoRequest, csi.NodeGetInfoResponse
                ),
            }
        )


async def _to_the_end(work: Callable[[], None]) -> None:
    """Run blocking work in a thread; a caller who goes away ends the wait after it, so that its turn is not over before."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def _invalid(message: str) -> GRPCError:
    return GRPCError(Status.INVALID_ARGUMENT, message)


def _refusal(error: EdgeModelError, about: str = "") -> GRPCError:
    if isinstance(error, target.BadTarget):
        return _invalid(error.message)
    return status(error, about)


def _needed(field: str, value: str) -> str:
    if not value:
        raise _invalid(f"{field}: expected a value, found none")
    return value


def _shown(context: Mapping[str, str], key: str) -> str:
    return repr(context[key][:80]) if key in context else "none"


def _attribute(context: Mapping[str, str], key: str, pattern: re.Pattern[str], what: str) -> str:
    value = context.get(key, "")
    if not pattern.fullmatch(value):
        raise _invalid(f"volumeAttributes.{key}: expected {what}, found {_shown(context, key)}")
    return value
