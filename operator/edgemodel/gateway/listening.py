"""What this network lets a gateway listen at."""

import socket
from pathlib import Path


def is_taken(port: int) -> bool:
    """Tell whether somebody else listens at a port; HAProxy's own workers share theirs."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            probe.bind(("", port))
            probe.listen(1)
        except OSError:
            return True
    return False


def has_ipv6() -> bool:
    """Tell whether this network has addresses of IPv6."""
    try:
        return bool(Path("/proc/net/if_inet6").read_text(encoding="ascii").strip())
    except OSError:
        return False
