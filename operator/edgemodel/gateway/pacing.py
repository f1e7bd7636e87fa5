"""Looks at how soon pods answer, twice a second, and gives slow ones less: ``pace`` said to HAProxy.

Promises: a pod that is to get nothing, because it is going or not ready, gets nothing from here; HAProxy is told only what
it does not have yet, so that pods that are alike cost no command, and a worker that follows after a reload is told again.
HTTP and gRPC are judged apart; a model is asked about gRPC's pods once it had such a request. Only active versions are
looked at: a candidate's slowness is the rollout's to judge. A model with ``sticky`` is left alone.
"""

import asyncio
import csv
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import Gauge

from edgemodel.gateway import runtime
from edgemodel.gateway.configuration import ACTIVE, Place
from edgemodel.gateway.grpc_configuration import GRPC
from edgemodel.gateway.pace import FULL, Pace, Seen, Turn
from edgemodel.gateway.routes import Route

log = logging.getLogger(__name__)

LOOK_SECONDS, SOON_SECONDS = 0.5, 0.1
TOGETHER = 50
"""Models that are asked for by one command; each pod is about half a kilobyte of answer."""
_SERVERS_AND_BACKEND, _BACKEND_ALONE = 6, 2
LOOKS_FOR_GRPC = 10
"""Every so many looks it is asked which models have had a request by gRPC."""
_BACKEND = "BACKEND"


