"""Images on the nodes: the pause image that every pod needs, and archives that a developer built.

Archives are what `buildah push IMAGE docker-archive:FILE:NAME`, `docker save` or an OCI layout tar make.
"""

import hashlib
import io
import json
import platform
import subprocess
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster.binaries import PAUSE
from cluster.layout import ClusterError, Node

PAUSE_NAME = "localhost/edgemodel-pause:1"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def runtime_answers(node: Node) -> bool:
    return node.containerd_socket.exists() and _ctr(node, ["version"]).returncode == 0


def ensure_pause(node: Node) -> None:
    """Import the sandbox image, made here from a static binary and nothing else."""
    if PAUSE_NAME in _ctr(node, ["images", "list", "--quiet"]).stdout.split():
        return
    archive = node.directory / "pause.tar"
    _write_single_file_image(archive, PAUSE_NAME, PAUSE.path())
    _import(node, archive)
    archive.unlink()


def load(nodes: Sequence[Node], archive: Path) -> dict[str, list[str]]:
    """Import an archive on these nodes at once.

    Returns:
        For each node's name the images now there.

    Raises:
        ClusterError: There is no such file, or a node's runtime refused it.
    """
    if not archive.is_file():
        raise ClusterError(f"there is no image archive {archive}")
    with ThreadPoolExecutor(max_workers=len(nodes)) as pool:
        results = list(pool.map(lambda node: _import(node, archive), nodes))
    return {node.name: names for node, names in zip(nodes, results, strict=True)}


def _import(node: Node, archive: Path) -> list[str]:
    before = _digests(node)
    result = _ctr(node, ["images", "import", str(archive)])
    if result.returncode != 0:
        raise ClusterError(f"{node.name} refused the image archive {archive}: {result.stderr.strip()[-500:]}")
    after = _digests(node)
    names = [
        name for name in after if f"unpacking {name} (" in result.stdout or after[name] != before.get(name)
    ]
    for name in list(names):
        # The kubelet asks for the full name of `local/web:1`, which is docker.io/local/web:1.
        full = _full_name(name)
        if full != name:
            _ctr(node, ["images", "tag", "--force", name, full])
            names.append(full)
    return sorted(names)


def _digests(node: Node) -> dict[str, str]:
    lines = _ctr(node, ["images", "list"]).stdout.splitlines()[1:]
    return {
        fields[0]: fields[2]
        for line in lines
        if len(fields := line.split()) > 2 and "sha256:" not in fields[0]
    }


def _full_name(name: str) -> str:
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


def _ctr(node: Node, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    command = ["ctr", "--address", str(node.containerd_socket), "--namespace", "k8s.io", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def _write_single_file_image(archive: Path, name: str, binary: Path) -> None:
    """Write a docker-archive of one layer with one file, which is also its entry point."""
    layer = _tar({"pause": (binary.read_bytes(), 0o755)})
    configuration = json.dumps(
        {
            "architecture": _ARCHITECTURES[platform.machine()],
            "os": "linux",
            "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
    members = {
        "layer.tar": (layer, 0o644),
        "config.json": (configuration, 0o644),
        "manifest.json": (manifest, 0o644),
    }
    archive.write_bytes(_tar(members))


def _tar(members: dict[str, tuple[bytes, int]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, (content, mode) in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
