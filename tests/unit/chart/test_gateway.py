"""The chart's gateway: what it may read, that its update loses nothing, and that both mean the same Secret."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgemodel.gateway import drain
from edgemodel.gateway.keeper import LAUNCH
from edgemodel.gateway.settings import GatewaySettings

ROOT = Path(__file__).resolve().parents[3]
FULL = yaml.safe_load((ROOT / "tests/golden/chart/full-values.yaml").read_text())

pytestmark = [pytest.mark.process, pytest.mark.timeout(400)]  # the first run may have to build Helm

Objects = dict[tuple[str, str], dict[str, Any]]
Render = Callable[..., Objects]

READS = {
    "edgemodels": {"get", "list", "watch"},
    "pods": {"get", "list", "watch"},
    "endpointslices": {"list"},  # edgemodel.gateway.drain
}


def deployment(objects: Objects) -> dict[str, Any]:
    spec: dict[str, Any] = objects["Deployment", "edgemodel-gateway"]["spec"]
    return spec


def gateway_container(spec: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = spec["template"]["spec"]["containers"][0]
    return found


def rules(role: dict[str, Any]) -> dict[str, set[str]]:
    return {resource: set(rule["verbs"]) for rule in role["rules"] for resource in rule["resources"]}


def operator_settings(objects: Objects) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(
        objects["ConfigMap", "edgemodel-settings"]["data"]["settings.yaml"]
    )
    return found


def test_without_it_nothing_of_it_is_left(render: Render) -> None:
    left = render({"gateway": {"enabled": False}, "serviceMonitor": {"enabled": True}})
    assert not [key for key in left if "gateway" in key[1]]
    assert operator_settings(left)["gateway"] is False


def test_it_reads_models_and_pods_and_of_secrets_its_own_two(render: Render) -> None:
    objects = render({"gateway": {"tls": {"secretName": "site-tls"}}})
    assert rules(objects["ClusterRole", "edgemodel-gateway"]) == READS
    (rule,) = objects["Role", "edgemodel-system/edgemodel-gateway-secrets"]["rules"]
    assert (rule["verbs"], rule["resourceNames"]) == (["get"], ["edgemodel-gateway-access", "site-tls"])
    (rule,) = render()["Role", "edgemodel-system/edgemodel-gateway-secrets"]["rules"]
    assert rule["resourceNames"] == ["edgemodel-gateway-access"]


def test_in_two_namespaces_it_has_no_rights_in_others(render: Render) -> None:
    objects = render({"watchNamespaces": ["vision", "audio"]})
    assert not [key for key in objects if key[0].startswith("ClusterRole") and "gateway" in key[1]]
    for namespace in ("vision", "audio"):
        assert rules(objects["Role", f"{namespace}/edgemodel-gateway"]) == READS
    settings = json.loads(objects["ConfigMap", "edgemodel-gateway-settings"]["data"]["settings.json"])
    assert settings["namespaces"] == ["vision", "audio"]


def test_the_operator_finds_the_pods_and_fills_the_secret_that_the_gateway_reads(render: Render) -> None:
    objects = render()
    settings = operator_settings(objects)
    template = deployment(objects)["template"]
    assert settings["gatewaySelector"].items() <= template["metadata"]["labels"].items()
    assert settings["gatewayNamespace"] == "edgemodel-system"
    of_gateway = json.loads(objects["ConfigMap", "edgemodel-gateway-settings"]["data"]["settings.json"])
    assert settings["gatewayAccessSecret"] == of_gateway["accessSecret"] == "edgemodel-gateway-access"
    secret = objects["Secret", "edgemodel-gateway-access"]
    assert not {"data", "stringData"} & set(secret), "an upgrade must leave what the operator wrote"
    (rule,) = [
        it
        for it in objects["Role", "edgemodel-system/edgemodel-to-gateway"]["rules"]
        if it["resources"] == ["secrets"]
    ]
    assert rule["resourceNames"] == ["edgemodel-gateway-access"]
    assert "create" not in rule["verbs"], "who makes Secrets can have a token of any account"


def loaded_settings(objects: Objects) -> GatewaySettings:
    """Read the rendered ConfigMap with the gateway's own types, which refuse what they don't know."""
    text = objects["ConfigMap", "edgemodel-gateway-settings"]["data"]["settings.json"]
    return GatewaySettings.model_validate(json.loads(text))


def test_the_gateway_accepts_the_settings_that_the_chart_writes(render: Render) -> None:
    ours = loaded_settings(render(FULL))
    assert ours.access_secret == "edgemodel-gateway-access"
    assert ours.tls_secret == "site-tls"
    assert ours.namespaces == ("vision", "audio")
    assert ours.log_level == "debug"


def test_every_setting_of_the_gateway_can_be_reached_through_the_chart() -> None:
    schema = json.loads((ROOT / "charts/edgemodel/values.schema.json").read_text())
    through_settings = set(schema["properties"]["gateway"]["properties"]["settings"]["properties"])
    by_other_values = {"accessSecret", "tlsSecret", "namespaces"}
    fixed_by_the_chart = {"stateFolder", "httpPort", "httpsPort", "haproxyPort", "port", "host"}
    known = {field.alias for field in GatewaySettings.model_fields.values()}
    assert through_settings | by_other_values | fixed_by_the_chart == known


def test_the_pod_offers_the_ports_and_the_folder_that_the_gateway_uses(render: Render) -> None:
    objects = render({"gateway": {"tls": {"secretName": "site-tls"}}})
    ours = loaded_settings(objects)
    container = gateway_container(deployment(objects))
    ports = {it["name"]: it["containerPort"] for it in container["ports"]}
    assert ports == {
        "http": ours.http_port,
        "https": ours.https_port,
        "haproxy": ours.haproxy_port,
        "metrics": ours.port,
    }
    assert str(ours.state_folder) in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_it_may_do_nothing_it_need_not(render: Render) -> None:
    pod = deployment(render())["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert not [volume for volume in pod["volumes"] if "hostPath" in volume]
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert all(port["containerPort"] >= 1024 for port in container.get("ports", ()))


def test_the_keeper_has_its_own_container_and_shares_the_folder(render: Render) -> None:
    template = deployment(render())["template"]
    gateway, keeper = template["spec"]["containers"]
    assert template["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"] == gateway["name"]
    assert keeper["image"] == gateway["image"]
    (mount,) = keeper["volumeMounts"]
    assert mount in gateway["volumeMounts"]
    assert keeper["command"][-2:] == [LAUNCH, str(loaded_settings(render()).state_folder)]
    assert keeper["command"][-1] == mount["mountPath"]
    # Who neither probes nor hooks it can't have it end before the gateway.
    assert not {"lifecycle", "livenessProbe", "readinessProbe", "env", "ports"} & set(keeper)
    alone = deployment(render({"gateway": {"keeper": {"enabled": False}}}))["template"]["spec"]["containers"]
    assert [it["name"] for it in alone] == ["gateway"]


def test_an_update_has_the_next_one_ready_before_one_goes(render: Render) -> None:
    spec = deployment(render())
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    pod = spec["template"]["spec"]
    container = gateway_container(spec)
    module, *given = container["lifecycle"]["preStop"]["exec"]["command"][2:]
    assert module == drain.__name__
    assert given == ["--limit=300"]
    assert pod["terminationGracePeriodSeconds"] >= 300 + drain.SETTLE_SECONDS + 30
    narrow = gateway_container(deployment(render({"watchNamespaces": ["vision", "audio"]})))
    assert narrow["lifecycle"]["preStop"]["exec"]["command"][-1] == "--namespaces=vision,audio"
    # Two can't have the ports of one node.
    on_host = deployment(render({"gateway": {"hostNetwork": True}}))
    assert on_host["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert on_host["template"]["spec"]["hostNetwork"] is True


def test_a_drain_of_nodes_takes_one_at_a_time(render: Render) -> None:
    budget = render()["PodDisruptionBudget", "edgemodel-gateway"]["spec"]
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")


@pytest.mark.parametrize("tls", [False, True])
def test_the_common_entry_has_tls_where_there_is_a_certificate(tls: bool, render: Render) -> None:
    values = {"service": {"type": "NodePort", "nodePort": 30080, "tlsNodePort": 30443}}
    objects = render({"gateway": {**values, **({"tls": {"secretName": "site-tls"}} if tls else {})}})
    service = objects["Service", "edgemodel-gateway"]["spec"]
    wanted = [("http", 80, 30080)] + ([("https", 443, 30443)] if tls else [])
    assert [(port["name"], port["port"], port["nodePort"]) for port in service["ports"]] == wanted
    container = gateway_container(deployment(objects))
    assert {port["targetPort"] for port in service["ports"]} <= {it["name"] for it in container["ports"]}


def test_new_settings_make_new_pods(render: Render) -> None:
    def mark(**gateway: Any) -> str:
        annotations = deployment(render({"gateway": gateway}))["template"]["metadata"]["annotations"]
        return str(annotations["edgemodel.io/settings"])

    assert mark() == mark(replicas=2)
    assert mark() != mark(tls={"secretName": "site-tls"})


def test_prometheus_is_told_where_there_is_its_operator(render: Render) -> None:
    objects = render({"serviceMonitor": {"enabled": True, "interval": "10s"}})
    monitor = objects["PodMonitor", "edgemodel-gateway"]["spec"]
    container = gateway_container(deployment(objects))
    names = {it["name"] for it in container["ports"]}
    assert {it["port"] for it in monitor["podMetricsEndpoints"]} <= names
    assert {it["interval"] for it in monitor["podMetricsEndpoints"]} == {"10s"}


def test_full_values_reach_the_pod(render: Render) -> None:
    pod = deployment(render(FULL))["template"]["spec"]
    assert pod["priorityClassName"] == "system-cluster-critical"
    assert pod["nodeSelector"] == {"edge": "true"}


@pytest.mark.parametrize(("replicas", "leaves"), [(1, True), (2, False)])
def test_the_only_gateway_leaves_a_lost_node_soon_and_one_of_several_waits_for_it(
    render: Render, replicas: int, leaves: bool
) -> None:
    objects = render({"nodeLossSeconds": 12, "gateway": {"replicas": replicas}})
    found = deployment(objects)["template"]["spec"].get("tolerations", [])
    assert [it["tolerationSeconds"] for it in found] == [12, 12] * leaves
    operator = objects["Deployment", "edgemodel"]["spec"]["template"]["spec"]["tolerations"]
    assert {it["key"]: it["tolerationSeconds"] for it in operator} == {
        "node.kubernetes.io/not-ready": 12,
        "node.kubernetes.io/unreachable": 12,
    }


def test_what_a_site_tolerates_besides_stays(render: Render) -> None:
    mine = {"key": "camera", "operator": "Exists"}
    objects = render({"tolerations": [mine], "gateway": {"tolerations": [mine], "replicas": 2}})
    assert deployment(objects)["template"]["spec"]["tolerations"] == [mine]
    assert objects["Deployment", "edgemodel"]["spec"]["template"]["spec"]["tolerations"][0] == mine