class Pacing:
    """See the module's docstring.

    Args:
        place: where HAProxy is asked.
        routes: what HAProxy does now.
        telling: held by whoever has HAProxy change something.
        slow: metric, how many pods are slow now.
    """

    def __init__(
        self, place: Place, routes: Callable[[], Iterable[Route]], telling: asyncio.Lock, slow: Gauge
    ) -> None:
        self._place, self._routes, self._telling, self._slow = place, routes, telling, slow
        self._paces: dict[str, Pace] = {}
        """By backend."""
        self._by_grpc: set[str] = set()
        """Backends of gRPC that have had a request."""
        self._looks = 0

    async def follow(self) -> None:
        """Look on and on."""
        soon = False
        while True:
            await asyncio.sleep(SOON_SECONDS if soon else LOOK_SECONDS)
            soon = False
            try:
                soon = await self.look(time.monotonic())
            except runtime.CommandRefused:
                pass  # it is being started again, or a pod has just gone
            except (KeyError, ValueError):
                log.exception("what HAProxy tells of pods can't be read: none gets less for being slow")

    async def release(self, wanted: Iterable[Route]) -> None:
        """Give slow pods their weight back where others are about to go; the caller holds the lock.

        Raises:
            CommandRefused: HAProxy did not do it.
        """
        after = {route.key: _taking(route) for route in wanted}
        for route in self._routes():
            if _taking(route) <= after.get(route.key, set()):
                continue
            for backend in _backends(route):
                pace = self._paces.pop(backend, None)
                for name in pace.slow if pace is not None else ():
                    if name in after.get(route.key, ()):
                        await self._order(backend, name, FULL)

    async def look(self, now: float) -> bool:
        """Look at all models that have a choice of pods; return whether to look again soon."""
        routes = [route for route in self._routes() if len(_taking(route)) > 1 and not route.sticky]
        await self._look_for_grpc(routes)
        looked_at = {
            backend: route
            for route in routes
            for backend in _backends(route)
            if backend in self._by_grpc or not backend.endswith(GRPC)
        }
        self._paces = {backend: self._paces.get(backend) or Pace() for backend in looked_at}
        turns: dict[str, tuple[Turn, dict[str, int]]] = {}
        backends = list(looked_at)
        for begin in range(0, len(backends), TOGETHER):
            together = backends[begin : begin + TOGETHER]
            found = await self._ask(together, _SERVERS_AND_BACKEND)
            for backend in together:
                route, rows = looked_at[backend], found.get(backend, {})
                waiting = int(rows.pop(_BACKEND, {}).get("qcur") or 0)
                seen = [one for name, row in rows.items() if name in _taking(route) and (one := _seen(row))]
                limit = route.queue_limit if route.max_inflight else None
                turn = self._paces[backend].look(now, seen, waiting=waiting, limit=limit)
                turns[backend] = turn, {one.name: one.weight for one in seen}
        self._slow.set(sum(len(pace.slow) for pace in self._paces.values()))
        if any(turn.clear for turn, _ in turns.values()):
            await runtime.order(self._place.runtime_socket, "clear counters")
        if any(turn.weights != had for turn, had in turns.values()):
            await self._tell(turns)
        return any(turn.soon for turn, _ in turns.values())

    async def _look_for_grpc(self, routes: Sequence[Route]) -> None:
        """Learn which models get gRPC, now and then."""
        self._looks += 1
        if self._looks % LOOKS_FOR_GRPC:
            return
        all_of_them = [f"{route.backend}.{ACTIVE}.{GRPC}" for route in routes]
        self._by_grpc &= set(all_of_them)
        unknown = [backend for backend in all_of_them if backend not in self._by_grpc]
        for begin in range(0, len(unknown), TOGETHER):
            found = await self._ask(unknown[begin : begin + TOGETHER], _BACKEND_ALONE)
            self._by_grpc |= {
                backend for backend, rows in found.items() if int(rows.get(_BACKEND, {}).get("stot") or 0)
            }

    async def _tell(self, turns: dict[str, tuple[Turn, dict[str, int]]]) -> None:
        async with self._telling:
            # Others may have had it change something while it was looked at.
            for route in self._routes():
                for backend in _backends(route):
                    turn, had = turns.get(backend, (Turn({}), {}))
                    names = _taking(route) & turn.weights.keys()
                    for name in sorted(names, key=turn.weights.__getitem__, reverse=True):
                        if turn.weights[name] != had[name] and backend in self._paces:
                            await self._order(backend, name, turn.weights[name])

    async def _order(self, backend: str, name: str, weight: int) -> None:
        await runtime.order(self._place.runtime_socket, f"set weight {backend}/{name} {weight}")

    async def _ask(self, backends: Iterable[str], kinds: int) -> dict[str, dict[str, dict[str, str]]]:
        """Return HAProxy's words by backend and server (Management Guide 2.6, section 9.1)."""
        commands = (f"show stat {backend} {kinds} -1" for backend in backends)
        told = await runtime.ask(self._place.runtime_socket, ";".join(commands))
        found: dict[str, dict[str, dict[str, str]]] = {}
        for row in _rows(told):
            found.setdefault(row["pxname"], {})[row["svname"]] = row
        return found


def _backends(route: Route) -> tuple[str, str]:
    return f"{route.backend}.{ACTIVE}", f"{route.backend}.{ACTIVE}.{GRPC}"


def _rows(text: str) -> Iterator[dict[str, str]]:
    names: list[str] = []
    for fields in csv.reader(text.splitlines()):
        if fields[:1] == ["# pxname"]:
            names = ["pxname", *fields[1:]]
        elif names and len(fields) == len(names):
            yield dict(zip(names, fields, strict=True))


def _taking(route: Route) -> set[str]:
    return {server.name for server in route.active if server.taking}


def _seen(row: dict[str, str]) -> Seen | None:
    """Read a server's row; None if it is down."""
    # One of weight 0 is called DRAIN, one that is on its way up or down UP 1/2.
    if not row["status"].startswith(("UP", "DRAIN", "no check")):
        return None

    def number(name: str) -> int:
        return int(row[name] or 0)

    return Seen(
        name=row["svname"],
        weight=number("uweight"),
        answers=number("req_tot"),
        inflight=number("scur"),
        mean_ms=number("rtime"),
        longest_ms=number("rtime_max"),
        failures=number("econ") + number("eresp") + number("wretr"),
    )
