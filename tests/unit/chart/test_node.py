"""The chart's node agent: what it may see of a node and do in a cluster, and that it reads the settings it is given."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgemodel.api.meta import CSI_DRIVER, LEASE_PREFIX
from edgemodel.artifact.registry_settings import RegistrySettings
from edgemodel.node import settings
from edgemodel.node.csi.server import endpoints

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "charts/edgemodel"
FULL = yaml.safe_load((ROOT / "tests/golden/chart/full-values.yaml").read_text())

pytestmark = [pytest.mark.process, pytest.mark.timeout(400)]  # the first run may have to build Helm

Render = Callable[..., dict[tuple[str, str], dict[str, Any]]]

ACCOUNT = [{"kind": "ServiceAccount", "name": "edgemodel-node", "namespace": "edgemodel-system"}]


def agent_pod(objects: dict[tuple[str, str], dict[str, Any]]) -> dict[str, Any]:
    pod: dict[str, Any] = objects["DaemonSet", "edgemodel-node"]["spec"]["template"]["spec"]
    return pod


def rules(role: dict[str, Any]) -> dict[str, set[str]]:
    return {resource: set(rule["verbs"]) for rule in role["rules"] for resource in rule["resources"]}


def test_without_it_nothing_of_it_is_left(render: Render) -> None:
    without = {"node": {"enabled": False}, "gateway": {"enabled": False}, "serviceMonitor": {"enabled": True}}
    left = render(without)
    assert not [key for key in left if "node" in key[1] and key[0] != "CustomResourceDefinition"]
    assert not {"CSIDriver", "ValidatingAdmissionPolicy", "PodMonitor"} & {kind for kind, _ in left}


def test_an_agent_reads_and_writes_edge_nodes_and_leases_and_nothing_else(render: Render) -> None:
    objects = render()
    assert rules(objects["ClusterRole", "edgemodel-node"]) == {
        "edgenodes": {"get", "list", "watch", "create"},
        "edgenodes/status": {"get", "patch", "update"},
    }
    assert rules(objects["Role", "edgemodel-system/edgemodel-node-lease"]) == {
        "leases": {"create", "get", "patch", "update"}
    }
    for binding in (
        objects["ClusterRoleBinding", "edgemodel-node"],
        objects["RoleBinding", "edgemodel-node-lease"],
    ):
        assert binding["subjects"] == ACCOUNT
    assert agent_pod(objects)["serviceAccountName"] == "edgemodel-node"


def test_admission_holds_that_account_to_its_own_node(render: Render) -> None:
    """What the expressions mean is tried on a real API server, in tests/control_plane/test_node_admission.py."""
    objects = render()
    policy = objects["ValidatingAdmissionPolicy", "edgemodel-node"]["spec"]
    assert policy["failurePolicy"] == "Fail"
    (only,) = policy["matchConditions"]
    assert only["expression"].endswith('"system:serviceaccount:edgemodel-system:edgemodel-node"')
    assert f'"{LEASE_PREFIX}"' in json.dumps(policy).replace("\\", "")
    binding = objects["ValidatingAdmissionPolicyBinding", "edgemodel-node"]["spec"]
    assert binding == {"policyName": "edgemodel-node", "validationActions": ["Deny"]}
    # Every kind that the account may write is in the policy's reach.
    covered = {one for rule in policy["matchConstraints"]["resourceRules"] for one in rule["resources"]}
    assert covered == {"edgenodes", "edgenodes/status", "leases"}


def test_the_driver_is_for_inline_volumes_with_the_pods_namespace(render: Render) -> None:
    driver = render()["CSIDriver", CSI_DRIVER]
    spec = driver["spec"]
    assert (spec["attachRequired"], spec["podInfoOnMount"]) == (False, True)
    assert (spec["volumeLifecycleModes"], spec["fsGroupPolicy"]) == (["Ephemeral"], "None")
    assert driver["metadata"]["labels"]["security.kubernetes.io/csi-ephemeral-volume-profile"] == "restricted"


@pytest.mark.parametrize("values", [{}, FULL])
def test_the_agent_sees_no_more_of_the_node_than_it_uses(values: dict[str, Any], render: Render) -> None:
    pod = agent_pod(render(values))
    node = {"storePath": "/var/lib/edgemodel", "kubeletPath": "/var/lib/kubelet"} | values.get("node", {})
    kubelet = Path(node["kubeletPath"])
    endpoint, registry = endpoints(kubelet)
    of_the_node = {str(kubelet / "pods"), str(endpoint.parent), str(registry.parent), node["storePath"]}
    assert {one["hostPath"]["path"] for one in pod["volumes"] if "hostPath" in one} == of_the_node
    (container,) = pod["containers"]
    names = {one["name"]: one["hostPath"]["path"] for one in pod["volumes"] if "hostPath" in one}
    mounted = {one["mountPath"]: one for one in container["volumeMounts"]}
    for name, path in names.items():
        assert mounted[path]["name"] == name  # the kubelet's paths are valid in the agent
    both_ways = [path for path, one in mounted.items() if one.get("mountPropagation") == "Bidirectional"]
    assert both_ways == [str(kubelet / "pods")]
    assert container["securityContext"]["privileged"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    arguments = container["args"]
    assert arguments[:2] == ["node", "agent"]
    assert f"--kubelet-dir={kubelet}" in arguments
    assert f"--store={node['storePath']}" in arguments


def test_every_node_gets_one_and_it_outlives_others(render: Render) -> None:
    pod = agent_pod(render())
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["priorityClassName"] == "system-node-critical"
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux"}


def read(objects: dict[tuple[str, str], dict[str, Any]], folder: Path) -> settings.AgentSettings:
    """Read the rendered settings by the agent's own reader, which refuses what it does not know."""
    path = folder / "settings.json"
    path.write_text(objects["ConfigMap", "edgemodel-node-settings"]["data"]["settings.json"])
    return settings.read_settings(path)


