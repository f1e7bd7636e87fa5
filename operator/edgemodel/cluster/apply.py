"""Carries a decision's writes to the API server: children, deletions, status.

Two field managers, so that neither write can ever take the other's fields away. Children are forced: what
the operator sets in a child it keeps. Status is applied whole: a field left out is a field removed.
"""

import logging
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from edgemodel.api.applied import without_empty
from edgemodel.api.edge_node import EdgeNodeSpec
from edgemodel.api.meta import API_VERSION, CHILD_MANAGER, STATUS_MANAGER, OwnerMetadata
from edgemodel.api.trust_policy import ModelTrustPolicyStatus
from edgemodel.api.v1alpha1 import EdgeModelStatus
from edgemodel.cluster.client import ApiServer, Object
from edgemodel.cluster.kinds import EDGE_MODEL, EDGE_NODE, MODEL_TRUST_POLICY, Kind, child_kind
from edgemodel.reconcile.decision import ObjectRef
from edgemodel.reconcile.observed import LiveObject

log = logging.getLogger(__name__)


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


async def apply_edge_node(
    api: ApiServer, edge_node: LiveObject, node: LiveObject, spec: Mapping[str, Any]
) -> Object | None:
    """Give an EdgeNode this spec, and its Node as owner, unless it has both; None when nothing had to be written.

    It is never made here: the uid makes the API server refuse an object that is gone, or another by now. Entries that
    somebody else added to its lists are taken out: the agent would hold, and give to pods, what no EdgeModel asks for.

    Raises:
        Conflict: the EdgeNode is gone.
    """
    owner = {
        "apiVersion": "v1",
        "kind": "Node",
        "name": node["metadata"]["name"],
        "uid": node["metadata"]["uid"],
    }
    wanted = EdgeNodeSpec.model_validate(spec)
    owned = owner["uid"] in [it.get("uid") for it in edge_node["metadata"].get("ownerReferences") or ()]
    if owned and _is(edge_node, wanted):
        return None
    name, uid = edge_node["metadata"]["name"], edge_node["metadata"]["uid"]
    if emptied := _emptied(edge_node, spec):
        edge_node = await api.merge(EDGE_NODE, None, name, {"metadata": {"uid": uid}, "spec": emptied})
        if owned and _is(edge_node, wanted):
            return dict(edge_node)
    manifest = {
        "apiVersion": API_VERSION,
        "kind": EDGE_NODE.name,
        "metadata": {"name": name, "uid": uid, "ownerReferences": [owner]},
        "spec": {**spec, "models": _entries(spec)},
    }
    live = await api.apply(EDGE_NODE, manifest, manager=CHILD_MANAGER)
    if not _is(live, wanted):
        log.warning("another client's entries are taken out", extra={"kind": EDGE_NODE.name, "object": name})
        live = await _leave(api, live, spec)
    return live


def _emptied(edge_node: LiveObject, spec: Mapping[str, Any]) -> Object:
    """Return a merge patch that takes away what becomes empty.

    Server-side apply would take out entry by entry, leave null in the place of a list that another manager was ever seen to
    set, or of the whole spec, and find that invalid.
    """
    live = edge_node.get("spec") or {}
    return {field: None for field, value in spec.items() if not value and live.get(field)}


def _entries(spec: Mapping[str, Any]) -> list[Object]:
    return [without_empty(entry) for entry in spec["models"]]


async def _leave(api: ApiServer, edge_node: LiveObject, spec: Mapping[str, Any]) -> Object:
    """Leave of a spec only this, all of which it has: a patch that only takes away comes to own nothing.

    (What it owned, the next apply would have to share, and could not take away. So it mentions no list that is empty.)
    """
    name, uid = edge_node["metadata"]["name"], edge_node["metadata"]["uid"]
    foreign: Object = {field: None for field in edge_node.get("spec") or {} if not spec.get(field)}
    ours = without_empty({**spec, "models": _entries(spec)})
    return await api.merge(EDGE_NODE, None, name, {"metadata": {"uid": uid}, "spec": foreign | ours})


def _is(edge_node: LiveObject, wanted: EdgeNodeSpec) -> bool:
    try:
        return EdgeNodeSpec.model_validate(edge_node.get("spec") or {}) == wanted
    except ValidationError:
        return False  # of another release


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
        "status": without_empty(status.model_dump(mode="json", by_alias=True, exclude_none=True)),
    }
    return await api.apply(kind, manifest, manager=STATUS_MANAGER, subresource="status")
