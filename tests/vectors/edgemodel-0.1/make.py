"""Made the vectors beside it, once, with version 0.1; kept to show how. Refuses to run over existing files.

Run from the repository's root: ``.venv/bin/python tests/vectors/edgemodel-0.1/make.py``.
"""

from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from edgemodel.artifact import media_types
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.keys import PrivateKey
from edgemodel.artifact.manifest import (
    Descriptor,
    Manifest,
    ModelFile,
    Release,
    build_config,
    build_manifest,
    build_signature_manifest,
)
from edgemodel.artifact.signature import sign_bundle

HERE = Path(__file__).parent
PASSWORD = b"vectors"
RELEASE = Release(
    name="models/detector",
    version="1.4.0",
    sequence=14,
    created=datetime(2026, 11, 24, 12, tzinfo=UTC),
    expires=datetime(2030, 1, 1, tzinfo=UTC),
)
KEYS = {
    "ecdsa-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ecdsa-p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ecdsa-p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "rsa-3072": lambda: rsa.generate_private_key(65537, 3072),
}


def main() -> None:
    """Write one folder for each kind of key."""
    for name, generate in KEYS.items():
        folder = HERE / name
        folder.mkdir()
        pem = generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        key = PrivateKey.load(pem)
        files = [
            _file("model.onnx", media_types.MODEL_WEIGHT, f"weights of {name}".encode()),
            _file("labels.json", media_types.MODEL_WEIGHT_CONFIG, b'["cat","dog"]'),
        ]
        config = build_config(RELEASE, [file.descriptor.digest for file in files])
        manifest = Manifest.parse(build_manifest(files, _describe(media_types.MODEL_CONFIG, config), RELEASE))
        bundle = sign_bundle(key, manifest.digest)
        referrer = build_signature_manifest(
            _describe(media_types.BUNDLE, bundle),
            manifest.descriptor,
            datetime(2026, 11, 24, 12, 1, tzinfo=UTC),
        )
        (folder / "key.pem").write_bytes(key.export_encrypted(PASSWORD))
        (folder / "key.pub").write_text(key.public.pem)
        (folder / "config.json").write_bytes(config)
        (folder / "manifest.json").write_bytes(manifest.raw)
        (folder / "digest").write_text(manifest.digest)
        (folder / "bundle.json").write_bytes(bundle)
        (folder / "referrer-manifest.json").write_bytes(referrer)


def _file(path: str, media_type: str, content: bytes) -> ModelFile:
    return ModelFile(path, _describe(media_type, content))


def _describe(media_type: str, content: bytes) -> Descriptor:
    return Descriptor(media_type, Digest.of(content), len(content))


if __name__ == "__main__":
    main()
