"""Real cosign and real oras on one side, the command line on the other, Debian's registry between them."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

TOOLS = Path(os.environ.get("EDGEMODEL_CACHE") or Path.home() / ".cache" / "edgemodel") / "bin"
COSIGN, ORAS = TOOLS / "cosign", TOOLS / "oras"
EDGEMODEL = Path(sys.executable).with_name("edgemodel")
PASSWORD = "for tests only"
OFFLINE = ("--insecure-ignore-tlog=true", "--allow-http-registry")


def run(
    *command: object, fails: bool = False, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "EDGEMODEL_PASSWORD": PASSWORD, "COSIGN_PASSWORD": PASSWORD}
    done = subprocess.run(
        [str(word) for word in command],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode != 0) == fails, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def edgemodel(*command: object, code: int = 0) -> dict:
    done = run(EDGEMODEL, *command, "--plain-http", "--output", "json", fails=code != 0)
    assert done.returncode == code, done.stdout
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("registry")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    config = folder / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: warn}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}/data}}}}\nhttp: {{addr: {host}}}\n"
    )
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(tuple(host.split(":")), timeout=1).close()  # type: ignore[arg-type]
                break
            except OSError:
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.05)
        yield host
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with our key pair (site.*), cosign's encrypted one (cosign.*) and cosign's offline configuration."""
    folder = tmp_path_factory.mktemp("keys")
    run(EDGEMODEL, "keygen", "--output-key-prefix", folder / "site")
    run(COSIGN, "generate-key-pair", folder=folder)
    (folder / "offline.json").write_text(run(COSIGN, "signing-config", "create").stdout)
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    weights = np.random.default_rng(1).standard_normal((800, 800)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 800])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 800])],
        [numpy_helper.from_array(weights, "w")],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.fixture
def repository(registry: str, request: pytest.FixtureRequest) -> str:
    """A repository of the test's own that ends in ``detector``."""
    return f"{registry}/{request.node.name.partition('[')[0].replace('_', '-')}/detector"


def published(repository: str, model: Path, *more: object) -> str:
    facts = ("--version", "1", "--sequence", "1")
    return str(edgemodel("publish", model, "--to", f"{repository}:v1", *facts, *more)["digest"])


@pytest.mark.parametrize("key", ["site", "cosign"])
def test_cosign_accepts_what_we_sign(repository: str, model: Path, keys: Path, key: str) -> None:
    digest = published(repository, model, "--key", keys / f"{key}.key")
    done = run(COSIGN, "verify", "--key", keys / f"{key}.pub", *OFFLINE, f"{repository}@{digest}")
    assert json.loads(done.stdout)[0]["critical"]["image"]["docker-manifest-digest"] == digest
    other = {"site": "cosign", "cosign": "site"}[key]
    run(COSIGN, "verify", "--key", keys / f"{other}.pub", *OFFLINE, f"{repository}@{digest}", fails=True)


def test_cosign_accepts_what_is_signed_later_with_annotations(
    repository: str, model: Path, keys: Path
) -> None:
    digest = published(repository, model)
    run(COSIGN, "verify", "--key", keys / "site.pub", *OFFLINE, f"{repository}@{digest}", fails=True)
    edgemodel("sign", f"{repository}:v1", "--key", keys / "site.key", "-a", "audited=yes")
    run(COSIGN, "verify", "--key", keys / "site.pub", *OFFLINE, "-a", "audited=yes", f"{repository}@{digest}")
    run(
        COSIGN,
        "verify",
        "--key",
        keys / "site.pub",
        *OFFLINE,
        "-a",
        "audited=no",
        f"{repository}@{digest}",
        fails=True,
    )


def cosign_sign(reference: str, keys: Path, *more: object) -> None:
    signing = ("--key", keys / "cosign.key", "--allow-http-registry", "-y")
    run(COSIGN, "sign", *signing, *(more or ("--signing-config", keys / "offline.json")), reference)


