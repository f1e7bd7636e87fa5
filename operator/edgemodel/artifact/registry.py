"""A registry client: resolve names, read manifests and blobs, find referrers, and write what signing needs.

Promises
- A manifest that was asked for by digest has that digest; it is returned as the bytes that came, never re-serialised.
- ``blob`` yields every byte from ``offset`` to the descriptor's size exactly once, or raises; it never yields one byte more.
  A connection that breaks, stalls or crawls is replaced where it stopped. The caller hashes: the bytes are not judged here.
- Nothing a registry says about an artifact's type is believed: ``referrers`` lists, whoever opens them judges.

Leaves to others: credentials, retries, redirects (``registry_session``); disk (``store``); trust (``trust``).
Source: OCI distribution-spec 1.1; for the fallback tag: "Unavailable Referrers API".
"""

import re
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable

import httpx

from edgemodel.artifact.credentials import Credentials
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.manifest import Descriptor, Index
from edgemodel.artifact.media_types import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from edgemodel.artifact.reference import Reference
from edgemodel.artifact.registry_connections import Connections
from edgemodel.artifact.registry_errors import NETWORK_ERRORS, joined, unreachable
from edgemodel.artifact.registry_session import Session, Target
from edgemodel.errors import Refused, Transient
from edgemodel.process.response_body import read_all

ACCEPTED = f"{OCI_MANIFEST}, {OCI_INDEX}, {DOCKER_MANIFEST}, {DOCKER_LIST}"
_NO_REFERRERS = (400, 404, 405, 501)  # what registries without the referrers API answer
_NEXT = re.compile(r'<([^>]*)>\s*;[^,]*\brel="?next"?')
_PROGRESS = 1 << 20  # bytes after which a broken transfer counts as a new one


