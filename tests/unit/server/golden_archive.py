"""Writes archives of golden samples, good and bad, byte by byte as a test wants them."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np


def npz(**arrays) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def tar(entries: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as packed:
        for name, data in entries.items():
            header = tarfile.TarInfo(name)
            header.size, header.type = len(data), kind
            packed.addfile(header, io.BytesIO(data))
    return content.getvalue()


def entries(samples: dict[str, tuple[dict, dict]], tolerances: object = None) -> dict[str, bytes]:
    """Entries by name; of each sample inputs and outputs by tensor."""
    found = {}
    for name, (inputs, outputs) in samples.items():
        found[f"{name}.inputs.npz"], found[f"{name}.outputs.npz"] = npz(**inputs), npz(**outputs)
    if tolerances is not None:
        found["tolerances.json"] = json.dumps(tolerances).encode()
    return found


def write(folder: Path, content: bytes) -> Path:
    """Put an archive where a model directory has it."""
    path = folder / ".golden/samples.tar"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
