"""The init container: verified again in the pod, whole or not at all, failures where Kubernetes shows them."""

import asyncio
import json
import random
import signal
import sys
from base64 import b64encode
from pathlib import Path

import pytest

from edgemodel.artifact.policy import Policy
from edgemodel.cli.main import main
from edgemodel.errors import Stalled, Transient
from edgemodel.node.delivery import read_policies, read_registries, read_secrets
from edgemodel.node.fetch import TERMINATION_BYTES, report
from tests.simulators.registry import RegistrySimulator
from tests.unit.artifact.artifacts import OTHER_KEY, POLICY, publish

FILES = {"model.onnx": b"graph" * 100, "weights/model.data": b"w" * 300_000}


class Pod:
    """One pod's volumes."""

    def __init__(self, root: Path, simulator: RegistrySimulator, policies: list[Policy]) -> None:
        self.models, self.config, self.secrets = root / "models", root / "config", root / "secrets"
        self.log = root / "termination-log"
        self.simulator = simulator
        for folder in (self.models, self.config, self.secrets):
            folder.mkdir()
        self.log.write_text("")
        self.deliver(policies)
        settings = {simulator.host: {"plainHTTP": True}}
        (self.config / "registries.json").write_text(json.dumps(settings))

    def deliver(self, policies: list[Policy]) -> None:
        documents = [json.loads(policy.to_json()) for policy in policies]
        (self.config / "policies.json").write_text(json.dumps(documents))

    async def fetch(self, reference: object, *more: str) -> int:
        words = [
            *("node", "fetch", "--reference", str(reference), "--config-dir", str(self.config)),
            *(
                "--secrets-dir",
                str(self.secrets),
                "--output",
                str(self.models),
                "--name",
                "mine",
                "--version",
                "v9",
            ),
            *("--termination-log", str(self.log), *more),
        ]
        return await asyncio.to_thread(main, words)

    def said(self) -> dict[str, str]:
        return json.loads(self.log.read_text())


@pytest.fixture
def pod(tmp_path: Path, simulator: RegistrySimulator) -> Pod:
    return Pod(tmp_path, simulator, [POLICY])


async def test_a_model_lands_in_the_pods_volume(pod, simulator):
    published = publish(simulator, FILES)
    assert await pod.fetch(published.pinned) == 0
    for path, content in FILES.items():
        assert (pod.models / path).read_bytes() == content
    description = json.loads((pod.models / "model.json").read_text())
    assert (description["name"], description["version"]) == ("mine", "v9")
    assert description["digest"] == published.manifest.digest
    assert pod.log.read_text() == ""


async def test_a_container_that_starts_again_needs_no_registry(pod, simulator):
    published = publish(simulator, FILES)
    await pod.fetch(published.pinned)
    simulator.requests.clear()
    simulator.fault("GET", "", times=None, status=503)
    assert await pod.fetch(published.pinned) == 0
    assert simulator.requests == []


@pytest.mark.parametrize(
    ("key", "policies", "reason"),
    [
        (None, [POLICY], "SignatureMissing"),
        (OTHER_KEY, [POLICY], "KeyUnknown"),
        (OTHER_KEY, [], "NoMatchingPolicy"),
    ],
)
async def test_it_is_verified_again_in_the_pod(pod, simulator, key, policies, reason, capsys):
    pod.deliver(policies)
    assert await pod.fetch(publish(simulator, FILES, key=key).pinned) == 3
    assert pod.said()["reason"] == reason
    assert not (pod.models / "model.json").exists()
    assert json.loads(capsys.readouterr().err.splitlines()[-1])["reason"] == reason


@pytest.mark.parametrize(
    ("files", "more", "reason"),
    [
        ({"a.onnx": b"a", "b.onnx": b"b"}, (), "AmbiguousModelFile"),
        ({"a.txt": b"a"}, (), "ModelFileNotFound"),
        ({"a.onnx": b"a"}, ("--model-file", "b.onnx"), "ModelFileNotFound"),
    ],
)
async def test_what_a_person_must_mend_is_code_4(pod, simulator, files, more, reason):
    assert await pod.fetch(publish(simulator, files).pinned, *more) == 4
    assert pod.said()["reason"] == reason


async def test_a_registry_in_trouble_is_code_5(pod, simulator):
    published = publish(simulator, FILES)
    simulator.fault("GET", "/manifests/", times=None, status=403)
    assert await pod.fetch(published.pinned) == 5
    assert pod.said()["reason"] == "AuthenticationFailed"


