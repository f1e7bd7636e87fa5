"""The model directory: which file is the model, what it is called, and that all of it lies inside.

The contract is `docs/reference/model-directory.md`; the other side (whoever delivers a model) writes
`model.json` last, so a directory that has one is complete. Everything in it is untrusted: sizes are capped,
types checked, and no path leaves the directory, symbolic links resolved. Loads nothing.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from inference_server.errors import AmbiguousModelFile, LoadError, ModelFileNotFound

DESCRIPTION_FILE = "model.json"
SCHEMA_VERSION = 1
DEFAULT_VERSION = "1"

_DESCRIPTION_BYTES = 64 * 1024
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NAMED_IN_MESSAGE = 5


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """One model on disk.

    Attributes:
        entry: The ONNX file, absolute, links resolved.
        root: The directory that entry and external data must stay in, absolute, links resolved.
        name: Model name in URLs.
        version: Model version in URLs.
        digest: Digest of the artifact's manifest, or "" when nobody said.
    """

    entry: Path
    root: Path
    name: str
    version: str
    digest: str


def inside(root: Path, relative: str, what: str, error: type[LoadError], base: Path | None = None) -> Path:
    """Return the resolved path of `relative`, which must lie below `root`.

    Args:
        root: A resolved directory.
        relative: A path as a model or `model.json` states it.
        what: Who states it, for the message.
        error: The class to raise.
        base: Directory that `relative` starts from; `root` itself unless given.

    Raises:
        LoadError: The path is absolute, has `..`, or its links lead outside.
    """
    pure = PurePosixPath(relative)
    if not relative or "\0" in relative or "\\" in relative or pure.is_absolute() or ".." in pure.parts:
        raise error(f"{what}: expected a relative path inside the model directory, found {relative!r}")
    try:
        resolved = ((base or root) / pure).resolve()
    except (OSError, RuntimeError, ValueError) as failure:  # a loop of links, a name too long
        raise error(f"{what}: {relative!r} cannot be resolved: {failure}") from None
    if not resolved.is_relative_to(root):
        raise error(f"{what}: {relative!r} leads outside the model directory, to {resolved}")
    return resolved


def _describe(path: Path) -> dict[str, Any]:
    """Return the checked content of `model.json`."""
    try:
        with path.open("rb") as file:
            raw = file.read(_DESCRIPTION_BYTES + 1)
    except OSError as error:
        raise ModelFileNotFound(f"{path} cannot be read: {error.strerror}") from None
    if len(raw) > _DESCRIPTION_BYTES:
        raise ModelFileNotFound(
            f"{path}: expected at most {_DESCRIPTION_BYTES} bytes; deliver the model again"
        )
    try:
        description = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ModelFileNotFound(f"{path} is not JSON ({error}); deliver the model again") from None
    if not isinstance(description, dict):
        raise ModelFileNotFound(f"{path}: expected a JSON object, found {type(description).__name__}")
    if description.get("schemaVersion") != SCHEMA_VERSION:
        raise ModelFileNotFound(
            f"{path}: schemaVersion: expected {SCHEMA_VERSION}, found {description.get('schemaVersion')!r}; "
            "use a server of the same release as whoever delivered the model"
        )
    for field in ("name", "version", "digest", "file"):
        value = description.get(field)
        if value is not None and not (
            isinstance(value, str) and 0 < len(value) <= 4096 and value.isprintable()
        ):
            raise ModelFileNotFound(f"{path}: {field}: expected a non-empty string, found {value!r:.100}")
    for field in ("name", "version"):
        if "/" in (description.get(field) or ""):
            raise ModelFileNotFound(f"{path}: {field}: expected no '/', found {description[field]!r:.100}")
    if (digest := description.get("digest")) is not None and not _DIGEST.fullmatch(digest):
        raise ModelFileNotFound(
            f"{path}: digest: expected sha256: and 64 hexadecimal digits, found {digest!r:.100}"
        )
    if description.get("file") is None:
        raise ModelFileNotFound(f"{path}: file: expected the entry file's path, found nothing")
    return description


def _only_onnx_file(root: Path) -> Path:
    found = sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*.onnx")
        # A Kubernetes volume keeps its data under `..data`-like names that its visible files link to.
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )
    if not found:
        raise ModelFileNotFound(f"{root}: expected an .onnx file, found none; check what was delivered")
    if len(found) > 1:
        listed = ", ".join(found[:_NAMED_IN_MESSAGE]) + (", …" if len(found) > _NAMED_IN_MESSAGE else "")
        raise AmbiguousModelFile(
            f"{root}: expected one .onnx file, found {len(found)} ({listed}); "
            f'name the entry in {DESCRIPTION_FILE} ("file") or in spec.modelFile, or give --model the file itself'
        )
    return inside(root, found[0], str(root), ModelFileNotFound)


def find_model(
    path: Path, *, name: str | None = None, version: str | None = None, digest: str | None = None
) -> ModelFiles:
    """Return what to load from a model directory or a plain ONNX file.

    Args:
        path: Model directory, or an `.onnx` file.
        name: Overrides the name in `model.json`.
        version: Overrides the version in `model.json`.
        digest: Overrides the digest in `model.json`.

    Raises:
        ModelFileNotFound: No such path, no entry file, or an unusable `model.json`.
        AmbiguousModelFile: Several `.onnx` files and no `model.json`.
    """
    try:
        resolved = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise ModelFileNotFound(
            f"{path}: expected a model directory or an .onnx file, found nothing ({error})"
        ) from None
    description: dict[str, Any] = {}
    if resolved.is_dir():
        root = resolved
        if (root / DESCRIPTION_FILE).exists():
            description = _describe(root / DESCRIPTION_FILE)
            entry = inside(root, description["file"], f"{root / DESCRIPTION_FILE}: file", ModelFileNotFound)
        else:
            entry = _only_onnx_file(root)
        fallback = resolved.name or "model"
    else:
        root, entry, fallback = resolved.parent, resolved, path.stem
    if not entry.is_file():
        raise ModelFileNotFound(
            f"{entry}: expected the model's entry file, found none; check what was delivered"
        )
    return ModelFiles(
        entry=entry,
        root=root,
        name=name or description.get("name") or fallback,
        version=version or description.get("version") or DEFAULT_VERSION,
        digest=digest or description.get("digest") or "",
    )
