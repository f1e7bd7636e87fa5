"""From files to an artifact in a registry, and signatures beside it; every fault of the registry on the way."""

import asyncio
import dataclasses
import json
import random
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgemodel.artifact import media_types
from edgemodel.artifact.attach import attach
from edgemodel.artifact.credentials import Credentials
from edgemodel.artifact.manifest import Index, Manifest, Release
from edgemodel.artifact.publish import Prepared, collect, move_tag, prepare, upload
from edgemodel.artifact.pull import Wish, pull
from edgemodel.artifact.reference import Reference
from edgemodel.artifact.signature import sign_bundle
from edgemodel.artifact.verify import Examined, examine
from edgemodel.errors import Refused, Stalled, Transient
from tests.simulators.certificates import loopback_tls
from tests.simulators.registry import RegistrySimulator
from tests.unit.artifact.artifacts import KEY, OTHER_KEY, POLICY, RELEASE, REPOSITORY
from tests.unit.artifact.registry_client import client, credentials_for

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    folder = tmp_path / "in"
    folder.mkdir()
    weights = np.random.default_rng(1).standard_normal((600, 600)).astype(np.float32)
    graph = helper.make_graph([], "g", [], [], [numpy_helper.from_array(weights, "w")])
    onnx.save(helper.make_model(graph), folder / "model.onnx")
    (folder / "labels.txt").write_text("cat\ndog\n")
    (folder / "README.md").write_text("# about")
    return collect([folder])


def prepared(files: dict[str, Path], tmp_path: Path, release: Release = RELEASE) -> Prepared:
    folder = tmp_path / f"work-{random.random()}"
    folder.mkdir()
    return prepare(files, release, folder)


def at(simulator: RegistrySimulator, tag: str = "v1") -> Reference:
    return Reference(simulator.host, REPOSITORY, tag)


def test_the_same_files_and_facts_give_the_same_digest(files, tmp_path):
    one = prepared(files, tmp_path)
    other = prepared(dict(reversed(files.items())), tmp_path)
    assert one.digest == other.digest
    later = dataclasses.replace(RELEASE, sequence=8)
    assert prepared(files, tmp_path, later).digest != one.digest


def test_the_order_of_files_changes_nothing_when_weights_stay_inside_either(files, tmp_path):
    one, other = (
        prepare(order, RELEASE, tmp_path, external=False) for order in (files, dict(reversed(files.items())))
    )
    assert one.digest == other.digest


def test_each_file_is_a_layer_with_its_name_and_kind(files, tmp_path):
    manifest = Manifest.parse(prepared(files, tmp_path).manifest)
    kinds = {layer.annotations[media_types.TITLE]: layer.media_type for layer in manifest.layers}
    assert kinds == {
        "README.md": media_types.MODEL_DOC,
        "labels.txt": media_types.MODEL_WEIGHT_CONFIG,
        "model.onnx": media_types.MODEL_WEIGHT,
        "model.onnx_data": media_types.MODEL_WEIGHT,
    }
    assert manifest.artifact_type == media_types.MODEL_ARTIFACT
    assert all(layer.annotations[media_types.FILEPATH] in kinds for layer in manifest.layers)


def test_hidden_files_stay_at_home_and_missing_ones_are_named(tmp_path):
    (tmp_path / ".secret").write_text("x")
    (tmp_path / "m.onnx").write_text("x")
    assert set(collect([tmp_path])) == {"m.onnx"}
    with pytest.raises(Stalled) as caught:
        collect([tmp_path / "gone"])
    assert "gone" in caught.value.message


def test_two_files_for_one_path_are_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "m.onnx").write_text(folder)
    with pytest.raises(Stalled):
        collect([tmp_path / "a" / "m.onnx", tmp_path / "b" / "m.onnx"])


def test_without_a_model_nothing_is_published(tmp_path):
    (tmp_path / "labels.txt").write_text("x")
    with pytest.raises(Stalled) as caught:
        prepared(collect([tmp_path / "labels.txt"]), tmp_path)
    assert ".onnx" in caught.value.message


@pytest.mark.parametrize("path", ["model.json", "a\\b.txt"])
def test_paths_that_no_puller_takes_are_not_published(tmp_path, path):
    (tmp_path / "m.onnx").write_text("x")
    with pytest.raises((Refused, Stalled)):
        prepare({"m.onnx": tmp_path / "m.onnx", path: tmp_path / "m.onnx"}, RELEASE, tmp_path, external=False)


@pytest.mark.parametrize("auth", [None, "basic", "bearer"])
@pytest.mark.parametrize("referrers", [True, False], ids=["referrers API", "fallback tag"])
async def test_what_is_published_and_signed_can_be_pulled(files, tmp_path, auth, referrers):
    artifact = prepared(files, tmp_path)
    users = {"ann": "hidden"} if auth else {}
    async with RegistrySimulator(auth=auth, users=users, referrers=referrers) as simulator:
        credentials = credentials_for(simulator.host, ("ann", "hidden")) if auth else Credentials()
        async with client(simulator, credentials=credentials) as registry:
            pinned = await upload(registry, at(simulator), artifact)
            assert pinned.digest == artifact.digest
            with pytest.raises(Transient):
                await registry.manifest(at(simulator))  # no tag yet: nobody sees it unsigned
            attached = await attach(registry, pinned, sign_bundle(KEY, artifact.digest), NOW)
            assert (attached.fallback_tag is None) is referrers
            await move_tag(registry, at(simulator), artifact)
            model = await pull(registry, at(simulator), tmp_path / "out", Wish([POLICY], now=NOW))
    assert model.verdict.release == RELEASE
    assert (tmp_path / "out" / "labels.txt").read_text() == "cat\ndog\n"


