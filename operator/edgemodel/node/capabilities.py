"""What a node can run, as its kernel tells: architecture, instruction sets, memory, accelerators. Read once, at start.

Promises: a file that is missing or odd makes a list shorter and nothing fail; only instruction sets that matter to inference
are named, since x86 alone has two hundred. The server image's execution providers are a setting, not this process's.
"""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from edgemodel.api.edge_node import Capabilities

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
_FEATURES = re.compile(
    r"(avx|avx2|avx512\w+|avx_vnni\w*|avx_ifma|avx10\w*|amx_\w+|f16c|fma|sse4_2"  # x86
    r"|asimd|asimddp|asimdhp|asimdfhm|fphp|neon|bf16|i8mm|sve|sve2|sve\w*(bf16|i8mm)"  # ARM
    r"|sme(?!p\b)\w*)"  # ARM; x86's smep is another thing
)
_DISPLAY, _3D, _PROCESSING = "0x0300", "0x0302", "0x1200"
_KINDS = {_DISPLAY: "gpu", _3D: "gpu", _PROCESSING: "npu"}
_NVIDIA = re.compile(r"nvidia\d+")
_CARD = re.compile(r"card\d+")
_MOST = 64


def read_capabilities(
    execution_providers: Iterable[str], *, root: Path = Path("/"), machine: str | None = None
) -> Capabilities:
    """Look at the node.

    Args:
        execution_providers: of the inference server's image.
        root: where /proc, /sys and /dev are.
        machine: as ``uname -m`` says; this kernel's by default.
    """
    machine = machine or os.uname().machine
    return Capabilities(
        architecture=_ARCHITECTURES.get(machine, machine)[:64],
        cpu_features=sorted(set(_cpu_features(root))),
        memory_bytes=_memory(root),
        execution_providers=list(execution_providers)[:_MOST],
        accelerators=list(dict.fromkeys(_accelerators(root)))[:_MOST],
    )


def _cpu_features(root: Path) -> Iterator[str]:
    for line in _text(root / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            yield from (word for word in value.split() if _FEATURES.fullmatch(word))


def _memory(root: Path) -> int:
    """Return the node's memory; a container's own limit does not show in this file."""
    for line in _text(root / "proc/meminfo").splitlines():
        words = line.split()
        if words[:1] == ["MemTotal:"] and len(words) > 1 and words[1].isdecimal():
            return int(words[1]) * 1024
    return 0


def _accelerators(root: Path) -> Iterator[str]:
    """Name each device as kind, then PCI vendor and device where it has them: ``gpu:10de:2204``."""
    for device in _entries(root / "sys/bus/pci/devices"):
        kind = _KINDS.get(_text(device / "class").strip()[:6])
        if kind is not None:
            yield f"{kind}:{_pci(device)}"
    for folder, kind, pattern in (("drm", "gpu", _CARD), ("accel", "npu", None)):
        for entry in _entries(root / "sys/class" / folder):
            if pattern is None or pattern.fullmatch(entry.name):
                # One on the PCI bus was named above; those on a chip have no vendor there.
                if (entry / "device/vendor").exists():
                    yield f"{kind}:{_pci(entry / 'device')}"
                else:
                    yield f"{kind}:{_driver(entry)}"
    for _ in _entries(root / "sys/class/apex"):
        yield "edgetpu"
    if any(_NVIDIA.fullmatch(entry.name) for entry in _entries(root / "dev")):
        yield "nvidia"


def _pci(device: Path) -> str:
    vendor, model = (_text(device / name).strip().removeprefix("0x")[:8] for name in ("vendor", "device"))
    return f"{vendor}:{model}"


def _driver(entry: Path) -> str:
    try:
        return (entry / "device/driver").readlink().name[:64]
    except OSError:
        return entry.name


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(1 << 20).decode("utf-8", "replace")
    except OSError:
        return ""
