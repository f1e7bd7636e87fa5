"""Golden samples from the command line: published, signed, delivered, shown, and never for a model that fails them."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgemodel.artifact import media_types
from edgemodel.artifact.manifest import SAMPLES_PATH, Manifest, model_files
from edgemodel.cli import exit_codes
from tests.server.process import running
from tests.unit.cli.conftest import Keys, Run
from tests.unit.cli.test_delta_commands import PLAIN, SIZE, WHEN, save

pytestmark = [pytest.mark.process, pytest.mark.timeout(30)]


@dataclass
class Site:
    """A model's file, samples in a folder, and where to publish."""

    model: Path
    weights: np.ndarray
    golden: Path
    repository: str
    keys: Keys

    def publishing(self, *words: object, model: Path | None = None, tag: str = "1") -> tuple[object, ...]:
        return (
            "publish", model or self.model, "--to", f"{self.repository}:{tag}", "--key", self.keys.private,
            *WHEN, PLAIN, "--output", "json", *words,
        )  # fmt: skip

    def outputs(self, factor: float = 1.0, weights: np.ndarray | None = None) -> None:
        by = (self.weights if weights is None else weights).astype(np.float32)
        for path in self.golden.glob("*.inputs.npz"):
            with np.load(path) as arrays:
                y = arrays["x"] @ by * np.float32(factor)
            np.savez(path.with_name(path.name.replace("inputs", "outputs")), y=y)


@pytest.fixture
def site(tmp_path, simulator, keys) -> Site:
    weights = np.random.default_rng(1).standard_normal((SIZE, SIZE)) * 0.05
    golden = tmp_path / "golden"
    golden.mkdir()
    for number in range(2):
        x = np.random.default_rng(number).standard_normal((2, SIZE)).astype(np.float32)
        np.savez(golden / f"s{number}.inputs.npz", x=x)
    model = save(tmp_path / "model.onnx", weights)
    return Site(model, weights, golden, f"{simulator.host}/models/detector", keys)


def layer_of(simulator, tag):
    digest = simulator.tags["models/detector"][tag]
    manifest = Manifest.parse(simulator.manifests["models/detector"][digest][1])
    (file,) = [file for file in model_files(manifest) if file.descriptor.media_type == media_types.SAMPLES]
    return file


async def test_samples_are_signed_with_the_model_and_reach_who_pulls_it(
    run: Run, simulator, site, tmp_path, keys
):
    done = await run(*site.publishing("--golden", site.golden))
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["golden"] == {
        "samples": 2, "computedOutputs": 2, "size": said["golden"]["size"], "checked": True, "carriedFrom": None,
    }  # fmt: skip
    assert said["files"][-1]["path"] == layer_of(simulator, "1").path == SAMPLES_PATH
    folder = tmp_path / "pulled"
    done = await run("pull", f"{site.repository}:1", "--to", folder, "--key", keys.public, PLAIN)
    assert done.code == 0, done.err
    assert json.loads((folder / "model.json").read_text())["file"] == "model.onnx"
    with running(model=folder) as server:
        assert server.event("ready")["golden_samples"] == "Pass 2/2"
    done = await run(*site.publishing("--golden", folder / SAMPLES_PATH, tag="2"))
    assert json.loads(done.out)["golden"]["computedOutputs"] == 0
    assert json.loads(done.out)["digest"] == said["digest"], "an archive is as good as its folder"


async def test_the_same_samples_give_the_same_digest(run: Run, site):
    site.outputs()
    one, other = [
        json.loads((await run(*site.publishing("--golden", site.golden, tag=tag))).out) for tag in "12"
    ]
    assert one["digest"] == other["digest"]
    assert one["golden"]["computedOutputs"] == 0
    bare = json.loads((await run(*site.publishing(tag="3"))).out)
    assert bare["digest"] != one["digest"]
    assert "golden" not in bare


async def test_a_model_that_fails_its_samples_is_not_published(run: Run, simulator, site):
    site.outputs(factor=1.01)
    done = await run(*site.publishing("--golden", site.golden))
    assert done.code == exit_codes.REFUSED
    error = json.loads(done.out)["error"]
    assert error["reason"] == "GoldenSamplesFailed"
    assert "sample 's0', output 'y': index [1, 171]: expected 4.3" in error["message"]
    assert "0 of 2 samples pass" in error["message"]
    assert not simulator.tags.get("models/detector")
    (site.golden / "tolerances.json").write_text('{"outputs": {"y": {"relative": 0.02}}}')
    assert (await run(*site.publishing("--golden", site.golden))).code == 0


