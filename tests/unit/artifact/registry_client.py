"""Opens a registry client against a simulator, with limits short enough for tests."""

import json
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from edgemodel.artifact.credentials import Credentials
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.manifest import Descriptor
from edgemodel.artifact.reference import Reference
from edgemodel.artifact.registry import Registry
from edgemodel.artifact.registry_connections import Connections
from edgemodel.artifact.registry_settings import HostSettings, Limits, RegistrySettings
from tests.simulators.registry import RegistrySimulator

SHORT = Limits(
    connect=1.0,
    read=0.3,
    response=1.0,
    tries=3,
    backoff=0.01,
    longest_pause=0.1,
    slow_window=0.2,
    slowest=1000,
)


def credentials_for(host: str, *users: tuple[str, str]) -> Credentials:
    """Docker configs, one a user, all for the same host."""
    return Credentials.parse(
        json.dumps({"auths": {host: {"auth": b64encode(f"{name}:{password}".encode()).decode()}}})
        for name, password in users
    )


@asynccontextmanager
async def client(
    *simulators: RegistrySimulator,
    credentials: Credentials | None = None,
    limits: Limits = SHORT,
    ca: str | None = None,
) -> AsyncIterator[Registry]:
    """A client that knows the simulators as plain HTTP, or by their CA."""
    hosts = {s.host: HostSettings(plain_http=s.tls is None, ca=ca if s.tls else None) for s in simulators}
    async with Connections(RegistrySettings(hosts), limits) as connections:
        yield Registry(connections, credentials)


def at(simulator: RegistrySimulator, tag: str = "v1", repository: str = "models/a") -> Reference:
    return Reference(simulator.host, repository, tag)


def described(content: bytes, size: int | None = None) -> Descriptor:
    return Descriptor("application/octet-stream", Digest.of(content), len(content) if size is None else size)


async def whole(registry: Registry, reference: Reference, descriptor: Descriptor, offset: int = 0) -> bytes:
    return b"".join([piece async for piece in registry.blob(reference, descriptor, offset=offset)])


MANIFEST = json.dumps({"schemaVersion": 2, "config": {}, "layers": []}).encode()


ANN = {"ann": "hidden"}
