"""Which layers of an artifact make up the model directory, and under which paths.

Promises: every path is relative, stays inside the directory on any file system, and no two of them are one
file on a case-insensitive one. Reads CNCF ModelPack (raw and tar), plain ORAS artifacts by title, KitOps,
and container images that hold files under ``/models``. Leaves to others: fetching, checking and unpacking
layers; whoever unpacks an archive puts its members through the same ``Paths``.
"""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from edgemodel.artifact import media_types
from edgemodel.artifact.oci_manifest import Descriptor, Manifest, malformed
from edgemodel.errors import Refused

Packing = Literal["raw", "tar", "tar+gzip", "tar+zstd"]

MAX_PATH = 512
"""Longest path in bytes of UTF-8; the same as of ``spec.modelFile``."""
MAX_COMPONENT = 255
"""Longest path component in bytes of UTF-8: what ext4, xfs, btrfs and overlayfs take."""
SAMPLES_PATH = ".golden/samples.tar"
"""Where golden samples lie, whatever their layer says of itself; as one file, so that nobody on the way unpacks it."""
MAX_SAMPLES_BYTES = 16 << 20
"""Longest archive of golden samples; the inference server reads no longer one."""
IMAGE_FOLDER = "models/"
"""Where container images keep models (KServe's modelcar convention)."""

