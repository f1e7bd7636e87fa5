"""Archives of golden samples that were written once are read for ever, to the same values."""

from pathlib import Path

import numpy as np

from edgemodel.artifact.golden_samples import Listing, collect, listing, pack
from inference_server.files.golden_samples import Archive, Tolerance

ARCHIVE = Path(__file__).parents[3] / "vectors/golden/1/samples.tar"


def values(arrays):
    return {name: (str(array.dtype), array.tolist()) for name, array in arrays.items()}


def test_the_server_reads_version_1():
    archive = Archive(ARCHIVE)
    assert archive.names == ["numbers", "text"]
    inputs, outputs = archive.sample("numbers")
    x = (np.arange(6).reshape(2, 3) / 4).tolist()
    assert values(inputs) == {"x": ("float32", x), "at": ("int64", [1, 2])}
    assert values(outputs) == {"y": ("float16", x), "top": ("int64", [[2], [2]])}
    inputs, outputs = archive.sample("text")
    assert values(inputs) == {"words": ("object", [["eins", "grün"]])}
    assert values(outputs) == {"known": ("bool", [True, False])}
    assert archive.tolerances.of("y", "FP16") == Tolerance(0.001, 0.01)
    assert archive.tolerances.of("z", "FP32") == Tolerance(0.001, 0.001)


def test_publishers_list_version_1_and_write_it_to_the_same_bytes(tmp_path):
    said = {"default": {"absolute": 0.001}, "outputs": {"y": {"relative": 0.01}}}
    assert listing(ARCHIVE) == Listing(("numbers", "text"), said)
    pack(collect(ARCHIVE, tmp_path / "unpacked"), tmp_path / "samples.tar")
    assert (tmp_path / "samples.tar").read_bytes() == ARCHIVE.read_bytes()
