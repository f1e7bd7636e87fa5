"""What it takes to get HAProxy from some routes to others: commands of its runtime API, or a new configuration. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from edgemodel.gateway.configuration import ACTIVE, CANDIDATE, SPARE, Place, server_line, weight_of
from edgemodel.gateway.grpc_configuration import GRPC
from edgemodel.gateway.routes import Route, Server
from edgemodel.gateway.shadow_configuration import MAP


@dataclass(frozen=True, slots=True)
class Command:
    """One command of the runtime API."""

    text: str
    tidying: bool = False
    """Nothing depends on it: it removes a server that gets nothing any more, which HAProxy does once it has no request."""


def apart_from_shapes(old: Iterable[Route], new: Iterable[Route]) -> tuple[Route, ...]:
    """Return the routes that HAProxy has, with the pods and weights they are to have.

    Routes that need a new configuration stay as they are, new ones are not among them: what ``changes`` can do at once.
    """
    after = {route.key: route for route in new}
    return tuple(
        after[route.key] if route.key in after and after[route.key].shape == route.shape else route
        for route in old
    )


def changes(old: Iterable[Route], new: Iterable[Route], place: Place) -> tuple[Command, ...]:
    """Return the commands, in order, between routes of the same keys and shapes.

    Pods are added before anything is taken away. Old pods of the active version leave it before the candidate's part falls,
    or they would get requests again when it has been promoted; the candidate's pods leave it afterwards.
    """
    before = {route.key: route for route in old}
    added: list[str] = []
    left: list[str] = []
    weights: list[str] = []
    gone: list[str] = []
    removed: list[str] = []
    for route in new:
        was = before[route.key]
        for begin, older, newer, tried, by_grpc in (
            (f"{route.backend}.{ACTIVE}/", was.active, route.active, False, False),
            (f"{route.backend}.{CANDIDATE}/", was.candidate, route.candidate, True, False),
            (f"{route.backend}.{CANDIDATE}/{SPARE}", was.active, route.active, False, False),
            (f"{route.backend}.{ACTIVE}.{GRPC}/", was.active, route.active, False, True),
            (f"{route.backend}.{CANDIDATE}.{GRPC}/", was.candidate, route.candidate, True, True),
            (f"{route.backend}.{CANDIDATE}.{GRPC}/{SPARE}", was.active, route.active, False, True),
        ):
            added += _added(begin, older, newer, route, tried=tried, by_grpc=by_grpc)
            names = [f"{begin}{name}" for name in _names(older) - _names(newer)]
            out = left if older is was.active else gone
            out += [f"set server {name} state maint" for name in sorted(names)]
            removed += [f"del server {name}" for name in sorted(names)]
        if was.weight != route.weight:
            weights.append(f"set map {place.weights} {route.backend} {route.weight}")
        if was.shadow != route.shadow:
            weights.append(f"set map {place.folder}/{MAP} {route.backend} {route.shadow}")
    at_once = [Command(text) for text in (*added, *left, *weights, *gone)]
    return (*at_once, *(Command(text, tidying=True) for text in removed))


def settled(old: Iterable[Route], new: Iterable[Route]) -> tuple[Route, ...]:
    """Return the new routes without pods that get no requests and never did.

    A pod that is there and not ready yet has nobody to be kept for; one that was ready and is not any more ends what it has.
    """
    before = {route.key: route for route in old}

    def of(side: tuple[Server, ...], known: tuple[Server, ...]) -> tuple[Server, ...]:
        names = _names(known)
        return tuple(server for server in side if server.taking or server.name in names)

    return tuple(
        replace(
            route,
            active=of(route.active, before[route.key].active if route.key in before else ()),
            candidate=of(route.candidate, before[route.key].candidate if route.key in before else ()),
        )
        for route in new
    )


def _added(
    begin: str,
    old: tuple[Server, ...],
    new: tuple[Server, ...],
    route: Route,
    *,
    tried: bool,
    by_grpc: bool,
) -> list[str]:
    extra = " backup" if begin.endswith(SPARE) else ""
    before = {server.name: server for server in old}
    found = []
    for server in new:
        was, path = before.get(server.name), f"{begin}{server.name}"
        if was is None:
            found += [
                f"add server {path} {server_line(server, route, tried=tried, by_grpc=by_grpc)}{extra}",
                f"enable health {path}",
                f"enable server {path}",
            ]
        elif was.taking != server.taking:
            # Not in percent: that is a part of the weight it began with, which may have been none.
            found.append(f"set weight {path} {weight_of(server, route)}")
    return found


def _names(servers: Iterable[Server]) -> set[str]:
    return {server.name for server in servers}
