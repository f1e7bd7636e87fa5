"""What the API server itself makes of the definitions: rules across fields, defaults, subresources, structure."""

from typing import Any

import pytest

from edgemodel.api.v1alpha1 import EdgeModelSpec
from edgemodel.cluster.client import ApiServer, Rejected
from edgemodel.cluster.kinds import EDGE_MODEL, MODEL_TRUST_POLICY
from tests.control_plane.conftest import CRD
from tests.control_plane.own_cluster import custom_resources
from tests.control_plane.site import Site

PEM = "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"
KEY = {"name": "a", "publicKey": PEM}


def model(namespace: str, name: str = "detector", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "edgemodel.io/v1alpha1",
        "kind": "EdgeModel",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"image": "registry.site.local/models/detector:1", **spec},
    }


def download(**window: str) -> dict[str, Any]:
    """Return a spec with a download window that is good but for what is given."""
    whole = {"schedule": "*/30 2-4 * JAN,FEB MON-FRI", "duration": "3h30m", "timeZone": "Etc/GMT+5"}
    return {"rollout": {"window": {"download": {**whole, **window}}}}


def canary(*weights: int) -> dict[str, Any]:
    """Return a spec with steps of these weights."""
    return {"rollout": {"strategy": "Canary", "steps": [{"weight": weight} for weight in weights]}}


def policy(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "edgemodel.io/v1alpha1",
        "kind": "ModelTrustPolicy",
        "metadata": {"name": "never-stored"},
        "spec": {"match": {"images": ["nowhere.invalid/**"]}, "authorities": [KEY], **spec},
    }


async def test_the_api_server_finds_the_definitions_structural(api: ApiServer) -> None:
    for definition in custom_resources():
        live = await api.get(CRD, None, definition["metadata"]["name"])  # type: ignore[index]
        assert live is not None
        conditions = {one["type"]: one["status"] for one in live["status"]["conditions"]}
        assert conditions["Established"] == "True"
        assert conditions.get("NonStructuralSchema", "False") == "False"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("n" * 51, "metadata.name: .*at most 50 characters"),
        ("1detector", "metadata.name: .*DNS-1035 label"),
        ("a.detector", "metadata.name: .*DNS-1035 label"),
    ],
)
async def test_a_name_that_a_service_cannot_bear_is_refused(site: Site, name: str, message: str) -> None:
    with pytest.raises(Rejected, match=message):
        await site.api.apply(EDGE_MODEL, model(site.namespace, name), manager="tests")


async def test_the_longest_name_is_accepted(site: Site) -> None:
    await site.api.apply(EDGE_MODEL, model(site.namespace, "n" * 50), manager="tests")


