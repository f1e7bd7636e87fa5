"""Archives of golden samples: what is read, and that nothing else comes out of strange bytes than one error."""

import io
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference_server.errors import SamplesUnreadable
from inference_server.files.golden_samples import MAX_BYTES, Archive, Tolerance
from tests.unit.server.golden_archive import entries, npz, tar

X = np.arange(6, dtype=np.float32).reshape(2, 3)
GOOD = entries({"one": ({"x": X}, {"y": X * 2})}, {"default": {"absolute": 0.5}})


@pytest.fixture
def archive(tmp_path):
    def read(content: bytes) -> Archive:
        (tmp_path / "samples.tar").write_bytes(content)
        return Archive(tmp_path / "samples.tar")

    return read


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (X, X),
        (X[:, ::-1].copy(order="F"), X[:, ::-1]),
        (X.astype(">f4"), X),
        (np.array(3, np.int64), np.array(3, np.int64)),
        (np.empty((0, 4), np.uint8), np.empty((0, 4), np.uint8)),
        (np.array([True, False]), np.array([True, False])),
        (np.array(["a", "grün"]), np.array(["a", "grün"], object)),
        (np.array([b"a", "grün".encode()]), np.array(["a", "grün"], object)),
    ],
)
def test_arrays_come_out_as_they_went_in(archive, array, expected):
    inputs, outputs = archive(tar(entries({"s": ({"x": array}, {"y": array})}))).sample("s")
    for found in (inputs["x"], outputs["y"]):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert found.tolist() == expected.tolist()


def test_archives_made_by_hand_with_tar_are_read(archive):
    found = archive(tar({f"./{name}": data for name, data in GOOD.items()}))
    assert found.names == ["one"]
    compressed = io.BytesIO()
    np.savez_compressed(compressed, x=X)
    assert archive(tar({**GOOD, "one.inputs.npz": compressed.getvalue()})).sample("one")[0]["x"].size == 6


def test_tolerances_of_an_output_come_before_the_default_and_that_before_the_datatypes(archive):
    said = {"default": {"relative": 0.5}, "outputs": {"y": {"absolute": 7}}}
    tolerances = archive(tar(entries({"s": ({"x": X}, {"y": X})}, said))).tolerances
    assert tolerances.of("y", "FP32") == Tolerance(7, 0.5)
    assert tolerances.of("z", "FP32") == Tolerance(1e-4, 0.5)
    assert tolerances.of("z", "INT64") == Tolerance(0, 0.5)
    plain = archive(tar(entries({"s": ({"x": X}, {"y": X})}))).tolerances
    assert plain.of("y", "INT64") == Tolerance(0, 0)
    assert plain.of("y", "FP16") == Tolerance(1e-2, 1e-2)
    assert plain.of("y", "BF16") == Tolerance(2e-2, 2e-2)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ([], "expected an object"),
        ({"defaults": {}}, "expected default and outputs, found 'defaults'"),
        ({"default": {"relativ": 1}}, "default: expected absolute and relative"),
        ({"default": {"absolute": -1}}, "default.absolute: expected a number, 0 or more, found -1"),
        ({"default": {"absolute": True}}, "default.absolute"),
        ({"outputs": {"y": {"relative": 2}}}, "outputs.y.relative: expected a number, up to 1, found 2"),
        ({"outputs": {"y": {"relative": "0.1"}}}, "outputs.y.relative"),
        ({"outputs": [1]}, "outputs: expected an object"),
    ],
)
def test_tolerances_that_nobody_can_mean_name_the_member(archive, said, words):
    with pytest.raises(SamplesUnreadable, match=words):
        archive(tar(entries({"s": ({"x": X}, {"y": X})}, said)))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read"),
        (b"no tar" * 200, "cannot be read"),
        (tar({}), "expected at least one <name>.inputs.npz, found none"),
        (tar({"tolerances.json": b"{}"}), "found none"),
        (tar({**GOOD, "tolerances.json": b"{"}), "tolerances.json: expected JSON"),
        (tar({"one.inputs.npz": b""}), "has one.inputs.npz and no one.outputs.npz"),
        (tar({"one.outputs.npz": b""}), "has one.outputs.npz and no one.inputs.npz"),
        (tar({**GOOD, "readme": b""}), "entry 'readme': expected <name>.inputs.npz"),
        (tar({"../one.inputs.npz": b""}), "entry '../one.inputs.npz'"),
        (tar({"a/b.inputs.npz": b""}), "entry 'a/b.inputs.npz'"),
        (tar({**GOOD, "./one.inputs.npz": b""}), "has two entries"),
        (tar(dict.fromkeys(GOOD, b""), tarfile.SYMTYPE), "is no plain file"),
        (tar(dict.fromkeys(GOOD, b""), tarfile.GNUTYPE_SPARSE), "cannot be read|no plain file"),
        (tar({f"{n}.{e}puts.npz": b"" for n in range(65) for e in ("in", "out")}), "more than 64 samples"),
        (bytes(MAX_BYTES + 1), "at most 16777216 are read"),
    ],
)
def test_what_is_no_archive_of_samples_is_told(archive, content, words):
    with pytest.raises(SamplesUnreadable, match=words):
        archive(content)


