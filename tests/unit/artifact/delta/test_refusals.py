"""Whatever is wrong with a patch: a refusal that names the byte or field, and no byte beyond the size."""

# ruff: noqa: E501 - one case, one line
import itertools
import json
import struct
import tracemalloc
from pathlib import Path

import pytest
from backports import zstd

from edgemodel.artifact.delta import codec
from edgemodel.artifact.delta.base import FileBytes
from edgemodel.artifact.delta.layout import MAGIC, fingerprint
from edgemodel.errors import Refused
from tests.unit.artifact.delta.models import rebuild, safetensors, trained, weights

SIZE = 100_000


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "base"
    path.write_bytes(weights("I8", SIZE).tobytes())
    return path


def header(of: Path, which="ulp", **changed):
    with FileBytes(of) as file:
        document = {"codec": which, "new": SIZE, "old": SIZE, "base": fingerprint(file)} | changed
    text = json.dumps(document).encode()
    return MAGIC + struct.pack("<BHB", 1, len(text), 0) + text


def table(*records):
    packed = zstd.compress(
        b"".join(struct.pack("<BBHIQQ", k, d, 0, 0, size, old) for k, d, size, old in records)
    )
    return struct.pack("<II", len(records), len(packed)) + packed


def window(kind=1, offset=0, stretch=0, size=SIZE, payload=b""):
    return struct.pack("<BQIII", kind, offset, stretch, size, len(payload)) + payload


def apply(base, patch, size=SIZE):
    path = base.with_name("patch")
    path.write_bytes(patch)
    return rebuild(base, path, size)


def bomb(size):
    return zstd.compress(bytes(size), level=1)


