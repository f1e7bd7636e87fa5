"""Wrote ``manifest.json`` beside it, once: the files that ``model.sig`` covers, packed with facts that nobody signed.

Run from the repository's root: ``.venv/bin/python tests/vectors/openssf-1.1.1/make_manifest.py``. The signature is of
``model_signing sign key model --private_key … --signature model.sig``, version 1.1.1.
"""

from pathlib import Path

from edgemodel.artifact import media_types
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.manifest import Descriptor, ModelFile, Release, build_config, build_manifest

HERE = Path(__file__).parent
FILES = {
    "model.onnx": media_types.MODEL_WEIGHT,
    "data/weights.bin": media_types.MODEL_WEIGHT,
    "labels.json": media_types.MODEL_WEIGHT_CONFIG,
    "model.sig": media_types.MODEL_DOC,
}


def main() -> None:
    """Write the manifest."""
    release = Release(name="models/detector", version="9.9.9", sequence=999)
    files = []
    for path, media_type in FILES.items():
        content = (HERE / "model.sig" if path == "model.sig" else HERE / "model" / path).read_bytes()
        files.append(ModelFile(path, Descriptor(media_type, Digest.of(content), len(content))))
    config = build_config(release, [file.descriptor.digest for file in files])
    described = Descriptor(media_types.MODEL_CONFIG, Digest.of(config), len(config))
    (HERE / "manifest.json").write_bytes(build_manifest(files, described, release))


if __name__ == "__main__":
    main()
