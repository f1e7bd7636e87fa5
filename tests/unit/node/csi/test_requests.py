"""What the driver answers without mounting: who it is, how it registers, and what it refuses in which words."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Status

from edgemodel import __version__
from edgemodel.errors import Stalled
from edgemodel.node.csi.holdings import Failed, NotReady
from edgemodel.node.csi.proto import csi_pb2 as csi
from edgemodel.node.csi.server import CsiServer, endpoints, serve
from tests.unit.node.csi import kubelet
from tests.unit.node.csi.kubelet import Shelf, publish, refusal, request, target, unpublish

UNDER = "csi.storage.k8s.io/"


@pytest.fixture
def where() -> Iterator[tuple[Path, Path]]:
    with tempfile.TemporaryDirectory(prefix="em", dir="/tmp") as short:  # a socket's path has 107 bytes
        yield kubelet.directories(Path(short))


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
async def driver(where: tuple[Path, Path], shelf: Shelf) -> AsyncIterator[CsiServer]:
    server = await serve(
        shelf, kubelet_dir=where[0], node_name="edge-1", models=where[1], wait=0.2, look=0.02
    )
    yield server
    await server.close()


@pytest.fixture
def sockets(driver: CsiServer, where: tuple[Path, Path]) -> tuple[Path, Path]:
    return endpoints(where[0])


async def test_says_who_it_is(sockets: tuple[Path, Path]) -> None:
    info = await kubelet.call(
        sockets[0], "/csi.v1.Identity/GetPluginInfo", csi.GetPluginInfoRequest(), csi.GetPluginInfoResponse
    )
    assert (info.name, info.vendor_version) == ("models.edgemodel.io", __version__)
    capabilities = await kubelet.call(
        sockets[0],
        "/csi.v1.Identity/GetPluginCapabilities",
        csi.GetPluginCapabilitiesRequest(),
        csi.GetPluginCapabilitiesResponse,
    )
    assert not capabilities.capabilities  # no controller
    probe = await kubelet.call(sockets[0], "/csi.v1.Identity/Probe", csi.ProbeRequest(), csi.ProbeResponse)
    assert probe.ready.value
    node = await kubelet.call(
        sockets[0], "/csi.v1.Node/NodeGetInfo", csi.NodeGetInfoRequest(), csi.NodeGetInfoResponse
    )
    assert node.node_id == "edge-1"
    able = await kubelet.call(
        sockets[0],
        "/csi.v1.Node/NodeGetCapabilities",
        csi.NodeGetCapabilitiesRequest(),
        csi.NodeGetCapabilitiesResponse,
    )
    assert not able.capabilities  # nothing to stage, no statistics


@pytest.mark.parametrize("method", ["NodeStageVolume", "NodeGetVolumeStats", "NodeExpandVolume"])
async def test_other_calls_are_unimplemented(method: str, sockets: tuple[Path, Path]) -> None:
    asked = kubelet.call(sockets[0], f"/csi.v1.Node/{method}", csi.ProbeRequest(), csi.ProbeResponse)
    assert (await refusal(asked))[0] is Status.UNIMPLEMENTED


async def test_registers_with_the_kubelet(driver: CsiServer, sockets: tuple[Path, Path]) -> None:
    assert driver.registered is False
    info = await kubelet.register(sockets[1])
    assert (info.type, info.name, info.endpoint) == ("CSIPlugin", "models.edgemodel.io", str(sockets[0]))
    assert list(info.supported_versions) == ["1.0.0"]
    assert driver.registered is True
    assert driver.problem == ""
    await kubelet.register(sockets[1], error="no CSIDriver")  # as after the kubelet's own restart
    assert driver.registered is False
    assert driver.problem == "no CSIDriver"


async def test_sockets_are_roots_alone_and_nothing_else_lies_beside_them(sockets: tuple[Path, Path]) -> None:
    for path in sockets:
        assert path.stat().st_mode & 0o777 == 0o600
        assert [one.name for one in path.parent.iterdir()] == [path.name]


async def test_a_socket_that_a_killed_process_left_is_replaced(
    where: tuple[Path, Path], shelf: Shelf
) -> None:
    for path in endpoints(where[0]):
        path.parent.mkdir(parents=True, exist_ok=True)
        left = await asyncio.start_unix_server(lambda _r, _w: None, path)
        inode = path.stat().st_ino
        path.rename(path.with_suffix(".kept"))  # so that closing it does not remove it (Python 3.13)
        left.close()
        await left.wait_closed()
        path.with_suffix(".kept").rename(path)
        assert path.stat().st_ino == inode
    server = await serve(shelf, kubelet_dir=where[0], node_name="edge-1", models=where[1])
    try:
        assert (await kubelet.register(endpoints(where[0])[1])).name == "models.edgemodel.io"
    finally:
        await server.close()
    assert not [path for path in endpoints(where[0]) if path.exists()]  # so the kubelet unregisters it


@pytest.mark.parametrize("which", [0, 1])
async def test_a_socket_that_somebody_removes_comes_back(which: int, sockets: tuple[Path, Path]) -> None:
    sockets[which].unlink()
    for _ in range(150):
        if sockets[which].exists():
            break
        await asyncio.sleep(0.01)
    assert (await kubelet.register(sockets[1])).name == "models.edgemodel.io"
    probe = await kubelet.call(sockets[0], "/csi.v1.Identity/Probe", csi.ProbeRequest(), csi.ProbeResponse)
    assert probe.ready.value


async def test_a_path_too_long_for_a_socket_is_named(tmp_path: Path, shelf: Shelf) -> None:
    deep = tmp_path / ("d" * 90)
    with pytest.raises(Stalled, match="expected at most 107 bytes"):
        await serve(shelf, kubelet_dir=deep, node_name="edge-1", models=tmp_path)


BLOCK = csi.VolumeCapability(
    block=csi.VolumeCapability.BlockVolume(),
    access_mode=csi.VolumeCapability.AccessMode(mode=csi.VolumeCapability.AccessMode.SINGLE_NODE_WRITER),
)
MANY_WRITERS = csi.VolumeCapability(
    mount=csi.VolumeCapability.MountVolume(),
    access_mode=csi.VolumeCapability.AccessMode(mode=csi.VolumeCapability.AccessMode.MULTI_NODE_MULTI_WRITER),
)
OWN_FLAGS = csi.VolumeCapability(
    mount=csi.VolumeCapability.MountVolume(mount_flags=["exec"]),
    access_mode=csi.VolumeCapability.AccessMode(mode=csi.VolumeCapability.AccessMode.SINGLE_NODE_WRITER),
)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"volume_id": ""}, "volume_id"),
        ({"target_path": ""}, "target_path"),
        ({"volume_capability": None}, "volume_capability: expected one"),
        ({"volume_capability": BLOCK}, "found a block device"),
        ({"volume_capability": MANY_WRITERS}, "access_mode"),
        ({"volume_capability": OWN_FLAGS}, "mount_flags"),
        ({"readonly": False}, "readOnly: true"),
        ({"context": {UNDER + "ephemeral": None}}, "no PersistentVolumes"),
        ({"context": {UNDER + "ephemeral": "false"}}, "expected true, found 'false'"),
        ({"context": {UNDER + "pod.namespace": None}}, "pod.namespace"),
        ({"context": {UNDER + "pod.uid": None}}, "is podInfoOnMount set"),
        ({"context": {UNDER + "pod.uid": "another"}}, "the pod of target_path, found 'another'"),
        ({"context": {"model": None}}, "volumeAttributes.model"),
        ({"context": {"model": "../detector"}}, "volumeAttributes.model"),
        ({"context": {"digest": None}}, "volumeAttributes.digest"),
        ({"context": {"digest": "sha256:ABC"}}, "sha256: and 64 hex digits, found 'sha256:ABC'"),
        ({"context": {"digest": kubelet.DIGEST + "\n"}}, "volumeAttributes.digest"),
    ],
)
async def test_a_request_out_of_order_is_refused_by_the_name_of_its_field(
    changed: dict[str, Any], named: str, sockets: tuple[Path, Path], where: tuple[Path, Path]
) -> None:
    path = target(where[0])
    code, message = await refusal(publish(sockets[0], request(path, **changed)))
    assert code is Status.INVALID_ARGUMENT
    assert named in message
    assert not path.exists()


@pytest.mark.parametrize(
    "path",
    [
        "{k}/pods/../../etc/volumes/kubernetes.io~csi/model/mount",
        "{k}/pods/u/volumes/kubernetes.io~csi/../mount",
        "{k}/pods/u/volumes/kubernetes.io~csi/model/mount/..",
        "{k}/pods/u/volumes/kubernetes.io~csi/model/mount/",
        "{k}/pods/u/volumes/kubernetes.io~csi/a/b/mount",
        "{k}/pods/u/volumes/kubernetes.io~empty-dir/model/mount",
        "{k}/plugins/kubernetes.io/csi/pv/globalmount",
        "{k}/pods/u/volumes/kubernetes.io~csi/model/mount\n",
        "{k}2/pods/u/volumes/kubernetes.io~csi/model/mount",
        "/etc",
        "pods/u/volumes/kubernetes.io~csi/model/mount",
    ],
)
async def test_a_target_elsewhere_is_refused(
    path: str, sockets: tuple[Path, Path], where: tuple[Path, Path]
) -> None:
    odd = path.format(k=where[0])
    for asked in (publish(sockets[0], request(odd)), unpublish(sockets[0], odd)):
        code, message = await refusal(asked)
        assert code is Status.INVALID_ARGUMENT
        assert "target_path: expected" in message
        assert "node.kubeletPath" in message


@pytest.mark.parametrize("part", ["pods", "pod", "volumes", "plugin", "volume", "mount"])
async def test_a_link_in_the_path_is_refused(
    part: str, sockets: tuple[Path, Path], where: tuple[Path, Path], shelf: Shelf, tmp_path: Path
) -> None:
    """Whichever part is a link, to a directory of the right inner shape, nothing is mounted behind it."""
    shelf.models["vision", "detector", kubelet.DIGEST] = kubelet.model(where[1])
    path = target(where[0])
    path.mkdir()
    parts = ["mount", "volume", "plugin", "volumes", "pod", "pods"]
    swapped = [path, *path.parents][parts.index(part)]
    elsewhere = tmp_path / "elsewhere"
    swapped.rename(elsewhere)
    swapped.symlink_to(elsewhere)
    for asked in (publish(sockets[0], request(path)), unpublish(sockets[0], path)):
        code, message = await refusal(asked)
        assert code is Status.INVALID_ARGUMENT
        assert f"expected the directory {swapped}, found a symbolic link" in message


async def test_a_parent_that_the_kubelet_did_not_make_is_refused(
    sockets: tuple[Path, Path], where: tuple[Path, Path], shelf: Shelf
) -> None:
    shelf.models["vision", "detector", kubelet.DIGEST] = kubelet.model(where[1])
    code, message = await refusal(publish(sockets[0], request(target(where[0], make=False))))
    assert code is Status.INVALID_ARGUMENT
    assert "which the kubelet makes, found none" in message


async def test_another_namespaces_model_is_refused(
    sockets: tuple[Path, Path], where: tuple[Path, Path], shelf: Shelf
) -> None:
    shelf.models["audio", "detector", kubelet.DIGEST] = kubelet.model(where[1])
    code, message = await refusal(publish(sockets[0], request(target(where[0]))))
    assert code is Status.PERMISSION_DENIED
    assert message.startswith("model vision/detector at sha256:aaaaaaaaaaaa: ")
    assert "audio" not in message


@pytest.mark.parametrize(
    ("failure", "code", "text"),
    [
        (
            Failed("SignatureInvalid", "no known key signed it"),
            Status.FAILED_PRECONDITION,
            "SignatureInvalid: no known key signed it",
        ),
        (NotReady("41 of 91 MB (45 %) have come"), Status.ABORTED, "41 of 91 MB (45 %) have come"),
    ],
)
async def test_a_model_that_is_not_there_is_told_with_its_reason(
    failure: Any, code: Status, text: str, sockets: tuple[Path, Path], where: tuple[Path, Path], shelf: Shelf
) -> None:
    shelf.failure = failure
    path = target(where[0])
    seen, message = await refusal(publish(sockets[0], request(path)))
    assert (seen, message) == (code, f"model vision/detector at sha256:aaaaaaaaaaaa: {text}")
    assert not path.exists()


async def test_a_wait_without_end_is_ended_before_the_kubelet_gives_up(
    sockets: tuple[Path, Path], where: tuple[Path, Path], shelf: Shelf
) -> None:
    shelf.models["vision", "detector", kubelet.DIGEST] = where[1]
    shelf.coming[kubelet.DIGEST] = asyncio.Event()
    code, message = await refusal(publish(sockets[0], request(target(where[0]))))
    assert code is Status.ABORTED
    assert "still on its way" in message
    assert shelf.waiting == 0


async def test_a_bug_of_ours_is_told_without_its_insides(
    sockets: tuple[Path, Path], where: tuple[Path, Path], shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.failure = ValueError("secret-ish detail")  # type: ignore[assignment]
    code, message = await refusal(publish(sockets[0], request(target(where[0]))))
    assert code is Status.INTERNAL
    assert "secret" not in message
    assert "secret-ish detail" in caplog.text


async def test_unpublishing_what_was_never_there_is_fine(
    sockets: tuple[Path, Path], where: tuple[Path, Path]
) -> None:
    await unpublish(sockets[0], target(where[0], make=False))
    code, message = await refusal(unpublish(sockets[0], target(where[0]), volume_id=""))
    assert (code, message) == (Status.INVALID_ARGUMENT, "volume_id: expected a value, found none")
