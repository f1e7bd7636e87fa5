"""What a node says it can run, from the files of several machines."""

from pathlib import Path

import pytest

from edgemodel.node.capabilities import read_capabilities

X86 = (
    "processor\t: 0\nflags\t\t: fpu vme sse4_2 fma f16c avx avx2 avx512f avx512_vnni amx_int8 avx_vnni rdrand smep\n"
    * 2
)
ARM = "processor\t: 0\nFeatures\t: fp asimd evtstrm aes asimdhp asimddp i8mm bf16\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "proc").mkdir()
    return tmp_path


def put(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_server(root):
    put(root / "proc/cpuinfo", X86)
    put(root / "proc/meminfo", "MemTotal:       16384 kB\nMemFree:  1 kB\n")
    device = root / "sys/bus/pci/devices/0000:01:00.0"
    for name, text in (("class", "0x030200\n"), ("vendor", "0x10de\n"), ("device", "0x2204\n")):
        put(device / name, text)
        put(root / "sys/class/drm/card0/device" / name, text)
    put(root / "sys/bus/pci/devices/0000:02:00.0/class", "0x020000\n")
    put(root / "sys/class/drm/card0-HDMI-A-1/status")
    put(root / "dev/nvidia0")
    put(root / "dev/nvidiactl")
    found = read_capabilities(["CPUExecutionProvider"], root=root, machine="x86_64")
    assert found.architecture == "amd64"
    assert found.cpu_features == [
        "amx_int8", "avx", "avx2", "avx512_vnni", "avx512f", "avx_vnni", "f16c", "fma", "sse4_2",
    ]  # fmt: skip
    assert found.memory_bytes == 16384 * 1024
    assert found.accelerators == ["gpu:10de:2204", "nvidia"]
    assert found.execution_providers == ["CPUExecutionProvider"]


def test_a_board_with_an_npu_and_an_edge_tpu(root):
    put(root / "proc/cpuinfo", ARM)
    (root / "drivers/rknpu").mkdir(parents=True)
    device = root / "sys/class/accel/accel0/device"
    device.mkdir(parents=True)
    (device / "driver").symlink_to(root / "drivers/rknpu")
    put(root / "sys/class/apex/apex_0/dev")
    found = read_capabilities([], root=root, machine="aarch64")
    assert found.architecture == "arm64"
    assert found.cpu_features == ["asimd", "asimddp", "asimdhp", "bf16", "i8mm"]
    assert found.accelerators == ["npu:rknpu", "edgetpu"]


def test_a_machine_that_tells_nothing(root):
    (root / "proc/meminfo").mkdir()
    found = read_capabilities([], root=root, machine="riscv64")
    assert (found.architecture, found.cpu_features, found.memory_bytes, found.accelerators) == (
        "riscv64",
        [],
        0,
        [],
    )


def test_this_machine_has_memory():
    found = read_capabilities([])
    assert found.memory_bytes > 1 << 28
    assert found.architecture