async def test_nothing_is_sent_twice(files, tmp_path):
    artifact = prepared(files, tmp_path)
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        await upload(registry, at(simulator), artifact)
        count = len(simulator.seen("PATCH"))
        sent: list[int] = []
        await upload(registry, at(simulator), artifact, lambda _what, more: sent.append(more))
        assert len(simulator.seen("PATCH")) == count
        assert sum(sent) == sum(descriptor.size for descriptor in artifact.blobs)


async def test_large_files_are_sent_in_chunks(files, tmp_path, monkeypatch):
    monkeypatch.setattr("edgemodel.artifact.oras_push.CHUNK", 500_000)
    artifact = prepared(files, tmp_path)
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        await upload(registry, at(simulator), artifact)
        assert max(len(request.body) for request in simulator.seen("PATCH")) == 500_000
        assert simulator.blobs[REPOSITORY].keys() >= {descriptor.digest for descriptor in artifact.blobs}


async def test_pushing_over_tls_with_a_private_ca(files, tmp_path):
    context, ca = loopback_tls(tmp_path)
    async with RegistrySimulator(tls=context) as simulator, client(simulator, ca=ca) as registry:
        await upload(registry, at(simulator), prepared(files, tmp_path))


@pytest.mark.parametrize(
    ("method", "status", "reason"),
    [
        ("HEAD", 503, "RegistryUnreachable"),
        ("POST", 403, "AuthenticationFailed"),
        ("PUT", 400, "TransferFailed"),
    ],
)
async def test_a_registry_that_fails_is_a_typed_error_without_secrets(
    files, tmp_path, method, status, reason
):
    async with RegistrySimulator() as simulator:
        simulator.fault(method, "", times=None, status=status)
        users = credentials_for(simulator.host, ("ann", "hidden"))
        async with client(simulator, credentials=users) as registry:
            with pytest.raises(Transient) as caught:
                await upload(registry, at(simulator), prepared(files, tmp_path))
    assert caught.value.reason == reason
    assert "hidden" not in str(caught.value)


async def test_nobody_listening_fails_soon(files, tmp_path):
    async with RegistrySimulator() as simulator:
        reference = at(simulator)
    async with client(simulator) as registry, asyncio.timeout(2):
        with pytest.raises(Transient) as caught:
            await upload(registry, reference, prepared(files, tmp_path))
    assert caught.value.reason == "RegistryUnreachable"


async def test_signatures_of_others_stay_in_the_fallback_tag(files, tmp_path):
    artifact = prepared(files, tmp_path)
    async with RegistrySimulator(referrers=False) as simulator, client(simulator) as registry:
        pinned = await upload(registry, at(simulator), artifact)
        bundles = [sign_bundle(key, artifact.digest) for key in (KEY, OTHER_KEY)]
        for bundle in (*bundles, bundles[0]):
            attached = await attach(registry, pinned, bundle, NOW)
        index = Index.parse(await registry.tagged(pinned, str(attached.fallback_tag)) or b"")
        assert len(index.manifests) == 2
        examined = await examine(registry, pinned)
    assert len(examined.evidence) == 2


async def test_an_entry_that_another_writer_dropped_is_written_again(files, tmp_path):
    artifact = prepared(files, tmp_path)
    async with RegistrySimulator(referrers=False) as simulator, client(simulator) as registry:
        pinned = await upload(registry, at(simulator), artifact)
        # The first write of the tag is answered and forgotten, as if another writer had come after it.
        simulator.fault("PUT", "/manifests/sha256-", status=201)
        await attach(registry, pinned, sign_bundle(KEY, artifact.digest), NOW)
        assert len(simulator.seen("PUT", "/manifests/sha256-")) == 2
        assert len((await examine(registry, pinned)).evidence) == 1


async def test_what_was_examined_survives_a_round_trip_through_json(files, tmp_path):
    artifact = prepared(files, tmp_path)
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        pinned = await upload(registry, at(simulator), artifact)
        await attach(registry, pinned, sign_bundle(KEY, artifact.digest), NOW)
        examined = await examine(registry, pinned)
    again = Examined.from_json(examined.to_json().encode())
    assert again == examined
    assert again.judge([POLICY]).verified_by == ("site/publisher",)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"reference": 1}', b"[" * 100_000])
def test_what_is_no_examined_artifact_is_a_value_error(text):
    with pytest.raises(ValueError, match="not an examined artifact"):
        Examined.from_json(text)


def test_an_examined_artifact_on_disk_is_trusted_no_more_than_a_registry(tmp_path):
    manifest = json.dumps({"schemaVersion": 2}).encode()
    reference = Reference("r.local", REPOSITORY, None, None).pinned(
        Manifest.parse(
            b'{"schemaVersion":2,"config":{"mediaType":"a/b","digest":"sha256:'
            + b"0" * 64
            + b'","size":1},"layers":[]}'
        ).digest
    )
    verdict = Examined(reference, manifest).judge([POLICY])
    assert verdict.refusal is not None
    assert verdict.refusal.reason == "DigestMismatch"
