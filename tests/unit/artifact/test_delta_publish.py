"""Making deltas: which files belong together, what is kept, what is rounded, and what is said about it."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edgemodel.artifact import media_types
from edgemodel.artifact.delta import codec
from edgemodel.artifact.delta_accuracy import OutputDifference, check
from edgemodel.artifact.delta_publish import LocalFile, Maker, Version, pair
from edgemodel.artifact.delta_quantize import round_update
from edgemodel.artifact.delta_report import report
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.manifest import Descriptor
from edgemodel.artifact.store import hash_file
from edgemodel.errors import Refused

DTYPES = [np.float32, np.float16]


def named(path: str, content: str, media_type: str = media_types.MODEL_WEIGHT) -> LocalFile:
    data = content.encode()
    return LocalFile(path, Descriptor(media_type, Digest.of(data), len(data)), Path(path))


@pytest.mark.parametrize(
    ("new", "old", "pairs"),
    [
        ([("a", "1")], [("a", "1")], []),
        ([("a", "2")], [("a", "1")], [("a", "a")]),
        ([("b", "1")], [("a", "1")], []),
        ([("v2.onnx", "2"), ("v2.data", "3")], [("v1.onnx", "1"), ("v1.data", "0")],
         [("v2.onnx", "v1.onnx"), ("v2.data", "v1.data")]),
        ([("a", "2"), ("b", "3")], [("a", "1")], [("a", "a"), ("b", None)]),
        ([("a", "2"), ("b", "1")], [("a", "1")], [("a", "a")]),
        ([("c.bin", "2")], [("a.bin", "1"), ("b.txt", "0")], [("c.bin", "a.bin")]),
        ([("c.bin", "2"), ("a.bin", "1")], [("a.bin", "1")], [("c.bin", None)]),
    ],
)  # fmt: skip
def test_files_that_belong_together(new, old, pairs):
    found = pair([named(*one) for one in new], [named(*one) for one in old])
    assert [(after.path, before.path if before else None) for after, before in found] == pairs


def test_types_are_not_mixed():
    found = pair(
        [named("c.bin", "2", media_types.MODEL_DOC)], [named("a.bin", "1", media_types.MODEL_WEIGHT)]
    )
    assert [before for _, before in found] == [None]


def version(
    name: str, folder: Path, tensors: dict[str, np.ndarray], file: str = "model.safetensors"
) -> Version:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / file)
    return on_disk(name, folder / file)


def on_disk(name: str, path: Path) -> Version:
    hasher = hash_file(path)
    blob = Descriptor(media_types.MODEL_WEIGHT, hasher.digest(), hasher.size)
    return Version(name, (LocalFile(path.name, blob, path),))


@pytest.fixture(params=DTYPES, ids=["fp32", "fp16"])
def tuned(request, tmp_path):
    """An old version and one that was tuned a little, of one type of float; one tensor stayed."""
    random = np.random.default_rng(3)
    old = {
        "a": (random.standard_normal((300, 257)) * 0.02).astype(request.param),
        "b": random.standard_normal(4096).astype(request.param),
        "steps": np.arange(2000, dtype=np.int8),
    }
    noise = random.standard_normal((300, 257)).astype(np.float32) * 2e-4
    new = {**old, "a": (old["a"].astype(np.float32) + noise).astype(request.param)}
    return version("old", tmp_path / "old", old), version("new", tmp_path / "new", new)


@pytest.mark.parametrize("bits", [8, 6, 4])
def test_rounding_moves_each_weight_by_half_a_step_at_most(tuned, tmp_path, bits):
    old, new = tuned
    (rounded,) = round_update(old, new, bits, tmp_path / "rounded")
    trained, got, before = (load_file(f) for f in (new.files[0].file, rounded.file, old.files[0].file))
    assert (rounded.tensors, rounded.weights) == (1, 300 * 257)
    wide = {n: x["a"].astype(np.float64) for n, x in (("t", trained), ("g", got), ("b", before))}
    step = rounded.largest_update / (2 ** (bits - 1) - 1)
    # Half a step, and half of what the type rounds to.
    bound = step / 2 + float(np.spacing(np.abs(trained["a"]).max())) / 2
    assert np.abs(wide["t"] - wide["g"]).max() <= bound * 1.001
    assert rounded.largest == np.abs(wide["t"] - wide["g"]).max() > 0
    assert rounded.largest_update == np.abs(wide["t"] - wide["b"]).max()
    for name in ("b", "steps"):
        assert got[name].tobytes() == trained[name].tobytes()


def test_rounding_again_gives_the_same_bytes_and_changes_no_input(tuned, tmp_path):
    old, new = tuned
    before = [hash_file(v.files[0].file).digest() for v in tuned]
    (one,), (other,) = (round_update(old, new, 4, tmp_path / str(number)) for number in range(2))
    assert one.file.read_bytes() == other.file.read_bytes()
    assert [hash_file(v.files[0].file).digest() for v in tuned] == before


def test_a_rounded_delta_is_several_times_smaller_and_exact(tuned, tmp_path):
    old, new = tuned
    ((exact,),) = Maker(tmp_path / "exact", only=("ulp",)).make(new, [old])
    (rounded,) = round_update(old, new, 4, tmp_path / "rounded")
    after = on_disk("rounded", rounded.file)
    steps = {after.files[0].descriptor.digest: rounded.steps}
    ((delta,),) = Maker(tmp_path / "patches", steps, only=("ulp",)).make(after, [old])
    assert delta.layer is not None
    assert delta.patch is not None
    fp32 = load_file(new.files[0].file)["a"].dtype == np.float32
    assert delta.layer.descriptor.size < exact.layer.descriptor.size * (0.4 if fp32 else 1.0)
    content = bytearray()
    codec.apply(old.files[0].file, delta.patch, content.extend, size=after.files[0].descriptor.size)
    assert content == rounded.file.read_bytes()


@pytest.mark.parametrize("spoiled", [np.nan, np.inf])
def test_weights_that_are_no_numbers_stay(tmp_path, spoiled):
    old = {"a": np.zeros(2048, np.float32), "b": np.zeros(2048, np.float32)}
    new = {"a": np.full(2048, 1e-3, np.float32), "b": np.full(2048, 1e-3, np.float32)}
    new["a"][7] = spoiled
    versions = version("old", tmp_path / "old", old), version("new", tmp_path / "new", new)
    (rounded,) = round_update(*versions, 4, tmp_path / "rounded")
    assert load_file(rounded.file)["a"].tobytes() == new["a"].tobytes()
    assert rounded.tensors == 1


def test_nothing_to_round_is_nothing_done(tmp_path):
    old = version("old", tmp_path / "old", {"a": np.zeros(2048, np.float32)})
    for number, other in enumerate(({"b": np.ones(100, np.float32)}, {"a": np.ones(2048, np.int8)})):
        new = version("new", tmp_path / f"new{number}", other)
        assert round_update(old, new, 4, tmp_path / f"rounded{number}") == []


def test_weights_without_a_sign_keep_their_zeros(tmp_path):
    """-0.0 + 0 is 0.0: a restored weight that differs in a bit would be another file."""
    old = {"a": np.full(4096, -0.0, np.float32)}
    new = {"a": old["a"].copy()}
    new["a"][::2] = 1e-3
    versions = version("old", tmp_path / "old", old), version("new", tmp_path / "new", new)
    (rounded,) = round_update(*versions, 8, tmp_path / "rounded")
    after = on_disk("rounded", rounded.file)
    steps = {after.files[0].descriptor.digest: rounded.steps}
    ((delta,),) = Maker(tmp_path / "patches", steps, only=("ulp",)).make(after, [versions[0]])
    assert delta.layer is not None, delta.attempts


def test_steps_that_are_not_the_right_ones_cost_size_and_nothing_else(tuned, tmp_path):
    old, new = tuned
    (rounded,) = round_update(old, new, 4, tmp_path / "rounded")
    steps = {new.files[0].descriptor.digest: rounded.steps}  # of another file
    ((delta,),) = Maker(tmp_path / "patches", steps, only=("ulp",)).make(new, [old])
    content = bytearray()
    codec.apply(old.files[0].file, delta.patch, content.extend, size=new.files[0].descriptor.size)
    assert content == new.files[0].file.read_bytes()


def test_a_small_file_needs_no_delta(tmp_path):
    old, new = (version(str(n), tmp_path / str(n), {"a": np.full(100, n, np.int8)}) for n in range(2))
    ((outcome,),) = Maker(tmp_path / "patches").make(new, [old])
    assert outcome.layer is None
    assert "sent whole" in outcome.why


def test_files_without_tensors_get_the_best_byte_codec(tmp_path):
    random = np.random.default_rng(5)
    content = random.bytes(300_000)
    (tmp_path / "old.bin").write_bytes(content)
    (tmp_path / "new.bin").write_bytes(content[:1000] + b"inserted" + content[1000:])
    old, new = on_disk("old", tmp_path / "old.bin"), on_disk("new", tmp_path / "new.bin")
    ((outcome,),) = Maker(tmp_path / "patches").make(new, [old])
    assert outcome.layer.codec == "patch-from"
    assert outcome.layer.descriptor.size < 1000
    notes = {attempt.codec: attempt.note for attempt in outcome.attempts}
    assert notes["ulp"] == "no tensors in it"
    assert "small enough" in notes["hdiff"]


def test_two_old_versions_with_one_file_share_a_delta(tuned, tmp_path):
    old, new = tuned
    groups = Maker(tmp_path / "patches", only=("ulp",)).make(new, [old, Version("older", old.files)])
    assert groups[0] == groups[1]
    assert len(list((tmp_path / "patches").iterdir())) == 1


def test_the_report_says_what_moved_and_how_far(tmp_path):
    old = {
        "same": np.ones(500, np.float32),
        "float": np.ones(500, np.float32),
        "int": np.zeros(500, np.int8),
        "gone": np.ones(64, np.float16),
    }
    new = {
        "same": old["same"],
        "float": old["float"].copy(),
        "int": old["int"].copy(),
        "fresh": np.ones(900, np.float32),
    }
    new["float"][:50] = np.nextafter(np.float32(1), np.float32(2))
    new["int"][:5] = -2
    versions = version("old", tmp_path / "old", old), version("new", tmp_path / "new", new)
    (file,) = report(*versions, tmp_path / "patches").files
    found = {tensor.name: tensor for tensor in file.tensors}
    assert {name: tensor.status for name, tensor in found.items()} == {
        "same": "same", "float": "changed", "int": "changed", "gone": "gone", "fresh": "new",
    }  # fmt: skip
    moved = found["float"]
    assert (moved.changed, moved.largest_steps, moved.mean_steps) == (0.1, 1, 0.1)
    assert moved.largest == pytest.approx(2**-23)
    assert moved.mean == pytest.approx(2**-23 / 10)
    whole = found["int"]
    assert (whole.changed, whole.largest, whole.largest_steps, whole.mean_steps) == (0.01, 2.0, 2, 0.02)


@pytest.mark.parametrize(
    ("differences", "passes"),
    [
        ([OutputDifference("y", 0.99995, 0.1)], True),
        ([OutputDifference("y", 0.9999, 0.1)], True),
        ([OutputDifference("y", 1.0, 0.0), OutputDifference("z", 0.9998, 0.1)], False),
        ([OutputDifference("y", float("nan"), 0.1)], False),
        ([], False),
    ],
)
def test_the_gate(differences, passes):
    if passes:
        check(differences, 0.9999)
        return
    with pytest.raises(Refused, match=r"0\.9999"):
        check(differences, 0.9999)
