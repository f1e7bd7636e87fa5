"""Each command as a person or a script uses it: what it prints, what it writes, how it ends."""

import dataclasses
import json
import stat
from base64 import b64encode
from pathlib import Path

import pytest

from edgemodel.artifact.digest import Digest
from edgemodel.artifact.keys import PrivateKey, PublicKey
from edgemodel.artifact.policy import Policy, TrustedKey
from edgemodel.artifact.signature import sign_bundle
from edgemodel.cli import exit_codes
from tests.simulators.certificates import loopback_tls
from tests.simulators.registry import RegistrySimulator
from tests.unit.cli.conftest import Keys, same_as_golden

PLAIN = "--plain-http"
VECTORS = Path(__file__).parents[2] / "vectors" / "cosign-3.1.1"


async def test_from_a_key_to_a_verified_folder(run, published, keys, tmp_path):
    verified = await run("verify", published, "--key", keys.public, PLAIN)
    assert verified.code == 0
    same_as_golden("verify", verified.out, tmp_path)
    pulled = await run("pull", published, "--to", tmp_path / "out", "--key", keys.public, PLAIN)
    assert pulled.code == 0
    same_as_golden("pull", pulled.out, tmp_path)
    assert json.loads((tmp_path / "out" / "model.json").read_text())["version"] == "1.4.0"
    inspected = await run("inspect", published, PLAIN)
    assert inspected.code == 0
    same_as_golden("inspect", inspected.out, tmp_path)


@pytest.mark.parametrize("command", ["verify", "inspect", "pull", "sign", "publish"])
async def test_json_is_one_document(run, published, keys, model, tmp_path, command):
    words = {
        "verify": ("verify", published, "--key", keys.public),
        "inspect": ("inspect", published),
        "pull": ("pull", published, "--to", tmp_path / "out", "--key", keys.public),
        "sign": ("sign", published, "--key", keys.private),
        "publish": (
            "publish",
            model,
            "--to",
            published,
            "--created",
            "2026-01-01T00:00:00Z",
            "--key",
            keys.private,
        ),
    }[command]
    done = await run(*words, PLAIN, "--output", "json")
    assert done.code == 0
    document = json.loads(done.out)
    assert document["digest"].startswith("sha256:")
    same_as_golden(f"{command}_json", done.out, tmp_path)


async def test_the_tag_is_never_seen_unsigned(run, simulator, published):
    order = [
        "tag"
        if request.path.endswith("/manifests/1.4.0")
        else "signature"
        if b"sigstore.bundle" in request.body
        else "model"
        for request in simulator.seen("PUT", "/manifests/")
    ]
    assert order == ["model", "signature", "tag"]


async def test_publishing_twice_gives_the_same_digest(run, simulator, published, model):
    words = (
        "--version",
        "1.4.0",
        "--sequence",
        7,
        "--created",
        "2026-01-01T00:00:00Z",
        PLAIN,
        "--output",
        "json",
    )
    done = await run("publish", model, "--to", published, *words)
    assert json.loads(done.out)["digest"] == simulator.tags["models/detector"]["1.4.0"]
    assert json.loads(done.out)["signature"] is None


async def test_a_name_that_no_cluster_will_take_is_remarked_upon(run, simulator, model, keys):
    reference = f"{simulator.host}/models/detector:1"
    done = await run(
        "publish", model, "--to", reference, "--name", "classifier", "--key", keys.private, PLAIN
    )
    assert done.code == 0
    assert "WrongModel" in done.err
    done = await run("verify", reference, "--key", keys.public, PLAIN)
    assert done.code == exit_codes.REFUSED
    assert "WrongModel" in done.err


