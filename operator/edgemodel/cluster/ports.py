"""Gives each EdgeModel the port at which the gateway answers for it.

Promises: a model keeps its port as long as it lives; no two models of this operator have the same one. What was given
stands in ``status.gatewayPort`` and, between the giving and the writing, in memory; an operator that dies in between gives
anew. Two statuses with one port (a backup was restored, a person wrote one) are mended the same way by whoever looks: the
older EdgeModel keeps it, the other gets another.

Where the search begins follows from the model's name, so one that is made anew mostly gets the port it had.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from edgemodel.api.v1alpha1 import EdgeModel
from edgemodel.cluster.client import ApiServer
from edgemodel.cluster.kinds import EDGE_MODEL
from edgemodel.cluster.shared import Shared

FIRST, LAST = 20000, 29999
"""Below them are ports of the gateway itself, above them NodePorts (30000) and the ports of outgoing connections (32768)."""
MODELS_SECONDS = 60.0
"""How long a reading of all statuses may serve. What was given since is known anyway: it was given here."""

_ModelKey = tuple[str, str]


class _Held(NamedTuple):
    """An EdgeModel and the port its status tells, in the order in which models may keep theirs."""

    made: str
    namespace: str
    name: str
    uid: str
    port: int


class Ports:
    """See the module's docstring; everything runs in one event loop, so there are no locks."""

    def __init__(
        self,
        api: ApiServer,
        *,
        namespaces: tuple[str, ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``namespaces`` are those whose EdgeModels are served; empty means all."""
        self._api = api
        self._namespaces = namespaces
        self._held = Shared(self._read, max_age=MODELS_SECONDS, clock=clock)
        self._given: dict[_ModelKey, tuple[str, int]] = {}
        """By model: its uid, and the port it was given by this process."""

    async def port(self, model: EdgeModel, made: str) -> int | None:
        """Return the model's port; None when all are taken.

        Args:
            model: the EdgeModel, as it was just read.
            made: its creationTimestamp.

        Raises:
            Transient: the API server failed.
        """
        meta, told = model.metadata, model.status.gateway_port
        key = (meta.namespace, meta.name)
        given = self._given.get(key)
        if given is not None and given[0] == meta.uid:
            return given[1]
        mine = _Held(made, meta.namespace, meta.name, meta.uid, told or 0)
        held = await self._held.get()
        if _usable(told) and self._earlier(held, mine):
            # What was read may be old: before a model is moved, it is read anew.
            self._held.invalidate()
            held = await self._held.get()
        # From here on nothing waits: two passes can't be given the same.
        given = self._given.get(key)
        if given is not None and given[0] == meta.uid:
            return given[1]
        if _usable(told) and told is not None and not self._earlier(held, mine):
            self._given[key] = (meta.uid, told)
            return told
        port = self._free(held, mine)
        if port is not None:
            self._given[key] = (meta.uid, port)
        return port

    def forget(self, namespace: str, name: str) -> None:
        """The EdgeModel is gone, and its port free."""
        self._given.pop((namespace, name), None)

    def _earlier(self, held: Mapping[_ModelKey, _Held], mine: _Held) -> bool:
        """Tell whether another model has the better right to the port that this one's status tells."""
        me = (mine.namespace, mine.name)
        if any(port == mine.port for key, (_, port) in self._given.items() if key != me):
            return True
        return any(
            other.port == mine.port and other < mine
            for key, other in held.items()
            if key != me and key not in self._given
        )

    def _free(self, held: Mapping[_ModelKey, _Held], mine: _Held) -> int | None:
        me = (mine.namespace, mine.name)
        taken = {port for key, (_, port) in self._given.items() if key != me}
        taken |= {other.port for key, other in held.items() if key != me and key not in self._given}
        count = LAST - FIRST + 1
        seed = hashlib.sha256(f"{mine.namespace}/{mine.name}".encode()).digest()
        start = int.from_bytes(seed[:4]) % count
        return next(
            (port for step in range(count) if (port := FIRST + (start + step) % count) not in taken),
            None,
        )

    async def _read(self) -> Mapping[_ModelKey, _Held]:
        found: dict[_ModelKey, _Held] = {}
        for namespace in self._namespaces or (None,):
            for live in await self._api.list(EDGE_MODEL, namespace):
                meta = live["metadata"]
                port = (live.get("status") or {}).get("gatewayPort")
                if isinstance(port, int) and _usable(port):
                    key = (str(meta["namespace"]), str(meta["name"]))
                    made = str(meta.get("creationTimestamp", ""))
                    found[key] = _Held(made, *key, str(meta.get("uid", "")), port)
        return found


def _usable(port: int | None) -> bool:
    return port is not None and FIRST <= port <= LAST
