"""Every codec gives back every file, bit by bit, and is as small as it is meant to be."""

import numpy as np
import pytest

from edgemodel.artifact.delta import codec
from edgemodel.artifact.delta.numbers import DTYPES
from tests.unit.artifact.delta.models import onnx, patched, rebuild, safetensors, trained, weights


@pytest.mark.parametrize("name", codec.NAMES)
@pytest.mark.parametrize("write", [safetensors, onnx], ids=["safetensors", "onnx"])
def test_each_codec_gives_back_a_trained_model(name, write, tmp_path):
    before = weights()
    old = write(tmp_path / f"old.{write.__name__}", [("w", "F32", before), ("b", "I8", weights("I8"))])
    new = write(
        tmp_path / f"new.{write.__name__}", [("w", "F32", trained(before)), ("b", "I8", weights("I8"))]
    )
    patch = patched(name, old, new, tmp_path)
    assert len(patch) < new.stat().st_size


@pytest.mark.parametrize("dtype", [dtype.name for dtype in DTYPES.values()])
def test_numbers_of_every_kind_are_subtracted(dtype, tmp_path):
    before = weights(dtype)
    old = safetensors(tmp_path / "old.safetensors", [("w", dtype, before)])
    new = safetensors(tmp_path / "new.safetensors", [("w", dtype, trained(before, dtype))])
    whole = patched("planes", None, new, tmp_path)
    assert len(patched("ulp", old, new, tmp_path)) < 0.8 * len(whole)


@pytest.mark.parametrize("dtype", [dtype.name for dtype in DTYPES.values()])
@pytest.mark.parametrize("name", ["ulp", "planes"])
def test_every_bit_pattern_comes_back(dtype, name, tmp_path):
    generator = np.random.default_rng(3)
    width = weights(dtype).itemsize
    patterns = [generator.integers(0, 256, 4096 * width, np.uint8).view(f"<u{width}") for _ in range(2)]
    old, new = (safetensors(tmp_path / f"{n}.safetensors", [("w", dtype, p)]) for n, p in enumerate(patterns))
    patched(name, old if name == "ulp" else None, new, tmp_path)


def test_same_weights_with_new_metadata_cost_next_to_nothing(tmp_path):
    tensors = [(f"w{n}", "F32", weights(count=100_000, seed=n)) for n in range(4)]
    old = safetensors(tmp_path / "old.safetensors", tensors, "1")
    new = safetensors(tmp_path / "new.safetensors", tensors, "two, and longer")
    assert len(patched("ulp", old, new, tmp_path)) < new.stat().st_size / 1000


def test_tensors_are_found_where_they_moved_to_and_under_new_names(tmp_path):
    a, b, c = (weights(count=30_000 + n, seed=n) for n in range(3))
    old = safetensors(tmp_path / "old.safetensors", [("a", "F32", a), ("b", "F32", b), ("c", "F32", c)])
    new = safetensors(tmp_path / "new.safetensors", [("c", "F32", c), ("renamed", "F32", b), ("a", "F32", a)])
    assert len(patched("ulp", old, new, tmp_path)) < 1000


def test_external_data_of_another_layout_is_subtracted_by_the_graphs_beside_it(tmp_path):
    a, b = weights(count=30_000, seed=1), weights(count=20_000, seed=2)
    for folder in ("old", "new"):
        (tmp_path / folder).mkdir()
    graphs = {
        "old": onnx(
            tmp_path / "old/g", [("a", "F32", a), ("b", "F32", b)], external=("w", {"a": 0, "b": a.nbytes})
        ),
        "new": onnx(
            tmp_path / "new/g",
            [("a", "F32", a), ("b", "F32", b)],
            external=("w", {"b": 4096, "a": 65536 * 2}),
        ),
    }
    (tmp_path / "old/w").write_bytes(a.tobytes() + b.tobytes())
    moved = bytearray(65536 * 2 + a.nbytes)
    moved[4096 : 4096 + b.nbytes] = trained(b).tobytes()
    moved[65536 * 2 :] = a.tobytes()
    (tmp_path / "new/w").write_bytes(moved)
    beside = {
        side: {"sub/model.onnx": graph, "sub/w": tmp_path / side / "w"} for side, graph in graphs.items()
    }
    patch = patched(
        "ulp", tmp_path / "old/w", tmp_path / "new/w", tmp_path,
        old_beside=beside["old"], new_beside=beside["new"],
    )  # fmt: skip
    assert len(patch) < 0.5 * b.nbytes


def test_a_tensor_without_an_older_one_is_sent_as_planes(tmp_path):
    old = safetensors(tmp_path / "old.safetensors", [("a", "F32", weights())])
    new = safetensors(
        tmp_path / "new.safetensors",
        [("a", "F32", weights()), ("more", "F32", weights(count=50_000, seed=9))],
    )
    assert len(patched("ulp", old, new, tmp_path)) < 0.92 * 200_000


@pytest.mark.parametrize("name", codec.NAMES)
@pytest.mark.parametrize(
    ("before", "after"),
    [(b"", b""), (b"", b"new"), (b"old", b""), (b"old", b"new"), (b"x" * 300, b"x" * 300)],
)
def test_small_and_empty_files(name, before, after, tmp_path):
    (tmp_path / "old").write_bytes(before)
    (tmp_path / "new").write_bytes(after)
    patched(name, tmp_path / "old", tmp_path / "new", tmp_path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["patch-from", "ulp"])
def test_a_large_file_whose_bytes_moved_is_patched_window_by_window(name, tmp_path):
    content = np.random.default_rng(4).integers(0, 256, 26 << 20, np.uint8).tobytes()
    (tmp_path / "old").write_bytes(content)
    (tmp_path / "new").write_bytes(b"in front" * 1000 + content[: 20 << 20] + content[(20 << 20) + 77 :])
    assert len(patched(name, tmp_path / "old", tmp_path / "new", tmp_path)) < 300_000


def test_hdiff_finds_what_moved_within_quantised_weights(tmp_path):
    before = weights("I8", 100_000)
    (tmp_path / "old").write_bytes(before.tobytes())
    (tmp_path / "new").write_bytes(before[50_000:].tobytes() + trained(before[:50_000], "I8").tobytes())
    assert len(patched("hdiff", tmp_path / "old", tmp_path / "new", tmp_path)) < 20_000


def test_the_same_files_give_the_same_patch(tmp_path):
    before = weights()
    old = safetensors(tmp_path / "old.safetensors", [("w", "F32", before)])
    new = safetensors(tmp_path / "new.safetensors", [("w", "F32", trained(before))])
    for name in codec.NAMES:
        assert patched(name, old, new, tmp_path) == patched(name, old, new, tmp_path)


def test_pieces_are_never_more_than_the_file(tmp_path):
    (tmp_path / "old").write_bytes(bytes(1000))
    (tmp_path / "new").write_bytes(bytes(2000))
    patched("patch-from", tmp_path / "old", tmp_path / "new", tmp_path)
    with pytest.raises(Exception, match=r"header new: expected a patch to 1999 bytes, found 2000"):
        rebuild(tmp_path / "old", tmp_path / "patch.patch-from", 1999)


def test_encode_says_which_codecs_there_are(tmp_path):
    (tmp_path / "f").write_bytes(b"x")
    with pytest.raises(ValueError, match="expected a codec of ulp, patch-from, hdiff, planes, found 'zip'"):
        codec.encode("zip", None, tmp_path / "f", tmp_path / "p")
    with pytest.raises(ValueError, match="expected a base for codec ulp"):
        codec.encode("ulp", None, tmp_path / "f", tmp_path / "p")