def zipped(name: str, content: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", compression) as packed:
        packed.writestr(name, content)
    return target.getvalue()


def npy(shape: str, data: bytes, dtype: str = "'<f4'") -> bytes:
    header = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no zip", "one.inputs.npz"),
        (zipped("x.txt", b""), "which is no .npy"),
        (zipped("x.npy", b""), "x.npy|magic"),
        (zipped("x.npy", npy("(1 << 40,)", b"")), "one.inputs.npz"),
        (zipped("x.npy", npy("(1099511627776,)", b"abcd")), "found 4 bytes"),
        (zipped("x.npy", npy("(-1, -1)", b"abcd")), "sizes from 0 on"),
        (zipped("x.npy", npy("(1,)", b"abcdefgh")), "found 8 bytes"),
        (zipped("x.npy", npy("(" + "1, " * 33 + ")", b"abcd")), "at most 32 sizes"),
        (zipped("x.npy", npy("(1,)", b"abcdefgh", "'|O'")), "found object"),
        (zipped("x.npy", npy("(1,)", b"abcdefgh", "[('a', '<f8')]")), "expected numbers"),
        (zipped("x.npy", npy("(1,)", b"", "'<U0'")), "expected numbers"),
        (zipped("x.npy", bytes(MAX_BYTES + 1), zipfile.ZIP_DEFLATED), "unpack to more than"),
        (zipped("x.npy", bytes(10_000), zipfile.ZIP_LZMA), "one.inputs.npz"),
    ],
)
def test_arrays_that_are_none_are_told_and_not_allocated(archive, content, words):
    found = archive(tar({**GOOD, "one.inputs.npz": content}))
    with pytest.raises(SamplesUnreadable, match=words):
        found.sample("one")


def test_objects_are_never_unpickled(archive):
    pickled = io.BytesIO()
    np.savez(pickled, x=np.array([{"a": 1}], object))
    with pytest.raises(SamplesUnreadable, match="found object"):
        archive(tar({**GOOD, "one.inputs.npz": pickled.getvalue()})).sample("one")


def test_a_zip_that_lies_about_its_size_gives_no_more_than_it_says(archive):
    """A bomb with a small size in its directory: 64 MB of zeros, said to be 100 bytes."""
    content = bytearray(zipped("x.npy", bytes(64 << 20), zipfile.ZIP_DEFLATED))
    for start in (content.find(b"PK\x03\x04") + 22, content.find(b"PK\x01\x02") + 24):
        content[start : start + 4] = (100).to_bytes(4, "little")
    with pytest.raises(SamplesUnreadable):
        archive(tar({**GOOD, "one.inputs.npz": bytes(content)})).sample("one")


def test_all_samples_together_have_one_cap(archive):
    half = npz(x=np.zeros(MAX_BYTES // 12, np.float32))
    packed = io.BytesIO()
    with np.load(io.BytesIO(half)) as arrays:
        np.savez_compressed(packed, **arrays)
    found = archive(tar({f"{n}.{e}puts.npz": packed.getvalue() for n in range(2) for e in ("in", "out")}))
    found.sample("0")
    with pytest.raises(SamplesUnreadable, match="all samples unpack to more than"):
        found.sample("1")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=12), st.data())
def test_damaged_archives_raise_the_one_error(tmp_path, changes, data):
    content = bytearray(tar(GOOD))
    for place, value in changes:
        content[place] = value
    path = tmp_path / "samples.tar"
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    try:
        archive = Archive(path)
        for name in archive.names:
            archive.sample(name)
    except SamplesUnreadable:
        return