_MODELPACK_KINDS = ("weight.config", "weight", "doc")
"""Layers of other kinds (code, dataset) serve no inference and are not delivered."""
_KITOPS_KINDS = ("modelpart", "model", "docs")
_IMAGE_CONFIGS = frozenset({media_types.OCI_CONFIG, media_types.DOCKER_CONFIG})
_IMAGE_LAYERS: Mapping[str, Packing] = {
    f"{media_types.OCI_LAYER}.tar": "tar",
    f"{media_types.OCI_LAYER}.tar+gzip": "tar+gzip",
    f"{media_types.OCI_LAYER}.tar+zstd": "tar+zstd",
    f"{media_types.OCI_LAYER_NONDISTRIBUTABLE}.tar": "tar",
    f"{media_types.OCI_LAYER_NONDISTRIBUTABLE}.tar+gzip": "tar+gzip",
    f"{media_types.OCI_LAYER_NONDISTRIBUTABLE}.tar+zstd": "tar+zstd",
    f"{media_types.DOCKER_LAYER}.tar": "tar",
    f"{media_types.DOCKER_LAYER}.tar.gzip": "tar+gzip",
}


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One layer as it lands in the model directory."""

    path: str
    """Where a raw file goes, relative to the model directory. Of an archive: what its publisher calls it,
    or empty."""
    descriptor: Descriptor
    packing: Packing = "raw"
    folder: str = ""
    """Of an archive: only members below this folder are taken, and it is cut off their paths."""


@dataclass(slots=True)
class Paths:
    """The paths of one model directory while it is put together."""

    _files: dict[str, str] = field(default_factory=dict)
    _folders: dict[str, str] = field(default_factory=dict)

    def add(self, path: str) -> str:
        """Take one more file and return its path.

        Raises:
            Refused: ``MalformedArtifact``; the path is not safe, or is taken already, be it in another case.
        """
        check_path(path)
        key = _folded(path)
        if (other := self._files.get(key, self._folders.get(key))) is not None:
            raise malformed(
                f"path {path!r}: is the same as {other!r}, exactly or on file systems that ignore case"
            )
        for end in (i for i, letter in enumerate(path) if letter == "/"):
            folder = path[:end]
            if (other := self._files.get(_folded(folder))) is not None:
                raise malformed(f"path {path!r}: lies below {other!r}, which is a file")
            self._folders.setdefault(_folded(folder), folder)
        self._files[key] = path
        return path


def check_path(path: str) -> None:
    """Check that a path stays inside the model directory on every file system.

    Raises:
        Refused: ``MalformedArtifact``; the message says which rule it breaks.
    """
    shown = repr(path[:80])
    if not path:
        raise malformed("path '': is empty")
    if not path.isprintable():
        raise malformed(f"path {shown}: holds a control character")
    if "\\" in path:
        raise malformed(f"path {shown}: holds a backslash; folders are parted by /")
    if path.startswith("/"):
        raise malformed(f"path {shown}: is absolute; expected one relative to the model directory")
    if len(path.encode(errors="surrogatepass")) > MAX_PATH:
        raise malformed(f"path {shown}: is longer than {MAX_PATH} bytes")
    for component in path.split("/"):
        if component in ("", ".", ".."):
            raise malformed(f"path {shown}: has the component {component!r}")
        if len(component.encode(errors="surrogatepass")) > MAX_COMPONENT:
            raise malformed(f"path {shown}: has a component longer than {MAX_COMPONENT} bytes")


def model_files(manifest: Manifest) -> tuple[ModelFile, ...]:
    """Return the layers to deliver, in the manifest's order.

    Raises:
        Refused: ``MalformedArtifact``; a path is not safe, a packing is unknown, or nothing is to be
            delivered.
    """
    paths = Paths()
    image = manifest.config.media_type in _IMAGE_CONFIGS
    files = []
    for number, layer in enumerate(manifest.layers):
        where = f"manifest.layers[{number}]"
        file = _model_file(layer, where, image=image)
        if file is None:
            continue
        if file.packing == "raw":
            try:
                paths.add(file.path)
            except Refused as error:
                raise malformed(f"{where}: {error.message}") from None
        files.append(file)
    if all(file.descriptor.media_type == media_types.SAMPLES for file in files):
        raise malformed(
            "manifest.layers: no layer is a model file; expected CNCF ModelPack or KitOps layers, layers with an "
            f"{media_types.TITLE} annotation, or a container image with /models"
        )
    return tuple(files)


def _model_file(layer: Descriptor, where: str, *, image: bool) -> ModelFile | None:
    path = layer.annotations.get(media_types.FILEPATH) or layer.annotations.get(media_types.TITLE, "")
    if layer.media_type == media_types.SAMPLES:
        if layer.size > MAX_SAMPLES_BYTES:
            raise malformed(
                f"{where}.size: golden samples have {layer.size} bytes; at most {MAX_SAMPLES_BYTES} are delivered"
            )
        return ModelFile(SAMPLES_PATH, layer)
    for prefix, kinds in (
        (media_types.MODEL_LAYER, _MODELPACK_KINDS),
        (media_types.KITOPS_LAYER, _KITOPS_KINDS),
    ):
        if layer.media_type.startswith(prefix):
            packing = _packing(layer.media_type.removeprefix(prefix), kinds, where)
            return None if packing is None else _named(path, layer, packing, where)
    if image:
        image_packing = _IMAGE_LAYERS.get(layer.media_type)
        if image_packing is None:
            raise malformed(
                f"{where}.mediaType: a container image's layer of type {layer.media_type!r} cannot be read"
            )
        return ModelFile("", layer, image_packing, IMAGE_FOLDER)
    if not path:
        return None
    if layer.annotations.get(media_types.ORAS_UNPACK) == "true":
        return ModelFile(path, layer, _IMAGE_LAYERS.get(layer.media_type, "tar+gzip"))
    return ModelFile(path, layer, "raw")


def _packing(rest: str, kinds: tuple[str, ...], where: str) -> Packing | None:
    """Read ``weight.v1.tar+gzip``; None for a kind that is not delivered."""
    for kind in kinds:
        head = f"{kind}.v1."
        if rest.startswith(head):
            for packing in get_args(Packing):
                if rest.removeprefix(head) == packing:
                    known: Packing = packing
                    return known
            raise malformed(
                f"{where}.mediaType: packing {rest.removeprefix(head)[:80]!r} is unknown; "
                f"expected {', '.join(get_args(Packing))}"
            )
    return None


def _named(path: str, layer: Descriptor, packing: Packing, where: str) -> ModelFile:
    if packing == "raw" and not path:
        raise malformed(
            f"{where}.annotations: a raw file needs its path in {media_types.FILEPATH} or {media_types.TITLE}"
        )
    return ModelFile(path, layer, packing)


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
