"""Looks at how soon pods answer, twice a second, and gives slow ones less: ``pace`` said to HAProxy.

Promises: a pod that is to get nothing, because it is going or not ready, gets nothing from here; HAProxy is told only what
it does not have yet, so that pods that are alike cost no command, and a worker that follows after a reload is told again.
Only active versions are looked at: a candidate's slowness is the rollout's to judge. A model with ``sticky`` is left alone.
"""

import asyncio
import csv
import logging
import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import Gauge

from edgemodel.gateway import runtime
from edgemodel.gateway.configuration import ACTIVE, Place
from edgemodel.gateway.pace import FULL, Pace, Seen, Turn
from edgemodel.gateway.routes import Route

log = logging.getLogger(__name__)

LOOK_SECONDS, SOON_SECONDS = 0.5, 0.1
TOGETHER = 50
"""Models that are asked for by one command; each pod is about half a kilobyte of answer."""
_SERVERS_AND_BACKEND = 6
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
            pace = self._paces.pop(route.key, None)
            for name in pace.slow if pace is not None else ():
                if name in after.get(route.key, ()):
                    await self._order(route, name, FULL)

    async def look(self, now: float) -> bool:
        """Look at all models that have a choice of pods; return whether to look again soon."""
        routes = {
            route.key: route for route in self._routes() if len(_taking(route)) > 1 and not route.sticky
        }
        self._paces = {key: self._paces.get(key) or Pace() for key in routes}
        turns: dict[str, tuple[Turn, dict[str, int]]] = {}
        keys = list(routes)
        for begin in range(0, len(keys), TOGETHER):
            found = await self._ask(routes[key] for key in keys[begin : begin + TOGETHER])
            for key in keys[begin : begin + TOGETHER]:
                route = routes[key]
                rows = found.get(f"{route.backend}.{ACTIVE}", {})
                waiting = int(rows.pop(_BACKEND, {}).get("qcur") or 0)
                seen = [one for name, row in rows.items() if name in _taking(route) and (one := _seen(row))]
                limit = route.queue_limit if route.max_inflight else None
                turn = self._paces[key].look(now, seen, waiting=waiting, limit=limit)
                turns[key] = turn, {one.name: one.weight for one in seen}
        self._slow.set(sum(len(pace.slow) for pace in self._paces.values()))
        if any(turn.clear for turn, _ in turns.values()):
            await runtime.order(self._place.runtime_socket, "clear counters")
        if any(turn.weights != had for turn, had in turns.values()):
            await self._tell(turns)
        return any(turn.soon for turn, _ in turns.values())

    async def _tell(self, turns: dict[str, tuple[Turn, dict[str, int]]]) -> None:
        async with self._telling:
            # Others may have had it change something while it was looked at.
            for route in self._routes():
                turn, had = turns.get(route.key, (Turn({}), {}))
                for name in sorted(
                    _taking(route) & turn.weights.keys(), key=lambda name: -turn.weights[name]
                ):
                    if turn.weights[name] != had[name] and route.key in self._paces:
                        await self._order(route, name, turn.weights[name])

    async def _order(self, route: Route, name: str, weight: int) -> None:
        await runtime.order(
            self._place.runtime_socket, f"set weight {route.backend}.{ACTIVE}/{name} {weight}"
        )

    async def _ask(self, routes: Iterable[Route]) -> dict[str, dict[str, dict[str, str]]]:
        """Return HAProxy's words by backend and server (Management Guide 2.6, section 9.1)."""
        commands = (f"show stat {route.backend}.{ACTIVE} {_SERVERS_AND_BACKEND} -1" for route in routes)
        told = await runtime.ask(self._place.runtime_socket, ";".join(commands))
        found: dict[str, dict[str, dict[str, str]]] = {}
        for row in _rows(told):
            found.setdefault(row["pxname"], {})[row["svname"]] = row
        return found


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
