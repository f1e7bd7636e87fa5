"""Where artifacts come from, as far as examining and fetching need to know: a registry, or a file that somebody carried.

Whatever stands behind it, nothing that comes out is trusted: manifests are checked against their digests, signatures are
judged, blobs are hashed by whoever takes them.
"""

from collections.abc import AsyncGenerator
from typing import Protocol

from edgemodel.artifact.digest import Digest
from edgemodel.artifact.oci_manifest import Descriptor
from edgemodel.artifact.reference import Reference
from edgemodel.artifact.registry_settings import Limits


class Source(Protocol):
    """See ``registry.Registry``, which is one; the methods mean and raise what its methods do."""

    limits: Limits

    async def resolve(self, reference: Reference, *, known: Digest | None = None) -> Digest:
        """Return the digest that a reference stands for."""

    async def manifest(self, reference: Reference) -> bytes:
        """Return the bytes of the manifest that a reference names."""

    def blob(
        self, reference: Reference, descriptor: Descriptor, *, offset: int = 0, exact: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """Yield a blob's bytes from ``offset`` to its end."""

    async def small_blob(self, reference: Reference, descriptor: Descriptor) -> bytes:
        """Return a whole small blob, checked against its descriptor."""

    async def referrers(self, reference: Reference, digest: Digest) -> tuple[Descriptor, ...]:
        """Return what refers to a manifest."""

    async def legacy_signatures(self, reference: Reference, digest: Digest) -> bytes | None:
        """Return the manifest of cosign's older ``sha256-<hex>.sig`` tag; None when there is none."""
