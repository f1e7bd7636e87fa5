"""What one node is to hold, of all models of the cluster: the spec of its EdgeNode.

It follows from the EdgeModels' slots alone, in one order, so that an unchanged world gives an unchanged spec. A model that
its pods fetch for themselves is not in it, nor one whose pods may not run there, unless some still do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgemodel.api.edge_node import EdgeNodeSpec, NodePolicy, Role, WantedModel
from edgemodel.api.v1alpha1 import EdgeModel, Slot
from edgemodel.reconcile.eligibility import eligible
from edgemodel.reconcile.observed import LiveObject, Settings

MOST = 512
"""How many versions an EdgeNode can hold: beyond that it is those that serve before others."""
_ORDER: dict[Role, int] = {"Active": 0, "Candidate": 1, "LastGood": 2}


@dataclass(frozen=True, slots=True)
class Placement:
    """One EdgeModel, as far as a node depends on it."""

    model: EdgeModel
    policies: Mapping[str, str] = field(default_factory=dict)
    """JSON text of the trust policies that govern it, by name."""
    sealed: str | None = None
    """Its pull secrets, sealed to this node's key; None where it has none, or the node has no key yet."""
    pods_here: bool = False
    """Pods of it are on the node, whatever its labels are now."""


def edge_node_spec(node: LiveObject, models: Sequence[Placement], settings: Settings) -> dict[str, Any]:
    """Return ``spec`` of the node's EdgeNode, as it is applied.

    Args:
        node: the live Node.
        models: every EdgeModel of the cluster, in any order.
        settings: budget and rate limit of each node.
    """
    placed = [one for one in models if belongs(one.model, node, pods_here=one.pods_here)]
    entries = [(_ORDER[role], _entry(one, role, slot)) for one in placed for role, slot in roles(one.model)]
    entries.sort(key=lambda entry: (entry[0], entry[1].namespace, entry[1].name))
    wanted = [entry for _, entry in entries[:MOST]]
    wanted.sort(key=lambda entry: (entry.namespace, entry.name, _ORDER[entry.role]))
    named = {name for entry in wanted for name in entry.policies}
    documents = {name: text for one in placed for name, text in one.policies.items() if name in named}
    spec = EdgeNodeSpec(
        models=wanted,
        policies=[NodePolicy(name=name, document=documents[name]) for name in sorted(documents)],
        store_budget=settings.store_budget,
        rate_limit=settings.rate_limit,
    )
    return spec.model_dump(by_alias=True, exclude_none=True)


def belongs(model: EdgeModel, node: LiveObject, *, pods_here: bool = False) -> bool:
    """Tell whether a node is to hold a model's versions."""
    by_nodes = model.status.nodes is not None and model.metadata.deletion_timestamp is None
    return by_nodes and (pods_here or eligible(model.spec.pod_template, node))


def roles(model: EdgeModel) -> list[tuple[Role, Slot]]:
    """Return the versions that nodes keep, each under its first role."""
    slots = model.status.slots
    held: list[tuple[Role, Slot | None]] = [
        ("Active", slots.active),
        ("Candidate", slots.candidate),
        ("LastGood", slots.last_good),
    ]
    first: dict[str, tuple[Role, Slot]] = {}
    for role, slot in held:
        if slot is not None:
            first.setdefault(slot.digest, (role, slot))
    return list(first.values())


def _entry(placed: Placement, role: Role, slot: Slot) -> WantedModel:
    model = placed.model
    return WantedModel(
        namespace=model.metadata.namespace,
        name=model.metadata.name,
        digest=slot.digest,
        image=slot.image,
        role=role,
        model_file=slot.model_file,
        policies=sorted(placed.policies),
        sealed_pull_secrets=placed.sealed,
        window=model.spec.rollout.window.download if role == "Candidate" else None,
        recheck_interval=model.spec.integrity.recheck_interval,
    )