async def test_a_reference_that_is_not_pinned_is_not_followed(pod, simulator):
    published = publish(simulator, FILES)
    assert await pod.fetch(published.reference) == 4
    assert pod.said()["reason"] == "InvalidSpec"
    assert simulator.requests == []


async def test_pull_secrets_are_tried_in_the_order_of_their_numbers(tmp_path):
    async with RegistrySimulator(auth="basic", users={"ann": "right"}) as simulator:
        published = publish(simulator, FILES)
        pod = Pod(tmp_path, simulator, [POLICY])
        for number, password in ((0, "wrong"), (2, "right"), (10, "later")):
            folder = pod.secrets / str(number)
            folder.mkdir()
            auth = b64encode(f"ann:{password}".encode()).decode()
            (folder / ".dockerconfigjson").write_text(json.dumps({"auths": {simulator.host: {"auth": auth}}}))
        (pod.secrets / "..data").mkdir()
        assert await pod.fetch(published.pinned) == 0
        tried = [b64encode(f"ann:{password}".encode()).decode() for password in ("wrong", "right")]
        sent = [
            r.headers["authorization"].removeprefix("Basic ")
            for r in simulator.requests
            if "authorization" in r.headers
        ]
        assert [one for number, one in enumerate(sent) if number == 0 or one != sent[number - 1]] == tried


async def test_no_secret_reaches_the_termination_log(tmp_path):
    async with RegistrySimulator(auth="basic", users={"ann": "right"}) as simulator:
        pod = Pod(tmp_path, simulator, [POLICY])
        (pod.secrets / "0").mkdir()
        auth = b64encode(b"ann:hidden").decode()
        (pod.secrets / "0" / ".dockerconfigjson").write_text(
            json.dumps({"auths": {simulator.host: {"auth": auth}}})
        )
        assert await pod.fetch(publish(simulator, FILES).pinned) == 5
        assert "hidden" not in pod.log.read_text()
        assert auth not in pod.log.read_text()
        assert pod.said()["reason"] == "AuthenticationFailed"


def test_without_policies_nothing_is_trusted(tmp_path):
    with pytest.raises(Stalled) as caught:
        read_policies(tmp_path)
    assert "policies.json" in caught.value.message
    (tmp_path / "policies.json").write_text('{"kind": "ModelTrustPolicy"}')
    with pytest.raises(Stalled):
        read_policies(tmp_path)


def test_settings_and_secrets_may_be_missing(tmp_path):
    assert not read_registries(tmp_path).hosts
    assert not read_secrets(tmp_path / "gone").entries
    assert not read_secrets(None).entries
    (tmp_path / "registries.json").write_text("{")
    with pytest.raises(Stalled):
        read_registries(tmp_path)


def test_a_long_message_still_is_one_json_object(tmp_path):
    log = tmp_path / "log"
    log.write_text("")
    line = report(Transient("DiskFull", "ß" * 100_000), log)
    assert len(log.read_bytes()) <= TERMINATION_BYTES
    assert json.loads(line)["reason"] == "DiskFull"


def test_where_there_is_no_termination_log_none_is_made(tmp_path):
    report(Transient("DiskFull", "x"), tmp_path / "log")
    assert not (tmp_path / "log").exists()


@pytest.mark.process
@pytest.mark.timeout(20)
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)])
async def test_a_process_that_is_stopped_leaves_nothing_that_harms(pod, simulator, sent, code):
    weights = random.Random(6).randbytes(4 << 20)
    published = publish(simulator, {"model.onnx": b"graph", "weights/model.data": weights})
    layer = published.manifest.layers[1].digest
    simulator.fault("GET", layer, stall=3 << 20)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edgemodel", "node", "fetch", "--reference", str(published.pinned)),
        *("--config-dir", str(pod.config), "--output", str(pod.models), "--termination-log", str(pod.log)),
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(15):
        while not any(path.stat().st_size > 1 << 20 for path in pod.models.rglob("*.partial")):  # noqa: ASYNC110 - a file
            await asyncio.sleep(0.02)
    process.send_signal(sent)
    async with asyncio.timeout(5):
        assert await process.wait() == code
    assert not (pod.models / "model.json").exists()
    assert await pod.fetch(published.pinned) == 0
    assert (pod.models / "weights" / "model.data").read_bytes() == weights
    assert (
        int(simulator.seen("GET", layer)[-1].headers["range"].removeprefix("bytes=").removesuffix("-"))
        > 1 << 20
    )
