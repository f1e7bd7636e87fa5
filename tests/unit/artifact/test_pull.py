"""From a registry to a model directory: order, refusals, resumption, and what is on disk afterwards."""

import asyncio
import dataclasses
import fcntl
import json
import random
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edgemodel.artifact.manifest import SAMPLES_PATH
from edgemodel.artifact.pull import PulledModel, Wish, pull
from edgemodel.artifact.signature import sign_bundle
from edgemodel.artifact.store import Store
from edgemodel.errors import Refused, Stalled, Transient
from tests.simulators.registry import RegistrySimulator
from tests.unit.artifact.artifacts import (
    KEY,
    OTHER_KEY,
    POLICY,
    RELEASE,
    REPOSITORY,
    attach,
    attach_legacy,
    publish,
)
from tests.unit.artifact.registry_client import SHORT, client

WEIGHTS = random.Random(3).randbytes((2 << 20) + 77)
FILES = {"model.onnx": b"graph" * 100, "weights/model.onnx_data": WEIGHTS, "labels.txt": b"cat\ndog\n"}
WISH = Wish([POLICY])


def contents(directory: Path) -> dict[str, bytes]:
    """All files but those that delivery keeps for itself."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and ".edgemodel" not in path.parts and path.name != "model.json"
    }


@pytest.fixture(params=[True, False], ids=["referrers API", "fallback tag"])
async def simulator(request):
    async with RegistrySimulator(referrers=request.param) as simulator:
        yield simulator


async def pulled(simulator, reference, directory: Path, wish: Wish = WISH) -> PulledModel:
    async with client(simulator) as registry:
        return await pull(registry, reference, directory, wish, durable=False)


async def test_a_signed_model_arrives_whole(simulator, tmp_path):
    published = publish(simulator, FILES)
    model = await pulled(simulator, published.reference, tmp_path / "m")
    assert contents(tmp_path / "m") == FILES
    assert json.loads((tmp_path / "m" / "model.json").read_text()) == {
        "schemaVersion": 1,
        "name": "detector",
        "version": "1.4.0",
        "digest": published.manifest.digest,
        "file": "model.onnx",
    }
    assert model.verdict.verified_by == ("site/publisher",)
    assert model.downloaded == sum(map(len, FILES.values()))


async def test_a_model_that_names_no_version_leaves_it_to_the_server(simulator, tmp_path):
    published = publish(simulator, FILES, release=dataclasses.replace(RELEASE, version=None))
    await pulled(simulator, published.reference, tmp_path)
    assert "version" not in json.loads((tmp_path / "model.json").read_text())


async def test_each_file_is_on_disk_once_and_read_only(simulator, tmp_path):
    published = publish(simulator, FILES)
    await pulled(simulator, published.reference, tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < sum(map(len, FILES.values())) + 20_000
    assert (tmp_path / "model.onnx").stat().st_mode & 0o777 == 0o444


async def test_a_legacy_signature_counts_too(simulator, tmp_path):
    published = publish(simulator, FILES, key=None)
    attach_legacy(simulator, published)
    model = await pulled(simulator, published.reference, tmp_path)
    assert model.verdict.verified_by == ("site/publisher",)


@pytest.mark.parametrize("key", [None, OTHER_KEY], ids=["unsigned", "signed by a stranger"])
async def test_no_layer_is_asked_for_before_the_artifact_passed(simulator, tmp_path, key):
    published = publish(simulator, FILES, key=key)
    with pytest.raises(Refused) as caught:
        await pulled(simulator, published.reference, tmp_path / "m")
    assert caught.value.reason == ("SignatureMissing" if key is None else "KeyUnknown")
    layers = [layer.digest for layer in published.manifest.layers]
    assert not [request for request in simulator.requests if request.path.rpartition("/")[2] in layers]
    assert not (tmp_path / "m").exists()


async def test_a_broken_signature_does_not_hide_a_good_one(tmp_path):
    async with RegistrySimulator() as simulator:
        published = publish(simulator, FILES)
        attach(simulator, published, b"rubbish")
        broken = attach(simulator, published, sign_bundle(OTHER_KEY, published.manifest.digest))
        simulator.fault("GET", broken, status=404, times=None)
        model = await pulled(simulator, published.reference, tmp_path)
    assert model.verdict.verified_by == ("site/publisher",)


async def test_a_registry_that_fails_while_signatures_are_read_refuses_nothing(simulator, tmp_path):
    published = publish(simulator, FILES)
    simulator.fault("GET", "/blobs/", status=503, times=None)
    with pytest.raises(Transient) as caught:
        await pulled(simulator, published.reference, tmp_path)
    assert caught.value.reason == "RegistryUnreachable"


async def test_a_wrong_layer_is_refused_and_the_directory_is_not_said_to_be_whole(simulator, tmp_path):
    published = publish(simulator, FILES)
    simulator.fault("GET", published.manifest.layers[1].digest, corrupt=99, times=None)
    with pytest.raises(Refused) as caught:
        await pulled(simulator, published.reference, tmp_path)
    assert caught.value.reason == "DigestMismatch"
    assert not (tmp_path / "model.json").exists()


async def test_an_interrupted_pull_goes_on_where_it_stopped(simulator, tmp_path):
    published = publish(simulator, FILES)
    weights = published.manifest.layers[1].digest
    simulator.fault("GET", weights, truncate=1_500_000, times=3)
    async with client(simulator, limits=dataclasses.replace(SHORT, tries=1)) as registry:
        with pytest.raises(Transient):
            await pull(registry, published.reference, tmp_path, WISH)
    simulator._faults.clear()
    simulator.requests.clear()
    # Another layer was on its way when the pull ended: it may have arrived, or all its bytes without being taken in yet.
    other = published.manifest.layers[0].digest
    arrived = Store(tmp_path / ".edgemodel").path(other).exists()
    await pulled(simulator, published.reference, tmp_path)
    assert contents(tmp_path) == FILES
    (request,) = simulator.seen("GET", weights)
    assert int(request.headers["range"].removeprefix("bytes=").removesuffix("-")) > 1_000_000
    assert len(simulator.seen("GET", other)) <= (0 if arrived else 1)


async def test_a_whole_directory_needs_no_network(simulator, tmp_path):
    published = publish(simulator, FILES)
    await pulled(simulator, published.pinned, tmp_path)
    simulator.requests.clear()
    model = await pulled(simulator, published.pinned, tmp_path)
    assert simulator.requests == []
    assert model.downloaded == 0
    assert contents(tmp_path) == FILES


async def test_golden_samples_arrive_beside_the_model_and_count_as_its_own(simulator, tmp_path):
    files = {**FILES, SAMPLES_PATH: b"not unpacked, so anything will do"}
    published = publish(simulator, files)
    await pulled(simulator, published.pinned, tmp_path)
    assert contents(tmp_path) == files
    simulator.requests.clear()
    await pulled(simulator, published.pinned, tmp_path)
    assert simulator.requests == [], "it is whole with them"
    (tmp_path / SAMPLES_PATH).unlink()
    assert (await pulled(simulator, published.pinned, tmp_path)).downloaded == len(files[SAMPLES_PATH])
    assert contents(tmp_path) == files


async def test_a_whole_directory_is_judged_again_under_the_policies_of_today(simulator, tmp_path):
    published = publish(simulator, FILES)
    await pulled(simulator, published.pinned, tmp_path)
    revoked = dataclasses.replace(POLICY, keys=(dataclasses.replace(POLICY.keys[0], revoked=True),))
    with pytest.raises(Refused) as caught:
        await pulled(simulator, published.pinned, tmp_path, Wish([revoked]))
    assert caught.value.reason == "KeyRevoked"


async def test_of_two_pulls_into_one_directory_the_second_waits_for_the_first(simulator, tmp_path):
    published = publish(simulator, FILES)
    (tmp_path / ".edgemodel").mkdir()
    with (tmp_path / ".edgemodel" / "lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        both = [asyncio.create_task(pulled(simulator, published.pinned, tmp_path)) for _ in range(2)]
        done, _ = await asyncio.wait(both, timeout=0.3)
        assert not done
    await asyncio.gather(*both)
    assert contents(tmp_path) == FILES
    assert (tmp_path / "model.json").exists()


async def test_a_file_that_rotted_is_fetched_again_and_only_that_one(simulator, tmp_path):
    published = publish(simulator, FILES)
    await pulled(simulator, published.pinned, tmp_path)
    rotten = tmp_path / "labels.txt"
    rotten.chmod(0o600)
    rotten.write_bytes(b"cat\ndig\n")
    simulator.requests.clear()
    model = await pulled(simulator, published.pinned, tmp_path)
    assert contents(tmp_path) == FILES
    assert model.downloaded == len(FILES["labels.txt"])
    asked_for = {request.path.rpartition("/")[2] for request in simulator.seen("GET", "/blobs/")}
    layers = {layer.digest for layer in published.manifest.layers}
    assert asked_for & layers == {published.manifest.layers[2].digest}


async def test_what_stands_where_model_json_is_written_is_replaced_and_not_followed(simulator, tmp_path):
    published = publish(simulator, FILES)
    await pulled(simulator, published.reference, tmp_path / "m")
    precious = tmp_path / "precious"
    precious.write_text("keep")
    (tmp_path / "m" / ".edgemodel" / "model.json").symlink_to(precious)
    await pulled(simulator, published.pinned, tmp_path / "m")
    assert precious.read_text() == "keep"
    assert not (tmp_path / "m" / "model.json").is_symlink()


@pytest.mark.parametrize("kind", ["a file more", "a link to the right bytes"])
async def test_a_directory_that_holds_something_else_is_not_whole(simulator, tmp_path, kind):
    published = publish(simulator, FILES)
    await pulled(simulator, published.reference, tmp_path / "m")
    if kind == "a file more":
        (tmp_path / "m" / "weights" / "planted.bin").write_bytes(b"x")
    else:
        (tmp_path / "m" / "labels.txt").rename(tmp_path / "elsewhere")
        (tmp_path / "m" / "labels.txt").symlink_to(tmp_path / "elsewhere")
    await pulled(simulator, published.pinned, tmp_path / "m")
    assert contents(tmp_path / "m") == FILES
    assert not (tmp_path / "m" / "labels.txt").is_symlink()


async def test_another_version_replaces_every_file_of_the_old_one(simulator, tmp_path):
    await pulled(simulator, publish(simulator, FILES).reference, tmp_path)
    published = publish(simulator, {"other.onnx": b"new"}, release=dataclasses.replace(RELEASE, sequence=8))
    model = await pulled(simulator, published.reference, tmp_path)
    assert contents(tmp_path) == {"other.onnx": b"new"}
    assert model.description.file == "other.onnx"


@pytest.mark.parametrize(
    ("files", "wanted", "reason"),
    [
        ({"a.onnx": b"a", "b.onnx": b"b"}, None, "AmbiguousModelFile"),
        ({"a.txt": b"a"}, None, "ModelFileNotFound"),
        ({"a.onnx": b"a"}, "b.onnx", "ModelFileNotFound"),
        ({"a.onnx": b"a"}, "../a.onnx", "ModelFileNotFound"),
    ],
)
async def test_a_model_file_that_cannot_be_told_stalls_before_the_download(
    simulator, tmp_path, files, wanted, reason
):
    published = publish(simulator, files)
    with pytest.raises(Stalled) as caught:
        await pulled(simulator, published.reference, tmp_path, Wish([POLICY], model_file=wanted))
    assert caught.value.reason == reason
    layers = {layer.digest for layer in published.manifest.layers}
    assert not layers & {request.path.rpartition("/")[2] for request in simulator.requests}


async def test_the_model_file_may_be_named(simulator, tmp_path):
    published = publish(simulator, {"a.onnx": b"a", "b.onnx": b"b"})
    wish = Wish([POLICY], model_file="b.onnx", name="mine", version="9")
    model = await pulled(simulator, published.reference, tmp_path, wish)
    assert (model.description.file, model.description.name, model.description.version) == (
        "b.onnx",
        "mine",
        "9",
    )


@pytest.mark.parametrize("path", ["model.json", ".edgemodel/examined.json", "MODEL.JSON"])
async def test_an_artifact_may_not_bring_deliverys_own_files(simulator, tmp_path, path):
    published = publish(simulator, {"a.onnx": b"a", path: b"{}"})
    with pytest.raises(Refused) as caught:
        await pulled(simulator, published.reference, tmp_path)
    assert caught.value.reason == "MalformedArtifact"
    assert not (tmp_path / "model.json").exists()


async def test_an_expired_release_is_refused_by_whoever_has_a_clock(simulator, tmp_path):
    expires = datetime(2026, 2, 1, tzinfo=UTC)
    published = publish(simulator, FILES, release=dataclasses.replace(RELEASE, expires=expires))
    with pytest.raises(Refused) as caught:
        await pulled(simulator, published.reference, tmp_path, Wish([POLICY], now=expires))
    assert caught.value.reason == "Expired"
    await pulled(simulator, published.reference, tmp_path)


async def test_progress_adds_up(simulator, tmp_path):
    published = publish(simulator, FILES)
    seen: dict[str, int] = {}
    async with client(simulator) as registry:
        await pull(
            registry,
            published.reference,
            tmp_path,
            WISH,
            progress=lambda layer, more: seen.__setitem__(layer.digest, seen.get(layer.digest, 0) + more),
        )
    assert seen == {layer.digest: layer.size for layer in published.manifest.layers}


async def test_two_files_with_the_same_content_are_fetched_once(simulator, tmp_path):
    published = publish(simulator, {"a.onnx": b"same", "copy/a.bin": b"same"})
    await pulled(simulator, published.reference, tmp_path)
    assert contents(tmp_path) == {"a.onnx": b"same", "copy/a.bin": b"same"}
    assert len(simulator.seen("GET", published.manifest.layers[0].digest)) == 1


def test_the_simulators_key_is_the_policys():
    assert POLICY.keys[0].key == KEY.public
    assert REPOSITORY.endswith(str(RELEASE.name))
