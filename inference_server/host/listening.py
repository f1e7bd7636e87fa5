"""Sockets that the server listens on: one, or several at the same port of which each has a queue of its own.

With `SO_REUSEPORT` (socket(7)) the kernel spreads new connections over all sockets of a port that listen, by a hash of both
ends' addresses.
"""

import errno
import socket

from inference_server.errors import ListenFailed


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Return a socket that listens; for no host on IPv4 and IPv6, or IPv4 where the machine has no IPv6.

    Args:
        host: Address, "" for all.
        port: Number, 0 for a free one.
        shared: Whether more sockets are to come at its port (`bind_beside`).

    Raises:
        ListenFailed: The address is taken, or not one of this machine.
    """
    try:
        if shared and port:
            # A shared port is no error to the kernel, whoever of the same user has it: ask for it alone first.
            _bound(host, port, shared=False).close()
        listener = _bound(host, port, shared=shared)
        listener.listen()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ListenFailed(f"{host or 'all addresses'}, port {port}: cannot listen: {reason}") from None
    return listener


def bind_beside(listener: socket.socket) -> socket.socket:
    """Return a further socket at the port of one that is shared; it gets connections once it listens.

    Raises:
        OSError: There are too many open files.
    """
    family = listener.family
    dual = family == socket.AF_INET6 and not listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    return _bind(family, listener.getsockname(), shared=True, dual=dual)


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    if not host and socket.has_dualstack_ipv6():
        try:
            return _bind(socket.AF_INET6, ("", port), shared=shared, dual=True)
        except OSError as error:
            # Compiled in, and switched off by the administrator.
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return _bind(family, (host, port), shared=shared)


def _bind(family: int, address: tuple[str | int, ...], *, shared: bool, dual: bool = False) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual else 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made
