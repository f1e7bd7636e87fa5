"""From routes to the text of HAProxy's configuration and the files that it names. Pure; the same routes give the same text.

A frontend for each model takes what comes by its own port, a common one what comes by path; that one finds the model in a
map. Both draw whether the candidate gets the request, and hand it to one of the model's two backends, or of gRPC's two.
Which pods stand in a backend, and the candidate's part, are in here as well, so that a fresh HAProxy begins with the truth;
changes of those go by its runtime API (``changes``). Written for HAProxy 2.6; each directive is in its Configuration Manual.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from edgemodel.gateway import access_configuration as access
from edgemodel.gateway import grpc_configuration as grpc
from edgemodel.gateway import shadow_configuration as shadow
from edgemodel.gateway.pace import FULL
from edgemodel.gateway.routes import Route, Server
from edgemodel.gateway.state import ENDING

LOST = "check inter 500ms fastinter 100ms fall 2 rise 1"
"""A connection twice a second, and a second look at once: a node that is gone is out within 1.6 s, whoever else knows of it.
(``lost_nodes`` sees to requests that were sent to it.)"""
CHECK = f"{LOST} observe layer7 error-limit 20 on-error mark-down"
"""Twenty failures in a row of a pod whose port still answers take it out until the next check."""
TRIED = f"{LOST} observe layer4 error-limit 1 on-error mark-down"
"""The same for a candidate's pod, with which one has less patience: one refused connection takes it out until the next
check, so that the retries of the very request come to an active pod."""
ACTIVE, CANDIDATE = "active", "candidate"
_WHOLE = "    # A request is sent again only if all of it is still here.\n    option http-buffer-request\n"
_OF_CANDIDATE = """\
    option allbackups
    # All of its pods may die at once, each with connections that look alive until they are used.
    retries 12
"""
SPARE = "spare-"
"""Begins the name of an active pod's entry in the candidate's backend."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where HAProxy and its agent meet, and where it listens."""

    folder: str
    """Holds all files that it reads."""
    sockets: str = ""
    """Holds the sockets; the same folder when empty."""
    http_port: int = 8080
    https_port: int = 8443
    metrics_port: int = 8404
    ipv6: bool = False
    """Take requests that come by IPv6, too."""
    threads: int | None = None
    buffer_bytes: int = 16384
    """A request that fits is sent again to another pod when the first one dies before it answers."""
    max_connections: int = 4096

    def at(self, port: int) -> str:
        """Return the address of a ``bind`` line."""
        return f":::{port} v4v6" if self.ipv6 else f"*:{port}"

    @property
    def meeting(self) -> str:
        """The folder of all sockets."""
        return self.sockets or self.folder

    @property
    def runtime_socket(self) -> str:
        """HAProxy's runtime API."""
        return f"{self.meeting}/haproxy.sock"

    @property
    def events_socket(self) -> str:
        """Where HAProxy says that a pod went out or came back."""
        return f"{self.meeting}/events.sock"

    @property
    def master_socket(self) -> str:
        """The master process's."""
        return f"{self.meeting}/master.sock"

    @property
    def weights(self) -> str:
        """The map from a model to its candidate's part."""
        return f"{self.folder}/weights.map"


