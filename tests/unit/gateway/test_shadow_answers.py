"""What servers write, the gateway reads: the packages share no code, so their tables of datatypes are held equal here."""

import numpy as np

from edgemodel.gateway import shadow_answers
from inference_server.tensors import NUMPY_TYPES


def test_the_gateway_reads_the_datatypes_that_servers_write() -> None:
    read = {datatype: np.dtype(f"<{code}") for datatype, code in shadow_answers._CODES.items()}
    assert read | {"BYTES": np.dtype(object), "BF16": np.dtype("<u2")} == NUMPY_TYPES


def test_the_gateway_takes_for_floats_what_servers_do() -> None:
    floats = {datatype for datatype, kind in NUMPY_TYPES.items() if kind.kind == "f"}
    assert shadow_answers.FLOATS - {"BF16"} == floats  # of BF16 numpy has the bits