async def test_samples_may_be_signed_unchecked_when_they_are_whole(run: Run, simulator, site):
    done = await run(*site.publishing("--golden", site.golden, "--golden-unchecked"))
    assert done.code == exit_codes.STALLED
    assert "expected <name>.outputs.npz beside each" in json.loads(done.out)["error"]["message"]
    site.outputs(factor=2)
    done = await run(*site.publishing("--golden", site.golden, "--golden-unchecked"))
    assert done.code == 0, done.err
    folder = site.model.parent / "pulled"
    done_pull = await run("pull", f"{site.repository}:1", "--to", folder, "--key", site.keys.public, PLAIN)
    assert done_pull.code == 0, done_pull.err
    with running(model=folder) as server:
        assert server.event("ready")["golden_samples"] == "Fail 0/2"
    assert json.loads(done.out)["golden"]["checked"] is False
    assert layer_of(simulator, "1").descriptor.size == json.loads(done.out)["golden"]["size"]
    done = await run(*site.publishing("--golden-unchecked"))
    assert "needs --golden" in json.loads(done.out)["error"]["message"]


async def test_samples_that_do_not_fit_the_model_say_so(run: Run, site):
    np.savez(site.golden / "s0.inputs.npz", z=np.zeros(3, np.float32))
    done = await run(*site.publishing("--golden", site.golden))
    assert done.code == exit_codes.STALLED
    assert "expected an array for each of x; found z" in json.loads(done.out)["error"]["message"]


async def test_inspect_shows_samples_and_tolerances(run: Run, simulator, site):
    (site.golden / "tolerances.json").write_text('{"default": {"absolute": 0.5}}')
    assert (await run(*site.publishing("--golden", site.golden))).code == 0
    done = await run("inspect", f"{site.repository}:1", PLAIN)
    assert done.code == 0, done.err
    assert "golden samples  s0, s1\n" in done.out
    assert 'tolerances      {"default": {"absolute": 0.5}}\n' in done.out
    assert SAMPLES_PATH in done.out
    done = await run("inspect", f"{site.repository}:1", PLAIN, "--output", "json")
    said = json.loads(done.out)["golden"]
    assert (said["samples"], said["tolerances"]) == (["s0", "s1"], {"default": {"absolute": 0.5}})


async def test_inspect_of_samples_that_are_none_says_so_and_shows_the_rest(run: Run, simulator, site):
    assert (await run(*site.publishing())).code == 0
    document = json.loads(simulator.manifests["models/detector"][simulator.tags["models/detector"]["1"]][1])
    content = b"no tar" * 200
    digest = simulator.add_blob("models/detector", content)
    document["layers"].append({"mediaType": media_types.SAMPLES, "digest": digest, "size": len(content)})
    simulator.add_manifest("models/detector", json.dumps(document).encode(), tag="strange")
    done = await run("inspect", f"{site.repository}:strange", PLAIN)
    assert done.code == 0, done.err
    assert "problem" in done.out
    assert "damaged" in done.out
    assert "model.onnx" in done.out


def moved(site: Site) -> np.ndarray:
    return site.weights + np.random.default_rng(2).standard_normal(site.weights.shape) * 1e-5


def tuned(site: Site) -> Path:
    (site.model.parent / "tuned").mkdir()
    return save(site.model.parent / "tuned" / "model.onnx", moved(site))


async def test_a_rounded_update_takes_samples_on_with_its_own_answers(run: Run, simulator, site):
    site.outputs()
    assert (await run(*site.publishing("--golden", site.golden))).code == 0
    old = f"{site.repository}:1"
    words = site.publishing("--delta-from", old, "--delta-quantize", 4, model=tuned(site), tag="2")
    done = await run(*words)
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["rounded"]["samples"] == 2, "they were compared, too"
    assert said["golden"]["carriedFrom"].startswith(f"{site.repository}@sha256:")
    assert (said["golden"]["samples"], said["golden"]["computedOutputs"]) == (2, 2)
    assert layer_of(simulator, "2").descriptor.digest != layer_of(simulator, "1").descriptor.digest
    # And so does the next one.
    done = await run(*words[:3], f"{site.repository}:3", *words[4:])
    assert json.loads(done.out)["golden"]["samples"] == 2


async def test_given_samples_gate_the_rounding_and_what_is_signed(run: Run, simulator, site):
    assert (await run(*site.publishing())).code == 0
    old, new = f"{site.repository}:1", tuned(site)
    site.outputs(weights=moved(site))
    done = await run(
        *site.publishing(
            "--delta-from", old, "--delta-quantize", 8, "--golden", site.golden, model=new, tag="2"
        )
    )
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert (said["rounded"]["samples"], said["golden"]["computedOutputs"]) == (2, 0)
    (site.golden / "tolerances.json").write_text('{"default": {"absolute": 0, "relative": 0}}')
    done = await run(
        *site.publishing(
            "--delta-from", old, "--delta-quantize", 4, "--golden", site.golden, model=new, tag="3"
        )
    )
    assert json.loads(done.out)["error"]["reason"] == "GoldenSamplesFailed"
    assert "3" not in simulator.tags["models/detector"]