def files(routes: Iterable[Route], place: Place, certificate: str = "") -> dict[str, str]:
    """Return all files by name: ``haproxy.cfg``, and those that it names.

    Args:
        routes: what to lead to.
        place: where.
        certificate: PEM of certificate chain and key of the entry by TLS; empty for none.
    """
    routes = tuple(routes)
    found = {
        "weights.map": _map([(ENDING, "0"), *((route.backend, str(route.weight)) for route in routes)]),
    }
    if routes:
        found[grpc.NAMES] = _map((access.server_name(route), route.backend) for route in routes)
    if any(route.shadow_percent for route in routes):
        shadows = ((route.backend, str(route.shadow)) for route in routes if route.shadow_percent)
        found[shadow.MAP] = _map(shadows)
    listed = [f"{place.folder}/tls.pem"]
    for route in routes:
        asked = route.access
        if asked is not None and asked.tokens:
            found[access.tokens_file(asked)] = "".join(f"{token}\n" for token in asked.tokens)
        if asked is not None and asked.client_ca and certificate:
            found[access.authorities_file(asked)] = asked.client_ca
            authorities = f"[ca-file {place.folder}/{access.authorities_file(asked)} verify optional]"
            listed.append(f"{place.folder}/tls.pem {authorities} {access.server_name(route)}")
    if certificate:
        found |= {"tls.pem": certificate, "certificates.list": "".join(f"{line}\n" for line in listed)}
    return found | {"haproxy.cfg": _configuration(routes, place, tls=bool(certificate))}


def server_line(server: Server, route: Route, *, tried: bool = False, by_grpc: bool = False) -> str:
    """Return address and options of a server, as configuration and runtime API both take them.

    ``tried`` marks a candidate's own pod in the candidate's backend, ``by_grpc`` a pod in one of gRPC's.
    """
    address = f"[{server.address}]" if ":" in server.address else server.address
    limit = f" maxconn {route.max_inflight}" if route.max_inflight else ""
    check = grpc.CHECK if by_grpc else TRIED if tried else CHECK
    return f"{address}:{server.port} {check}{limit} weight {weight_of(server, route)}"


def weight_of(server: Server, route: Route) -> int:
    """Return the weight that a server begins with; ``pacing`` lowers it where the pod is slow."""
    # Consistent hashing has a node for each bit of weight.
    return (1 if route.sticky else FULL) if server.taking else 0


def _configuration(routes: tuple[Route, ...], place: Place, *, tls: bool) -> str:
    shadowed = any(route.shadow_percent for route in routes)
    return "\n".join(
        [
            _global(place),
            _defaults(),
            _exporter(place),
            _again(),
            grpc.again(),
            *(_by_port(route, place) for route in routes),
            _by_path(place, tls=tls, shadowed=shadowed, models=bool(routes)),
            *([shadow.frontend(place.meeting, active=ACTIVE, candidate=CANDIDATE)] if shadowed else []),
            *(_backends(route, place) for route in routes),
        ]
    )


def _global(place: Place) -> str:
    threads = f"\n    nbthread {place.threads}" if place.threads else ""
    return f"""\
global
    stats socket {place.runtime_socket} mode 600 level admin expose-fd listeners
    stats timeout 1h
    log {place.events_socket} format raw local0 alert
    # Longer than any request may take.
    hard-stop-after 330s
    maxconn {place.max_connections}
    tune.bufsize {place.buffer_bytes}{threads}
    ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets
    # A session that is resumed under another server name would bring its client certificate along: none is resumed.
    tune.ssl.cachesize 0
"""


def _defaults() -> str:
    return f"""\
defaults
    mode http
    balance leastconn
    timeout connect 1s
    timeout check 500ms
    timeout client 60s
    timeout server 300s
    timeout queue 5s
    timeout http-request 30s
    timeout http-keep-alive 60s
    # After a reload a connection is closed behind its next answer, never under a request.
    option idle-close-on-response
    # An inference changes nothing: it may be asked of another pod.
    option redispatch 1
    retries 3
    retry-on conn-failure empty-response
    # A request that was confirmed and waits for its answer: its node is asked each second whether it is still there.
    option srvtcpka
    srvtcpka-idle 1s
    srvtcpka-intvl 1s
    srvtcpka-cnt 2
    default-server init-addr last,none pool-purge-delay 30s
    {_error(400, "this is not HTTP")}
    {_error(408, "the request did not come in time")}
    {_error(502, "the pod broke off, or did not answer in HTTP")}
    {_error(503, "no pod is free for it, or none answers; try again", "Retry-After 1")}
    {_error(504, "the pod took too long")}
"""


