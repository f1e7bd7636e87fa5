"""Publishes and signs small models into a simulated registry, through the library's own writers."""

from datetime import UTC, datetime

from edgemodel.artifact import media_types
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.manifest import (
    Descriptor,
    ModelFile,
    build_config,
    build_manifest,
    build_signature_manifest,
)
from edgemodel.artifact.release import Release
from edgemodel.artifact.signature import PrivateKey, sign_bundle
from tests.simulators.registry import RegistrySimulator

WEIGHTS = "application/vnd.cncf.model.weight.v1.raw"
CONFIG = "application/vnd.cncf.model.config.v1+json"


class Publisher:
    """Whoever may push to one simulated registry."""

    def __init__(self, registry: RegistrySimulator) -> None:
        self.registry = registry

    def publish(
        self,
        repository: str,
        tag: str,
        *,
        version: str = "1.0.0",
        sequence: int | None = None,
        content: bytes = b"not a real model",
        keys: tuple[PrivateKey, ...] = (),
    ) -> str:
        """Push a model under a tag, sign it with each key, and return its digest."""
        release = Release(version=version, sequence=sequence, created=datetime.now(UTC))
        weights = self._descriptor(WEIGHTS, repository, content)
        config_bytes = build_config(release, [weights.digest])
        config = self._descriptor(CONFIG, repository, config_bytes)
        manifest = build_manifest([ModelFile("model.onnx", weights)], config, release)
        digest = self.registry.add_manifest(repository, manifest, tag=tag)
        for key in keys:
            self.sign(repository, digest, key)
        return digest

    def sign(self, repository: str, digest: str, key: PrivateKey) -> None:
        """Attach a signature as cosign 3 does."""
        _, content = self.registry.manifests[repository][digest]
        bundle = self._descriptor(media_types.BUNDLE, repository, sign_bundle(key, Digest(digest)))
        self.registry.add_blob(repository, b"{}")
        subject = Descriptor(media_types.OCI_MANIFEST, Digest(digest), len(content))
        self.registry.add_manifest(repository, build_signature_manifest(bundle, subject, datetime.now(UTC)))

    def _descriptor(self, media_type: str, repository: str, content: bytes) -> Descriptor:
        return Descriptor(media_type, Digest(self.registry.add_blob(repository, content)), len(content))
