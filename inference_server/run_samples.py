"""`python -m inference_server.run_samples MODEL IN… --to FOLDER`: what a model answers to given inputs, without a server.

Each IN is a `.npz` with one array for each input of the model; FOLDER gets an `.npz` of the same name with one array
for each output. The model is loaded and run exactly as it is when it is served, so that publishers can compare two
versions by what clients would see. The exit code and the line on standard error are those of the server.
"""

import argparse
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from inference_server.engine.model import Model
from inference_server.errors import FatalError, InvalidRequest, ServerError
from inference_server.files.model_directory import find_model
from inference_server.tensors import Array, TensorSpec, bf16_exactly, numbers

FAILED = 1


def main() -> int:
    """Run the model on all samples; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m inference_server.run_samples")
    parser.add_argument("model", type=Path, help="model directory, or an .onnx file")
    parser.add_argument("samples", type=Path, nargs="+", help=".npz files with the inputs")
    parser.add_argument("--to", type=Path, required=True, help="folder for the outputs")
    parser.add_argument("--threads", type=int, default=1, help="threads of one inference")
    arguments = parser.parse_args()
    try:
        model = Model(find_model(arguments.model), arguments.threads)
        for sample in arguments.samples:
            _run(model, sample, arguments.to / sample.name)
    except FatalError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command's answer
        return error.exit_code
    except ServerError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return FAILED
    return 0


def _run(model: Model, sample: Path, target: Path) -> None:
    try:
        with np.load(sample, allow_pickle=False) as file:
            inputs = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidRequest(f"{sample}: expected an .npz of plain arrays: {error}") from None
    expected = {spec.name for spec in model.metadata.inputs}
    if not expected <= inputs.keys():
        raise InvalidRequest(
            f"{sample}: expected an array for each of {', '.join(sorted(expected))}; found {', '.join(sorted(inputs))}"
        )
    fed = {spec.name: _fed(inputs[spec.name], spec, sample) for spec in model.metadata.inputs}
    outputs = model.metadata.outputs
    answers = model.run([spec.name for spec in outputs], fed)
    arrays: dict[str, Any] = {
        spec.name: answer.astype(str) if spec.datatype == "BYTES" else numbers(answer, spec.datatype)
        for spec, answer in zip(outputs, answers, strict=True)
    }
    np.savez(target, **arrays)


def _fed(array: Array, spec: TensorSpec, sample: Path) -> Array:
    if spec.datatype == "BF16":
        return bf16_exactly(array, f"{sample}: input {spec.name!r}")
    return array.astype(object) if spec.datatype == "BYTES" else array


if __name__ == "__main__":
    sys.exit(main())
