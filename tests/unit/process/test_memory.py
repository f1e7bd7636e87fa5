"""What a process gives back is read again when it is used; what is nowhere else is never given back."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgemodel.process.memory import unchanged_files

REST = "Rss: {rss} kB\nAnonymous: {anonymous} kB\nSwap: {swap} kB\nVmFlags: rd\n"


def mapping(
    start: int,
    permissions: str,
    path: str,
    *,
    inode: int = 7,
    rss: int = 8,
    anonymous: int = 0,
    swap: int = 0,
) -> str:
    first = f"{start:x}-{start + 0x4000:x} {permissions} 00000000 fe:01 {inode}    {path}\n"
    return first + REST.format(rss=rss, anonymous=anonymous, swap=swap)


CODE = mapping(0x10000, "r-xp", "/lib/libone.so.1")


def test_code_and_constants_of_a_library_can_be_read_again() -> None:
    constants = mapping(0x20000, "r--p", "/lib/libone.so.1", rss=4)
    assert list(unchanged_files(CODE + constants)) == [
        (0x10000, 0x14000, 8192),
        (0x20000, 0x24000, 4096),
    ]


@pytest.mark.parametrize(
    "kept",
    [
        mapping(0x20000, "rw-p", "/lib/libone.so.1"),
        mapping(0x20000, "r--p", "/lib/libone.so.1", anonymous=4),
        mapping(0x20000, "r--p", "/lib/libone.so.1", swap=4),
        mapping(0x20000, "r--p", "/models/weights.data"),
        mapping(0x20000, "rw-p", "[heap]", inode=0),
        mapping(0x20000, "r-xp", "[vdso]", inode=0),
        mapping(0x20000, "r-xp", "/lib/libtwo.so", rss=0),
    ],
)
def test_what_could_be_lost_stays(kept: str) -> None:
    assert list(unchanged_files(CODE + kept)) == [(0x10000, 0x14000, 8192)]


@pytest.mark.process
@pytest.mark.timeout(20)
def test_a_process_is_smaller_and_works_on(tmp_path: Path) -> None:
    script = """
import json, ssl, hashlib, threading
from pathlib import Path
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from edgemodel.process import memory

def files():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssFile:")) * 1024

key = Ed25519PrivateKey.generate()
ended = threading.Event()
work = threading.Thread(target=lambda: [hashlib.sha256(b"x" * 9999) for _ in iter(ended.is_set, True)])
work.start()
memory.return_what_is_freed()
before = files()
memory.settle()
after = files()
for _ in range(20):
    memory.give_back()
ended.set(); work.join()
key.public_key().verify(key.sign(b"said"), b"said")
ssl.create_default_context()
print(json.dumps([before, after]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=18)
    assert done.returncode == 0, done.stderr
    before, after = json.loads(done.stdout)
    assert after < before / 2
