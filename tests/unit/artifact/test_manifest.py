"""Manifests and indexes from bytes: what is read, and which member is named when something is wrong."""

import json
from datetime import UTC, datetime

import pytest

from edgemodel.artifact import media_types
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.manifest import (
    EMPTY_CONFIG,
    EMPTY_DESCRIPTOR,
    Descriptor,
    Index,
    Manifest,
    build_config,
    build_index,
    build_manifest,
    build_signature_manifest,
    model_files,
    release,
)
from edgemodel.artifact.oci_manifest import MAX_BYTES, MAX_LAYERS
from edgemodel.errors import Refused
from tests.unit.artifact.signed import FACTS, artifact, file

DIGEST = str(Digest.of(b""))
LAYER = {"mediaType": "text/plain", "digest": DIGEST, "size": 0}
GOOD = {"schemaVersion": 2, "mediaType": media_types.OCI_MANIFEST, "config": LAYER, "layers": [LAYER]}

BAD = {
    "not an object": ([], "manifest: expected an object, found an array"),
    "another version": ({**GOOD, "schemaVersion": 1}, "manifest.schemaVersion: expected 2, found 1"),
    "version as text": ({**GOOD, "schemaVersion": "2"}, "manifest.schemaVersion"),
    "version as fraction": ({**GOOD, "schemaVersion": 2.0}, "manifest.schemaVersion"),
    "another media type": ({**GOOD, "mediaType": media_types.OCI_INDEX}, "manifest.mediaType"),
    "media type of another kind": ({**GOOD, "mediaType": ["x"]}, "manifest.mediaType"),
    "manifest and index at once": ({**GOOD, "manifests": []}, "found an index"),
    "no config": ({**GOOD, "config": None}, "manifest.config: expected a descriptor object, found nothing"),
    "layers as object": ({**GOOD, "layers": {}}, "manifest.layers: expected an array, found an object"),
    "too many layers": ({**GOOD, "layers": [LAYER] * (MAX_LAYERS + 1)}, "manifest.layers: has 4097 entries"),
    "a layer that is text": (
        {**GOOD, "layers": [LAYER, "x"]},
        r"manifest.layers\[1\]: expected a descriptor",
    ),
    "no media type": ({**GOOD, "layers": [{**LAYER, "mediaType": ""}]}, r"manifest.layers\[0\].mediaType"),
    "negative size": ({**GOOD, "layers": [{**LAYER, "size": -1}]}, r"manifest.layers\[0\].size"),
    "size as truth": ({**GOOD, "layers": [{**LAYER, "size": True}]}, r"manifest.layers\[0\].size"),
    "size as fraction": ({**GOOD, "layers": [{**LAYER, "size": 1.0}]}, r"manifest.layers\[0\].size"),
    "size past counting": ({**GOOD, "layers": [{**LAYER, "size": 1 << 53}]}, r"manifest.layers\[0\].size"),
    "bad digest": (
        {**GOOD, "layers": [{**LAYER, "digest": "md5:0"}]},
        r"manifest.layers\[0\].digest: expected sha256",
    ),
    "digest as number": ({**GOOD, "layers": [{**LAYER, "digest": 7}]}, r"manifest.layers\[0\].digest"),
    "annotations as list": ({**GOOD, "annotations": []}, "manifest.annotations: expected an object"),
    "annotation as number": ({**GOOD, "annotations": {"a": 1}}, "manifest.annotations.a: expected a string"),
    "layer annotation as number": (
        {**GOOD, "layers": [{**LAYER, "annotations": {"b": None}}]},
        r"manifest.layers\[0\].annotations.b",
    ),
    "artifact type as number": ({**GOOD, "artifactType": 1}, "manifest.artifactType"),
    "subject as text": ({**GOOD, "subject": "x"}, "manifest.subject"),
    "a member in another case": ({**GOOD, "Layers": []}, "manifest.Layers: expected it to be spelt layers"),
    "a descriptor's member in another case": (
        {**GOOD, "config": {**LAYER, "SIZE": 9}},
        "manifest.config.SIZE",
    ),
}


@pytest.mark.parametrize(("document", "message"), BAD.values(), ids=BAD)
def test_the_member_is_named(document, message):
    with pytest.raises(Refused, match=message) as caught:
        Manifest.parse(json.dumps(document).encode())
    assert caught.value.reason == "MalformedArtifact"


def test_bytes_past_the_cap_are_not_looked_at():
    with pytest.raises(Refused, match="4194305 bytes long"):
        Manifest.parse(b"\xff" * (MAX_BYTES + 1))


