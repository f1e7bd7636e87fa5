"""`python -m inference_server.check_golden MODEL ARCHIVE`: what would come of a model's golden samples, without a server.

Loads and runs as the server does, and prints the result as the server's endpoint gives it, one JSON object, whatever the
outcome: publishers see before anybody else that a model does not answer what they sign. Exit code and the line on standard
error of a model that cannot be loaded are those of the server.
"""

import argparse
import asyncio
import sys
from pathlib import Path

from inference_server.engine.model import Model
from inference_server.errors import FatalError
from inference_server.files.model_directory import find_model
from inference_server.messages import GoldenResult
from inference_server.oip import documents as oip_documents
from inference_server.serving import golden
from inference_server.serving.dataplane import DataPlane
from inference_server.telemetry.metrics import Metrics

SECONDS = 300.0


def main() -> int:
    """Run the samples; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m inference_server.check_golden")
    parser.add_argument("model", type=Path, help="model directory, or an .onnx file")
    parser.add_argument("archive", type=Path, help="tar archive with the samples")
    parser.add_argument("--threads", type=int, default=1, help="threads of one inference")
    arguments = parser.parse_args()
    try:
        model = Model(find_model(arguments.model), arguments.threads)
    except FatalError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command's answer
        return error.exit_code
    result = asyncio.run(_run(model, arguments.archive))
    print(oip_documents.encode_golden(result).decode())  # noqa: T201
    return 0


async def _run(model: Model, archive: Path) -> GoldenResult:
    plane = DataPlane(Metrics())
    try:
        return await golden.run(plane, model, archive, SECONDS)
    finally:
        await plane.close()


if __name__ == "__main__":
    sys.exit(main())