def _error(code: int, text: str, header: str = "") -> str:
    body = json.dumps({"error": f"gateway: {text}"})
    name, _, value = header.partition(" ")
    extra = f' hdr {name} "{value}"' if header else ""
    return f"http-error status {code} content-type application/json string '{body}'{extra}"


def _exporter(place: Place) -> str:
    return f"""\
frontend exporter
    bind {place.at(place.metrics_port)}
    http-request use-service prometheus-exporter if {{ path /metrics }}
    # For the kubelet: whoever hears it is led to models, whether the agent is there or not.
    http-request return status 200 content-type text/plain string "ok" if {{ path /readyz }}
    http-request return status 404 content-type text/plain string "/metrics and /readyz are what there is"
"""


def _again() -> str:
    return """\
backend again
    # At the port by which the request came.
    server follower 127.0.0.1
"""


def _followed(place: Place) -> str:
    """Return the condition under which a request is for the worker that followed this one.

    After a reload a worker ends its connections behind the next answer of each; of pods that came since then it is not told
    (HAProxy: "Proxy is disabled").
    """
    return f"{{ stopping }} {{ str({ENDING}),map_str_int({place.weights},0) eq 0 }}"


def _by_port(route: Route, place: Place) -> str:
    # All that differs between models is written out, and no variable is set: each look-up takes part of a microsecond, of
    # eighteen. Most requests need the first line alone.
    name, key = route.backend, f"str({route.backend})"
    part, copied = _copies(place, key, name) if route.shadow_percent else ("", "")
    usual = f"    use_backend {name}.{ACTIVE} if {{ fc_http_major 1 }} !{{ stopping }} {{ {_part(place, key)} eq 0 }}\n"
    followed, drawn = _followed(place), _drawn(place, key)
    return f"""\
frontend {name}
    bind {place.at(route.port)}
{part}{"" if copied else usual}\
    use_backend again.{grpc.GRPC} if {grpc.ASKED} {followed}
    use_backend again if {followed}
    use_backend {name}.{CANDIDATE}.{grpc.GRPC} if {grpc.ASKED} {drawn}
    use_backend {name}.{ACTIVE}.{grpc.GRPC} if {grpc.ASKED}
    use_backend {name}.{CANDIDATE} if {drawn}
{copied}    default_backend {name}.{ACTIVE}
"""


def _part(place: Place, key: str) -> str:
    """Return the sample that is the candidate's part, of a hundred, by the sample that gives the model's backend."""
    return f"{key},map_str_int({place.weights},0)"


def _drawn(place: Place, key: str) -> str:
    """Return the condition under which the candidate gets a request."""
    part = f"{_part(place, key)},set-var(txn.weight)"
    return f"{{ {part} -m int gt 0 }} {{ rand(100),sub(txn.weight) lt 0 }}"


def _copies(place: Place, key: str, backend: str) -> tuple[str, str]:
    """Return the lines of a frontend that look up and draw which requests are copied."""
    return shadow.part(place.folder, key), shadow.choice(place.max_connections, backend)


