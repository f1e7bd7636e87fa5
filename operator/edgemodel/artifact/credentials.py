"""Registry credentials as docker's ``config.json`` holds them, and which of them may be shown to which host.

Promises: a credential is offered only to the registry it is written under; several files (pull secrets) are tried in the
order given; nothing here prints a secret (``repr`` hides them). Leaves to others: when to send one (``registry_session``).

Format: kubernetes.io/dockerconfigjson. Matching follows the kubelet: ``*`` stands for one part of a host name, a port
must be equal, a path is a prefix by whole components, the longest path comes first.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from edgemodel.artifact.reference import DOCKER_HUB
from edgemodel.errors import Stalled

MAX_CONFIG_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Credential:
    """What one registry takes: name and password, or an identity (refresh) token, or a ready bearer token."""

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of an ``Authorization: Basic`` header; empty when there is no name and password."""
        if not (self.username or self.password):
            return ""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class _Entry:
    host: str
    path: tuple[str, ...]
    credential: Credential

    def matches(self, host: str, repository: tuple[str, ...]) -> bool:
        if self.path != repository[: len(self.path)]:
            return False
        if self.host == host or (self.host in DOCKER_HUB and host in DOCKER_HUB):
            return True
        mine, theirs = self.host.split("."), host.split(".")
        return len(mine) == len(theirs) and all(map(fnmatchcase, theirs, mine))


@dataclass(frozen=True, slots=True)
class Credentials:
    """An ordered set of credentials, by registry."""

    entries: tuple[_Entry, ...] = ()

    @classmethod
    def parse(cls, configs: Iterable[str | bytes], *, sources: Iterable[str] = ()) -> "Credentials":
        """Read docker ``config.json`` documents.

        Args:
            configs: their text, in the order in which they are to be tried.
            sources: a name for each, for messages (a file or Secret name).

        Raises:
            Stalled: ``AuthenticationFailed`` when a document is not of the expected form; the message names the document and
                the field, never a value.
        """
        names = list(sources)
        entries: list[_Entry] = []
        for number, text in enumerate(configs):
            name = names[number] if number < len(names) else f"credentials document {number + 1}"
            entries.extend(_entries(text, name))
        return cls(tuple(entries))

    def matching(self, host: str, repository: str) -> tuple[Credential, ...]:
        """Return the credentials for a repository, most specific path first, then in the order they were given."""
        parts = tuple(repository.split("/"))
        found = [entry for entry in self.entries if entry.matches(host, parts)]
        return tuple(entry.credential for entry in sorted(found, key=lambda entry: -len(entry.path)))


def _entries(text: str | bytes, name: str) -> Iterable[_Entry]:
    if len(text) > MAX_CONFIG_BYTES:
        raise _malformed(name, f"is {len(text)} bytes, at most {MAX_CONFIG_BYTES} are read")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        # The parser's own message could quote a piece of the document.
        raise _malformed(name, "is not JSON") from None
    auths = document.get("auths", {}) if isinstance(document, dict) else None
    if not isinstance(auths, dict):
        raise _malformed(name, 'needs an object "auths"')
    for key, value in auths.items():
        if not isinstance(value, dict):
            raise _malformed(name, f"has an entry for {key!r} that is not an object")
        credential = _credential(value, name, key)
        # Docker writes an empty entry beside a credential helper: it holds no credential.
        if credential != Credential():
            host, *path = _location(key)
            yield _Entry(host, tuple(path), credential)


def _credential(value: Mapping[str, Any], name: str, key: str) -> Credential:
    for member in ("auth", "username", "password", "identitytoken", "registrytoken"):
        if not isinstance(value.get(member, ""), str):
            raise _malformed(name, f"has a {member!r} for {key!r} that is not a string")
    username, password = value.get("username", ""), value.get("password", "")
    if value.get("auth"):
        try:
            username, colon, password = base64.b64decode(value["auth"], validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            colon = ""
        if not colon:
            raise _malformed(name, f"has an 'auth' for {key!r} that is not base64 of name:password") from None
    return Credential(username, password, value.get("identitytoken", ""), value.get("registrytoken", ""))


def _location(key: str) -> list[str]:
    """Split ``https://host:port/v1/path`` as docker and the kubelet write it into host and path components."""
    host_and_path = key.split("://", 1)[-1].strip("/").split("/")
    if host_and_path[1:2] in (["v1"], ["v2"]):
        del host_and_path[1]
    return [host_and_path[0].lower(), *host_and_path[1:]]


def _malformed(name: str, what: str) -> Stalled:
    return Stalled(
        "AuthenticationFailed",
        f"{name} {what}; expected a docker config.json such as kubectl create secret docker-registry writes",
    )
