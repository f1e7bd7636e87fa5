"""How each registry is reached: TLS with a private CA, or plain HTTP where that is said outright; and limits of transfers.

Promises: plain HTTP is used for no host that is not named here, loopback included; a round trip through JSON changes
nothing.
Leaves to others: opening connections (``registry_session``).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from edgemodel.errors import Stalled

_REASON = "InvalidSpec"


@dataclass(frozen=True, slots=True)
class HostSettings:
    """One registry."""

    plain_http: bool = False
    """Speak HTTP without TLS."""
    ca: str | None = None
    """PEM of certificate authorities to trust for this registry, in place of the system's."""


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """Settings by ``host[:port]``; a host that is not named has TLS and the system's authorities."""

    hosts: Mapping[str, HostSettings] = field(default_factory=dict)

    def for_host(self, host: str) -> HostSettings:
        """Return the settings of a registry, ``host[:port]`` as it stands in references."""
        return self.hosts.get(host.lower(), HostSettings())

    def to_json(self) -> str:
        """Write ``{"host:port": {"plainHTTP": true, "ca": "PEM"}}``, defaults left out, keys sorted."""
        document: dict[str, dict[str, object]] = {}
        for host, settings in self.hosts.items():
            members: dict[str, object] = {}
            if settings.plain_http:
                members["plainHTTP"] = True
            if settings.ca is not None:
                members["ca"] = settings.ca
            document[host] = members
        return json.dumps(document, sort_keys=True, indent=2)

    @classmethod
    def from_json(cls, text: str | bytes) -> "RegistrySettings":
        """Read what ``to_json`` writes.

        Raises:
            Stalled: ``InvalidSpec``; the message names the member that is wrong.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise Stalled(_REASON, f"registry settings are not JSON: {error}") from None
        return cls.from_mapping(document)

    @classmethod
    def from_mapping(cls, document: object) -> "RegistrySettings":
        """Read the same from parsed JSON or YAML; raises as ``from_json`` does."""
        if not isinstance(document, Mapping):
            raise Stalled(
                _REASON, 'registry settings: expected an object such as {"host:5000": {"plainHTTP": true}}'
            )
        return cls({str(host).lower(): _host(str(host), value) for host, value in document.items()})


def _host(host: str, value: object) -> HostSettings:
    if "/" in host or not host:
        raise Stalled(_REASON, f"registry settings: expected host or host:port as a key, found {host!r}")
    if not isinstance(value, Mapping):
        raise Stalled(
            _REASON, f"registry settings of {host}: expected an object, found {type(value).__name__}"
        )
    unknown = sorted(set(value) - {"plainHTTP", "ca"})
    if unknown:
        raise Stalled(
            _REASON, f"registry settings of {host}: unknown {unknown[0]!r}, expected plainHTTP or ca"
        )
    plain, ca = value.get("plainHTTP", False), value.get("ca")
    if not isinstance(plain, bool):
        raise Stalled(_REASON, f"registry settings of {host}: plainHTTP must be true or false")
    if ca is not None and (not isinstance(ca, str) or "-----BEGIN CERTIFICATE-----" not in ca):
        raise Stalled(_REASON, f"registry settings of {host}: ca must be the PEM of one or more certificates")
    if plain and ca is not None:
        raise Stalled(_REASON, f"registry settings of {host}: plainHTTP and ca exclude each other")
    return HostSettings(plain_http=plain, ca=ca)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on time and amount for everything a registry may do to us. Seconds and bytes."""

    connect: float = 10.0
    """To open a connection, TLS included."""
    read: float = 20.0
    """Between two pieces of an answer."""
    response: float = 60.0
    """For a whole answer that is not a blob: manifests, referrers, tokens."""
    tries: int = 4
    """How often one request is sent in all when the network or the registry fails."""
    backoff: float = 0.5
    """First pause between tries; doubles, with jitter."""
    longest_pause: float = 15.0
    """No pause is longer; a Retry-After beyond it is handed to the caller instead of waited for."""
    slowest: int = 16 * 1024
    """Bytes a second below which a transfer is cut and begun again where it stopped."""
    slow_window: float = 30.0
    """Over how long ``slowest`` is measured; only time spent waiting for the network counts."""
    redirects: int = 5
    """Redirects that are followed for one request."""
    manifest: int = 4 << 20
    """Largest manifest, index or token answer."""
    small_blob: int = 4 << 20
    """Largest blob that is read into memory: signatures, configs."""
    referrers: int = 64
    """Referrers of one artifact that are opened."""
    referrer_pages: int = 8
    """Pages of the referrers list that are read."""
