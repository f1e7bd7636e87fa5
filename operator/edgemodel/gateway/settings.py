"""What the gateway is started with: a JSON file that the chart writes; ``docs/reference/gateway.md`` lists it.

Promises: an unknown field or a value of the wrong shape ends the start with a message that names it.
"""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from edgemodel.errors import Stalled


class GatewaySettings(BaseModel):
    """Defaults are right for one small node."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")

    access_secret: str = ""
    """Secret of its own namespace that says who may call which model; empty: nobody may where somebody asks."""
    tls_secret: str = ""
    """Secret of type kubernetes.io/tls of its own namespace; empty: no TLS."""
    namespaces: tuple[str, ...] = ()
    """Namespaces whose models it leads to; all when empty."""
    state_folder: Path = Path("/var/lib/edgemodel-gateway")
    """Sockets, configuration, last good configuration; at most 80 bytes long, as a socket's path has a limit."""
    http_port: int = Field(default=8080, ge=1, le=65535)
    """Port of the common entry."""
    https_port: int = Field(default=8443, ge=1, le=65535)
    """Port of the common entry by TLS."""
    haproxy_port: int = Field(default=8404, ge=1, le=65535)
    """Port of HAProxy's own metrics."""
    port: int = Field(default=8083, ge=0, le=65535)
    """Port of the gateway's metrics and health; 0 picks a free one."""
    host: str = "0.0.0.0"  # noqa: S104 - scraped and probed from other addresses
    """Address of metrics and health."""
    threads: int | None = Field(default=None, ge=1, le=64)
    """HAProxy's threads; as many as the node has cores when empty."""
    max_connections: int = Field(default=4096, ge=16, le=1_000_000)
    """Connections at the same time; each may take two buffers of 16 KiB."""
    buffer_bytes: int = Field(default=16384, ge=16384, le=16 << 20)
    """Longest request that is sent again to another pod when the first one dies before it answers."""
    drain_seconds: float = Field(default=30, ge=0, le=600)
    """How long requests that are under way may take when the gateway ends."""
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    """Least important log lines that are written."""


def read_settings(path: Path | None) -> GatewaySettings:
    """Read the settings; the defaults without a file.

    Raises:
        Stalled: ``InvalidSpec``; the message names the file, the field and what is wrong.
    """
    if path is None:
        return GatewaySettings()
    try:
        return GatewaySettings.model_validate(json.loads(path.read_bytes()))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise Stalled("InvalidSpec", f"{path}: {where}: {first['msg']}") from None
    except (OSError, ValueError, RecursionError) as error:
        what = getattr(error, "strerror", None) or error
        raise Stalled("InvalidSpec", f"{path}: expected settings in JSON ({what})") from None