class Registry:
    """One process's view of all registries with one set of credentials. Cheap; opens nothing by itself.

    Args:
        connections: where sockets come from; shared between registries of different credentials.
        credentials: whose secrets are used; none means anonymous.
    """

    def __init__(self, connections: Connections, credentials: Credentials | None = None) -> None:
        self.session = Session(connections, credentials)
        self.limits = connections.limits

    # -- reading ----------------------------------------------------------------------------------------------------

    async def resolve(self, reference: Reference, *, known: Digest | None = None) -> Digest:
        """Return the digest that a reference stands for.

        A reference with a digest is not looked up. A tag is asked for with HEAD first: when the registry says it still is
        ``known``, that is enough, as whatever is read later is read by digest. Otherwise the digest is computed
        from the manifest's bytes.

        Raises:
            Transient: ``NotFound``, ``RegistryUnreachable``, ``AuthenticationFailed``.
            Refused: ``MalformedArtifact`` when the manifest is too large.
        """
        if reference.digest is not None:
            return reference.digest
        if known is not None and await self._claimed(reference) == known:
            return known
        return Digest.of(await self.manifest(reference))

    async def _claimed(self, reference: Reference) -> str:
        path = f"/v2/{reference.repository}/manifests/{reference.locator}"
        what = f"manifest {reference.repository}:{reference.locator}"
        headers = {"Accept": ACCEPTED}
        async with self.session.request(
            "HEAD", _target(reference), path, what=what, headers=headers
        ) as answer:
            return str(answer.headers.get("Docker-Content-Digest", ""))

    async def manifest(self, reference: Reference) -> bytes:
        """Return the bytes of the manifest that a reference names.

        Raises:
            Transient: as ``resolve``.
            Refused: ``DigestMismatch`` when it is asked for by digest and its bytes have another; ``MalformedArtifact``
                when it is larger than ``Limits.manifest``.
        """
        separator = "@" if reference.digest is not None else ":"
        what = f"manifest {reference.repository}{separator}{reference.locator}"
        content, _ = await self._read(
            reference,
            f"/v2/{reference.repository}/manifests/{reference.locator}",
            what=what,
            accept=ACCEPTED,
        )
        if reference.digest is not None and (found := Digest.of(content)) != reference.digest:
            raise Refused(
                "DigestMismatch",
                f"registry {reference.registry} sent a manifest with digest {found} for {reference}; "
                "its content was changed on the way or on the registry",
            )
        return content

    async def blob(
        self, reference: Reference, descriptor: Descriptor, *, offset: int = 0, exact: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """Yield a blob's bytes from ``offset`` to its end.

        Args:
            reference: which repository.
            descriptor: of the blob.
            offset: where to begin.
            exact: an answer that says it is shorter is a wrong one, not one that broke. Not for large blobs, where a
                proxy's error page would cost what is here already.

        Raises:
            Transient: ``TransferFailed`` when it broke too often or crawls; ``NotFound``; others as ``resolve``.
            Refused: ``DigestMismatch`` when the registry sends more bytes than the descriptor says.
        """
        path = f"/v2/{reference.repository}/blobs/{descriptor.digest}"
        what = f"blob {descriptor.digest.short}… of {reference.repository}"
        position, settled, failures = offset, offset, 0
        while position < descriptor.size:
            headers = {"Range": f"bytes={position}-"} if position else {}
            try:
                async with self.session.request(
                    "GET", _target(reference), path, what=what, headers=headers, expect=(200, 206)
                ) as answer:
                    skip = _skip(answer, position, descriptor, what, exact=exact)
                    async for piece in self._paced(answer, what):
                        if skip >= len(piece):
                            skip -= len(piece)
                            continue
                        kept = piece[skip:] if skip else piece
                        skip = 0
                        if position + len(kept) > descriptor.size:
                            raise too_long(reference, descriptor)
                        position += len(kept)
                        yield kept
                failure = Transient("TransferFailed", f"{what} ended early")
            except NETWORK_ERRORS as error:
                failure = unreachable(reference.registry, what, error)
            except Transient as error:
                if error.reason != "TransferFailed":
                    raise
                failure = error
            if position >= descriptor.size:
                return
            if position - settled >= _PROGRESS:
                settled, failures = position, 0
            failures += 1
            if failures >= self.limits.tries:
                raise Transient(
                    "TransferFailed",
                    f"registry {reference.registry}: {what} stopped {failures} times, "
                    f"{position} of {descriptor.size} bytes are here ({failure.message}); it will go on from there",
                    retry_after=failure.retry_after,
                )
            await self.session.pause(failures, failure)

    async def small_blob(self, reference: Reference, descriptor: Descriptor) -> bytes:
        """Return a whole small blob, checked against its descriptor: a signature, a config.

        Raises:
            Refused: ``MalformedArtifact`` when it is larger than ``Limits.small_blob``, ``DigestMismatch`` when its bytes or
                length are not what the descriptor says.
            Transient: as ``resolve``.
        """
        if descriptor.size > self.limits.small_blob:
            raise Refused(
                "MalformedArtifact",
                f"blob {descriptor.digest} says it is {descriptor.size} bytes; "
                f"at most {self.limits.small_blob} are read into memory",
            )
        content = bytearray()
        async for piece in self.blob(reference, descriptor, exact=True):
            content += piece
        if (found := Digest.of(content)) != descriptor.digest:
            raise Refused(
                "DigestMismatch",
                f"registry {reference.registry} sent bytes with digest {found} for blob {descriptor.digest}",
            )
        return bytes(content)

    async def referrers(self, reference: Reference, digest: Digest) -> tuple[Descriptor, ...]:
        """Return what refers to a manifest, at most ``Limits.referrers``, those that say they are signatures first.

        The descriptors' types are not to be believed: writers of the fallback tag get them wrong
        (``application/vnd.oci.empty.v1+json`` for a signature), so open each.

        Raises:
            Transient, Refused: as ``manifest``.
        """
        found: list[Descriptor] = []
        url: str = f"/v2/{reference.repository}/referrers/{digest}"
        what = f"referrers of {reference.repository}@{digest}"
        for page in range(self.limits.referrer_pages):
            content, answer = await self._read(
                reference, url, what=what, accept=OCI_INDEX, expect=(200, *_NO_REFERRERS)
            )
            media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
            if answer.status_code != 200 or media_type != OCI_INDEX:
                if page == 0:
                    return self._capped(await self._fallback(reference, digest))
                break
            found.extend(Index.parse(content).manifests)
            following = _NEXT.search(answer.headers.get("Link", ""))
            if following is None or len(found) >= self.limits.referrers:
                break
            url = following[1]
        return self._capped(found)

    async def _fallback(self, reference: Reference, digest: Digest) -> list[Descriptor]:
        content = await self.tagged(reference, f"sha256-{digest.hex}")
        return [] if content is None else list(Index.parse(content).manifests)

    async def tagged(self, reference: Reference, tag: str) -> bytes | None:
        """Return the manifest under a tag of the same repository; None when there is none."""
        try:
            return await self.manifest(Reference(reference.registry, reference.repository, tag))
        except Transient as error:
            if error.reason == "NotFound":
                return None
            raise

    async def legacy_signatures(self, reference: Reference, digest: Digest) -> bytes | None:
        """Return the manifest of cosign's older ``sha256-<hex>.sig`` tag; None when there is none."""
        return await self.tagged(reference, f"sha256-{digest.hex}.sig")

    def _capped(self, descriptors: list[Descriptor]) -> tuple[Descriptor, ...]:
        unique = {descriptor.digest: descriptor for descriptor in descriptors}

        def signature_last(descriptor: Descriptor) -> bool:
            return "sigstore" not in (descriptor.artifact_type or "")

        return tuple(sorted(unique.values(), key=signature_last)[: self.limits.referrers])

    # -- writing ----------------------------------------------------------------------------------------------------

    async def put_manifest(self, reference: Reference, content: bytes, media_type: str) -> bool:
        """Store a manifest under its tag or digest; return whether the registry lists it as a referrer by itself.

        Raises:
            Transient: as ``resolve``; ``AuthenticationFailed`` when the credentials may not write.
        """
        path = f"/v2/{reference.repository}/manifests/{reference.locator}"
        async with self.session.request(
            "PUT",
            _target(reference, "pull,push"),
            path,
            what=f"upload of manifest {reference.repository}:{reference.locator}",
            headers={"Content-Type": media_type},
            body=content,
            expect=(200, 201, 202),
        ) as answer:
            return "OCI-Subject" in answer.headers

    async def has_blob(self, reference: Reference, digest: Digest) -> bool:
        """Say whether the repository already holds a blob."""
        path = f"/v2/{reference.repository}/blobs/{digest}"
        async with self.session.request(
            "HEAD", _target(reference, "pull,push"), path, what=f"blob {digest.short}…", expect=(200, 404)
        ) as answer:
            return answer.status_code == 200

    async def put_blob(
        self,
        reference: Reference,
        digest: Digest,
        size: int,
        content: bytes | Callable[[], AsyncIterable[bytes]],
    ) -> None:
        """Store a blob, streamed; nothing is sent when the repository already holds it.

        Args:
            reference: which repository; tag and digest do not matter.
            digest: of the content.
            size: of the content in bytes.
            content: the bytes, or a function that begins to yield them anew at each call.

        Raises:
            Transient: as ``put_manifest``.
        """
        if await self.has_blob(reference, digest):
            return
        target = _target(reference, "pull,push")
        what = f"upload of blob {digest.short}… to {reference.repository}"
        start = f"/v2/{reference.repository}/blobs/uploads/"
        async with self.session.request("POST", target, start, what=what, expect=(202,)) as answer:
            location = joined(answer.url, answer.headers.get("Location", ""))
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        upload = location.copy_merge_params({"digest": str(digest)})
        async with self.session.request(
            "PUT", target, upload, what=what, headers=headers, body=content, expect=(201, 204)
        ):
            return

    # -- within -----------------------------------------------------------------------------------------------------

    async def _read(
        self,
        reference: Reference,
        path: str,
        *,
        what: str,
        accept: str,
        expect: tuple[int, ...] = (200,),
    ) -> tuple[bytes, httpx.Response]:
        """Read a whole small answer, tried again as a whole when it breaks half-way."""
        attempt = 1
        while True:
            try:
                async with self.session.request(
                    "GET", _target(reference), path, what=what, headers={"Accept": accept}, expect=expect
                ) as answer:
                    content = await read_all(answer, self.limits.manifest, self.limits.response)
                break
            except NETWORK_ERRORS as error:
                failure = unreachable(reference.registry, what, error)
                if attempt >= self.limits.tries:
                    raise failure from None
            await self.session.pause(attempt, failure)
            attempt += 1
        if content is None:
            raise Refused(
                "MalformedArtifact",
                f"registry {reference.registry}: {what} is larger than {self.limits.manifest} bytes, the most that is read",
            )
        return content, answer

    async def _paced(self, answer: httpx.Response, what: str) -> AsyncIterator[bytes]:
        """Yield a body's pieces; give up when it comes slower than ``Limits.slowest``.

        Only waiting for the network is counted: a slow disk behind the caller is not the registry's fault.
        """
        waited, came = 0.0, 0
        begun = time.monotonic()
        async for piece in answer.aiter_raw():
            waited += time.monotonic() - begun
            came += len(piece)
            if waited >= self.limits.slow_window:
                if came < self.limits.slowest * waited:
                    raise Transient(
                        "TransferFailed",
                        f"{what} comes at {came / waited:.0f} bytes/s, less than {self.limits.slowest}",
                    )
                waited, came = 0.0, 0
            yield piece
            begun = time.monotonic()


def _target(reference: Reference, actions: str = "pull") -> Target:
    return Target(reference.registry, reference.repository, actions)


def _skip(answer: httpx.Response, position: int, descriptor: Descriptor, what: str, *, exact: bool) -> int:
    """Return how many bytes of the body come before ``position``: none, or all of them when Range was ignored."""
    length = answer.headers.get("Content-Length", "")
    if answer.status_code == 200:
        if length.isdigit() and (int(length) > descriptor.size or (exact and int(length) < descriptor.size)):
            raise Refused(
                "DigestMismatch",
                f"{what} is {length} bytes long on the registry, its descriptor says {descriptor.size}",
            )
        return position
    wanted = f"bytes {position}-"
    if not answer.headers.get("Content-Range", "").startswith(wanted):
        raise Transient("TransferFailed", f"{what}: the registry answered another range than {wanted}")
    return 0


def too_long(reference: Reference, descriptor: Descriptor) -> Refused:
    """Say that more bytes came than were announced."""
    return Refused(
        "DigestMismatch",
        f"registry {reference.registry} sent more than the {descriptor.size} bytes that the descriptor of "
        f"{descriptor.digest} says; nothing beyond them was kept",
    )
