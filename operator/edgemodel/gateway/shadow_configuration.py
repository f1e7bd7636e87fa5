"""HAProxy's part in shadowing: which requests take the way by the agent, and how the agent gets to pods. Pure text.

A request that is drawn goes to the model's backend ``.shadow``, whose server is the agent's socket. The agent hands it on
to the frontend ``shadowed``, at a socket of HAProxy's own, which leads to the same pods as if nothing had been in between:
their checks, limits, queue and retries hold. A copy for the candidate goes the same way, marked by a header.

Promises: an agent that is dead, or hangs, fails no request whose body fits into HAProxy's buffer. One that refuses is passed
over at once; one that hangs is found by its check, and what it holds is asked of the pods. Where no model is shadowed,
nothing of this is in the configuration.
"""

from collections.abc import Iterable

SHADOW = "shadow"
"""Ends the name of the backend whose server is the agent."""
FRONTEND = "shadowed"
MAP = "shadows.map"
"""From a model's backend to the percent of its requests that are copied now."""
ROUTE = "x-edgemodel-route"
CLIENT = "x-edgemodel-client"
PART = "x-edgemodel-part"
SERVER = "x-edgemodel-server"
"""Of the candidate's answer: the pod that gave it."""
HEALTH = "/healthz"
MAX_REQUEST = 1 << 20
"""Bytes of a request's body; longer ones are not copied."""
INNER = f"{{ fe_name -m str {FRONTEND} }}"
"""True of a request that the agent hands on: who may call was looked at before."""


def agent_socket(folder: str) -> str:
    """Return where the agent takes requests."""
    return f"{folder}/shadow.sock"


def pods_socket(folder: str) -> str:
    """Return where the agent hands them on."""
    return f"{folder}/shadowed.sock"


def part(folder: str, key: str) -> str:
    """Return a frontend's line that looks up how many requests are copied, by a sample that gives the model's backend."""
    return f"    http-request set-var(txn.shadow) {key},map_str_int({folder}/{MAP},0)\n"


def choice(max_connections: int, name: str) -> str:
    """Return a frontend's line that draws a request for a backend; it follows those that lead to the candidate.

    A request is several connections while it is shadowed, so a gateway that is half full copies none.
    """
    drawn = "{ rand(100),sub(txn.shadow) lt 0 }"
    short = f"{{ req.hdr(content-length) -m found }} {{ req.hdr_val(content-length) le {MAX_REQUEST} }}"
    free = f"{{ fe_conn lt {max_connections // 2} }}"
    return f"    use_backend {name}.{SHADOW} if {drawn} METH_POST {{ path_end /infer }} {short} {free}\n"


def frontend(folder: str, *, active: str, candidate: str) -> str:
    """Return the frontend by which the agent gets to pods."""
    copied = "{ var(txn.part) -m str candidate }"
    return f"""\
frontend {FRONTEND}
    bind unix@{pods_socket(folder)} mode 600
    http-request set-var(txn.route) req.hdr({ROUTE})
    http-request set-var(txn.part) req.hdr({PART})
    http-request set-src req.hdr({CLIENT})
    http-request del-header x-edgemodel- -m beg
    http-response set-header {SERVER} %[srv_name] if {copied}
    use_backend %[var(txn.route)].{candidate} if {copied}
    use_backend %[var(txn.route)].{active}
"""


def backend(name: str, folder: str, guard: Iterable[str]) -> str:
    """Return a model's backend that leads to the agent.

    Args:
        name: what the model's backends' names begin with.
        folder: of the sockets.
        guard: the lines that say who may call.
    """
    rules = "".join(f"    {line}\n" for line in guard)
    return f"""
backend {name}.{SHADOW}
{rules}    option http-buffer-request
    http-request del-header x-edgemodel- -m beg
    http-request set-header {ROUTE} {name}
    http-request set-header {CLIENT} %[src]
    option httpchk GET {HEALTH}
    server agent unix@{agent_socket(folder)} check inter 1s fastinter 250ms fall 2 rise 1 observe layer4 error-limit 1 \
on-error mark-down on-marked-down shutdown-sessions
    server direct unix@{pods_socket(folder)} backup
"""
