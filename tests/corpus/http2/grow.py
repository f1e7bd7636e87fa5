"""Fuzzes the HTTP/2 connection of the inference server and keeps the shortest input for every outcome.

Usage: ``PYTHONPATH=. python tests/corpus/http2/grow.py [SECONDS]``. Starts from the seeds below and from what was ``found``
before; a mutation that ends in words not seen yet (numbers and names aside), or shorter than the one kept for them, is
kept. An exception, or memory that is still held, ends the run with the input. A file is what a peer sends after the preface.
"""

import asyncio
import random
import sys
import time
from hashlib import sha256
from pathlib import Path

from inference_server.grpc.messages import frame_message
from inference_server.http2 import frames as h2
from inference_server.http2.headers import literal
from tests.corpus.http2.memory_peer import MemoryPeer

HERE = Path(__file__).parent
FOUND = HERE / "found"
MOST_BYTES = 4096
PATHS = (
    "/inference.GRPCInferenceService/ModelInfer",
    "/inference.GRPCInferenceService/ServerLive",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/nowhere",
)


def block(path: str, *more: tuple[bytes, bytes]) -> bytes:
    pseudo = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode())]
    return literal([*pseudo, (b"content-type", b"application/grpc"), *more])


def seeds() -> list[bytes]:
    settings = h2.settings_frame({h2.INITIAL_WINDOW_SIZE: 100, h2.MAX_FRAME_SIZE: 16_384})
    calls = [
        h2.frame(h2.HEADERS, h2.END_HEADERS, number, block(path))
        + h2.frame(h2.DATA, h2.END_STREAM, number, frame_message(b"\x0a\x01m"))
        for number, path in zip(range(1, 99, 2), PATHS, strict=False)
    ]
    parts = block(PATHS[1], (b"grpc-timeout", b"1S"), (b"content-length", b"5"))
    continued = (
        h2.frame(h2.HEADERS, 0, 1, parts[:20])
        + h2.frame(h2.CONTINUATION, 0, 1, parts[20:40])
        + h2.frame(h2.CONTINUATION, h2.END_HEADERS, 1, parts[40:])
        + h2.frame(h2.DATA, h2.PADDED | h2.END_STREAM, 1, b"\x02" + frame_message(b"") + bytes(2))
    )
    indexed = h2.frame(h2.HEADERS, h2.END_HEADERS, 1, b"\x83\x86\x44\x01/\x40\x01a\x01b") + h2.frame(
        h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 3, b"\x3f\x11\x83\x86\xbf\xbe"
    )
    others = (
        h2.frame(h2.PING, 0, 0, bytes(8))
        + h2.frame(h2.PRIORITY, 0, 1, bytes(5))
        + h2.window_frame(0, 1000)
        + calls[2]
        + h2.window_frame(5, 1)
        + h2.reset_frame(5, h2.ErrorCode.CANCEL)
        + h2.frame(h2.GOAWAY, 0, 0, bytes(8))
    )
    return [settings + b"".join(calls), settings + continued, settings + indexed, settings + others]


def mutate(case: bytes, others: list[bytes], choose: random.Random) -> bytes:
    made = bytearray(case)
    for _ in range(choose.randint(1, 4)):
        at = choose.randrange(len(made) + 1)
        match choose.randrange(6):
            case 0:
                made[at : at + 1] = bytes((choose.randrange(256),))
            case 1 if made:
                made[at % len(made)] ^= 1 << choose.randrange(8)
            case 2:
                del made[at : at + choose.randint(1, 20)]
            case 3:
                other = choose.choice(others)
                start = choose.randrange(len(other) + 1)
                made[at:at] = other[start : start + choose.randint(1, 60)]
            case 4:
                kind, flags = choose.randrange(11), choose.choice((0, 1, 4, 5, 8, 0x20, 0x2D))
                payload = bytes(choose.choices(range(256), k=choose.choice((0, 4, 5, 6, 8, 12))))
                made[at:at] = h2.frame(kind, flags, choose.choice((0, 1, 2, 3, 5)), payload)
            case _:
                made[at:at] = made[at : at + choose.randint(1, 60)] * choose.randint(1, 5)
    return bytes(made[:MOST_BYTES])


def keep(kept: dict[str, bytes], said: set[str], case: bytes) -> None:
    for one in said:
        if one not in kept or len(case) < len(kept[one]):
            kept[one] = case


async def grow(seconds: float) -> None:
    choose, peer = random.Random(), MemoryPeer()
    kept: dict[str, bytes] = {}
    for case in (*seeds(), *(path.read_bytes() for path in FOUND.iterdir())):
        keep(kept, await peer.play(case), case)
    tried, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        cases = list(kept.values())
        case = mutate(choose.choice(cases), cases, choose)
        tried += 1
        try:
            said = await peer.play(case)
        except BaseException:
            print(f"found: {case.hex()}", file=sys.stderr)
            raise
        keep(kept, said, case)
    for path in FOUND.iterdir():
        path.unlink()
    for case in set(kept.values()):
        (FOUND / sha256(case).hexdigest()[:12]).write_bytes(case)
    print(f"{tried} tried, {len(kept)} outcomes")


if __name__ == "__main__":
    asyncio.run(grow(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0))