GOOD = zstd.compress(bytes(SIZE))
MOVED = b"\x01"  # one block whose numbers moved
CASES = {
    "no magic": (lambda h: b"ZSTD" * 9, r"byte 0: expected the magic"),
    "a later version": (lambda h: h("ulp")[:8] + b"\x02" + h("ulp")[9:], r"byte 8: expected version 1, found 2"),
    "a huge header": (lambda h: MAGIC + struct.pack("<BHB", 1, 65535, 0), r"byte 9: expected a header of at most"),
    "a header that is no JSON": (lambda h: MAGIC + struct.pack("<BHB", 1, 4, 0) + b"\xff{]}", r"expected a header of JSON"),
    "deep JSON": (lambda h: MAGIC + struct.pack("<BHB", 1, 4096, 0) + b"[" * 4096, r"expected a header of JSON"),
    "an unknown codec": (lambda h: h("zip"), r"header codec: expected one of ulp"),
    "a negative size": (lambda h: h("ulp", new=-1), r"header new: expected a size"),
    "a size beyond 64 bits": (lambda h: h("ulp", new=1 << 70), r"header new: expected a size"),
    "a size that is no number": (lambda h: h("ulp", old=True), r"header old: expected a size"),
    "another size": (lambda h: h("ulp", new=SIZE + 1), r"header new: expected a patch to 100000 bytes, found 100001"),
    "no base": (lambda h: h("ulp", old=None, base=""), r"header old: expected a base"),
    "a base it does not need": (lambda h: h("planes"), r"header old: expected no base for codec planes"),
    "a wrong base": (lambda h: h("ulp", base="0" * 32), r"header base: expected the base the patch was made for"),
    "a base of another size": (lambda h: h("ulp", old=5), r"header base: expected the base"),
    "no segment table": (lambda h: h("ulp"), r"expected 4 bytes of segment count, found 0"),
    "too many segments": (lambda h: h("ulp") + struct.pack("<II", 1 << 31, 10), r"expected at most 65536 segments"),
    "a table that is a bomb": (
        lambda h: h("ulp") + struct.pack("<II", 1, len(bomb(1 << 24))) + bomb(1 << 24),
        r"expected one zstd frame of 24 bytes, found more",
    ),
    "an unknown kind": (lambda h: h("ulp") + table((9, 1, SIZE, 0)), r"segment 0: expected a kind"),
    "an unknown dtype": (lambda h: h("ulp") + table((1, 99, SIZE, 0)), r"segment 0: expected a known dtype, found 99"),
    "an empty segment": (lambda h: h("ulp") + table((0, 0, 0, 0)), r"segment 0: expected a size"),
    "a segment too long": (lambda h: h("ulp") + table((0, 0, SIZE + 1, 0)), r"segment 0: expected a size up to 100000"),
    "a segment that overflows": (lambda h: h("ulp") + table((1, 4, (1 << 64) - 1, 0)), r"segment 0: expected a size"),
    "half a number": (lambda h: h("ulp") + table((1, 1, SIZE - 1, 0)), r"segment 0: expected a size .* in whole numbers"),
    "a base out of range": (lambda h: h("ulp") + table((1, 4, SIZE, 1)), r"segment 0: expected a base within 100000"),
    "a base that overflows": (lambda h: h("ulp") + table((1, 4, SIZE, (1 << 64) - 1)), r"segment 0: expected a base within"),
    "sizes that do not add up": (lambda h: h("ulp") + table((1, 4, SIZE - 1, 0)), r"sizes that add up to 100000"),
    "an unknown block": (lambda h: h("ulp") + table((1, 4, SIZE, 0)) + b"\x09", r"expected a block kind .* found 9"),
    "a block that needs a base": (lambda h: h("ulp") + table((2, 4, SIZE, 0)) + b"\x00", r"expected a block kind that suits"),
    "an unknown plane": (lambda h: h("ulp") + table((1, 4, SIZE, 0)) + MOVED + b"\x07", r"expected a plane method up to 4, found 7"),
    "a plane longer than its numbers": (
        lambda h: h("ulp") + table((1, 4, SIZE, 0)) + MOVED + b"\x02" + struct.pack("<I", SIZE + 1),
        r"expected a plane of at most 100000 bytes",
    ),
    "a plane that is a bomb": (
        lambda h: h("ulp") + table((1, 4, SIZE, 0)) + MOVED + b"\x02" + struct.pack("<I", len(bomb(1 << 28))) + bomb(1 << 28),
        r"expected one zstd frame of 100000 bytes, found more",
    ),
    "class edges that fall": (lambda h: h("ulp") + table((1, 1, SIZE, 0)) + MOVED + b"\x02\x09\x08", r"class edges that rise"),
    "too many classes": (lambda h: h("ulp") + table((1, 1, SIZE, 0)) + MOVED + b"\xff", r"expected fewer than 16 class edges"),
    "an unknown window": (lambda h: h("patch-from") + window(kind=8), r"expected a window kind up to 2, found 8"),
    "a window of nothing": (lambda h: h("patch-from") + window(size=0), r"expected a window of 100000 to 100000 bytes, found 0"),
    "a window too long": (lambda h: h("patch-from") + window(size=SIZE + 1), r"expected a window of"),
    "a thousand small windows": (lambda h: h("patch-from") + window(size=100), r"expected a window of"),
    "a stretch out of range": (
        lambda h: h("patch-from") + window(offset=SIZE - 5, stretch=6), r"expected a stretch inside 100000 bytes",
    ),
    "a stretch that overflows": (
        lambda h: h("patch-from") + window(offset=(1 << 64) - 1, stretch=10), r"expected a stretch inside",
    ),
    "a copy shorter than its window": (
        lambda h: h("patch-from") + window(kind=0, stretch=5), r"expected a copy as long as its window",
    ),
    "a window that is a bomb": (
        lambda h: h("patch-from") + window(payload=bomb(1 << 30)), r"expected a zstd frame of at most 100000 bytes",
    ),
    "a window too short": (lambda h: h("patch-from") + window(payload=zstd.compress(b"x")), r"expected one whole zstd frame"),
    "two frames": (lambda h: h("patch-from") + window(payload=GOOD + GOOD), r"expected one whole zstd frame"),
    "a frame that does not end": (lambda h: h("patch-from") + window(payload=GOOD[:-3]), r"expected one whole zstd frame"),
    "a payload beyond measure": (
        lambda h: h("patch-from") + struct.pack("<BQIII", 1, 0, 0, SIZE, 0xFFFFFFFF), r"expected a payload of at most",
    ),
    "a window of a wide frame": (
        lambda h: h("patch-from") + window(payload=b"\x28\xb5\x2f\xfd\x00\xb0" + GOOD[6:]), r"expected a zstd frame made for",
    ),
    "no hdiff patch": (lambda h: h("hdiff") + window(2, 0, SIZE, payload=GOOD), r"expected an uncompressed hdiff patch"),
    "an hdiff patch to another size": (
        lambda h: h("hdiff") + window(2, 0, SIZE, payload=zstd.compress(b"HDIFF13&\0\xff\xff\xff\x7f\x01" + bytes(9))),
        r"expected an hdiff patch from 100000 to 100000 bytes",
    ),
    "an hdiff patch without sizes": (
        lambda h: h("hdiff") + window(2, 0, SIZE, payload=zstd.compress(b"HDIFF13&\0\xff")), r"expected two sizes",
    ),
    "a broken hdiff patch": (
        lambda h: h("hdiff") + window(2, 0, SIZE, payload=zstd.compress(b"HDIFF13&\0\x86\x8d\x20\x86\x8d\x20" + b"\xff" * 40)),
        r"expected an hdiff patch for this base",
    ),
    "more after the end": (lambda h: h("patch-from") + window(payload=GOOD) + b"\0", r"expected the end, found more bytes"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_bad_patch_is_refused_by_name(case, base):
    make, words = CASES[case]
    with pytest.raises(Refused, match=words) as refusal:
        apply(base, make(lambda which, **changed: header(base, which, **changed)))
    assert refusal.value.reason == "DeltaInvalid"


def test_what_the_cases_are_made_of_is_good(base):
    assert apply(base, header(base, "patch-from") + window(payload=GOOD)) == bytes(SIZE)
    assert apply(base, header(base) + table((1, 4, SIZE, 0)) + MOVED + b"\x00") == base.read_bytes()


@pytest.mark.parametrize("name", codec.NAMES)
def test_a_patch_cut_anywhere_is_refused(name, tmp_path):
    before = weights(count=400)
    old = safetensors(tmp_path / "old.safetensors", [("w", "F32", before)])
    new = safetensors(tmp_path / "new.safetensors", [("w", "F32", trained(before))])
    patch = tmp_path / "patch"
    codec.encode(name, old, new, patch)
    content = patch.read_bytes()
    for end in itertools.chain(range(min(len(content), 150)), range(150, len(content), 37)):
        patch.write_bytes(content[:end])
        with pytest.raises(Refused):
            rebuild(old, patch, new.stat().st_size)


def test_a_bomb_takes_no_memory(base):
    patch = header(base, "patch-from") + window(payload=bomb(1 << 30))
    tracemalloc.start()
    try:
        with pytest.raises(Refused):
            apply(base, patch)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_base_that_differs_where_the_patch_copies_from_is_noticed(tmp_path, base):
    new = tmp_path / "new"
    new.write_bytes(base.read_bytes()[5000:] + b"more" * 1250)
    codec.encode("patch-from", base, new, tmp_path / "patch")
    content = bytearray(base.read_bytes())
    content[50_000] ^= 1
    base.write_bytes(content)
    with pytest.raises(Refused, match=r"header base|expected a zstd frame made for this base"):
        rebuild(base, tmp_path / "patch", SIZE)
