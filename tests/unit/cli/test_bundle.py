"""``edgemodel bundle``: what goes in comes out, in a registry or a folder, and nothing damaged does."""

import filecmp
import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from edgemodel.artifact import media_types
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.image_layout import ImageLayout
from edgemodel.artifact.keys import PrivateKey
from edgemodel.artifact.manifest import EMPTY_CONFIG, Manifest
from edgemodel.node import imports
from tests.simulators.registry import RegistrySimulator
from tests.unit.cli.conftest import Keys, Run

REPOSITORY = "models/detector"


@pytest.fixture
async def bundle(run: Run, published: str, tmp_path: Path) -> Path:
    path = tmp_path / "detector.tar"
    done = await run("bundle", "create", published, "--to", path, "--plain-http")
    assert done.code == 0, done.err
    return path


@pytest.fixture
async def site():
    async with RegistrySimulator() as simulator:
        yield simulator


def add_delta(simulator: RegistrySimulator, target: str, old: str, new: str) -> str:
    """Attach something that says it is a delta between two layers; return the digest of its blob."""
    patch = simulator.add_blob(REPOSITORY, b"a delta")
    simulator.add_blob(REPOSITORY, EMPTY_CONFIG)
    _, raw = simulator.manifests[REPOSITORY][target]
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "artifactType": media_types.DELTA_MANIFEST,
        "config": {"mediaType": media_types.OCI_EMPTY, "digest": Digest.of(EMPTY_CONFIG), "size": 2},
        "layers": [
            {
                "mediaType": media_types.DELTA_LAYER,
                "digest": patch,
                "size": 7,
                "annotations": {media_types.DELTA_FROM: old, media_types.DELTA_TO: new},
            }
        ],
        "subject": {"mediaType": media_types.OCI_MANIFEST, "digest": target, "size": len(raw)},
    }
    simulator.add_manifest(REPOSITORY, json.dumps(document).encode())
    return patch


def flip_a_bit(bundle: Path) -> str:
    """Damage the largest file inside; return its name."""
    with tarfile.open(bundle) as archive:
        largest = max(archive.getmembers(), key=lambda member: member.size)
    content = bytearray(bundle.read_bytes())
    content[largest.offset_data + largest.size // 2] ^= 1
    bundle.write_bytes(content)
    return largest.name.rpartition("/")[2]


async def test_the_same_model_gives_the_same_bytes(
    run: Run, published: str, bundle: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again.tar"
    done = await run("bundle", "create", published, "--to", again, "--plain-http", "--output", "json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["signatures"] == 1
    assert filecmp.cmp(again, bundle, shallow=False)
    with tarfile.open(bundle) as archive:
        assert archive.getnames()[:2] == ["oci-layout", "index.json"]


async def test_a_bundle_carries_a_signed_model_to_another_registry(
    run: Run, bundle: Path, site: RegistrySimulator, keys: Keys
) -> None:
    target = f"{site.host}/edge/models/detector:1.4.0"
    done = await run("bundle", "import", bundle, "--to", target, "--key", keys.public, "--plain-http")
    assert done.code == 0, done.err
    verified = await run("verify", target, "--key", keys.public, "--plain-http")
    assert verified.code == 0, verified.err


async def test_a_registry_without_a_referrers_api_gets_the_fallback_tag(
    run: Run, bundle: Path, site: RegistrySimulator, keys: Keys
) -> None:
    site.referrers = False
    target = f"{site.host}/models/detector:1.4.0"
    assert (await run("bundle", "import", bundle, "--to", target, "--plain-http")).code == 0
    verified = await run("verify", target, "--key", keys.public, "--plain-http")
    assert verified.code == 0, verified.err


async def test_inspect_says_what_is_inside_and_who_signed(run: Run, bundle: Path, keys: Keys) -> None:
    done = await run("bundle", "inspect", bundle, "--key", keys.public, "--output", "json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["whole"] is True
    [model] = told["models"]
    assert model["reference"].partition("/")[2].startswith("models/detector:1.4.0@sha256:")
    assert model["verifiedBy"] == ["command-line/site.pub"]
    assert len(model["signers"]) == 1


async def test_a_model_that_the_keys_do_not_vouch_for_is_not_let_in(
    run: Run, bundle: Path, site: RegistrySimulator, tmp_path: Path
) -> None:
    other = tmp_path / "other.pub"
    other.write_text(PrivateKey.generate().public.pem)
    done = await run(
        "bundle", "import", bundle, "--to", f"{site.host}/models/detector:1", "--key", other, "--plain-http"
    )
    assert done.code == 3
    assert "KeyUnknown" in done.err
    assert site.manifests == {}


async def test_damage_is_found_before_anything_changes(
    run: Run, bundle: Path, site: RegistrySimulator, tmp_path: Path
) -> None:
    damaged = flip_a_bit(bundle)
    done = await run("bundle", "inspect", bundle)
    assert done.code == 3
    assert damaged in done.out
    done = await run("bundle", "import", bundle, "--to", f"{site.host}/models/detector:1", "--plain-http")
    assert done.code == 3
    assert site.manifests == {}
    store = tmp_path / "store"
    store.mkdir()
    done = await run("bundle", "import", bundle, "--store", store)
    assert done.code == 3
    assert list(imports.layouts(store)) == []


async def test_a_bundle_cut_short_is_refused(run: Run, bundle: Path) -> None:
    os.truncate(bundle, 20_000)
    done = await run("bundle", "inspect", bundle)
    assert done.code == 3
    assert "ends" in done.err


async def test_what_the_site_has_is_left_out_and_so_is_what_a_delta_rebuilds(
    run: Run, simulator: RegistrySimulator, published: str, model: Path, keys: Keys, tmp_path: Path
) -> None:
    changed = tmp_path / "next" / "model.onnx"
    changed.parent.mkdir()
    shutil.copy(model, changed)
    content = bytearray(changed.read_bytes())
    content[-1000] ^= 0x40  # a weight
    changed.write_bytes(content)
    newer = published.replace("1.4.0", "1.5.0")
    done = await run(
        "publish", changed, "--to", newer, "--version", "1.5.0", "--key", keys.private, "--plain-http"
    )
    assert done.code == 0, done.err
    old, new = (
        Manifest.parse(simulator.manifests[REPOSITORY][simulator.tags[REPOSITORY][tag]][1])
        for tag in ("1.4.0", "1.5.0")
    )
    before, after = ({it.digest: it for it in manifest.layers} for manifest in (old, new))
    [gone] = before.keys() - after.keys()
    [came] = after.keys() - before.keys()
    patch = add_delta(simulator, new.digest, gone, came)
    small = tmp_path / "small.tar"
    done = await run(
        "bundle", "create", newer, "--present", published, "--to", small, "--plain-http", "--output", "json"
    )
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["deltas"] == 1
    assert set(told["leftOut"]) == set(after)
    layout = ImageLayout.open(small)
    assert layout.size(Digest(patch)) == 7
    assert layout.size(came) is None


async def test_a_node_finds_the_model_in_what_was_placed(run: Run, bundle: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    done = await run("bundle", "import", bundle, "--store", store, "--output", "json")
    assert done.code == 0, done.err
    [reference] = ImageLayout.open(bundle).models
    assert reference.digest is not None
    held = imports.holding(store, reference.digest)
    assert held is not None
    assert held.path == Path(json.loads(done.out)["bundle"])
    assert imports.drop_used(store, {reference.digest}, set()) == []
    assert imports.drop_used(store, {reference.digest}, {reference.digest}) == [held.path]
    assert imports.holding(store, reference.digest) is None
