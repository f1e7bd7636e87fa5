"""Made ``1/samples.tar`` beside it, once; kept to show how. Refuses to run over an existing file.

Run from the repository's root: ``.venv/bin/python tests/vectors/golden/make.py``.
"""

import tempfile
from pathlib import Path

import numpy as np

from edgemodel.artifact.golden_samples import collect, pack

HERE = Path(__file__).parent


def main() -> None:
    """Write the archive."""
    target = HERE / "1/samples.tar"
    target.parent.mkdir()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        x = np.arange(6, dtype=np.float32).reshape(2, 3) / 4
        np.savez(folder / "numbers.inputs.npz", x=x, at=np.array([1, 2], np.int64))
        np.savez(folder / "numbers.outputs.npz", y=x.astype(np.float16), top=np.array([[2], [2]], np.int64))
        np.savez_compressed(folder / "text.inputs.npz", words=np.array([["eins", "grün"]]))
        np.savez_compressed(folder / "text.outputs.npz", known=np.array([True, False]))
        (folder / "tolerances.json").write_text(
            '{"default": {"absolute": 0.001}, "outputs": {"y": {"relative": 0.01}}}\n'
        )
        pack(collect(folder, folder / "unpacked"), target)


if __name__ == "__main__":
    main()
