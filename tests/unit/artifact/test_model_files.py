"""Which layers become files, of each kind of artifact; and paths that never may."""

import json

import pytest

from edgemodel.artifact import media_types
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.manifest import (
    MAX_SAMPLES_BYTES,
    SAMPLES_PATH,
    Manifest,
    Paths,
    check_path,
    model_files,
)
from edgemodel.errors import Refused

DIGEST = str(Digest.of(b""))
WEIGHT = "application/vnd.cncf.model.weight.v1"
KIT = "application/vnd.kitops.modelkit"


def layer(media_type: str, path: str | None = None, **annotations: str) -> dict[str, object]:
    if path is not None:
        annotations[media_types.FILEPATH] = path
    return {"mediaType": media_type, "digest": DIGEST, "size": 1, "annotations": annotations}


def files(*layers: dict[str, object], config: str = media_types.MODEL_CONFIG):
    document = {
        "schemaVersion": 2,
        "config": {"mediaType": config, "digest": DIGEST, "size": 1},
        "layers": list(layers),
    }
    return [
        (each.path, each.packing, each.folder)
        for each in model_files(Manifest.parse(json.dumps(document).encode()))
    ]


def test_modelpack_raw_and_packed():
    found = files(
        layer(f"{WEIGHT}.raw", "model.onnx"),
        layer(f"{WEIGHT}.tar", "big"),
        layer(f"{WEIGHT}.tar+gzip"),
        layer(f"{WEIGHT}.tar+zstd", "z"),
        layer("application/vnd.cncf.model.weight.config.v1.raw", "labels.json"),
        layer("application/vnd.cncf.model.doc.v1.raw", "README.md"),
    )
    assert found == [
        ("model.onnx", "raw", ""),
        ("big", "tar", ""),
        ("", "tar+gzip", ""),
        ("z", "tar+zstd", ""),
        ("labels.json", "raw", ""),
        ("README.md", "raw", ""),
    ]


def test_what_serves_no_inference_is_left_in_the_registry():
    found = files(
        layer(f"{WEIGHT}.raw", "model.onnx"),
        layer("application/vnd.cncf.model.dataset.v1.tar", "data"),
        layer("application/vnd.cncf.model.code.v1.raw", "train.py"),
    )
    assert found == [("model.onnx", "raw", "")]


def test_golden_samples_lie_at_one_place_whatever_their_layer_says_and_unpacked_by_nobody():
    for given in ("", "../elsewhere", "model.json"):
        found = files(layer(f"{WEIGHT}.raw", "model.onnx"), layer(media_types.SAMPLES, given))
        assert found[1] == (SAMPLES_PATH, "raw", "")


def test_golden_samples_alone_are_no_model_and_there_is_one_archive_of_them():
    with pytest.raises(Refused, match="no layer is a model file"):
        files(layer(media_types.SAMPLES))
    with pytest.raises(Refused, match="is the same as"):
        files(layer(f"{WEIGHT}.raw", "m.onnx"), layer(media_types.SAMPLES), layer(media_types.SAMPLES))


def test_golden_samples_larger_than_a_server_reads_are_refused():
    large = {**layer(media_types.SAMPLES), "size": MAX_SAMPLES_BYTES + 1}
    with pytest.raises(Refused, match=r"layers\[1\]\.size: golden samples have 16777217 bytes"):
        files(layer(f"{WEIGHT}.raw", "m.onnx"), large)


def test_the_title_names_a_file_without_filepath():
    assert files(layer(f"{WEIGHT}.raw", **{media_types.TITLE: "m.onnx"})) == [("m.onnx", "raw", "")]


def test_plain_oras_artifacts_by_title():
    found = files(
        layer("application/octet-stream", **{media_types.TITLE: "m.onnx"}),
        layer(
            "application/vnd.oci.image.layer.v1.tar+gzip",
            **{media_types.TITLE: "data", media_types.ORAS_UNPACK: "true"},
        ),
        layer("application/octet-stream"),
        config=media_types.OCI_EMPTY,
    )
    assert found == [("m.onnx", "raw", ""), ("data", "tar+gzip", "")]