async def test_source_date_epoch_is_the_creation_time(run, simulator, model, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    reference = f"{simulator.host}/models/detector:1"
    first = await run("publish", model, "--to", reference, PLAIN, "--output", "json")
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    words = ("--created", "2026-01-01T00:00:00Z", PLAIN, "--output", "json")
    second = await run("publish", model, "--to", reference, *words)
    assert json.loads(first.out)["digest"] == json.loads(second.out)["digest"]


async def test_a_stranger_is_refused_with_code_3(run, published, tmp_path):
    (tmp_path / "other.pub").write_text(PrivateKey.generate().public.pem)
    done = await run("verify", published, "--key", tmp_path / "other.pub", PLAIN)
    assert done.code == exit_codes.REFUSED
    assert "KeyUnknown" in done.err
    same_as_golden("verify_refused", done.out, tmp_path)
    done = await run(
        "pull",
        published,
        "--to",
        tmp_path / "out",
        "--key",
        tmp_path / "other.pub",
        PLAIN,
        "--output",
        "json",
    )
    assert done.code == exit_codes.REFUSED
    assert json.loads(done.out)["error"]["reason"] == "KeyUnknown"
    assert not (tmp_path / "out").exists()


async def test_a_lower_sequence_than_asked_for_is_refused(run, published, keys):
    words = ("verify", published, "--key", keys.public, PLAIN)
    assert (await run(*words, "--min-sequence", 7)).code == 0
    done = await run(*words, "--min-sequence", 8)
    assert done.code == exit_codes.REFUSED
    assert "DowngradeRefused" in done.err


async def test_several_keys_and_a_threshold(run, published, keys, tmp_path):
    other = PrivateKey.generate()
    (tmp_path / "other.key").write_bytes(other.export_plain())
    (tmp_path / "other.pub").write_text(other.public.pem)
    both = ("--key", keys.public, "--key", tmp_path / "other.pub", "--threshold", 2, PLAIN)
    assert (await run("verify", published, *both)).code == exit_codes.REFUSED
    assert (await run("sign", published, "--key", tmp_path / "other.key", PLAIN)).code == 0
    assert (await run("verify", published, *both)).code == 0
    assert (await run("verify", published, *both[:2], *both[4:])).code == exit_codes.STALLED


@pytest.mark.parametrize("form", ["yaml", "json"])
async def test_a_policy_file_is_judged_as_a_cluster_would(run, published, keys, tmp_path, form):
    key = TrustedKey("publisher", PublicKey.from_pem(keys.public.read_text()))
    policy = Policy("site", ("**/models/*",), (key,))
    path = tmp_path / f"policy.{form}"
    if form == "json":
        path.write_text(policy.to_json())
    else:
        pem = key.key.pem.replace("\n", "\n        ").rstrip()
        path.write_text(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: not-ours}\n---\n"
            "apiVersion: edgemodel.io/v1alpha1\nkind: ModelTrustPolicy\nmetadata: {name: site}\nspec:\n"
            "  match: {images: ['**/models/*']}\n  authorities:\n    - name: publisher\n"
            f"      notBefore: 2026-01-01T00:00:00Z\n      publicKey: |\n        {pem}\n"
        )
    done = await run("verify", published, "--policy", path, PLAIN, "--output", "json")
    assert done.code == 0, done.out
    assert json.loads(done.out)["verifiedBy"] == ["site/publisher"]
    elsewhere = dataclasses.replace(policy, images=("*/others/*",))
    path.write_text(elsewhere.to_json())
    done = await run("verify", published, "--policy", path, PLAIN)
    assert done.code == exit_codes.REFUSED
    assert "NoMatchingPolicy" in done.err


async def test_without_keys_nothing_is_trusted(run, published, tmp_path):
    for words in (("verify", published), ("pull", published, "--to", tmp_path / "out")):
        done = await run(*words, PLAIN)
        assert done.code == exit_codes.STALLED
        assert "--key" in done.err


async def test_a_folder_with_other_peoples_files_is_left_alone(run, published, keys, tmp_path):
    folder = tmp_path / "precious"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years")
    done = await run("pull", published, "--to", folder, "--key", keys.public, PLAIN)
    assert done.code == exit_codes.STALLED
    assert (folder / "thesis.txt").read_text() == "years"


async def test_annotations_are_signed(run, simulator, published, keys):
    assert (await run("sign", published, "--key", keys.private, "-a", "audited=yes", PLAIN)).code == 0
    done = await run("inspect", published, PLAIN, "--output", "json")
    assert {"audited": "yes"} in [item["annotations"] for item in json.loads(done.out)["signatures"]]
    assert (
        await run("sign", published, "--key", keys.private, "-a", "nonsense", PLAIN)
    ).code == exit_codes.STALLED


