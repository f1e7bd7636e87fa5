"""The model directory contract: docs/reference/model-directory.md, from the reader's side."""

import json
from pathlib import Path

import pytest

from inference_server.errors import AmbiguousModelFile, ModelFileNotFound
from inference_server.files.model_directory import find_model

DIGEST = "sha256:" + "0" * 64


def directory(root: Path, *files: str, **description) -> Path:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"onnx")
    if description:
        (root / "model.json").write_text(json.dumps({"schemaVersion": 1, **description}))
    return root


def test_model_json_names_everything(tmp_path):
    root = directory(
        tmp_path, "a.onnx", "sub/b.onnx", file="sub/b.onnx", name="n", version="2", digest=DIGEST, extra=1
    )
    found = find_model(root)
    assert (found.entry, found.root) == (root / "sub/b.onnx", root)
    assert (found.name, found.version, found.digest) == ("n", "2", DIGEST)


def test_settings_win_over_model_json(tmp_path):
    root = directory(tmp_path, "a.onnx", file="a.onnx", name="n", version="2", digest=DIGEST)
    found = find_model(root, name="other", version="3", digest="sha256:" + "1" * 64)
    assert (found.name, found.version, found.digest) == ("other", "3", "sha256:" + "1" * 64)


def test_without_model_json_the_only_onnx_file_is_the_entry(tmp_path):
    root = directory(tmp_path / "detector", "deep/m.onnx", "deep/m.data", ".cache/old.onnx")
    found = find_model(root)
    assert (found.entry, found.name, found.version, found.digest) == (
        root / "deep/m.onnx",
        "detector",
        "1",
        "",
    )


def test_a_plain_file_is_a_model_too(tmp_path):
    directory(tmp_path, "m.onnx", "other.onnx")
    found = find_model(tmp_path / "m.onnx")
    assert (found.entry, found.root, found.name) == (tmp_path / "m.onnx", tmp_path, "m")


def test_the_links_of_a_kubernetes_volume_are_followed(tmp_path):
    directory(tmp_path, "..2026/m.onnx", "..2026/model.json")
    (tmp_path / "..2026/model.json").write_text('{"schemaVersion": 1, "file": "m.onnx"}')
    (tmp_path / "..data").symlink_to("..2026")
    for name in ("m.onnx", "model.json"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    assert find_model(tmp_path).entry == tmp_path / "..2026/m.onnx"


def test_several_onnx_files_are_ambiguous(tmp_path):
    with pytest.raises(AmbiguousModelFile) as refusal:
        find_model(directory(tmp_path, *(f"{n}.onnx" for n in "abcdefg")))
    assert "found 7 (a.onnx, b.onnx, c.onnx, d.onnx, e.onnx, …)" in str(refusal.value)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("not json", "is not JSON"),
        ("[" * 60_000, "is not JSON"),
        ("[]", "expected a JSON object, found list"),
        (" " * 70_000, "expected at most 65536 bytes"),
        ('{"file": "m.onnx"}', "schemaVersion: expected 1, found None"),
        ('{"schemaVersion": 2, "file": "m.onnx"}', "schemaVersion: expected 1, found 2"),
        ('{"schemaVersion": 1}', "file: expected the entry file's path"),
        ('{"schemaVersion": 1, "file": ""}', "file: expected a non-empty string"),
        ('{"schemaVersion": 1, "file": 3}', "file: expected a non-empty string"),
        ('{"schemaVersion": 1, "file": "m.onnx", "name": "a/b"}', "name: expected no '/'"),
        ('{"schemaVersion": 1, "file": "m.onnx", "digest": "md5:1"}', "digest: expected sha256:"),
        (
            '{"schemaVersion": 1, "file": "absent.onnx"}',
            "absent.onnx: expected the model's entry file, found none",
        ),
        ('{"schemaVersion": 1, "file": "../m.onnx"}', "expected a relative path inside the model directory"),
        (
            '{"schemaVersion": 1, "file": "/etc/passwd"}',
            "expected a relative path inside the model directory",
        ),
        ('{"schemaVersion": 1, "file": "a\\\\b"}', "expected a relative path inside the model directory"),
        ('{"schemaVersion": 1, "file": "out.onnx"}', "leads outside the model directory"),
        ('{"schemaVersion": 1, "file": "loop.onnx"}', "loop.onnx"),
        ('{"schemaVersion": 1, "file": "folder"}', "folder: expected the model's entry file, found none"),
    ],
)
def test_an_unusable_model_json_is_refused_by_its_field(tmp_path, description, message):
    root = directory(tmp_path / "model", "m.onnx", "folder/x")
    (tmp_path / "secret.onnx").write_bytes(b"onnx")
    (root / "out.onnx").symlink_to("../secret.onnx")
    (root / "loop.onnx").symlink_to("loop.onnx")
    (root / "model.json").write_text(description)
    with pytest.raises(ModelFileNotFound) as refusal:
        find_model(root)
    assert message in str(refusal.value)


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(
        ModelFileNotFound, match=r"expected a model directory or an .onnx file, found nothing"
    ):
        find_model(tmp_path / "absent")
    with pytest.raises(ModelFileNotFound, match=r"expected an .onnx file, found none"):
        find_model(tmp_path)


def test_the_only_onnx_file_may_not_lead_outside(tmp_path):
    root = directory(tmp_path / "model", "readme")
    (tmp_path / "secret.onnx").write_bytes(b"onnx")
    (root / "m.onnx").symlink_to("../secret.onnx")
    with pytest.raises(ModelFileNotFound, match=r"leads outside"):
        find_model(root)
