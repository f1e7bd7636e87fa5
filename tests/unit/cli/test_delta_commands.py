"""Deltas from the command line: what a publisher types, what then lies in the registry, and that nodes can use it."""

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgemodel.artifact import media_types
from edgemodel.artifact.delta import codec
from edgemodel.artifact.delta_artifact import read_delta_manifest
from edgemodel.artifact.digest import Digest
from edgemodel.cli import delta_tables, exit_codes
from tests.simulators.registry import MANIFEST, RegistrySimulator
from tests.unit.cli.conftest import Keys, Run

pytestmark = pytest.mark.timeout(10)  # a publish is two, with codecs: near 2 s on a busy machine
PLAIN = "--plain-http"
WHEN = ("--created", "2026-01-01T00:00:00Z")
SIZE = 640


def save(path: Path, weights: np.ndarray, name: str = "w") -> Path:
    """Write y = x · w."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", name], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", SIZE])],
        [numpy_helper.from_array(weights.astype(np.float32), name)],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, ir_version=9, opset_imports=[opset]), path)
    return path


@dataclass
class Versions:
    """An old version that is published, and the files of a fine-tuned one."""

    host: str
    old: str
    new: str
    tuned: Path
    keys: Keys


@pytest.fixture
def weights() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((SIZE, SIZE)) * 0.05


@pytest.fixture
async def versions(
    run: Run, simulator: RegistrySimulator, keys: Keys, tmp_path: Path, weights: np.ndarray
) -> Versions:
    repository = f"{simulator.host}/models/detector"
    old = save(tmp_path / "model.onnx", weights)
    done = await run("publish", old, "--to", f"{repository}:1", "--key", keys.private, *WHEN, PLAIN)
    assert done.code == 0, done.err
    (tmp_path / "tuned").mkdir()
    moved = weights + np.random.default_rng(2).standard_normal(weights.shape) * 1e-5
    tuned = save(tmp_path / "tuned" / "model.onnx", moved)
    return Versions(simulator.host, f"{repository}:1", f"{repository}:2", tuned, keys)


def deltas_in(simulator: RegistrySimulator, target: str):
    """Every delta layer in the registry that is attached to ``target``."""
    found = []
    for kind, content in simulator.manifests["models/detector"].values():
        wanted = f'"{target}"'.encode()
        if media_types.DELTA_MANIFEST.encode() in content and wanted in content and kind == MANIFEST:
            found += read_delta_manifest(content, Digest(target))
    return found


def rebuilt(simulator: RegistrySimulator, layer, folder: Path) -> bytes:
    """Apply a delta as a node does."""
    blobs = simulator.blobs["models/detector"]
    base = None
    if layer.from_digest is not None:
        base = folder / "base"
        base.write_bytes(blobs[layer.from_digest])
    patch = folder / "patch"
    patch.write_bytes(blobs[layer.descriptor.digest])
    content = bytearray()
    codec.apply(base, patch, content.extend, size=len(blobs[layer.to_digest]))
    return bytes(content)


def publishing(versions: Versions, *more: object) -> tuple[object, ...]:
    return (
        "publish", versions.tuned, "--to", versions.new, "--key", versions.keys.private, *WHEN, PLAIN,
        "--output", "json", "--delta-from", versions.old, *more,
    )  # fmt: skip


@pytest.mark.parametrize("referrers_api", [True, False])
async def test_publishing_with_deltas(run, simulator, versions, tmp_path, referrers_api):
    simulator.referrers = referrers_api
    simulator.requests.clear()
    done = await run(*publishing(versions))
    assert done.code == 0, done.err
    said = json.loads(done.out)
    (layer,) = deltas_in(simulator, said["digest"])
    size = len(simulator.blobs["models/detector"][layer.to_digest])
    assert layer.codec == "ulp"
    assert layer.descriptor.size < 0.5 * size
    assert rebuilt(simulator, layer, tmp_path) == simulator.blobs["models/detector"][layer.to_digest]
    (made,) = said["deltas"]["from"]
    by_path = {file["path"]: file for file in made["files"]}
    assert by_path["model.onnx_data"]["savedBytes"] == size - layer.descriptor.size == made["savedBytes"]
    assert len(said["deltas"]["manifests"]) == 1
    order = [
        "tag" if put.path.endswith("/manifests/2")
        else "delta" if media_types.DELTA_MANIFEST.encode() in put.body and b'"subject"' in put.body
        else "signature" if b"sigstore.bundle" in put.body and b'"subject"' in put.body
        else "model"
        for put in simulator.seen("PUT", "/manifests/")
        if "/manifests/sha256-" not in put.path
    ]  # fmt: skip
    assert order == ["model", "delta", "signature", "tag"], "nodes find deltas at their first look"


async def test_the_same_files_give_the_same_deltas(run, simulator, versions):
    first, second = [json.loads((await run(*publishing(versions))).out) for _ in range(2)]
    assert first["deltas"]["manifests"] == second["deltas"]["manifests"]
    assert first["digest"] == second["digest"]


async def test_deltas_can_be_made_later_and_without_downloading(run, simulator, versions, tmp_path):
    done = await run("publish", versions.tuned, "--to", versions.new, "--key", versions.keys.private, PLAIN)
    assert done.code == 0, done.err
    for version in ("1", "2"):
        reference = versions.old if version == "1" else versions.new
        pull = await run("pull", reference, "--to", tmp_path / version, "--key", versions.keys.public, PLAIN)
        assert pull.code == 0, pull.err
    simulator.requests.clear()
    folders = ("--from-dir", tmp_path / "1", "--from-dir", tmp_path / "2")
    done = await run("delta", versions.new, "--from", versions.old, *folders, PLAIN)
    assert done.code == 0, done.err
    assert "ulp is the smallest" in done.out
    assert "saved" in done.out
    assert not simulator.seen("GET", "/blobs/")
    digest = simulator.tags["models/detector"]["2"]
    (layer,) = deltas_in(simulator, digest)
    assert rebuilt(simulator, layer, tmp_path) == simulator.blobs["models/detector"][layer.to_digest]


async def test_a_folder_with_other_bytes_is_not_believed(run, simulator, versions, tmp_path):
    assert (await run("publish", versions.tuned, "--to", versions.new, PLAIN)).code == 0
    pull = await run("pull", versions.old, "--to", tmp_path / "1", "--key", versions.keys.public, PLAIN)
    assert pull.code == 0
    data = tmp_path / "1" / "model.onnx_data"
    data.chmod(0o644)
    data.write_bytes(bytes(data.stat().st_size))
    done = await run("delta", versions.new, "--from", versions.old, "--from-dir", tmp_path / "1", PLAIN)
    assert done.code == 0, done.err
    (layer,) = deltas_in(simulator, simulator.tags["models/detector"]["2"])
    assert rebuilt(simulator, layer, tmp_path) == simulator.blobs["models/detector"][layer.to_digest]


async def test_retrained_from_scratch_nothing_helps_and_it_says_so(
    run, simulator, versions, weights, tmp_path
):
    save(versions.tuned, np.random.default_rng(9).standard_normal(weights.shape))
    done = await run(*publishing(versions))
    assert done.code == 0, done.err
    said = json.loads(done.out)
    files = [file for file in said["deltas"]["from"][0]["files"] if file["path"] == "model.onnx_data"]
    assert files[0]["codec"] is None
    assert "from scratch" in files[0]["why"]
    packed = files[1]
    assert packed["codec"] == "planes"
    assert packed["from"] is None
    assert 0.8 < packed["deltaSize"] / packed["size"] < 0.9
    (layer,) = deltas_in(simulator, said["digest"])
    assert layer.from_digest is None
    assert rebuilt(simulator, layer, tmp_path) == simulator.blobs["models/detector"][layer.to_digest]


async def test_a_renamed_model_is_matched_with_the_old_one(run, simulator, versions):
    renamed = versions.tuned.rename(versions.tuned.with_name("detector-v2.onnx"))
    versions.tuned = renamed
    said = json.loads((await run(*publishing(versions))).out)
    (file,) = [f for f in said["deltas"]["from"][0]["files"] if f["path"] == "detector-v2.onnx_data"]
    assert file["fromPath"] == "model.onnx_data"
    assert file["codec"] == "ulp"


async def test_nothing_changed_needs_no_delta(run, simulator, versions, tmp_path):
    versions.tuned = tmp_path / "model.onnx"
    said = json.loads((await run(*publishing(versions))).out)
    assert said["deltas"]["manifests"] == []
    (made,) = said["deltas"]["from"]
    assert (made["files"], made["savedBytes"]) == ([], 0)


async def test_an_old_version_that_is_not_there_is_code_5_and_publishes_nothing(run, simulator, versions):
    versions.old = versions.old.replace(":1", ":0")
    done = await run(*publishing(versions))
    assert done.code == exit_codes.TRANSIENT
    assert json.loads(done.out)["error"]["reason"] == "NotFound"
    assert "2" not in simulator.tags["models/detector"]


async def test_a_version_is_no_base_of_its_own(run, versions):
    done = await run("delta", versions.old, "--from", versions.old, PLAIN)
    assert done.code == exit_codes.STALLED
    assert "older" in done.err


# -- rounding -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    folder = tmp_path / "samples"
    folder.mkdir()
    for number in range(2):
        x = np.random.default_rng(number).standard_normal((2, SIZE)).astype(np.float32)
        np.savez(folder / f"{number}.npz", x=x)
    return folder


@pytest.mark.process
@pytest.mark.timeout(30)
@pytest.mark.parametrize("bits", [8, 4])
async def test_a_rounded_update_is_smaller_and_is_what_is_signed(
    run, simulator, versions, samples, tmp_path, bits
):
    exact = json.loads((await run(*publishing(versions))).out)
    done = await run(*publishing(versions, "--delta-quantize", bits, "--samples", samples))
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["digest"] != exact["digest"], "another model"
    assert said["rounded"]["bits"] == bits
    assert said["rounded"]["samples"] == 2
    (answer,) = said["rounded"]["outputs"]
    assert 0.9999 < answer["minCosine"] <= 1
    assert said["rounded"]["files"][0]["weights"] == SIZE * SIZE
    sizes = [
        next(f["deltaSize"] for f in one["deltas"]["from"][0]["files"] if f["path"] == "model.onnx_data")
        for one in (exact, said)
    ]
    assert said["rounded"]["unroundedDeltaSize"] >= sizes[0]
    assert sizes[1] < sizes[0] * (0.85 if bits == 8 else 0.45)
    (layer,) = deltas_in(simulator, said["digest"])
    assert rebuilt(simulator, layer, tmp_path) == simulator.blobs["models/detector"][layer.to_digest]
    assert (await run("verify", versions.new, "--key", versions.keys.public, PLAIN)).code == 0


@pytest.mark.process
@pytest.mark.timeout(30)
async def test_a_rounded_model_that_answers_otherwise_is_refused_with_figures(
    run, simulator, versions, samples
):
    done = await run(
        *publishing(versions, "--delta-quantize", 4, "--samples", samples, "--min-cosine", "1.0")
    )
    assert done.code == exit_codes.REFUSED
    error = json.loads(done.out)["error"]
    assert error["reason"] == "AccuracyLost"
    assert "y: cosine 0.99" in error["message"] or "y: cosine 1.0" in error["message"]
    assert "2" not in simulator.tags["models/detector"], "nothing was published"


async def test_nobody_rounds_without_looking(run, simulator, versions):
    done = await run(*publishing(versions, "--delta-quantize", 4))
    assert done.code == exit_codes.STALLED
    assert "--samples" in json.loads(done.out)["error"]["message"]
    assert "2" not in simulator.tags["models/detector"]
    done = await run(*publishing(versions, "--delta-quantize", 4, "--accept-unchecked"))
    assert done.code == 0, done.err
    assert json.loads(done.out)["rounded"]["outputs"] == []


@pytest.mark.process
@pytest.mark.timeout(30)
async def test_samples_that_the_old_version_brings_are_used(run, simulator, versions, samples):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for sample in sorted(samples.iterdir()):
            tar.add(sample, f"{sample.stem}.inputs.npz")
            tar.add(sample, f"{sample.stem}.outputs.npz")  # carried on are inputs only
    digest = simulator.add_blob("models/detector", archive.getvalue())
    old = simulator.tags["models/detector"]["1"]
    document = json.loads(simulator.manifests["models/detector"][old][1])
    size = len(archive.getvalue())
    document["layers"].append({"mediaType": media_types.SAMPLES, "digest": digest, "size": size})
    simulator.add_manifest("models/detector", json.dumps(document).encode(), tag="1-samples")
    versions.old += "-samples"
    done = await run(*publishing(versions, "--delta-quantize", 4))
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert (said["rounded"]["samples"], said["golden"]["samples"]) == (2, 2)


@pytest.mark.process
@pytest.mark.timeout(30)
async def test_samples_that_do_not_fit_the_model_say_so(run, versions, tmp_path):
    np.savez(tmp_path / "wrong.npz", z=np.zeros(3, np.float32))
    done = await run(*publishing(versions, "--delta-quantize", 4, "--samples", tmp_path / "wrong.npz"))
    assert done.code == exit_codes.STALLED
    assert "expected an array for each of x; found z" in json.loads(done.out)["error"]["message"]


@pytest.mark.parametrize(
    "words",
    [
        ("--delta-quantize", "4"),
        ("--samples", "x.npz"),
        ("--min-cosine", "7"),
    ],
)
async def test_options_that_make_no_sense_alone(run, versions, words):
    done = await run("publish", versions.tuned, "--to", versions.new, PLAIN, *words)
    assert done.code == exit_codes.STALLED
    assert words[0] in done.err


# -- explaining ---------------------------------------------------------------------------------------------------------


async def test_two_versions_are_explained_as_json(run, simulator, versions, tmp_path):
    assert (await run("publish", versions.tuned, "--to", versions.new, PLAIN)).code == 0
    done = await run("inspect", "--delta", versions.old, versions.new, PLAIN)
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["unchanged"] == ["model.onnx"]
    (file,) = said["files"]
    (tensor,) = file["tensors"]
    assert (tensor["name"], tensor["dtype"], tensor["size"]) == ("w", "F32", SIZE * SIZE * 4)
    assert tensor["status"] == "changed"
    assert 0.9 < tensor["changedShare"] <= 1
    assert 1e-5 < tensor["maxDifference"] < 1e-4
    assert 5e-6 < tensor["meanDifference"] < 1e-5
    assert tensor["maxUlp"] > tensor["meanUlp"] > 1
    assert [attempt["codec"] for attempt in file["tried"]] == ["ulp", "patch-from", "hdiff"]
    assert file["codec"] == "ulp"
    assert file["deltaSize"] == min(attempt["size"] for attempt in file["tried"] if attempt["size"])


async def test_files_on_disk_are_explained_too(run, versions, tmp_path):
    done = await run("inspect", "--delta", tmp_path / "model.onnx", versions.tuned)
    assert done.code == 0, done.err
    (file,) = json.loads(done.out)["files"]
    assert file["tensors"][0]["status"] == "changed"


@pytest.mark.parametrize("words", [(), ("r.local/m:1", "--delta", "a", "b")])
async def test_inspect_wants_one_thing(run, words):
    assert (await run("inspect", *words)).code == exit_codes.USAGE


async def test_neither_a_file_nor_a_reference(run, tmp_path):
    done = await run("inspect", "--delta", tmp_path / "absent.onnx", tmp_path / "absent2.onnx")
    assert done.code == exit_codes.STALLED
    assert "no file or folder" in done.err


async def test_tables_name_every_tensor_and_why(run, versions, tmp_path, capsys):
    from edgemodel.artifact.delta_report import report

    old = delta_tables._local(tmp_path / "model.onnx")
    new = delta_tables._local(save(versions.tuned, np.zeros((SIZE, SIZE)), name="[red]v\x1b[2J"))
    delta_tables.show(report(old, new, tmp_path / "patches"))
    printed = capsys.readouterr().out
    assert "ULP" in printed
    assert "v�[2J" in printed, "what strangers call a tensor does not steer the terminal"
    assert "\x1b[2J" not in printed
    assert "of the file" in printed
