"""One plane of bytes, written in whichever of four ways is smallest: zeros, as it is, zstd, or four to a byte.

Differences of quantised weights are mostly 0, sometimes 1 or 2. A byte is too coarse for a prefix code over such
symbols (it pays one bit for each where half would do), so values below 3 are packed four to a byte, which is then
coded, and 3 says that the value stands in a list of its own. That comes near what zstd's slowest level finds by
searching, forty times as fast.
"""

import numpy as np
from numpy.typing import NDArray

from edgemodel.artifact.delta import compression
from edgemodel.artifact.delta.layout import PatchReader
from edgemodel.artifact.delta.numbers import Octets
from edgemodel.artifact.delta.refusal import refuse

ZERO, RAW, ZSTD, QUARTERS, HALVES = 0, 1, 2, 3, 4
_SHARES = {QUARTERS: (4, 2), HALVES: (2, 4)}
"""Values to a byte, and bits of each."""
_TABLES = {
    method: np.array(
        [[byte >> (bits * n) & ((1 << bits) - 1) for n in range(share)] for byte in range(256)], np.uint8
    )
    .reshape(-1)
    .view(f"<u{share}")
    for method, (share, bits) in _SHARES.items()
}


def encode(plane: Octets, level: int) -> bytes:
    """Return ``plane`` in its smallest form."""
    count = len(plane)
    if not plane.any():
        return bytes([ZERO])
    best = _plain(plane, compression.ENTROPY_ONLY)
    quick = len(best)
    if quick * 2 <= count:
        for method, (_, bits) in _SHARES.items():
            above = (plane >= (1 << bits) - 1).nonzero()[0]
            if len(above) * 8 <= count:
                best = min(best, _packed(plane, method, above, level), key=len)
    if len(best) * 4 <= quick * 3:
        return best  # what packing gains, a search for repeats in the plane itself does not
    return min(best, _plain(plane, level), key=len)


def _plain(plane: Octets, level: int) -> bytes:
    if not plane.any():
        return bytes([ZERO])
    data = plane.tobytes()
    frame = compression.pack(data, compression.ENTROPY_ONLY)
    if level != compression.ENTROPY_ONLY and len(frame) < 0.95 * len(data):
        frame = min(frame, compression.pack(data, level), key=len)
    if len(frame) + 4 >= len(data):
        return bytes([RAW]) + data
    return bytes([ZSTD]) + len(frame).to_bytes(4, "little") + frame


def _packed(plane: Octets, method: int, above: NDArray[np.intp], level: int) -> bytes:
    share, bits = _SHARES[method]
    limit = (1 << bits) - 1
    padded = np.zeros(-(-len(plane) // share) * share, np.uint8)
    np.minimum(plane, limit, out=padded[: len(plane)])
    groups = padded.reshape(-1, share)
    packed = groups[:, 0].copy()
    for n in range(1, share):
        packed |= groups[:, n] << (bits * n)
    rest = plane[above] - limit
    return bytes([method]) + _plain(packed, level) + (_plain(rest, level) if len(rest) else b"")


def decode(patch: PatchReader, count: int) -> Octets | None:
    """Read a plane of ``count`` bytes; None when all are 0.

    Raises:
        Refused: ``DeltaInvalid``.
    """
    at = patch.at
    method = patch.number(1, "plane method")
    if method not in _SHARES:
        return _read_plain(patch, count, method, at)
    share, bits = _SHARES[method]
    packed = _read_plain(patch, -(-count // share), patch.number(1, "plane method"), at)
    if packed is None:
        return None
    values = np.take(_TABLES[method], packed).view(np.uint8)[:count]
    limit = (1 << bits) - 1
    above = np.flatnonzero(values == limit)
    if len(above):
        rest = _read_plain(patch, len(above), patch.number(1, "plane method"), at)
        if rest is not None:
            values[above] += rest
    return values


def _read_plain(patch: PatchReader, count: int, method: int, at: int) -> Octets | None:
    if method == ZERO:
        return None
    if method == RAW:
        return np.frombuffer(patch.take(count, "plane"), np.uint8)
    if method != ZSTD:
        refuse(f"byte {at}: expected a plane method up to {HALVES}, found {method}")
    length = patch.number(4, "plane length")
    if length > count:
        refuse(f"byte {at}: expected a plane of at most {count} bytes, found {length}")
    frame = patch.at
    return np.frombuffer(compression.unpack(patch.take(length, "plane"), count, frame), np.uint8)