def test_kitops():
    found = files(
        layer(f"{KIT}.model.v1.tar+gzip"),
        layer(f"{KIT}.modelpart.v1.tar"),
        layer(f"{KIT}.dataset.v1.tar"),
        layer(f"{KIT}.code.v1.tar"),
        layer(f"{KIT}.docs.v1.tar"),
        config=media_types.KITOPS_CONFIG,
    )
    assert found == [("", "tar+gzip", ""), ("", "tar", ""), ("", "tar", "")]


@pytest.mark.parametrize("config", [media_types.OCI_CONFIG, media_types.DOCKER_CONFIG])
def test_container_images_give_what_lies_under_models(config):
    found = files(
        layer("application/vnd.oci.image.layer.v1.tar+gzip"),
        layer("application/vnd.docker.image.rootfs.diff.tar.gzip"),
        layer("application/vnd.oci.image.layer.v1.tar+zstd"),
        config=config,
    )
    assert found == [("", "tar+gzip", "models/"), ("", "tar+gzip", "models/"), ("", "tar+zstd", "models/")]


BAD = {
    "nothing to deliver": ([layer("application/octet-stream")], "no layer is a model file"),
    "no layers": ([], "no layer is a model file"),
    "unknown packing": ([layer(f"{WEIGHT}.tar+xz", "a")], r"layers\[0\]\.mediaType: packing 'tar\+xz'"),
    "encrypted": ([layer(f"{WEIGHT}.raw+encrypted", "a")], r"packing 'raw\+encrypted'"),
    "a raw file without a path": (
        [layer(f"{WEIGHT}.raw")],
        r"layers\[0\]\.annotations: a raw file needs its path",
    ),
    "a path that escapes": (
        [layer(f"{WEIGHT}.raw", "a"), layer(f"{WEIGHT}.raw", "../b")],
        r"layers\[1\]: path '\.\./b': has the component '\.\.'",
    ),
    "one path twice": ([layer(f"{WEIGHT}.raw", "a"), layer(f"{WEIGHT}.raw", "a")], "is the same as 'a'"),
}


@pytest.mark.parametrize(("layers", "message"), BAD.values(), ids=BAD)
def test_refused(layers, message):
    with pytest.raises(Refused, match=message) as caught:
        files(*layers)
    assert caught.value.reason == "MalformedArtifact"


def test_an_unknown_layer_of_an_image_is_refused():
    with pytest.raises(Refused, match="cannot be read"):
        files(layer("application/vnd.oci.image.layer.v1.tar+encrypted"), config=media_types.OCI_CONFIG)


UNSAFE = [
    "", "/a", "//a", "..", "../a", "a/..", "a/../b", ".", "./a", "a/.", "a//b", "a/", "a\\b", "..\\a", "a\0b", "a\nb",
    "a\x7f", "\u202ea", "x" * 256, "d/" * 255 + "abc", "ü" * 128, "a\ud800",
]  # fmt: skip


@pytest.mark.parametrize("path", UNSAFE, ids=ascii)
def test_unsafe_paths(path):
    with pytest.raises(Refused, match="path "):
        check_path(path)


@pytest.mark.parametrize(
    "path", ["a", "a/b/c.onnx", "...", "..a", "a..b", ".hidden", "größe.onnx", "x" * 255, "a b"]
)
def test_safe_paths(path):
    check_path(path)
    assert Paths().add(path) == path


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a", "a"),
        ("Model.onnx", "model.ONNX"),
        ("stra\u00dfe", "STRASSE"),
        ("e\u0301", "\u00e9"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("A/b", "a"),
        ("a", "A/b"),
    ],
)
def test_two_paths_that_are_one_somewhere(first, second):
    paths = Paths()
    paths.add(first)
    with pytest.raises(Refused):
        paths.add(second)


def test_files_of_one_folder_live_together():
    paths = Paths()
    assert [paths.add(path) for path in ("d/a", "d/b", "d/e/a", "f")] == ["d/a", "d/b", "d/e/a", "f"]
