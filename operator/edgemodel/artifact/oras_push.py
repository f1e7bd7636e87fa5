"""Pushes with oras: it knows the upload protocol (sessions, chunks, finishing), our session carries each of its requests.

oras-py 0.2.43 left to itself retries a refused connection for 131 s in ``time.sleep``, keeps one token for all scopes (so
a token for reading is sent again when writing is refused), has no timeouts and no private CA by host. Its one door to the
network, ``do_request``, therefore leads to ``registry_session`` here: credentials, TLS, redirects and errors are those of
pulls.

Promises: memory stays at a few chunks; what the repository holds already is not sent. Needs the ``oras`` package (extra
``cli``).
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import oras.container
import oras.provider
import requests

from edgemodel.artifact.digest import Digest
from edgemodel.artifact.manifest import Descriptor
from edgemodel.artifact.reference import Reference
from edgemodel.artifact.registry_session import Session, Target

CHUNK = 16 << 20
"""Bytes sent with one request."""

Sent = Callable[[Descriptor, int], None]
"""Called with a blob and how many more bytes of it the registry has."""


class _Bridge(oras.provider.Registry):  # type: ignore[misc]
    """oras in a thread, its requests on our event loop."""

    def __init__(self, session: Session, reference: Reference, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(hostname=reference.registry)
        base = session.connections.base(reference.registry)
        self.prefix = base.scheme
        self._session = session
        self._target = Target(reference.registry, reference.repository, "pull,push")
        self._loop = loop
        self.sent: Callable[[int], None] = lambda _count: None
        self.container = oras.container.Container("name:tag", registry=base.netloc.decode("ascii"))
        namespace, _, self.container.repository = reference.repository.rpartition("/")
        self.container.namespace = namespace or None

    def do_request(
        self,
        url: str,
        method: str = "GET",
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,  # noqa: ARG002 - oras's signature; nothing here sends it
        stream: bool = False,  # noqa: ARG002
    ) -> requests.Response:
        """Answer as oras expects; statuses that mean failure raise our errors instead."""
        sending = self._send(url, method, data, dict(headers or {}))
        answer = asyncio.run_coroutine_threadsafe(sending, self._loop).result()
        if method == "PATCH" and data is not None:
            self.sent(len(data))
        return answer

    async def _send(
        self, url: str, method: str, data: bytes | None, headers: dict[str, str]
    ) -> requests.Response:
        expect = (200, 404) if method == "HEAD" else (200, 201, 202, 204)
        async with self._session.request(
            method,
            self._target,
            url,
            what=f"upload to {self._target.repository}",
            headers=headers,
            body=data,
            expect=expect,
        ) as answer:
            handed = requests.Response()
            # oras knows 200, 201 and 202 for success; finishing an upload may answer 204.
            handed.status_code = 201 if answer.status_code == 204 else answer.status_code
            handed.headers.update(answer.headers)
            handed.url = str(answer.url)
            return handed


async def push(
    session: Session,
    reference: Reference,
    blobs: Mapping[Descriptor, Path],
    manifest: bytes,
    media_type: str,
    sent: Sent | None = None,
) -> Digest:
    """Push blobs, then the manifest by its digest, and return that; no tag is moved.

    Args:
        session: whose credentials are used; they must allow writing.
        reference: where to; its tag does not matter.
        blobs: files by what is said of them.
        manifest: its bytes; they are sent as they are.
        media_type: of the manifest.
        sent: called as bytes arrive.

    Raises:
        Transient: ``RegistryUnreachable``, ``AuthenticationFailed``, ``TransferFailed``.
    """
    bridge = _Bridge(session, reference, asyncio.get_running_loop())
    report = sent or (lambda _descriptor, _count: None)
    for descriptor, path in blobs.items():
        layer = {
            "digest": str(descriptor.digest),
            "size": descriptor.size,
            "mediaType": descriptor.media_type,
        }
        arrived = 0

        def count(more: int, of: Descriptor = descriptor) -> None:
            nonlocal arrived
            arrived += more
            report(of, more)

        bridge.sent = count
        await asyncio.to_thread(
            bridge.upload_blob, str(path), bridge.container, layer, do_chunked=True, chunk_size=CHUNK
        )
        report(descriptor, descriptor.size - arrived)  # what was there already
    digest = Digest.of(manifest)
    bridge.container.tag = None
    bridge.container.digest = str(digest)
    url = f"{bridge.prefix}://{bridge.container.manifest_url()}"
    await asyncio.to_thread(bridge.do_request, url, "PUT", manifest, {"Content-Type": media_type})
    return digest