@pytest.mark.parametrize(
    ("more", "form"),
    [
        ((), "Bundle"),
        (("--new-bundle-format=false", "--use-signing-config=false", "--tlog-upload=false"), "Legacy"),
    ],
    ids=["bundle", "legacy"],
)
def test_we_accept_what_cosign_signs(
    repository: str, model: Path, keys: Path, tmp_path: Path, more: tuple[str, ...], form: str
) -> None:
    digest = published(repository, model)
    reference = f"{repository}@{digest}"
    assert (
        edgemodel("verify", reference, "--key", keys / "cosign.pub", code=3)["refusal"]["reason"]
        == "SignatureMissing"
    )
    cosign_sign(reference, keys, *more)
    found = edgemodel("verify", reference, "--key", keys / "cosign.pub")
    assert found["verified"]
    assert found["release"]["sequence"] == 1
    assert (
        edgemodel("verify", reference, "--key", keys / "site.pub", code=3)["refusal"]["reason"]
        == "KeyUnknown"
    )
    assert [item["format"] for item in edgemodel("inspect", reference)["signatures"]] == [form]
    pulled = edgemodel("pull", reference, "--to", tmp_path / "out", "--key", keys / "cosign.pub")
    assert pulled["digest"] == digest


def test_cosign_signs_with_a_key_of_ours(repository: str, model: Path, keys: Path) -> None:
    digest = published(repository, model)
    signing = (
        "--key",
        keys / "site.key",
        "--signing-config",
        keys / "offline.json",
        "--allow-http-registry",
        "-y",
    )
    run(COSIGN, "sign", *signing, f"{repository}@{digest}")
    assert edgemodel("verify", f"{repository}:v1", "--key", keys / "site.pub")["verified"]


def test_both_signatures_live_side_by_side(repository: str, model: Path, keys: Path) -> None:
    digest = published(repository, model, "--key", keys / "site.key")
    reference = f"{repository}@{digest}"
    cosign_sign(reference, keys)
    edgemodel("sign", reference, "--key", keys / "site.key", "-a", "again=1")
    both = ("--key", keys / "site.pub", "--key", keys / "cosign.pub", "--threshold", "2")
    assert len(edgemodel("verify", reference, *both)["verifiedBy"]) == 2
    for key in ("site", "cosign"):
        run(COSIGN, "verify", "--key", keys / f"{key}.pub", *OFFLINE, reference)


def test_an_attestation_is_no_signature_whatever_cosign_says(
    repository: str, model: Path, keys: Path, tmp_path: Path
) -> None:
    digest = published(repository, model)
    reference = f"{repository}@{digest}"
    (tmp_path / "scan.json").write_text('{"passed": false}')
    run(
        COSIGN, "attest", "--key", keys / "cosign.key", "--signing-config", keys / "offline.json",
        "--type", "https://example.com/scan/v1", "--predicate", tmp_path / "scan.json",
        "--allow-http-registry", "-y", reference,
    )  # fmt: skip
    found = edgemodel("verify", reference, "--key", keys / "cosign.pub", code=3)
    assert found["refusal"]["reason"] == "SignatureMissing"
    (attached,) = edgemodel("inspect", reference)["signatures"]
    assert attached["kind"] == "attestation"


def test_oras_pull_names_our_files(repository: str, model: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    edgemodel("publish", model, tmp_path / "labels.txt", "--to", f"{repository}:v1")
    folder = tmp_path / "pulled"
    run(ORAS, "pull", "--plain-http", f"{repository}:v1", "-o", folder)
    assert {path.name for path in folder.iterdir()} == {"model.onnx", "model.onnx_data", "labels.txt"}
    ours = onnx.load(folder / "model.onnx")
    theirs = onnx.load(model)
    assert (
        numpy_helper.to_array(ours.graph.initializer[0]).tobytes()
        == numpy_helper.to_array(theirs.graph.initializer[0]).tobytes()
    )


def test_we_pull_what_oras_pushed(repository: str, model: Path, keys: Path, tmp_path: Path) -> None:
    run(
        ORAS,
        "push",
        "--plain-http",
        f"{repository}:v1",
        f"{model.name}:application/octet-stream",
        folder=model.parent,
    )
    edgemodel("sign", f"{repository}:v1", "--key", keys / "site.key")
    found = edgemodel("pull", f"{repository}:v1", "--to", tmp_path / "out", "--key", keys / "site.pub")
    assert (tmp_path / "out" / found["file"]).read_bytes() == model.read_bytes()
