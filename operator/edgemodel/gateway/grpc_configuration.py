"""gRPC's part of HAProxy's configuration: what is gRPC, whose it is, and the backends that take it. Pure text.

A model's pods speak gRPC at the port of HTTP/1.1, by HTTP/2, which a server of HAProxy's speaks always or never. So the same
pods stand in two more backends, ``<model>.active.grpc`` and ``<model>.candidate.grpc``, with the same rules: the drawn
candidate, limits, queue, retries, who may call. Refusals are gRPC's (HTTP 200 and ``grpc-status``); what HAProxy answers for
itself, 502, 503 and 504, clients take for UNAVAILABLE by gRPC's own table.

At the common entry a model is named by the authority ``NAME.NAMESPACE``, its TLS server name, as a method's path is fixed.

Promises: at a model's port a request that is not HTTP/2 pays for the comparison of a number. A model
that gets no gRPC pays for a connection to each pod in ten seconds; when requests come, the first refused takes a pod out.
"""

import json
from collections.abc import Iterable

GRPC = "grpc"
"""Ends the names of the two backends."""
NAMES = "names.map"
"""From a model's authority to what its backends' names begin with."""
ASKED = "{ fc_http_major 2 } { req.hdr(content-type) -m beg application/grpc }"
"""True of gRPC."""
SET = f"http-request set-var(txn.grpc) str(.{GRPC}) if {ASKED}"
"""Looks whether a request is gRPC, for the rules behind it."""
FOUND = "{ var(txn.grpc) -m found }"
"""True of gRPC, behind ``SET``."""
END = "%[var(txn.grpc)]"
"""Ends the names of backends for any request; nothing, but for gRPC."""
CHECK = (
    "proto h2 check inter 10s fastinter 100ms downinter 500ms fall 2 rise 1 "
    "observe layer4 error-limit 1 on-error mark-down"
)
"""Seldom, as the plain backend looks at the same pod closely; one refused connection takes it out until the next check."""
TYPED = "http-after-response set-header content-type application/grpc if { res.hdr(grpc-status) -m found }"
"""HAProxy gives an answer without a body no type; clients want one. (What is more than headers has its status behind it.)"""
WHOLE = "http-request wait-for-body time 30s unless { path_beg /grpc.reflection. }"
"""A request is sent again only if all of it is still here. Reflection is a conversation: nobody may wait for its end."""
_STATUS = {401: 16, 403: 7, 404: 5, 503: 14}
"""UNAUTHENTICATED, PERMISSION_DENIED, NOT_FOUND, UNAVAILABLE: as gRPC maps HTTP's."""


def refusal(code: int, text: str, condition: str) -> str:
    """Return the rule that answers with what is HTTP's ``code`` in gRPC, as headers alone."""
    message = json.dumps(f"gateway: {text}".replace("%", "%%"))
    return f"http-request return status 200 hdr grpc-status {_STATUS[code]} hdr grpc-message {message} {condition}".rstrip()


def again() -> str:
    """Return the backend that leads to the worker that followed this one."""
    return f"""\
backend again.{GRPC}
    server follower 127.0.0.1 proto h2
"""


def at_entry(folder: str, first: str) -> str:
    """Return the common entry's lines that find gRPC's model.

    Args:
        folder: of the maps.
        first: true where no other worker is to be asked.
    """
    text = "no such model here; expected the authority NAME.NAMESPACE, and a method of inference or grpc.*"
    known = "{ var(txn.route) -m found } { path_beg /inference. /grpc. }"
    missing = refusal(404, text, f"if {first} {FOUND} !{{ var(txn.known) -m found }}")
    return f"""\
    {TYPED}
    {SET}
    http-request set-var(txn.route) req.hdr(host),field(1,:),lower,map_str({folder}/{NAMES}) if {FOUND}
    http-request set-var(txn.known) int(1) if {known}
    {missing}
"""


def backend(name: str, rules: Iterable[str], servers: str, more: str = "") -> str:
    """Return one of a model's two backends for gRPC.

    Args:
        name: of the plain backend whose pods these are.
        rules: lines.
        servers: lines, whole.
        more: lines, whole.
    """
    lines = "".join(f"    {line}\n" for line in rules)
    return f"""
backend {name}.{GRPC}
    log global
    {WHOLE}
{lines}{more}{servers}"""
