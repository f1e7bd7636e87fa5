"""Reads an EdgeModel's pull secrets: of its own namespace only, kept in memory only, never shown."""

import asyncio
import base64
import binascii
import hashlib
from dataclasses import dataclass, field

from edgemodel.api.v1alpha1 import EdgeModel
from edgemodel.artifact.credentials import Credentials
from edgemodel.cluster.client import ApiServer
from edgemodel.cluster.kinds import SECRET
from edgemodel.errors import Stalled

_KEY = ".dockerconfigjson"


@dataclass(frozen=True, slots=True)
class PullSecrets:
    """What was found in the Secrets that an EdgeModel names."""

    documents: tuple[bytes, ...] = field(default=(), repr=False)
    sources: tuple[str, ...] = ()
    """A name for each document, for messages."""
    absent: tuple[str, ...] = ()
    """Names of Secrets that do not exist, or lack the one key that counts."""

    @property
    def fingerprint(self) -> str:
        """Tells one content from another and says nothing about it; kept in memory only."""
        whole = hashlib.sha256()
        for name, document in zip(self.sources, self.documents, strict=True):
            whole.update(f"{name}\0{len(document)}\0".encode() + document)
        whole.update("\0".join(self.absent).encode())
        return whole.hexdigest()

    def credentials(self) -> Credentials:
        """Return them parsed, in the order they were named.

        Raises:
            Stalled: ``AuthenticationFailed``; names the Secret, never a value.
        """
        return Credentials.parse(self.documents, sources=self.sources)

    def hint(self) -> str:
        """What to add to a message about a failed login."""
        if not self.absent:
            return ""
        names = ", ".join(self.absent)
        return f"; no Secret of type kubernetes.io/dockerconfigjson in this namespace has the name {names}"


async def read_pull_secrets(api: ApiServer, model: EdgeModel) -> PullSecrets:
    """Read what ``spec.pullSecrets`` names.

    Raises:
        Stalled: ``AuthenticationFailed``; a Secret's value is not base64.
        Transient: the API server failed.
    """
    names = [secret.name for secret in model.spec.pull_secrets]
    found = await asyncio.gather(*(api.get(SECRET, model.metadata.namespace, name) for name in names))
    documents, sources, absent = [], [], []
    for name, secret in zip(names, found, strict=True):
        value = ((secret or {}).get("data") or {}).get(_KEY)
        if value is None:
            absent.append(name)
            continue
        try:
            documents.append(base64.b64decode(value, validate=True))
        except binascii.Error:
            raise Stalled("AuthenticationFailed", f"Secret {name} holds no base64 under {_KEY}") from None
        sources.append(f"Secret {name}")
    return PullSecrets(tuple(documents), tuple(sources), tuple(absent))
