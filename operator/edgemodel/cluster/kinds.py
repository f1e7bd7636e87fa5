"""The kinds the operator touches, and where the API server keeps them.

A table instead of discovery: every kind but ``ServiceMonitor`` is part of Kubernetes or ours, so its path
is known.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from edgemodel.api.meta import API_VERSION


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object: ``api_version`` and ``plural`` as they stand in its path."""

    api_version: str
    name: str
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        """API group, empty for the core group."""
        return self.api_version.rpartition("/")[0]

    def path(
        self, namespace: str | None = None, name: str | None = None, *, subresource: str | None = None
    ) -> str:
        """Return the path of one object, or of the collection when ``name`` is None.

        Args:
            namespace: namespace of a namespaced kind; None means all namespaces (collections only).
            name: the object's name.
            subresource: such as ``status``.
        """
        parts = [("api/" if "/" not in self.api_version else "apis/") + self.api_version]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name is not None:
            parts.append(quote(name, safe=""))
        if subresource is not None:
            parts.append(subresource)
        return "/" + "/".join(parts)


EDGE_MODEL = Kind(API_VERSION, "EdgeModel", "edgemodels")
MODEL_TRUST_POLICY = Kind(API_VERSION, "ModelTrustPolicy", "modeltrustpolicies", namespaced=False)
EDGE_NODE = Kind(API_VERSION, "EdgeNode", "edgenodes", namespaced=False)
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
SERVICE = Kind("v1", "Service", "services")
ENDPOINT_SLICE = Kind("discovery.k8s.io/v1", "EndpointSlice", "endpointslices")
ENDPOINTS = Kind("v1", "Endpoints", "endpoints")
POD_DISRUPTION_BUDGET = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
SERVICE_MONITOR = Kind("monitoring.coreos.com/v1", "ServiceMonitor", "servicemonitors")
POD = Kind("v1", "Pod", "pods")
NODE = Kind("v1", "Node", "nodes", namespaced=False)
SECRET = Kind("v1", "Secret", "secrets")
NAMESPACE = Kind("v1", "Namespace", "namespaces", namespaced=False)
EVENT = Kind("v1", "Event", "events")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")

CHILDREN = (DEPLOYMENT, ENDPOINT_SLICE, SERVICE, POD_DISRUPTION_BUDGET, CONFIG_MAP, SERVICE_MONITOR)
"""Kinds an EdgeModel may own."""

_BY_NAME = {(kind.api_version, kind.name): kind for kind in (*CHILDREN, ENDPOINTS)}


def child_kind(manifest: Mapping[str, Any]) -> Kind:
    """Return the kind of a child object, or of the Endpoints that Kubernetes makes for a Service of ours.

    Raises:
        KeyError: it is none of these.
    """
    return _BY_NAME[manifest["apiVersion"], manifest["kind"]]
