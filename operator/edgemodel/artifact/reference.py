"""OCI references, ``registry/repository:tag`` or ``…@sha256:…``, read strictly, guessing nothing.

Promises: what parses has a registry host, a repository and a tag or a digest; ``Reference.parse(str(r)) == r``;
host names and IPv6 addresses come out in one spelling, so that trust policies, which match on ``name``, cannot
be evaded by another one.
Differs from docker on purpose: no default registry, no ``library/``, no ``:latest``. A model that is pulled from
a place nobody named is a mistake or an attack.

Grammar: github.com/distribution/reference (regexp.go) and the OCI distribution spec, "Pulling manifests".
"""

import ipaddress
import re
from dataclasses import dataclass, replace
from typing import Self

from edgemodel.artifact.digest import Digest
from edgemodel.errors import Stalled

MAX_LENGTH = 512
"""Longest reference in characters; the same as of ``spec.image``."""
MAX_REPOSITORY = 255
"""Longest repository in characters, as registries enforce it."""
DOCKER_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
"""Names of one and the same registry."""

_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*", re.ASCII)
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_EXAMPLE = "registry.example.com:5000/models/detector:1.4.0"


@dataclass(frozen=True, slots=True)
class Reference:
    """Where an artifact is: a registry, a repository in it, and which of its manifests."""

    registry: str
    """``host`` or ``host:port``; lower case; IPv6 in brackets."""
    repository: str
    """Path of the repository, ``models/detector``."""
    tag: str | None = None
    """A name that the registry may move."""
    digest: Digest | None = None
    """The manifest itself; wins over ``tag``."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a reference.

        Raises:
            Stalled: ``InvalidSpec``; the message names the part that is wrong and the character it starts
                at, counted from 1.
        """
        if len(text) > MAX_LENGTH:
            raise _wrong("reference", 1, f"is {len(text)} characters long; at most {MAX_LENGTH} are allowed")
        if "://" in text:
            raise _wrong("reference", 1, "starts with a URL scheme; leave it out")
        rest, at, digest_text = text.partition("@")
        digest = _digest(digest_text, len(rest) + 2) if at else None
        registry_text, slash, path = rest.partition("/")
        if not slash or not _is_host(registry_text):
            raise _wrong(
                "registry",
                1,
                f"is missing: {registry_text[:80]!r} is not a host name with a dot, a port, or localhost. "
                "No registry is assumed; name it in full",
            )
        # A colon after the last slash starts the tag; one before it belongs to a port.
        repository, colon, tag_text = path.partition(":")
        registry = _registry(registry_text)
        _check_repository(repository, len(registry_text) + 2)
        tag = _tag(tag_text, len(registry_text) + len(repository) + 3) if colon else None
        if tag is None and digest is None:
            raise _wrong("tag", len(text) + 1, "is missing; add :tag or @sha256:… (:latest is not assumed)")
        return cls(registry, repository, tag, digest)

    @property
    def name(self) -> str:
        """``registry/repository``: what trust policies match."""
        return f"{self.registry}/{self.repository}"

    @property
    def locator(self) -> str:
        """What stands for the manifest in a registry's URL: the digest if there is one, else the tag."""
        locator = self.digest or self.tag
        assert locator is not None, "a parsed reference has a tag or a digest"
        return locator

    def pinned(self, digest: Digest) -> Self:
        """Return the same place with exactly this manifest; the tag is dropped."""
        return replace(self, tag=None, digest=digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        digest = f"@{self.digest}" if self.digest is not None else ""
        return f"{self.name}{tag}{digest}"


def _wrong(part: str, position: int, what: str) -> Stalled:
    return Stalled(
        "InvalidSpec", f"reference: the {part} (character {position}) {what}. Expected a form like {_EXAMPLE}"
    )


def _is_host(text: str) -> bool:
    """Tell a registry from the first component of a path, by docker's rule."""
    return "." in text or ":" in text or text.lower() == "localhost"


def _registry(text: str) -> str:
    if text.startswith("["):
        address, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise _wrong(
                "registry", 1, f"{text[:80]!r} is not an IPv6 address in brackets with an optional :port"
            )
        return f"[{_ipv6(address)}]" + _port(port, len(address) + 4)
    host, colon, port_text = text.partition(":")
    labels = host.lower().split(".")
    # Some letters outside ASCII turn into ASCII ones when lowered: a second spelling of a name.
    if len(host) > 253 or not host.isascii() or not all(_LABEL.fullmatch(label) for label in labels):
        raise _wrong(
            "registry",
            1,
            f"{host[:80]!r} is not a host name: letters, digits and dashes in labels joined by dots",
        )
    return host.lower() + _port(colon + port_text, len(host) + 2)


def _ipv6(text: str) -> str:
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        raise _wrong("registry", 2, f"{text[:80]!r} is not an IPv6 address") from None
    if address.scope_id is not None:
        raise _wrong(
            "registry", 2, "has a zone (%…), which means something else on each machine; leave it out"
        )
    return address.compressed


def _port(text: str, position: int) -> str:
    if not text:
        return ""
    if not _PORT.fullmatch(text[1:]) or int(text[1:]) > 65535:
        raise _wrong(
            "port", position, f"{text[1:81]!r} is not a number from 1 to 65535 without leading zeros"
        )
    return text


def _check_repository(text: str, position: int) -> None:
    if len(text) > MAX_REPOSITORY:
        raise _wrong(
            "repository", position, f"is {len(text)} characters long; at most {MAX_REPOSITORY} are allowed"
        )
    for component in text.split("/"):
        if not _COMPONENT.fullmatch(component):
            found = (
                f"{component[:80]!r} is not a path component" if component else "has an empty path component"
            )
            raise _wrong(
                "repository",
                position,
                f"{found}: lower-case letters and digits, joined by a dot, one or two underscores, or dashes",
            )
        position += len(component) + 1


def _tag(text: str, position: int) -> str:
    if not _TAG.fullmatch(text):
        raise _wrong(
            "tag",
            position,
            f"{text[:80]!r} is not a tag: 1 to 128 letters, digits, dots, dashes, underscores; no dot or dash first",
        )
    return text


def _digest(text: str, position: int) -> Digest:
    try:
        return Digest.parse(text)
    except ValueError as error:
        raise _wrong("digest", position, f"is wrong: {error}") from None
