"""Golden samples on their way from a folder into an artifact: which files, which bytes, and what is refused."""

import os
import tarfile

import numpy as np
import pytest

from edgemodel.artifact.golden_samples import Listing, collect, listing, pack
from edgemodel.artifact.manifest import MAX_SAMPLES_BYTES
from edgemodel.errors import Refused, Stalled


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "golden"
    folder.mkdir()
    for name in ("b", "a"):
        np.savez(folder / f"{name}.inputs.npz", x=np.ones(3, np.float32))
        np.savez(folder / f"{name}.outputs.npz", y=np.ones(3, np.float32))
    (folder / "tolerances.json").write_text('{"default": {"absolute": 0.1}}')
    (folder / ".DS_Store").write_text("")
    return folder


def test_a_folder_becomes_an_archive_and_that_the_same_samples(folder, tmp_path):
    golden = collect(folder, tmp_path / "unused")
    assert [sample.name for sample in golden.samples] == ["a", "b"]
    assert golden.whole
    pack(golden, tmp_path / "samples.tar")
    assert listing(tmp_path / "samples.tar") == Listing(("a", "b"), {"default": {"absolute": 0.1}})
    again = collect(tmp_path / "samples.tar", tmp_path / "unpacked")
    pack(again, tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == (tmp_path / "samples.tar").read_bytes()


def test_the_archive_knows_neither_time_nor_owner(folder, tmp_path):
    pack(collect(folder, tmp_path), tmp_path / "one.tar")
    for path in folder.iterdir():
        os.utime(path, (1, 1))
        path.chmod(0o600)
    pack(collect(folder, tmp_path), tmp_path / "other.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "other.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as packed:
        assert packed.getnames() == [
            "a.inputs.npz", "a.outputs.npz", "b.inputs.npz", "b.outputs.npz", "tolerances.json",
        ]  # fmt: skip
        assert {(entry.mtime, entry.uid, entry.mode) for entry in packed} == {(0, 0, 0o444)}


def test_outputs_may_be_left_to_the_model(folder, tmp_path):
    (folder / "a.outputs.npz").unlink()
    golden = collect(folder, tmp_path)
    assert not golden.whole
    assert [sample.outputs is None for sample in golden.samples] == [True, False]
    assert not any(sample.outputs for sample in golden.unanswered().samples)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("README.md", "is none of golden samples; expected <name>.inputs.npz"),
        ("c.npz", "is none of golden samples"),
        ("c.outputs.npz", "expected the inputs, inputs.npz, beside it"),
        ("-c.inputs.npz", "expected a name of up to 63"),
        ("c d.inputs.npz", "expected a name of up to 63"),
        (f"{'c' * 64}.inputs.npz", "expected a name of up to 63"),
    ],
)
def test_what_is_no_sample_is_named(folder, tmp_path, name, words):
    (folder / name).write_bytes(b"")
    with pytest.raises(Stalled, match=words) as caught:
        collect(folder, tmp_path)
    assert name in caught.value.message


def test_folders_in_the_folder_are_named(folder, tmp_path):
    (folder / "more").mkdir()
    with pytest.raises(Stalled, match="more: is no file"):
        collect(folder, tmp_path)


def test_none_and_too_many(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(Stalled, match="expected 1 to 64 samples"):
        collect(tmp_path / "empty", tmp_path)
    with pytest.raises(Stalled, match="found nothing"):
        collect(tmp_path / "not-there", tmp_path)
    for number in range(65):
        (tmp_path / "empty" / f"{number}.inputs.npz").write_bytes(b"")
    with pytest.raises(Stalled, match="found 65"):
        collect(tmp_path / "empty", tmp_path)


def test_more_than_a_server_reads_is_not_packed(folder, tmp_path):
    (folder / "a.inputs.npz").write_bytes(bytes(MAX_SAMPLES_BYTES - 1000))
    with pytest.raises(Stalled, match=r"a\.outputs\.npz would make them more than 16 MiB"):
        pack(collect(folder, tmp_path), tmp_path / "samples.tar")
    assert not (tmp_path / "samples.tar").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no tar" * 200, "damaged"),
        (b"", "archive samples"),
    ],
)
def test_archives_from_strangers_that_cannot_be_read_are_refused(tmp_path, content, words):
    (tmp_path / "samples.tar").write_bytes(content)
    for read in (listing, lambda archive: collect(archive, tmp_path / "unpacked")):
        with pytest.raises(Refused, match=words):
            read(tmp_path / "samples.tar")


def test_archives_from_strangers_with_other_files_are_refused(folder, tmp_path):
    with tarfile.open(tmp_path / "samples.tar", "w") as packed:
        packed.add(folder / "a.inputs.npz", "../a.inputs.npz")
    with pytest.raises(Refused, match=r"\.\./a"):
        listing(tmp_path / "samples.tar")
    with pytest.raises(Refused, match=r"component '\.\.'"):
        collect(tmp_path / "samples.tar", tmp_path / "unpacked")
    assert not (tmp_path / "a.inputs.npz").exists()