@pytest.mark.parametrize(
    "spec",
    [
        download(),
        download(schedule="0  2\t* * 1"),
        {"delivery": "Node"},
        canary(),
        canary(0, 1, 1, 50, 100),
        {"rollout": {"gate": {"maxErrorRatio": 0, "maxLatencyIncrease": 2.5, "maxLatencyP99": "80ms"}}},
    ],
)
async def test_windows_steps_gates_and_delivery_by_nodes_are_accepted(
    site: Site, spec: dict[str, Any]
) -> None:
    await site.api.apply(EDGE_MODEL, model(site.namespace, **spec), manager="tests")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"image": "a b"}, "spec.image: .*white space"),
        ({"image": "https://registry/model:1"}, "spec.image: .*scheme"),
        ({"image": "registry/model@sha256:12"}, "spec.image: .*64 lower-case hex digits"),
        ({"image": "registry/model@md5:" + "0" * 32}, "spec.image: .*pinned by @sha256:"),
        ({"image": "r/" + "m" * 511}, "spec.image: .*512"),
        ({"modelFile": "/model.onnx"}, r"spec.modelFile: .*without \.\."),
        ({"modelFile": "a/../../model.onnx"}, r"spec.modelFile: .*without \.\."),
        ({"pullSecrets": [{"name": "a"}, {"name": "a"}]}, r"spec.pullSecrets\[1\]: Duplicate"),
        ({"pullSecrets": [{"name": f"s{n}"} for n in range(9)]}, "spec.pullSecrets: .*8"),
        ({"replicas": 1001}, "spec.replicas: .*1000"),
        ({"delivery": "Disk"}, "spec.delivery: Unsupported value"),
        (download(schedule="0 2 * *"), r"window\.download\.schedule: .*five fields"),
        (download(schedule="0 0 2 * * *"), r"window\.download\.schedule: .*five fields"),
        (download(duration="0h0m"), r"window\.download\.duration: .*longer than nothing"),
        (download(timeZone="Europe/ Vienna"), r"window\.download\.timeZone: .*IANA"),
        (download(timeZone="../etc/passwd"), r"window\.download\.timeZone: .*IANA"),
        ({"integrity": {"recheckInterval": "daily"}}, "spec.integrity.recheckInterval: "),
        ({"server": {"threads": 0}}, "spec.server.threads: "),
        ({"server": {"busyPoll": "0.2ms"}}, "spec.server.busyPoll: "),
        ({"rollout": {"progressDeadline": "10"}}, "spec.rollout.progressDeadline: "),
        ({"rollout": {"steps": [{"weight": 10}]}}, r"spec.rollout.steps: .*strategy Canary only"),
        (canary(50, 10), r"spec.rollout.steps: .*must not go down"),
        (canary(101), r"spec.rollout.steps\[0\].weight: .*100"),
        (canary(*range(21)), r"spec.rollout.steps: .*20"),
        ({"rollout": {"gate": {"maxErrorRatio": 1.5}}}, "spec.rollout.gate.maxErrorRatio: "),
        ({"rollout": {"gate": {"onNoData": "Guess"}}}, "spec.rollout.gate.onNoData: "),
    ],
)
async def test_a_rule_that_is_broken_is_named_with_its_field(
    site: Site, spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(Rejected, match=message):
        await site.api.create(EDGE_MODEL, model(site.namespace, **spec))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"authorities": [{"name": "a"}]}, r"spec.authorities\[0\]: .*exactly one of publicKey"),
        (
            {"authorities": [{**KEY, "publicKeySecret": {"namespace": "n", "name": "s"}}]},
            r"spec.authorities\[0\]: .*exactly one of publicKey",
        ),
        ({"authorities": [KEY, KEY]}, r"spec.authorities\[1\]: Duplicate"),
        ({"authorities": []}, "spec.authorities: .*at least 1"),
        ({"threshold": 2}, "spec.threshold: .*must not exceed the number of authorities"),
        (
            {
                "authorities": [
                    {**KEY, "notBefore": "2026-01-02T00:00:00Z", "notAfter": "2026-01-01T00:00:00Z"}
                ]
            },
            r"spec.authorities\[0\].notAfter: .*notBefore must be earlier",
        ),
        (
            {"authorities": [{"name": "a", "publicKey": "-----BEGIN PRIVATE KEY-----"}]},
            r"spec.authorities\[0\].publicKey: .*a private key never belongs here",
        ),
        ({"match": {"images": []}}, "spec.match.images: .*at least 1"),
        ({"maxAge": "1y"}, "spec.maxAge: "),
        ({"formats": ["Legacy", "Legacy"]}, r"spec.formats\[1\]: Duplicate"),
        ({"formats": ["Trust"]}, r"spec.formats\[0\]: Unsupported"),
        ({"revokedDigests": ["sha256:1"]}, r"spec.revokedDigests\[0\]: "),
    ],
)
async def test_a_policy_that_could_not_work_is_refused(
    api: ApiServer, spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(Rejected, match=message):
        await api.create(MODEL_TRUST_POLICY, policy(**spec))


async def test_a_private_key_pasted_by_mistake_is_not_repeated_in_the_refusal(api: ApiServer) -> None:
    secret = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEG\n-----END PRIVATE KEY-----"
    with pytest.raises(Rejected) as refusal:
        await api.apply(
            MODEL_TRUST_POLICY, policy(authorities=[{"name": "a", "publicKey": secret}]), manager="tests"
        )
    assert "MIGHAgEAMBMGByqGSM49AgEG" not in str(refusal.value)


async def test_defaults_of_the_api_server_are_those_of_the_types(site: Site) -> None:
    live = await site.api.apply(EDGE_MODEL, model(site.namespace), manager="tests")
    image = live["spec"]["image"]
    assert EdgeModelSpec.model_validate(live["spec"]) == EdgeModelSpec(image=image)
    assert live["spec"]["rollout"] == {
        "strategy": "Surge",
        "progressDeadline": "10m",
        "paused": False,
        "gate": {
            "minRequests": 50,
            "maxErrorRatio": 0.01,
            "maxLatencyIncrease": 0.5,
            "goldenSamples": "IfPresent",
            "window": "30s",
        },
    }
    assert live["spec"]["server"] == {"memoryMode": "Standard"}


async def test_free_form_fields_come_back_as_they_were_written(site: Site) -> None:
    affinity = {"nodeAffinity": {"anything": [{"goes": 1}]}}
    tolerations = [{"key": "edge", "operator": "Exists"}]
    live = await site.api.apply(
        EDGE_MODEL,
        model(
            site.namespace,
            podTemplate={"affinity": affinity, "tolerations": tolerations},
            server={"resources": {"limits": {"cpu": 1, "memory": "1Gi"}}},
        ),
        manager="tests",
    )
    assert live["spec"]["podTemplate"] == {"affinity": affinity, "tolerations": tolerations}
    assert live["spec"]["server"]["resources"]["limits"] == {"cpu": 1, "memory": "1Gi"}


async def test_scale_reads_and_writes_replicas(site: Site) -> None:
    await site.api.apply(EDGE_MODEL, model(site.namespace, replicas=2), manager="tests")
    path = EDGE_MODEL.path(site.namespace, "detector", subresource="scale")
    scale = await site.api.read(path)
    assert scale is not None
    assert scale["spec"] == {"replicas": 2}