async def test_terminal_escapes_in_an_artifact_do_not_reach_the_terminal(run, simulator, published, keys):
    bundle = sign_bundle(PrivateKey.generate(), Digest(simulator.tags["models/detector"]["1.4.0"]))
    content = json.loads(bundle)
    content["verificationMaterial"]["publicKey"]["hint"] = "\x1b[2Jgone"
    digest = simulator.tags["models/detector"]["1.4.0"]
    blob = json.dumps(content).encode()
    simulator.add_blob("models/detector", blob)
    manifest = {
        "schemaVersion": 2,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest, "size": 2},
        "layers": [
            {
                "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
                "digest": simulator.add_blob("models/detector", blob),
                "size": len(blob),
            }
        ],
        "subject": {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1},
    }
    simulator.add_manifest("models/detector", json.dumps(manifest).encode())
    done = await run("inspect", published, PLAIN)
    assert "gone" in done.out
    assert "\x1b" not in done.out


# -- keys and passwords -------------------------------------------------------------------------------------------------


async def test_a_new_key_is_encrypted_and_for_its_owner_only(run, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEMODEL_PASSWORD", "hidden")
    done = await run("keygen", "--output-key-prefix", tmp_path / "new")
    assert done.code == 0
    keys = Keys(tmp_path / "new", tmp_path / "new.key", tmp_path / "new.pub")
    assert stat.S_IMODE(keys.private.stat().st_mode) == 0o600
    assert b"ENCRYPTED" in keys.private.read_bytes()
    assert PrivateKey.load(keys.private.read_bytes(), b"hidden").public == PublicKey.from_pem(
        keys.public.read_bytes()
    )


async def test_a_key_is_never_overwritten(run, keys):
    before = keys.private.read_bytes()
    assert (await run("keygen", "--output-key-prefix", keys.prefix)).code == exit_codes.STALLED
    assert keys.private.read_bytes() == before


async def test_an_unencrypted_key_only_when_asked_for(run, tmp_path):
    done = await run("keygen", "--output-key-prefix", tmp_path / "k")
    assert done.code == exit_codes.STALLED, "nobody can be asked for a password here"
    assert "EDGEMODEL_PASSWORD" in done.err
    assert not (tmp_path / "k.key").exists()
    assert (await run("keygen", "--output-key-prefix", tmp_path / "k", "--unencrypted")).code == 0
    assert PrivateKey.load((tmp_path / "k.key").read_bytes())


async def test_a_wrong_password_says_so_and_shows_neither(run, published, monkeypatch):
    monkeypatch.setenv("EDGEMODEL_PASSWORD", "not-it")
    done = await run("sign", published, "--key", VECTORS / "cosign.key", PLAIN)
    assert done.code == exit_codes.STALLED
    assert "cosign.key" in done.err
    assert "not-it" not in done.err


async def test_cosigns_own_key_file_signs(run, published, monkeypatch):
    monkeypatch.setenv("COSIGN_PASSWORD", "x")
    assert (await run("sign", published, "--key", VECTORS / "cosign.key", PLAIN)).code == 0
    assert (await run("verify", published, "--key", VECTORS / "cosign.pub", PLAIN)).code == 0


# -- registry access ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["home", "DOCKER_CONFIG", "--docker-config"])
async def test_credentials_come_from_docker(run, model, tmp_path, monkeypatch, where):
    async with RegistrySimulator(auth="bearer", users={"ann": "hidden"}) as simulator:
        folder = tmp_path / ("home/.docker" if where == "home" else "elsewhere")
        folder.mkdir(parents=True)
        auth = b64encode(b"ann:hidden").decode()
        (folder / "config.json").write_text(json.dumps({"auths": {simulator.host: {"auth": auth}}}))
        if where == "DOCKER_CONFIG":
            monkeypatch.setenv("DOCKER_CONFIG", str(folder))
        more = ("--docker-config", folder / "config.json") if where == "--docker-config" else ()
        done = await run("publish", model, "--to", f"{simulator.host}/models/detector:1", PLAIN, *more)
        assert done.code == 0, done.err


async def test_checks_that_bytes_without_a_manifest_never_reach_are_not_said_to_have_passed(run, keys):
    async with RegistrySimulator() as simulator:
        simulator.add_manifest("models/detector", b'{"schemaVersion": 2, "layers": {}}', tag="1")
        reference = f"{simulator.host}/models/detector:1"
        done = await run("verify", reference, "--key", keys.public, PLAIN, "--output", "json")
    assert done.code == exit_codes.REFUSED
    found = {check["check"]: check["result"] for check in json.loads(done.out)["checks"]}
    passed, missed = (
        dict.fromkeys(("digest", "policy"), "passed"),
        ("signatures", "name", "sequence", "expiry"),
    )
    assert found == {**passed, **dict.fromkeys(missed, "not reached"), "form": "FAILED"}


AUTH = {"auth": b64encode(b"somebody:else").decode()}
"""Of a registry whose name ends like the one that is asked."""


@pytest.mark.process
@pytest.mark.parametrize("setting", [{"credsStore": "test"}, {"credHelpers": {"HOST": "test"}}])
async def test_a_credential_helper_is_asked(run, model, tmp_path, monkeypatch, setting):
    async with RegistrySimulator(auth="basic", users={"ann": "hidden"}) as simulator:
        helper = tmp_path / "docker-credential-test"
        helper.write_text(
            f"#!/bin/sh\nread host\n[ \"$1 $host\" = 'get {simulator.host}' ] || exit 7\n"
            'echo \'{"Username": "ann", "Secret": "hidden"}\'\n'
        )
        helper.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
        config = tmp_path / "config.json"
        config.write_text(
            json.dumps({"auths": {simulator.host: {}, f"my-{simulator.host}": AUTH}, **setting}).replace(
                "HOST", simulator.host
            )
        )
        words = ("--to", f"{simulator.host}/models/detector:1", PLAIN, "--docker-config", config)
        assert (await run("publish", model, *words)).code == 0
        helper.write_text("#!/bin/sh\necho credentials not found in native keychain\nexit 1\n")
        done = await run("publish", model, *words)
        assert done.code == exit_codes.TRANSIENT
        assert "no credentials" in done.err
        helper.unlink()
        done = await run("publish", model, *words)
        assert done.code == exit_codes.STALLED
        assert "docker-credential-test" in done.err


async def test_a_wrong_password_for_the_registry_is_code_5_and_not_shown(run, model, tmp_path):
    async with RegistrySimulator(auth="basic", users={"ann": "right"}) as simulator:
        config = tmp_path / "config.json"
        auth = b64encode(b"ann:hidden").decode()
        config.write_text(json.dumps({"auths": {simulator.host: {"auth": auth}}}))
        words = ("--to", f"{simulator.host}/models/detector:1", PLAIN, "--docker-config", config)
        done = await run("publish", model, *words)
    assert done.code == exit_codes.TRANSIENT
    assert "AuthenticationFailed" in done.err
    assert "hidden" not in done.err
    assert auth not in done.err


async def test_a_private_ca_is_given_by_file(run, model, tmp_path):
    context, ca = loopback_tls(tmp_path)
    (tmp_path / "ca.pem").write_text(ca)
    async with RegistrySimulator(tls=context) as simulator:
        reference = f"{simulator.host}/models/detector:1"
        assert (await run("publish", model, "--to", reference, "--ca-file", tmp_path / "ca.pem")).code == 0
        done = await run("inspect", reference)
        assert done.code == exit_codes.TRANSIENT
        assert "certificate" in done.err


async def test_plain_http_is_never_taken_by_itself(run, simulator, published):
    done = await run("inspect", published)
    assert done.code == exit_codes.TRANSIENT
    assert "plainHTTP" in done.err or "--plain-http" in done.err


# -- the command line itself --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [(), ("nonsense",), ("publish",), ("verify", "--output", "xml"), ("node",), ("pull", "r.local/m:1")],
)
async def test_a_wrong_command_line_is_code_2(run, words):
    done = await run(*words)
    assert done.code == exit_codes.USAGE
    assert "usage:" in done.err
    assert done.out == ""


@pytest.mark.parametrize("reference", ["detector:1", "r.local/m", "r.local/M:1", "https://r.local/m:1"])
async def test_a_wrong_reference_is_code_4_and_says_where(run, reference, tmp_path):
    done = await run("inspect", reference)
    assert done.code == exit_codes.STALLED
    assert "character" in done.err


async def test_the_definitions_are_printed(run):
    done = await run("crd")
    assert done.code == 0
    assert {item["kind"] for item in json.loads(done.out)["items"]} == {"CustomResourceDefinition"}
