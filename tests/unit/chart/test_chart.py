"""The chart: what it renders, what it refuses, and that it and the operator speak of the same settings."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgemodel import __version__
from edgemodel.controller import settings

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "charts/edgemodel"
GOLDEN = ROOT / "tests/golden/chart"
FULL = yaml.safe_load((GOLDEN / "full-values.yaml").read_text())

pytestmark = [pytest.mark.process, pytest.mark.timeout(400)]  # the first run may have to build Helm

Render = Callable[..., dict[tuple[str, str], dict[str, Any]]]


def without_crds(text: str) -> str:
    """Leave out the CRDs: they are pinned in crds/ already."""
    parts = [part for part in text.split("\n---\n") if "/templates/crds/" not in part]
    return "\n---\n".join(parts)


@pytest.mark.parametrize("name", ["default", "full"])
def test_renders_as_the_golden_file(name: str, render_text: Callable[..., str]) -> None:
    """To accept a wanted change: EDGEMODEL_UPDATE_GOLDEN=1 writes the file anew; review it as code."""
    rendered = without_crds(render_text(FULL if name == "full" else None))
    golden = GOLDEN / f"{name}.yaml"
    if os.environ.get("EDGEMODEL_UPDATE_GOLDEN"):
        golden.write_text(rendered)
    assert rendered == golden.read_text()


def test_lint_finds_nothing(helm: Callable[..., str]) -> None:
    helm("lint", str(CHART), "--strict", "--quiet")
    helm("lint", str(CHART), "--strict", "--quiet", "--values", str(GOLDEN / "full-values.yaml"))


def test_crds_are_the_generated_ones_and_stay_on_uninstall(render: Render) -> None:
    objects = render()
    for path in (ROOT / "crds").glob("*.yaml"):
        generated = yaml.safe_load(path.read_text())
        rendered = objects["CustomResourceDefinition", path.stem]
        assert rendered["spec"] == generated["spec"]
        assert rendered["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_crds_can_be_left_out_or_let_go(render: Render) -> None:
    assert not [key for key in render({"crds": {"enabled": False}}) if key[0] == "CustomResourceDefinition"]
    crd = render({"crds": {"keep": False}})["CustomResourceDefinition", "edgemodels.edgemodel.io"]
    assert "annotations" not in crd["metadata"]


def test_the_operator_may_do_nothing_it_need_not(render: Render) -> None:
    pod = render()["Deployment", "edgemodel"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert not [volume for volume in pod["volumes"] if "hostPath" in volume]
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize(
    ("values", "elects"),
    [
        ({}, False),
        ({"replicas": 2}, True),
        ({"replicas": 1, "leaderElection": True}, True),
    ],
)
def test_a_leader_is_elected_when_there_may_be_two(
    values: dict[str, Any], elects: bool, render: Render
) -> None:
    objects = render(values)
    assert loaded_settings(objects).leader_election is elects
    assert (("Role", "edgemodel-system/edgemodel-lease") in objects) is elects
    # Releases with and without a Lease follow each other; they must never overlap.
    assert objects["Deployment", "edgemodel"]["spec"]["strategy"] == {"type": "Recreate"}


def test_two_operators_without_an_election_are_refused(render: Render) -> None:
    with pytest.raises(AssertionError, match="without an election only one operator may run"):
        render({"replicas": 2, "leaderElection": False})


def loaded_settings(objects: dict[tuple[str, str], dict[str, Any]]) -> settings.OperatorSettings:
    """Read the rendered ConfigMap with the operator's own types, which refuse what they don't know."""
    text = objects["ConfigMap", "edgemodel-settings"]["data"]["settings.yaml"]
    return settings.OperatorSettings.model_validate(yaml.safe_load(text))


def test_the_operator_accepts_the_settings_that_the_chart_writes(render: Render) -> None:
    ours = loaded_settings(render(FULL))
    assert ours.server_image == "registry.site.local:5000/edge/server@sha256:" + "3" * 64
    assert ours.node_image == "registry.site.local:5000/edgemodel-node:1.2.3"
    assert ours.namespaces == ["vision", "audio"]
    assert ours.registries["site.local:5000"] == {"plainHTTP": True}
    assert ours.registries["registry.site.local"]["ca"].startswith("-----BEGIN CERTIFICATE-----")
    assert ours.workers == 8
    assert ours.leader_election is True


def test_every_setting_of_the_operator_can_be_reached_through_the_chart() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    through_settings = set(schema["properties"]["settings"]["properties"])
    by_other_values = {
        "serverImage",
        "nodeImage",
        "imagePullPolicy",
        "registries",
        "namespaces",
        "leaderElection",
        "nodeDelivery",
        "gateway",
    }
    fixed_by_the_chart = {"leaseNamespace", "nodeNamespace", "host", "port"}
    fixed_by_the_chart |= {"gatewayNamespace", "gatewaySelector", "gatewayAccessSecret"}
    known = {field.alias for field in settings.OperatorSettings.model_fields.values()}
    assert through_settings | by_other_values | fixed_by_the_chart == known


def test_new_settings_make_a_new_pod(render: Render) -> None:
    def mark(values: dict[str, Any]) -> str:
        template = render(values)["Deployment", "edgemodel"]["spec"]["template"]
        return template["metadata"]["annotations"]["edgemodel.io/settings"]

    assert mark({}) == mark({"podLabels": {"a": "b"}})
    assert mark({}) != mark({"settings": {"logLevel": "debug"}})


def test_images_carry_the_version_of_the_code() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == __version__


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"replica": 2}, "replica"),
        ({"images": {"tags": "x"}}, "tags"),
        ({"images": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
        ({"settings": {"worker": 3}}, "worker"),
        ({"settings": {"logLevel": "loud"}}, "logLevel"),
        ({"registries": {"host": {"plainHttp": True}}}, "plainHttp"),
        ({"registries": {"host": {"ca": "/etc/ca.pem"}}}, "ca"),
        ({"registries": {"https://host": {"plainHTTP": True}}}, "https://host"),
        ({"registries": {"host": {"plainHTTP": True, "ca": "-----BEGIN CERTIFICATE-----"}}}, "host"),
        ({"watchNamespaces": "vision"}, "watchNamespaces"),
        ({"crds": {"kept": True}}, "kept"),
    ],
)
def test_a_value_that_is_not_known_is_refused_by_name(
    values: dict[str, Any], named: str, render: Render
) -> None:
    with pytest.raises(AssertionError, match=named):
        render(values)


def test_every_value_is_in_the_schema_and_every_schema_key_has_a_default() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(schema: dict[str, Any], values: dict[str, Any], path: str) -> None:
        properties = {name: one for name, one in schema["properties"].items() if name != "global"}
        assert set(properties) == set(values), path
        for name, one in properties.items():
            if "properties" in one and name != "settings":
                compare(one, values[name], f"{path}.{name}")

    compare(schema, values, "values")


def test_the_dashboards_reach_the_cluster_whole(render: Render) -> None:
    shipped = render({"dashboards": {"enabled": True}})["ConfigMap", "edgemodel-dashboards"]
    assert shipped["metadata"]["labels"]["grafana_dashboard"] == "1"
    for path in (CHART / "dashboards").glob("*.json"):
        assert json.loads(shipped["data"][path.name]) == json.loads(path.read_text())
    assert shipped["data"]


def test_the_notes_teach_the_next_command(helm: Callable[..., str]) -> None:
    text = helm("install", "edgemodel", str(CHART), "--dry-run=client", "--set", "crds.keep=false")
    notes = text.split("NOTES:")[1]
    assert "kubectl get em -A -o wide -w" in notes
    assert "kind: ModelTrustPolicy" in notes
    # Pasted into a shell, an indented EOF would end no here-document.
    assert notes.count("<<EOF") == notes.count("\nEOF\n") == 2
    assert "deletes the CRDs" in notes
