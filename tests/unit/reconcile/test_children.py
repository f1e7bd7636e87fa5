"""The children of a minimal and of a full EdgeModel, whole, as YAML under tests/golden/children.

After a change on purpose: ``UPDATE_GOLDEN=1 python -m pytest tests/unit/reconcile/test_children.py``, then read the diff.
"""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgemodel.api.v1alpha1 import Slot, Slots
from edgemodel.reconcile.child import digest_label, sealed
from edgemodel.reconcile.children import desired_children
from edgemodel.reconcile.deployment import deployment
from edgemodel.reconcile.drift import differs
from edgemodel.reconcile.observed import GatewayPod, Observed, Settings
from edgemodel.rollout.machine import Step
from inference_server.settings import read_settings
from tests.unit.reconcile.api_server import stored
from tests.unit.reconcile.world import DIGESTS, SETTINGS, edge_model, judged

GOLDEN = Path(__file__).parents[2] / "golden" / "children"
FULL: dict[str, Any] = {
    "pullSecrets": [{"name": "site-registry"}, {"name": "upstream"}],
    "modelFile": "detector.onnx",
    "replicas": 3,
    "server": {
        "batching": {"maxBatchSize": 16, "maxQueueDelay": "2ms"},
        "cache": {"maxBytes": 67108864, "ttl": "10m"},
        "memoryMode": "Low",
        "providers": ["OpenVINO"],
        "image": "example.org/custom-server@sha256:" + "0" * 64,
        "resources": {"requests": {"memory": "300Mi"}, "limits": {"cpu": "1500m", "nvidia.com/gpu": 1}},
        "extraEnv": [
            {"name": "ORT_LOGGING_LEVEL", "value": "3"},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "EMPTY", "value": ""},
        ],
    },
    "podTemplate": {
        "labels": {"team": "vision", "edgemodel.io/digest": "mine"},
        "annotations": {"example.org/note": "x", "edgemodel.io/image": "mine"},
        "nodeSelector": {"kubernetes.io/arch": "arm64"},
        "tolerations": [{"key": "edge", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {
            "nodeAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 1, "preference": {"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}}
                ]
            }
        },
        "priorityClassName": "edge",
        "runtimeClassName": "nvidia",
    },
    "rollout": {"strategy": "StopFirst", "progressDeadline": "1h30m"},
}


def slot(letter: str = "A", **more: Any) -> Slot:
    found = judged(letter)
    return Slot(digest=str(found.digest), image=found.image, version=found.release.version or "", **more)


def children(
    spec: dict[str, Any],
    settings: Settings,
    serve: Slot,
    *,
    monitors: bool,
    mounts: bool = False,
    **more: Any,
) -> tuple[dict[str, Any], ...]:
    model = edge_model(**spec)
    observed = Observed(
        model=model,
        settings=settings,
        target=judged("A"),
        delivery_config={"policies.json": "[]\n", "registries.json": "{}\n"},
        service_monitors=monitors,
        **more,
    )
    slots, none = Slots(active=serve), frozenset[str]()
    step = Step(slots, None, ((serve, model.spec.replicas),), serve, none, none, held=False)
    return desired_children(observed, step, None, frozenset({serve.digest} if mounts else ()))


MINIMAL = children({}, SETTINGS, slot(), monitors=False)
WHOLE = children(
    FULL,
    Settings(
        server_image="example.org/server:1",
        node_image="example.org/node:1",
        image_pull_policy="Never",
        labels={"app.kubernetes.io/part-of": "site", "edgemodel.io/model": "never"},
    ),
    slot(model_file="detector.onnx"),
    monitors=True,
)
MOUNTED = children(
    {**FULL, "delivery": "Node"}, SETTINGS, slot(model_file="detector.onnx"), monitors=False, mounts=True
)
THROUGH = children(
    {"access": {"bearerTokens": {"secretName": "callers"}}},
    SETTINGS,
    slot(),
    monitors=False,
    gateway=(
        GatewayPod("gateway-1", "u1", "10.42.0.9", "n1", ready=True),
        GatewayPod("gateway-2", "u2", "10.42.1.9", "n2", ready=True, going=True),
        GatewayPod("gateway-3", "u3", "fd00::9", "n3", ready=False),
    ),
    gateway_port=20123,
)


