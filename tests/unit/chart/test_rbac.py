"""The operator's rights are those its code uses: each verb here names the function that needs it."""

from collections.abc import Callable
from typing import Any

import pytest
import yaml

pytestmark = [pytest.mark.process, pytest.mark.timeout(400)]

Render = Callable[..., dict[tuple[str, str], dict[str, Any]]]

NAMESPACED = {
    ("edgemodel.io", "edgemodels"): {"get", "list", "watch"},  # cluster.gather, controller.resync, kopf
    ("edgemodel.io", "edgemodels/status"): {"patch"},  # cluster.apply.apply_status
    ("edgemodel.io", "edgemodels/finalizers"): {"update"},  # reconcile.child.metadata: blockOwnerDeletion
    ("apps", "deployments"): {
        "get",
        "list",
        "watch",
        "create",
        "patch",
        "delete",
    },  # cluster.apply, gather, kopf
    ("", "services"): {"get", "list", "watch", "create", "patch", "delete"},
    ("", "configmaps"): {"get", "list", "watch", "create", "patch", "delete"},
    ("discovery.k8s.io", "endpointslices"): {"get", "list", "watch", "create", "patch", "delete"},
    ("", "endpoints"): {"delete"},  # reconcile.gateway.leftover_slices
    ("policy", "poddisruptionbudgets"): {"get", "list", "watch", "create", "patch", "delete"},
    ("monitoring.coreos.com", "servicemonitors"): {"get", "list", "create", "patch", "delete"},  # not watched
    ("", "pods"): {"list", "watch", "delete"},  # cluster.gather, kopf, controller.evictions
    ("", "pods/eviction"): {"create"},  # controller.evictions
    ("", "secrets"): {"get"},  # cluster.pull_secrets, cluster.policies
    ("", "events"): {"get", "create", "patch"},  # cluster.events
}
CLUSTER = {
    ("edgemodel.io", "modeltrustpolicies"): {
        "get",
        "list",
        "watch",
    },  # cluster.policies, controller.policy_status
    ("edgemodel.io", "modeltrustpolicies/status"): {"patch"},  # cluster.apply.apply_policy_status
    ("", "namespaces"): {"get", "list"},  # cluster.gather, controller.policy_status
    ("", "nodes"): {"get", "list", "watch"},  # cluster.fleet, kopf
    ("edgemodel.io", "edgenodes"): {"get", "list", "watch", "patch"},  # cluster.fleet, cluster.apply, kopf
}
HEARTBEATS = {("coordination.k8s.io", "leases"): {"list"}}  # cluster.fleet
TO_GATEWAY = {
    ("", "pods"): {"list", "watch"},  # cluster.gateway_pods, controller.gateway_routes
    ("", "secrets"): {"get", "patch"},  # cluster.access, the one Secret by name
}
OWN = {
    "edgemodel-system/edgemodel-heartbeats": HEARTBEATS,
    "edgemodel-system/edgemodel-to-gateway": TO_GATEWAY,
}

OF_OTHERS = ("edgemodel-node", "edgemodel-gateway")
"""How the names of Roles begin that are not the operator's; test_node.py and test_gateway.py look at them."""


def rights(role: dict[str, Any]) -> dict[tuple[str, str], set[str]]:
    """Return verbs by API group and resource."""
    return {
        (group, resource): set(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def operators_roles(
    objects: dict[tuple[str, str], dict[str, Any]],
) -> dict[str, dict[tuple[str, str], set[str]]]:
    """Return the rights of the operator's Roles by namespace and name."""
    return {
        name: rights(one)
        for (kind, name), one in objects.items()
        if kind == "Role" and not name.rpartition("/")[2].startswith(OF_OTHERS)
    }


def test_cluster_wide_operator(render: Render) -> None:
    objects = render()
    assert rights(objects["ClusterRole", "edgemodel"]) == CLUSTER | NAMESPACED
    assert operators_roles(objects) == OWN


def test_an_operator_without_agents_reads_no_nodes_and_ends_no_pods(render: Render) -> None:
    objects = render({"node": {"enabled": False}, "gateway": {"enabled": False}})
    of_agents = {("", "nodes"), ("edgemodel.io", "edgenodes"), ("", "pods/eviction")}
    without = {key: verbs for key, verbs in (CLUSTER | NAMESPACED).items() if key not in of_agents}
    assert rights(objects["ClusterRole", "edgemodel"]) == without | {("", "pods"): {"list", "watch"}}
    assert operators_roles(objects) == {}
    settings = yaml.safe_load(objects["ConfigMap", "edgemodel-settings"]["data"]["settings.yaml"])
    assert settings["nodeDelivery"] is False


def test_an_operator_of_two_namespaces_has_no_rights_in_others(render: Render) -> None:
    objects = render({"watchNamespaces": ["vision", "audio"], "policySecretNamespaces": ["keys"]})
    assert rights(objects["ClusterRole", "edgemodel-edgemodel-system"]) == CLUSTER
    binding = objects["ClusterRoleBinding", "edgemodel-edgemodel-system"]
    assert binding["roleRef"]["name"] == "edgemodel-edgemodel-system"
    assert operators_roles(objects) == {
        **OWN,
        "vision/edgemodel": NAMESPACED,
        "audio/edgemodel": NAMESPACED,
        "keys/edgemodel-policy-keys": {("", "secrets"): {"get"}},
    }


def test_the_lease_is_the_only_one_that_may_be_changed(render: Render) -> None:
    role = render({"replicas": 2, "settings": {"leaseName": "mine"}})[
        "Role", "edgemodel-system/edgemodel-lease"
    ]
    assert role["rules"] == [
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": ["mine"],
            "verbs": ["get", "update"],
        },
    ]


def test_no_right_is_a_wildcard_and_none_can_raise_itself(render: Render) -> None:
    for (kind, _), role in render({"replicas": 2}).items():
        if kind in {"Role", "ClusterRole"}:
            for (group, resource), verbs in rights(role).items():
                assert "*" not in {group, resource} | verbs
                assert not verbs & {"escalate", "bind", "impersonate"}
                assert group != "rbac.authorization.k8s.io"
