"""Archives from strangers: files come out as they went in, everything else is refused."""

import gzip
import io
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgemodel.artifact.digest import Digest
from edgemodel.artifact.manifest import Descriptor, ModelFile, Paths
from edgemodel.artifact.model_directory import fill
from edgemodel.artifact.store import Store
from edgemodel.artifact.tar import unpack
from edgemodel.errors import Refused

BIG = random.Random(4).randbytes((2 << 20) + 5)


def archive(*members: tuple[str | tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for member, content in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def unpacked(folder: Path, content: bytes, packing: str = "tar", taken: str = "") -> dict[str, bytes]:
    path = folder / "layer"
    path.write_bytes(content)
    target = folder / "out"
    target.mkdir()
    file = ModelFile("layer", Descriptor("x", Digest.of(content), len(content)), packing, taken)  # type: ignore[arg-type]
    names = unpack(path, file, target, Paths())
    found = {str(p.relative_to(target)): p.read_bytes() for p in target.rglob("*") if p.is_file()}
    assert sorted(names) == sorted(found)
    return found


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_files_come_out_as_they_went_in(tmp_path, form):
    long = "/".join(["deep" * 10] * 3) + "/f.onnx"
    content = archive(("m.onnx", b"x"), ("./a/b.bin", BIG), ("empty", b""), (long, b"y"), form=form)
    assert unpacked(tmp_path, content) == {"m.onnx": b"x", "a/b.bin": BIG, "empty": b"", long: b"y"}


def test_folders_are_passed_over_and_names_may_be_of_any_script(tmp_path):
    content = archive((special("a/", tarfile.DIRTYPE), b""), ("a/模型.onnx", b"x"))
    assert unpacked(tmp_path, content) == {"a/模型.onnx": b"x"}


def test_gzip_is_read(tmp_path):
    assert unpacked(tmp_path, gzip.compress(archive(("m.onnx", BIG))), "tar+gzip") == {"m.onnx": BIG}


def test_unpacked_files_are_on_disk_before_the_directory_is_said_to_be_whole(tmp_path, monkeypatch):
    content = archive(("a/m.onnx", BIG), ("labels.txt", b"x"))
    file = ModelFile("", Descriptor("x", Digest.of(content), len(content)), "tar")
    store = Store(tmp_path / "store")
    store.path(file.descriptor.digest).parent.mkdir(parents=True)
    store.path(file.descriptor.digest).write_bytes(content)
    flushed: dict[int, int] = {}
    really = os.fsync

    def flush(handle: int) -> None:
        really(handle)
        flushed[os.fstat(handle).st_ino] = os.fstat(handle).st_size

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", flush)
        names = fill(tmp_path / "out", [file], store)
    for name in names:
        status = (tmp_path / "out" / name).stat()
        assert flushed.get(status.st_ino) == status.st_size, name


def test_of_an_image_only_the_models_folder_is_taken(tmp_path):
    content = archive(
        (special("bin/sh", tarfile.SYMTYPE, "busybox"), b""), ("etc/passwd", b"root"), ("models/m.onnx", b"x")
    )
    assert unpacked(tmp_path, content, taken="models/") == {"m.onnx": b"x"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (archive(("../m.onnx", b"x")), "'..'"),
        (archive(("a/../../m.onnx", b"x")), "'..'"),
        (archive(("/etc/m.onnx", b"x")), "absolute"),
        (archive((special("m", tarfile.SYMTYPE, "/etc/passwd"), b"")), "symbolic link"),
        (archive((special("m", tarfile.LNKTYPE, "/etc/passwd"), b"")), "hard link"),
        (archive((special("m", tarfile.CHRTYPE), b"")), "device"),
        (archive((special("m", tarfile.FIFOTYPE), b"")), "pipe"),
        (archive((special("m", b"Z"), b"")), "unknown type"),
        (archive(("m.onnx", b"x"), ("m.onnx", b"y")), "same"),
        (archive(("m.onnx", b"x"), ("M.ONNX", b"y")), "same"),
        (archive(("m", b"x"), ("m/n", b"y")), "below"),
        (archive(("m.onnx", b"x"))[:700], "too early"),
        (b"rubbish" * 200, "damaged"),
        (b"", "too early"),
    ],
)
def test_everything_else_is_refused(tmp_path, content, says):
    with pytest.raises(Refused) as caught:
        unpacked(tmp_path, content)
    assert caught.value.reason == "MalformedArtifact"
    assert says in caught.value.message


def test_a_bomb_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("edgemodel.artifact.tar._GZIP_ALLOWANCE", 1 << 20)
    content = gzip.compress(archive(("m.onnx", bytes(8 << 20))))
    with pytest.raises(Refused) as caught:
        unpacked(tmp_path, content, "tar+gzip")
    assert "bomb" in caught.value.message
    written = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert written < 2 << 20


@pytest.mark.parametrize(
    "damage", [lambda c: c[: len(c) // 2], lambda c: b"\x1f\x8b\x08" + c[20:], lambda c: c[5:]]
)
def test_a_damaged_gzip_is_refused(tmp_path, damage):
    content = gzip.compress(archive(("m.onnx", b"graph " * 10_000)))
    with pytest.raises(Refused):
        unpacked(tmp_path, damage(content), "tar+gzip")


def test_a_header_that_claims_gigabytes_costs_nothing(tmp_path):
    info = special("x", b"x")
    info.size = 1 << 33
    header = info.tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(Refused) as caught:
        unpacked(tmp_path, header + bytes(2048))
    assert "extended header" in caught.value.message


def test_zstd_is_refused_with_advice(tmp_path):
    with pytest.raises(Refused) as caught:
        unpacked(tmp_path, b"x", "tar+zstd")
    assert "uncompressed" in caught.value.message


def test_more_entries_than_the_cap_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("edgemodel.artifact.tar.MAX_ENTRIES", 10)
    with pytest.raises(Refused) as caught:
        unpacked(tmp_path, archive(*((f"f{n}", b"") for n in range(11))))
    assert "entries" in caught.value.message


GOOD = archive(("m.onnx", b"x" * 600), ("a/long" + "g" * 120, b"y"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, len(GOOD) - 1), value=st.integers(0, 255))
def test_no_altered_byte_escapes_or_breaks_anything(tmp_path_factory: Callable, place: int, value: int):
    content = bytearray(GOOD)
    content[place] = value
    folder = tmp_path_factory.mktemp("t")  # type: ignore[attr-defined]
    reason, found = "MalformedArtifact", {}
    try:
        found = unpacked(folder, bytes(content))
    except Refused as error:
        reason = error.reason
    assert reason == "MalformedArtifact"
    assert len(found) <= 2
    assert {entry.name for entry in folder.iterdir()} <= {"layer", "out"}
