"""Makes a model artifact of files and pushes it: CNCF ModelPack, one file a layer, release facts as annotations.

Promises: the same files and facts give the same manifest, and so the same digest; input files are never changed; memory does
not grow with the model. Leaves to others: moving weights out of ONNX files (``onnx_layout``), signing (``attach``).
"""

import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgemodel.artifact import media_types, onnx_layout
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.manifest import (
    SAMPLES_PATH,
    Descriptor,
    Manifest,
    ModelFile,
    Release,
    build_config,
    build_manifest,
    model_files,
)
from edgemodel.artifact.model_directory import check_files
from edgemodel.artifact.oras_push import Sent, push
from edgemodel.artifact.reference import Reference
from edgemodel.artifact.registry import Registry
from edgemodel.artifact.store import hash_file
from edgemodel.errors import Stalled

_DOCUMENTS = frozenset({".md", ".rst", ".pdf", ".html"})
_DOCUMENT_NAMES = frozenset({"license", "notice", "readme", "copying"})
_WEIGHTS = frozenset({".onnx", ".onnx_data", ".data", ".bin", ".safetensors", ".npz", ".ort", ".sig"})


@dataclass(frozen=True, slots=True)
class Prepared:
    """An artifact that is ready to be pushed."""

    manifest: bytes
    blobs: Mapping[Descriptor, Path]
    files: tuple[ModelFile, ...]
    release: Release

    @property
    def digest(self) -> Digest:
        """What the artifact will be known by."""
        return Digest.of(self.manifest)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.descriptor.size for file in self.files)


def collect(arguments: Sequence[Path]) -> dict[str, Path]:
    """Turn files and folders into files by their path in the artifact: a file by its name, a folder's by their path in it.

    Raises:
        Stalled: ``InvalidSpec``; a path does not exist, or two files would have the same path.
    """
    found: dict[str, Path] = {}
    for argument in arguments:
        if argument.is_dir():
            inside = sorted(path for path in argument.rglob("*") if path.is_file())
            named = [(path.relative_to(argument).as_posix(), path) for path in inside]
        elif argument.is_file():
            named = [(argument.name, argument)]
        else:
            raise Stalled("InvalidSpec", f"{argument}: expected a file or a folder, found nothing there")
        for name, path in named:
            if any(part.startswith(".") for part in name.split("/")):
                continue
            if name in found:
                raise Stalled("InvalidSpec", f"{path} and {found[name]} would both be {name} in the artifact")
            found[name] = path
    return found


def prepare(files: Mapping[str, Path], release: Release, folder: Path, *, external: bool = True) -> Prepared:
    """Lay out the files and build config and manifest.

    Args:
        files: by path in the artifact.
        release: facts that signatures will cover.
        folder: an empty folder for what has to be written; it must exist until the artifact is pushed.
        external: move large weights of ONNX files into a file of their own.

    Raises:
        Stalled: ``InvalidSpec`` or ``MalformedArtifact``; names the file.
        Refused: ``MalformedArtifact``; a path or fact could not be read back.
    """
    if not any(path.lower().endswith(".onnx") for path in files):
        raise Stalled(
            "InvalidSpec", f"expected at least one .onnx file, found {', '.join(files) or 'no files'}"
        )
    laid_out = _laid_out(files, folder) if external else files
    layers: list[ModelFile] = []
    blobs: dict[Descriptor, Path] = {}
    # By path: the order in which files were named on a command line must not change the digest.
    for path, source in sorted(laid_out.items()):
        hasher = hash_file(source)
        descriptor = Descriptor(_media_type(path), hasher.digest(), hasher.size)
        layers.append(ModelFile(path, descriptor))
        blobs[descriptor] = source
    return _put_together(layers, blobs, release, folder)


def with_samples(prepared: Prepared, archive: Path, folder: Path) -> Prepared:
    """Return an artifact with golden samples beside its files, which stay as they are.

    Args:
        prepared: without samples.
        archive: what ``golden_samples.pack`` wrote; it must exist until the artifact is pushed.
        folder: for what has to be written, as of ``prepare``; another one.

    Raises:
        Refused: ``MalformedArtifact``; the archive is too long to be delivered.
    """
    hasher = hash_file(archive)
    descriptor = Descriptor(media_types.SAMPLES, hasher.digest(), hasher.size)
    kept = {
        blob: path for blob, path in prepared.blobs.items() if blob.media_type != media_types.MODEL_CONFIG
    }
    layers = [*prepared.files, ModelFile(SAMPLES_PATH, descriptor)]
    return _put_together(layers, {**kept, descriptor: archive}, prepared.release, folder)


def _put_together(
    layers: Sequence[ModelFile], blobs: Mapping[Descriptor, Path], release: Release, folder: Path
) -> Prepared:
    check_files(layers)
    config = build_config(release, [layer.descriptor.digest for layer in layers])
    config_file = folder / "config.json"
    config_file.write_bytes(config)
    config_descriptor = Descriptor(media_types.MODEL_CONFIG, Digest.of(config), len(config))
    manifest = build_manifest(layers, config_descriptor, release)
    return Prepared(
        manifest,
        {**blobs, config_descriptor: config_file},
        model_files(Manifest.parse(manifest)),
        release,
    )


async def upload(
    registry: Registry, reference: Reference, prepared: Prepared, sent: Sent | None = None
) -> Reference:
    """Push a prepared artifact by its digest and return where it is; no tag names it yet.

    Raises:
        Transient: as ``oras_push.push``.
    """
    digest = await push(
        registry.session, reference, prepared.blobs, prepared.manifest, media_types.OCI_MANIFEST, sent
    )
    return reference.pinned(digest)


async def move_tag(registry: Registry, reference: Reference, prepared: Prepared) -> None:
    """Let the reference's tag name an artifact that was uploaded, and signed if it is to be: what makes it public.

    Raises:
        Stalled: ``InvalidSpec``; the reference has no tag.
        Transient: as ``Registry.put_manifest``.
    """
    if reference.tag is None or reference.digest is not None:
        raise Stalled("InvalidSpec", f"{reference}: expected a tag and no digest to publish to")
    await registry.put_manifest(reference, prepared.manifest, media_types.OCI_MANIFEST)


def _laid_out(files: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    laid_out: dict[str, Path] = {}
    replaced: set[Path] = set()
    for number, (path, source) in enumerate(files.items()):
        if not path.lower().endswith(".onnx"):
            continue
        own = folder / str(number)
        own.mkdir()
        layout = onnx_layout.lay_out(source, own)
        laid_out[path] = layout.model
        if layout.weights is not None:
            replaced |= {external.resolve() for external in onnx_layout.external_files(source)}
            weights = path + onnx_layout.SUFFIX
            if weights in files and files[weights].resolve() not in replaced:
                raise Stalled(
                    "InvalidSpec", f"{weights}: the weights of {path} need this name; rename the file"
                )
            laid_out[weights] = layout.weights
    rest = {
        path: source
        for path, source in files.items()
        if path not in laid_out and source.resolve() not in replaced
    }
    return {**laid_out, **rest}


def _media_type(path: str) -> str:
    name = path.rpartition("/")[2].lower()
    stem, dot, suffix = name.partition(".")
    ending = f".{name.rpartition('.')[2]}" if dot else ""
    if ending in _DOCUMENTS or stem in _DOCUMENT_NAMES:
        return media_types.MODEL_DOC
    if ending in _WEIGHTS or not (mimetypes.guess_type(name)[0] or suffix):
        return media_types.MODEL_WEIGHT
    return media_types.MODEL_WEIGHT_CONFIG