def test_the_agent_accepts_the_settings_that_the_chart_writes(render: Render, tmp_path: Path) -> None:
    assert read(render(), tmp_path) == settings.AgentSettings(heartbeat_seconds=60.0)
    ours = read(render(FULL), tmp_path)
    assert (ours.store_budget, ours.rate_limit, ours.heartbeat_seconds) == (21474836480, 2500000, 300.0)
    assert (ours.downloads, ours.log_level) == (1, "debug")
    assert ours.registries == RegistrySettings.from_mapping(FULL["registries"])


def test_every_setting_of_the_agent_can_be_reached_through_the_chart() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]["node"]["properties"]
    through_settings = set(schema["settings"]["properties"])
    by_other_values = {"registries", "storeBudget", "rateLimit", "heartbeatSeconds"}
    fixed_by_the_chart = {"host", "port"}

    def camel(name: str) -> str:
        first, *rest = name.split("_")
        return first + "".join(part.title() for part in rest)

    known = {camel(name) for name in settings.AgentSettings.__dataclass_fields__}
    assert through_settings | by_other_values | fixed_by_the_chart == known


def test_new_settings_make_a_new_pod(render: Render) -> None:
    def mark(values: dict[str, Any]) -> str:
        template = render(values)["DaemonSet", "edgemodel-node"]["spec"]["template"]
        return str(template["metadata"]["annotations"]["edgemodel.io/settings"])

    assert mark({}) == mark({"node": {"podLabels": {"a": "b"}}})
    assert mark({}) != mark({"node": {"rateLimit": 100000}})


def test_a_cluster_that_binds_no_token_to_a_node_is_refused(render_text: Callable[..., str]) -> None:
    with pytest.raises(AssertionError, match=r"node.enabled needs Kubernetes 1\.30"):
        render_text({}, "--kube-version", "1.29.4")
    assert "DaemonSet" not in render_text({"node": {"enabled": False}}, "--kube-version", "1.29.4")


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"enable": True}, "enable"),
        ({"storePath": "models"}, "storePath"),
        ({"kubeletPath": "/var/lib/kubelet/"}, "kubeletPath"),
        ({"kubeletPath": "/" + "k" * 60}, "kubeletPath"),
        ({"storeBudget": "20Gi"}, "storeBudget"),
        ({"rateLimit": 0}, "rateLimit"),
        ({"heartbeatSeconds": 0}, "heartbeatSeconds"),
        ({"maxUnavailable": "many"}, "maxUnavailable"),
        ({"settings": {"port": 1}}, "port"),
    ],
)
def test_a_value_that_is_not_known_is_refused_by_name(
    values: dict[str, Any], named: str, render: Render
) -> None:
    with pytest.raises(AssertionError, match=named):
        render({"node": values})


def test_beats_so_seldom_looked_at_that_nodes_would_flap_are_refused(render: Render) -> None:
    with pytest.raises(
        AssertionError, match=r"heartbeatSeconds: expected at least half of .* \(30 s\), found 10"
    ):
        render({"node": {"heartbeatSeconds": 10}})
    assert render({"node": {"heartbeatSeconds": 3}, "settings": {"nodeLookInterval": 5}})
    assert render({"node": {"heartbeatSeconds": 15}, "settings": {"nodeLookInterval": 300}})