def _by_path(place: Place, *, tls: bool, shadowed: bool, models: bool) -> str:
    secure = (
        f"    bind {place.at(place.https_port)} ssl crt-list {place.folder}/certificates.list alpn h2,http/1.1\n"
        if tls
        else ""
    )
    body = json.dumps({"error": "gateway: no such model here; expected /<namespace>/<name>/v2/..."})
    missing = f"http-request return status 404 content-type application/json string '{body}'"
    first, plain = "!{ var(txn.again) -m found }", f"!{grpc.FOUND}"
    part, copied = _copies(place, "var(txn.route)", "%[var(txn.route)]") if shadowed else ("", "")
    return f"""\
frontend by-path
    bind {place.at(place.http_port)}
{secure}    # By TLS it answers itself: who shows a certificate would show it to nobody else.
    http-request set-var(txn.again) int(1) if !{{ ssl_fc }} {_followed(place)}
{grpc.at_entry(place.folder, first) if models else ""}\
    http-request set-var(txn.namespace) path,field(2,/)
    http-request set-var(txn.name) path,field(3,/)
    http-request set-var-fmt(txn.route) %[var(txn.namespace)].%[var(txn.name)] if {plain}
    {missing} if {first} {plain} !{{ var(txn.route),map_str_int({place.weights}) -m found }}
    http-request replace-path ^/[^/]+/[^/]+/?(.*)$ /\\1 if {first} {plain}
    # What else a pod answers, its metrics say, is nobody's business out here.
    {missing} if {first} {plain} !{{ path /v2 }} !{{ path_beg /v2/ }}
{part}    use_backend again{grpc.END} if {{ var(txn.again) -m found }}
    use_backend %[var(txn.route)].{CANDIDATE}{grpc.END} if {_drawn(place, "var(txn.route)")}
    use_backend %[var(txn.route)].{ACTIVE}.{grpc.GRPC} if {grpc.FOUND}
{copied}    use_backend %[var(txn.route)].{ACTIVE}
"""


def _backends(route: Route, place: Place) -> str:
    rules = "".join(f"    {line}\n" for line in _rules(route, place))
    active = "".join(_server(server, route) for server in route.active)
    candidate = "".join(_server(server, route, tried=True) for server in route.candidate)
    # Where the candidate's pods are gone the version that is known to be good takes their part.
    spare = "".join(_server(server, route, backup=True) for server in route.active)
    copied = ""
    if route.shadow_percent:
        guard = access.guard(route, place.folder, outer=True)
        copied = shadow.backend(route.backend, place.meeting, guard)
    return f"""\
backend {route.backend}.{ACTIVE}
    log global
{_WHOLE}{rules}{active}
backend {route.backend}.{CANDIDATE}
    log global
{_WHOLE}{rules}{_OF_CANDIDATE}{candidate}{spare}{_by_grpc(route, place)}{copied}"""


def _by_grpc(route: Route, place: Place) -> str:
    rules = _rules(route, place, by_grpc=True)
    active = "".join(_server(server, route, by_grpc=True) for server in route.active)
    candidate = "".join(_server(server, route, by_grpc=True) for server in route.candidate)
    spare = "".join(_server(server, route, backup=True, by_grpc=True) for server in route.active)
    return grpc.backend(f"{route.backend}.{ACTIVE}", rules, active) + grpc.backend(
        f"{route.backend}.{CANDIDATE}", rules, candidate + spare, _OF_CANDIDATE
    )


def _server(
    server: Server, route: Route, *, tried: bool = False, backup: bool = False, by_grpc: bool = False
) -> str:
    name = f"{SPARE}{server.name}" if backup else server.name
    line = server_line(server, route, tried=tried, by_grpc=by_grpc)
    return f"    server {name} {line}{' backup' if backup else ''}\n"


def _rules(route: Route, place: Place, *, by_grpc: bool = False) -> list[str]:
    lines = [f"timeout queue {max(1, round(route.queue_seconds * 1000))}ms"]
    if by_grpc and (route.access is not None or route.max_inflight):
        lines.append(grpc.TYPED)
    if route.access is not None:
        lines += access.guard(route, place.folder, outer=by_grpc, by_grpc=by_grpc)
        if route.access.closed or route.access.tokens == ():
            return lines  # nobody gets any further
    if route.max_inflight:
        full = f"if {{ queue ge {max(1, route.queue_limit)} }}"
        text = "too many requests wait already; try again"
        lines.append(access.refusal(503, text, full, " hdr Retry-After 1", by_grpc=by_grpc))
    if route.sticky:
        # Nothing to remember: the same after a reload, and in every pod of the gateway.
        lines += ["balance source", "hash-type consistent"]
    return lines


def _map(entries: Iterable[tuple[str, str]]) -> str:
    return "".join(f"{key} {value}\n" for key, value in entries)
