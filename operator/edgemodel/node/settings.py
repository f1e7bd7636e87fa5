"""What the node agent is started with: a JSON file that the chart writes; ``docs/reference/node-agent.md`` lists it.

Promises: an unknown field or a value of the wrong shape ends the start with a message that names it.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgemodel.api.meta import BEAT_SECONDS
from edgemodel.artifact.registry_settings import RegistrySettings
from edgemodel.errors import Stalled

_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """Defaults are right for one small node."""

    registries: RegistrySettings = field(default_factory=RegistrySettings)
    """How registries are reached."""
    store_budget: int | None = None
    """Bytes that the store may take; the EdgeNode's own wins. None: as many as leave the disk at 80 %."""
    rate_limit: int | None = None
    """Bytes a second of all downloads together; the EdgeNode's own wins."""
    heartbeat_seconds: float = BEAT_SECONDS
    """Seconds between two renewals of the Lease; the operator counts a node as offline after three."""
    downloads: int = 2
    """Models that are downloaded at the same time."""
    recheck_rate: int = 20 << 20
    """Bytes a second that are read from disk to hash installed models again."""
    execution_providers: tuple[str, ...] = ("CPUExecutionProvider",)
    """What the inference server's image has."""
    host: str = "0.0.0.0"  # noqa: S104 - scraped and probed from other addresses
    """Address of metrics and health."""
    port: int = 8082
    """Port of ``/metrics``, ``/healthz`` and ``/readyz``; 0 picks a free one and logs it."""
    log_level: str = "info"
    """Least important log lines that are written."""


def read_settings(path: Path | None) -> AgentSettings:
    """Read the settings; the defaults without a file.

    Raises:
        Stalled: ``InvalidSpec``; the message names the file, the field and what is wrong.
    """
    if path is None:
        return AgentSettings()
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        what = getattr(error, "strerror", None) or error
        raise Stalled("InvalidSpec", f"{path}: expected settings in JSON ({what})") from None
    if not isinstance(document, dict):
        raise Stalled("InvalidSpec", f"{path}: expected an object, found {type(document).__name__}")
    try:
        return _settings(document)
    except Stalled as error:
        raise Stalled("InvalidSpec", f"{path}: {error.message}") from None


def _settings(document: dict[str, Any]) -> AgentSettings:
    default = AgentSettings()
    rest = dict(document)

    def whole(name: str, value: int | None, low: int, high: int = 1 << 60) -> int | None:
        found = rest.pop(name, None)
        if found is None:
            return value
        if not isinstance(found, int) or isinstance(found, bool) or not low <= found <= high:
            raise Stalled(
                "InvalidSpec", f"{name}: expected a number from {low} to {high}, found {_shown(found)}"
            )
        return found

    providers = rest.pop("executionProviders", list(default.execution_providers))
    if not isinstance(providers, list) or not all(isinstance(item, str) for item in providers):
        raise Stalled(
            "InvalidSpec", f"executionProviders: expected a list of names, found {_shown(providers)}"
        )
    host = rest.pop("host", default.host)
    if not isinstance(host, str):
        raise Stalled("InvalidSpec", f"host: expected an address, found {_shown(host)}")
    level = rest.pop("logLevel", default.log_level)
    if level not in _LEVELS:
        raise Stalled("InvalidSpec", f"logLevel: expected one of {', '.join(_LEVELS)}, found {_shown(level)}")
    settings = AgentSettings(
        registries=RegistrySettings.from_mapping(rest.pop("registries", None) or {}),
        store_budget=whole("storeBudget", None, 0) or None,
        rate_limit=whole("rateLimit", None, 0) or None,
        heartbeat_seconds=float(whole("heartbeatSeconds", int(default.heartbeat_seconds), 1, 3600) or 1),
        downloads=whole("downloads", default.downloads, 1, 64) or 1,
        recheck_rate=whole("recheckRate", default.recheck_rate, 1 << 10) or default.recheck_rate,
        execution_providers=tuple(providers),
        host=host,
        port=whole("port", default.port, 0, 65535) or 0,
        log_level=level,
    )
    if rest:
        raise Stalled("InvalidSpec", f"{_shown(min(rest))}: is no setting of the node agent")
    return settings


def _shown(value: object) -> str:
    return json.dumps(value)[:80]