@pytest.mark.parametrize(
    ("name", "built"),
    [("minimal", MINIMAL), ("full", WHOLE), ("mounted", MOUNTED), ("gateway", THROUGH)],
)
def test_children_are_what_the_golden_file_says(name: str, built: tuple[dict[str, Any], ...]) -> None:
    path = GOLDEN / f"{name}.yaml"
    text = yaml.dump_all(built, Dumper=_Plain, sort_keys=False, width=110)
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


class _Plain(yaml.SafeDumper):
    """Writes everything out: no anchors, which a reader would have to follow."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


@pytest.mark.parametrize(
    "built", [MINIMAL, WHOLE, MOUNTED, THROUGH], ids=["minimal", "full", "mounted", "gateway"]
)
def test_what_the_api_server_makes_of_a_child_does_not_differ_from_it(
    built: tuple[dict[str, Any], ...],
) -> None:
    assert [child["kind"] for child in built if differs(child, stored(child))] == []


def test_pods_that_mount_their_model_fetch_nothing_and_see_no_secret() -> None:
    (found,) = (child for child in MOUNTED if child["kind"] == "Deployment")
    pod = found["spec"]["template"]["spec"]
    whole = next(child for child in WHOLE if child["kind"] == "Deployment")["spec"]["template"]["spec"]
    assert "initContainers" not in pod
    assert [volume["name"] for volume in pod["volumes"]] == ["models", "tmp"]
    assert "fsGroup" not in pod["securityContext"]
    assert pod["containers"][0]["args"] == whole["containers"][0]["args"]
    assert "ConfigMap" not in {child["kind"] for child in MOUNTED}


def test_another_entry_file_replaces_pods_that_mount_their_model() -> None:
    one, other = (
        deployment(edge_model(), SETTINGS, slot(model_file=name), 1, mounts=True)["spec"]["template"]
        for name in ("a.onnx", "b.onnx")
    )
    assert one != other


def test_every_child_is_owned_by_its_model_and_nothing_else() -> None:
    for child in WHOLE:
        (owner,) = child["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == (
            "EdgeModel",
            "detector",
            "6f1e",
            True,
        )
        assert child["metadata"]["namespace"] == "vision"


def test_a_users_labels_never_replace_the_operators() -> None:
    found = next(child for child in WHOLE if child["kind"] == "Deployment")
    labels = found["spec"]["template"]["metadata"]["labels"]
    assert found["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert labels["team"] == "vision"
    assert found["metadata"]["labels"]["edgemodel.io/model"] == "detector"


def test_the_longest_name_fits_into_a_label() -> None:
    model = edge_model()
    longest = model.model_copy(update={"metadata": model.metadata.model_copy(update={"name": "m" * 50})})
    name = deployment(longest, SETTINGS, slot(), 1)["metadata"]["name"]
    assert len(name) <= 63
    assert name.endswith(digest_label(DIGESTS["A"])[:8])


def test_a_version_without_a_name_is_shown_by_its_digest() -> None:
    built = deployment(edge_model(), SETTINGS, slot().model_copy(update={"version": ""}), 1)
    args = built["spec"]["template"]["spec"]["containers"][0]["args"]
    assert f"--model-version={DIGESTS['A'].short}" in args


def test_what_others_wrote_is_never_taken_for_a_flag() -> None:
    odd = slot().model_copy(update={"version": "-1", "model_file": "-x/model.onnx"})
    pod = deployment(edge_model(), SETTINGS, odd, 1)["spec"]["template"]["spec"]
    fetch, server = pod["initContainers"][0]["args"], pod["containers"][0]["args"]
    assert {"--version=-1", "--model-file=-x/model.onnx"} <= set(fetch)
    assert "--model-version=-1" in server


@pytest.mark.parametrize(
    ("server", "threads"),
    [({}, None), ({"threads": 3}, "3"), ({"resources": {"limits": {"cpu": "1500m"}}}, None)],
    ids=["nothing said", "pinned", "a limit is the server's to read"],
)
def test_threads_are_the_servers_to_measure_unless_pinned(
    server: dict[str, Any], threads: str | None
) -> None:
    args = deployment(edge_model(server=server), SETTINGS, slot(), 1)["spec"]["template"]["spec"][
        "containers"
    ][0]["args"]
    assert (args[args.index("--threads") + 1] if "--threads" in args else None) == threads


@pytest.mark.parametrize(
    ("server", "env"),
    [
        ({}, None),
        ({"batching": {"maxBatchSize": 1}}, {"EDGEMODEL_MAX_BATCH_SIZE": "1"}),
        ({"batching": {"maxQueueDelay": "2ms"}}, {"EDGEMODEL_MAX_QUEUE_DELAY": "0.002"}),
        ({"batching": {"maxQueueDelay": "0ms"}}, {"EDGEMODEL_MAX_QUEUE_DELAY": "0"}),
        ({"batching": {"maxQueueDelay": "9999ms"}}, {"EDGEMODEL_MAX_QUEUE_DELAY": "9.999"}),
        (
            {"cache": {"maxBytes": 67108864}},
            {"EDGEMODEL_CACHE_BYTES": "67108864", "EDGEMODEL_CACHE_TTL": "60"},
        ),
        (
            {"cache": {"maxBytes": 1, "ttl": "30d1ms"}},
            {"EDGEMODEL_CACHE_BYTES": "1", "EDGEMODEL_CACHE_TTL": "2592000.001"},
        ),
        ({"processes": 2}, {"EDGEMODEL_PROCESSES": "2"}),
        ({"processes": 0}, {"EDGEMODEL_PROCESSES": "auto"}),
        ({"busyPoll": "0us"}, {"EDGEMODEL_BUSY_POLL": "0"}),
        ({"busyPoll": "50us"}, {"EDGEMODEL_BUSY_POLL": "0.00005"}),
        ({"busyPoll": "9999999us"}, {"EDGEMODEL_BUSY_POLL": "9.999999"}),
        ({"busyPoll": "1ms"}, {"EDGEMODEL_BUSY_POLL": "0.001"}),
        ({"busyPoll": "9s"}, {"EDGEMODEL_BUSY_POLL": "9"}),
        ({"memoryMode": "Low"}, {"EDGEMODEL_MEMORY_MODE": "Low"}),
        ({"providers": ["cuda", "CPU"]}, {"EDGEMODEL_PROVIDERS": "cuda,CPU"}),
        (
            {"memoryMode": "Low", "extraEnv": [{"name": "EDGEMODEL_MEMORY_MODE", "value": "standard"}]},
            {"EDGEMODEL_MEMORY_MODE": "standard"},
        ),
    ],
)
def test_what_is_said_of_the_server_reaches_it_as_variables_that_it_reads(
    server: dict[str, Any], env: dict[str, str] | None
) -> None:
    container = deployment(edge_model(server=server), SETTINGS, slot(), 1)["spec"]["template"]["spec"][
        "containers"
    ][0]
    found = container.get("env")
    assert ({one["name"]: one["value"] for one in found} if found else None) == env
    # The two sides never import each other; this test may, and sees that the server takes each value.
    assert read_settings(["--model", "/models"], env or {})


@pytest.mark.parametrize(
    ("override", "requests"),
    [
        ({}, {"cpu": "100m", "memory": "128Mi"}),
        ({"requests": {"memory": "1Gi"}}, {"cpu": "100m", "memory": "1Gi"}),
        ({"limits": {"memory": "64Mi"}}, {"cpu": "100m"}),
        ({"limits": {"memory": "64Mi"}, "requests": {"memory": "32Mi"}}, {"cpu": "100m", "memory": "32Mi"}),
    ],
    ids=["defaults", "a request of theirs", "a limit below our request", "both of theirs"],
)
def test_a_users_resources_are_laid_over_the_defaults(
    override: dict[str, Any], requests: dict[str, str]
) -> None:
    built = deployment(edge_model(server={"resources": override}), SETTINGS, slot(), 1)
    assert built["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"] == requests


def test_the_same_input_gives_the_same_bytes_and_any_change_another_mark() -> None:
    mark = "edgemodel.io/applied"
    once, twice = (sealed(deployment(edge_model(), SETTINGS, slot(), 1)) for _ in range(2))
    assert yaml.safe_dump(once) == yaml.safe_dump(twice)
    more = sealed(deployment(edge_model(podTemplate={"labels": {"a": "b"}}), SETTINGS, slot(), 1))
    assert once["metadata"]["annotations"][mark] != more["metadata"]["annotations"][mark]


def test_scaling_and_deadlines_do_not_touch_the_pods() -> None:
    plain = deployment(edge_model(), SETTINGS, slot(), 1)
    changed = edge_model(
        replicas=5, rollout={"strategy": "StopFirst", "progressDeadline": "2h"}, pollInterval="1h"
    )
    assert deployment(changed, SETTINGS, slot(), 5)["spec"]["template"] == plain["spec"]["template"]
