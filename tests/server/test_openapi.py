"""The OpenAPI document: valid, true to the model, and a schemathesis run by it against the real process finds nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from inference_server.http.openapi import document
from inference_server.messages import ModelMetadata
from inference_server.tensors import NUMPY_TYPES, TensorSpec
from tests.server.onnx_models import identity, save
from tests.server.process import running

pytestmark = [pytest.mark.process, pytest.mark.timeout(90)]

# 503 and 504 are the right answers to a timeout of some microseconds; 500 never is.
CONFIG = '[checks]\nnot_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503", "504"]\n'
# What a schema cannot say of an open axis: that there are as many values as the shape takes.
OPEN_AXIS = ("--exclude-checks", "positive_data_acceptance")


def specs(*shapes, datatype="FP32"):
    return tuple(TensorSpec(f"t{number}", datatype, shape) for number, shape in enumerate(shapes))


@pytest.mark.parametrize("datatype", sorted(NUMPY_TYPES))
@pytest.mark.parametrize("shapes", [((),), ((0,),), ((-1, 3, -1),), ((2, 2), (2, 2), (-1,))])
def test_the_document_is_valid_whatever_the_model(datatype, shapes):
    model = ModelMetadata(
        "a/b {ü}", "1.0+x", specs(*shapes, datatype=datatype), specs(*shapes, datatype=datatype)
    )
    made = json.loads(json.dumps(document([model], "1")))
    validate(made, cls=OpenAPIV31SpecValidator)
    assert "/v2/models/a%2Fb%20%7B%C3%BC%7D/versions/1.0%2Bx/infer" in made["paths"]


def test_bf16_is_asked_for_as_binary_data():
    model = ModelMetadata("m", "1", specs((-1, 2), datatype="BF16"), specs((-1,)))
    infer = document([model], "1")["paths"]["/v2/models/m/infer"]["post"]
    body = infer["requestBody"]["content"]["application/json"]["schema"]
    entry = body["properties"]["inputs"]["items"]
    assert entry["required"] == ["name", "datatype", "shape", "parameters"]
    assert "data" not in entry["properties"]
    assert entry["properties"]["parameters"]["required"] == ["binary_data_size"]


def test_a_server_without_a_model_has_a_document_too():
    validate(document([], "1"), cls=OpenAPIV31SpecValidator)


@pytest.mark.parametrize(
    ("model", "less"),
    [(identity(shape=(2, 2)), ()), (identity("BYTES", (3,)), ()), (identity(), OPEN_AXIS)],
    ids=["fixed", "strings", "open"],
)
def test_schemathesis_finds_nothing(tmp_path, model, less):
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    with running(model=save(model, tmp_path / "m.onnx")) as server:
        server.event("ready")
        url = f"http://127.0.0.1:{server.port}/openapi.json"
        run = subprocess.run(
            [
                *(Path(sys.executable).parent / "st", "--config-file", "schemathesis.toml", "run", url),
                *("--checks", "all", *less, "--phases", "coverage,fuzzing"),
                *("--max-examples", "8", "--seed", "6", "--max-time", "20"),
                *("--no-color", "--generation-database", "none"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=80,
        )
        assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
        assert "Tested: 16" in run.stdout
        assert not any("Traceback" in line for line in server.lines)
