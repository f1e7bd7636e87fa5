"""Carries a decision's writes to the API server: children, deletions, status.

Two field managers, so that neither write can ever take the other's fields away. Children are forced: what
the operator sets in a child it keeps. Status is applied whole: a field left out is a field removed.
"""

from collections.abc import Mapping
from typing import Any

from edgemodel.api.meta import API_VERSION, CHILD_MANAGER, STATUS_MANAGER, OwnerMetadata
from edgemodel.api.v1alpha1 import EdgeModelStatus, ModelTrustPolicyStatus
from edgemodel.cluster.client import ApiServer, Object
from edgemodel.cluster.kinds import EDGE_MODEL, MODEL_TRUST_POLICY, Kind, child_kind
from edgemodel.reconcile.decision import ObjectRef


async def apply_child(api: ApiServer, manifest: Mapping[str, Any]) -> Object:
    """Create or correct one child."""
    return await api.apply(child_kind(manifest), manifest, manager=CHILD_MANAGER)


async def delete_child(api: ApiServer, namespace: str, ref: ObjectRef) -> bool:
    """Delete one child unless another object bears its name by now; False when it was gone."""
    kind = child_kind({"apiVersion": ref.api_version, "kind": ref.kind})
    return await api.delete(kind, namespace, ref.name, uid=ref.uid)


async def apply_status(api: ApiServer, owner: OwnerMetadata, status: EdgeModelStatus) -> Object:
    """Write an EdgeModel's status; ``Conflict`` or ``Gone`` when the judged object exists no more."""
    return await _apply_status(api, EDGE_MODEL, owner, status)


async def apply_policy_status(api: ApiServer, owner: OwnerMetadata, status: ModelTrustPolicyStatus) -> Object:
    """Write a ModelTrustPolicy's status."""
    return await _apply_status(api, MODEL_TRUST_POLICY, owner, status)


async def _apply_status(
    api: ApiServer, kind: Kind, owner: OwnerMetadata, status: EdgeModelStatus | ModelTrustPolicyStatus
) -> Object:
    # The uid makes the API server refuse the write when the object was deleted and made anew meanwhile.
    metadata = {"name": owner.name, "uid": owner.uid}
    if kind.namespaced:
        metadata["namespace"] = owner.namespace
    manifest = {
        "apiVersion": API_VERSION,
        "kind": kind.name,
        "metadata": metadata,
        "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
    }
    return await api.apply(kind, manifest, manager=STATUS_MANAGER, subresource="status")