def test_duplicate_keys_are_refused():
    with pytest.raises(Refused, match="the manifest has the key 'layers' twice"):
        Manifest.parse(json.dumps(GOOD).replace('"layers"', '"layers":[],"layers"').encode())


def test_what_is_read_is_what_was_written():
    document = {
        **GOOD,
        "artifactType": "application/x",
        "annotations": {"k": "v"},
        "subject": {**LAYER, "artifactType": "t"},
        "unknown": [{}],
    }
    data = json.dumps(document, indent=1).encode()
    manifest = Manifest.parse(data)
    assert manifest.raw is data
    assert manifest.digest == Digest.of(data)
    assert manifest.layers == (Descriptor("text/plain", Digest(DIGEST), 0),)
    assert manifest.artifact_type == "application/x"
    assert manifest.annotations == {"k": "v"}
    assert manifest.subject.artifact_type == "t"
    assert manifest.descriptor == Descriptor(media_types.OCI_MANIFEST, manifest.digest, len(data))


def test_a_media_type_may_be_left_out_and_docker_has_its_own():
    bare = {name: value for name, value in GOOD.items() if name != "mediaType"}
    assert Manifest.parse(json.dumps(bare).encode()).media_type == media_types.OCI_MANIFEST
    docker = {**GOOD, "mediaType": media_types.DOCKER_MANIFEST}
    assert Manifest.parse(json.dumps(docker).encode()).media_type == media_types.DOCKER_MANIFEST


def test_an_index_is_read_and_is_no_manifest():
    data = build_index([Descriptor("text/plain", Digest(DIGEST), 0, {"a": "b"}, "t")], {"k": "v"})
    index = Index.parse(data)
    assert index.manifests == (Descriptor("text/plain", Digest(DIGEST), 0, {"a": "b"}, "t"),)
    assert index.annotations == {"k": "v"}
    assert index.digest == Digest.of(data)
    with pytest.raises(Refused, match="found an index"):
        Manifest.parse(data)
    with pytest.raises(Refused, match="found a manifest"):
        Index.parse(json.dumps(GOOD).encode())
    with pytest.raises(Refused, match=r"index\.manifests: expected an array, found nothing"):
        Index.parse(b'{"schemaVersion":2}')


class TestBuilding:
    def test_a_model_reads_back(self):
        files = (
            file("model.onnx"),
            file("data/model.bin", b"w"),
            file("labels.json", b"[]", media_types.MODEL_WEIGHT_CONFIG),
        )
        manifest = artifact(files=files, extra={"z": "1", "io.edgemodel.name": "loses"})
        assert [each.path for each in model_files(manifest)] == [
            "model.onnx",
            "data/model.bin",
            "labels.json",
        ]
        assert release(manifest) == FACTS
        assert manifest.annotations["z"] == "1"
        assert manifest.artifact_type == media_types.MODEL_ARTIFACT
        assert manifest.layers[1].annotations == {
            media_types.FILEPATH: "data/model.bin",
            media_types.TITLE: "data/model.bin",
        }

    def test_the_same_arguments_give_the_same_bytes(self):
        first, second = ({"a": "1", "b": "2"}, {"b": "2", "a": "1"})
        assert artifact(extra=first).raw == artifact(extra=second).raw

    def test_two_files_of_one_path_are_refused(self):
        with pytest.raises(Refused, match="is the same as"):
            build_manifest([file("a.onnx"), file("A.onnx")], EMPTY_DESCRIPTOR, FACTS)

    def test_the_config_is_modelpacks(self):
        config = json.loads(
            build_config(FACTS, [Digest(DIGEST)], about={"licenses": ["MIT"]}, model={"precision": "int8"})
        )
        assert config == {
            "descriptor": {
                "createdAt": "2026-11-20T00:00:00Z",
                "licenses": ["MIT"],
                "name": "detector",
                "version": "1.4.0",
            },
            "config": {"format": "onnx", "precision": "int8"},
            "modelfs": {"type": "layers", "diffIds": [DIGEST]},
        }

    def test_a_signature_refers_to_its_subject(self):
        subject = artifact().descriptor
        bundle = Descriptor("anything", Digest.of(b"bundle"), 6)
        manifest = Manifest.parse(build_signature_manifest(bundle, subject, datetime(2026, 1, 2, tzinfo=UTC)))
        assert manifest.subject == subject
        assert manifest.config == EMPTY_DESCRIPTOR
        assert manifest.artifact_type == manifest.layers[0].media_type == media_types.BUNDLE
        assert EMPTY_CONFIG == b"{}"
