"""All EdgeModels with the policies that govern them, as far as what nodes hold depends on them: read once for many nodes.

A change of one model concerns every node, so passes for nodes come in waves; each wave shares one reading of models,
policies, namespaces and pull secrets (``shared`` tells why it is never older than what brought the wave about). It lives
for ``SECONDS`` at most, and the secrets in it no longer.

What cannot be read is never taken for absent: an EdgeModel this version cannot read keeps its entries on nodes as they
are, and the API server's failure is an error. Leaves to others: which of it a node holds (``reconcile.edge_node``).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgemodel.api.meta import LABEL_MODEL, LABELS_MANAGED
from edgemodel.api.v1alpha1 import EdgeModel
from edgemodel.artifact.reference import Reference
from edgemodel.cluster.client import ApiServer, Forbidden
from edgemodel.cluster.gather import read_model, references
from edgemodel.cluster.kinds import EDGE_MODEL, NAMESPACE, POD
from edgemodel.cluster.policies import ReadPolicy, read_policies
from edgemodel.cluster.pull_secrets import PullSecrets, read_pull_secrets
from edgemodel.cluster.sealed_secrets import ModelKey, SealedSecrets
from edgemodel.cluster.shared import Shared
from edgemodel.errors import Stalled
from edgemodel.reconcile.edge_node import Placement, belongs
from edgemodel.reconcile.observed import LiveObject

log = logging.getLogger(__name__)

SECONDS = 10.0
"""How long a reading may serve though no change was shown: labels of namespaces and Secrets are not watched."""


@dataclass(slots=True)
class _Models:
    """One reading."""

    models: tuple[EdgeModel, ...]
    policies: tuple[ReadPolicy, ...]
    labels: Mapping[str, Mapping[str, str]]
    unreadable: frozenset[ModelKey]
    secrets: dict[ModelKey, asyncio.Task[PullSecrets]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Placed:
    """What one node's EdgeNode follows from."""

    placements: tuple[Placement, ...]
    unreadable: frozenset[ModelKey]
    """EdgeModels that exist and cannot be read: what is there of them stays."""


class Placements:
    """Reads EdgeModels for nodes; ``changed`` is told by the watches."""

    def __init__(
        self, api: ApiServer, *, namespaces: tuple[str, ...], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._api = api
        self._namespaces = namespaces
        self._models = Shared(self._read, max_age=SECONDS, clock=clock)
        self._sealed = SealedSecrets()

    def changed(self) -> None:
        """An EdgeModel's versions or spec, or a policy, changed."""
        self._models.invalidate()

    async def on(self, node: LiveObject, sealing_key: str) -> Placed:
        """Return what one node's spec follows from.

        Raises:
            Transient: the API server failed.
        """
        name = str(node["metadata"]["name"])
        read = await self._models.get()
        delivering = [model for model in read.models if belongs(model, node, pods_here=True)]
        elsewhere = [model for model in delivering if not belongs(model, node)]
        running = await self._running(name) if elsewhere else frozenset()
        placed = []
        for model in delivering:
            key = _key(model)
            here = key in running
            if not belongs(model, node, pods_here=here):
                continue
            sealed = None
            if model.spec.pull_secrets:
                sealed = self._sealed.sealed(name, sealing_key, key, await self._pull_secrets(read, model))
            placed.append(Placement(model, _governing(model, read), sealed, pods_here=here))
        self._sealed.keep(name, (_key(one.model) for one in placed))
        return Placed(tuple(placed), read.unreadable)

    def forget(self, node: str) -> None:
        """Drop what was sealed to a node that is gone."""
        self._sealed.keep(node, ())

    async def _read(self) -> _Models:
        listed, policies, spaces = await asyncio.gather(
            self._list(), read_policies(self._api), self._api.list(NAMESPACE)
        )
        models, unreadable = [], set()
        for manifest in listed:
            try:
                models.append(read_model(manifest))
            except Stalled as error:
                meta = manifest["metadata"]
                unreadable.add((meta["namespace"], meta["name"]))
                log.warning(
                    "model not read; nodes keep what they have of it",
                    extra={"namespace": meta["namespace"], "object": meta["name"], "error": error.message},
                )
        labels = {space["metadata"]["name"]: space["metadata"].get("labels") or {} for space in spaces}
        return _Models(tuple(models), policies, labels, frozenset(unreadable))

    async def _list(self) -> list[dict[str, Any]]:
        found = await asyncio.gather(
            *(self._api.list(EDGE_MODEL, namespace) for namespace in self._namespaces or (None,))
        )
        return [model for models in found for model in models]

    async def _running(self, node: str) -> frozenset[ModelKey]:
        """Return the models of which pods are on a node."""
        found = await asyncio.gather(
            *(
                self._api.list(POD, namespace, labels=LABELS_MANAGED, fields={"spec.nodeName": node})
                for namespace in self._namespaces or (None,)
            )
        )
        return frozenset(
            (pod["metadata"]["namespace"], (pod["metadata"].get("labels") or {}).get(LABEL_MODEL, ""))
            for pods in found
            for pod in pods
        )

    async def _pull_secrets(self, read: _Models, model: EdgeModel) -> PullSecrets | None:
        """Return a model's pull secrets; None when they cannot be read."""
        key = _key(model)
        task = read.secrets.get(key)
        if task is None:
            task = read.secrets[key] = asyncio.create_task(read_pull_secrets(self._api, model))
            task.add_done_callback(lambda ended: None if ended.cancelled() else ended.exception())
        try:
            return await asyncio.shield(task)
        except (Stalled, Forbidden) as error:
            # One model's trouble, told in its own status by its own pass: other models of the node must not wait for it.
            log.warning(
                "pull secrets not read",
                extra={"namespace": key[0], "object": key[1], "error": error.message},
            )
            return None


def _governing(model: EdgeModel, read: _Models) -> dict[str, str]:
    """Return the policies that govern any version of a model, as JSON text by name."""
    labels = read.labels.get(model.metadata.namespace, {})

    def governs(policy: ReadPolicy, at: Iterable[Reference]) -> bool:
        return any(policy.governs(reference, labels) for reference in at)

    at = tuple(references(model))
    return {policy.name: policy.to_json() for policy in read.policies if governs(policy, at)}


def _key(model: EdgeModel) -> ModelKey:
    return model.metadata.namespace, model.metadata.name
