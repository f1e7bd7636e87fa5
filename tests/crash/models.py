"""Models that a story is about."""

import io
import tarfile

from edgemodel.artifact import media_types
from edgemodel.artifact.manifest import Descriptor, ModelFile, build_config, build_manifest
from tests.simulators.registry import RegistrySimulator
from tests.unit.artifact.artifacts import REPOSITORY, Published, layer, put
from tests.unit.node.node_world import graph, release


def archive(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as made:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            made.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def version(simulator: RegistrySimulator, number: int, content: bytes) -> Published:
    """A model of a graph, weights that the versions may share parts of, and an archive that they share whole."""
    labels = archive({"labels.txt": b"cat\n" * 100})
    packed = Descriptor("application/vnd.cncf.model.doc.v1.tar", layer(labels).digest, len(labels))
    files = [
        ModelFile("model.onnx", layer(graph(number))),
        ModelFile("weights/w.data", layer(content)),
        ModelFile("labels.tar", packed, "tar"),
    ]
    config = build_config(release(number), [file.descriptor.digest for file in files])
    for blob in (graph(number), content, labels, config):
        simulator.add_blob(REPOSITORY, blob)
    described = layer(config, media_types.MODEL_CONFIG)
    return put(simulator, build_manifest(files, described, release(number)), tag=f"v{number}")
