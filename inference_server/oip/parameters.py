"""The `parameters` of a request, its inputs and its outputs: which are known, and what each may be.

Pure. Promises that a parameter that would change the answer is either obeyed or refused by name; one that this
server has never heard of is ignored, as the protocol allows; null is as good as nothing, since clients write out
what they leave open. Names are Triton's: `timeout` (microseconds),
`binary_data_output`, `binary_data`, `binary_data_size`; `priority` is taken and ignored.
"""

from collections.abc import Mapping
from typing import Any

from inference_server.errors import InvalidRequest
from inference_server.tensors import kind, shown

# What this server cannot do and a client must not believe that it did.
_REFUSED = {
    "sequence_id": "requests of a sequence share state, which ONNX models have none of; send the state as tensors",
    "sequence_start": "as sequence_id",
    "sequence_end": "as sequence_id",
    "classification": "labels are not in the model; sort the scores in the client",
    "shared_memory_region": "shared memory is not supported; send binary data",
}
_MOST_MICROSECONDS = 2**63 - 1


def parameters_of(entry: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Return an object's `parameters`, known not to ask for what this server cannot do.

    Args:
        entry: The request, one of its inputs or one of its outputs; parsed JSON.
        where: JSON path of the parameters, for messages.

    Raises:
        InvalidRequest: They are no object, or name what is not supported.
    """
    parameters = entry.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise InvalidRequest(f"{where}: expected an object, found {kind(parameters)}")
    for name, reason in _REFUSED.items():
        # Clients send the defaults 0, false and "" along.
        if parameters.get(name) not in (0, False, "", None):
            raise InvalidRequest(f"{where}.{name}: not supported: {reason}")
    return parameters


def timeout_seconds(parameters: Mapping[str, Any], where: str) -> float | None:
    """Return how long the client is ready to wait, None when it does not say.

    Raises:
        InvalidRequest: Not a whole number of microseconds. (0 means no timeout, as in Triton.)
    """
    value = parameters.get("timeout")
    if value is None:
        return None
    if not _is_whole(value) or not 0 <= value <= _MOST_MICROSECONDS:
        raise InvalidRequest(
            f"{where}.timeout: expected a whole number of microseconds from 0 to 2^63-1, found {shown(value)}"
        )
    return value / 1e6 or None


def flag(parameters: Mapping[str, Any], name: str, where: str) -> bool | None:
    """Return a boolean parameter, None when it is not given.

    Raises:
        InvalidRequest: It is something else.
    """
    value = parameters.get(name)
    if value is None or isinstance(value, bool):
        return value
    raise InvalidRequest(f"{where}.{name}: expected true or false, found {shown(value)}")


def binary_size(parameters: Mapping[str, Any], left: int, where: str) -> int | None:
    """Return the size of an input's binary data in bytes, None when its values are in the JSON.

    Args:
        parameters: Those of the input.
        left: Bytes of binary data that no input has claimed yet.
        where: JSON path of the parameters, for messages.

    Raises:
        InvalidRequest: Not a whole number, or more than came.
    """
    value = parameters.get("binary_data_size")
    if value is None:
        return None
    if not _is_whole(value) or value < 0:
        raise InvalidRequest(
            f"{where}.binary_data_size: expected a whole number of bytes, found {shown(value)}"
        )
    if value > left:
        raise InvalidRequest(
            f"{where}.binary_data_size: expected at most the {left} bytes that are left, found {shown(value)}"
        )
    return int(value)


def _is_whole(value: object) -> bool:
    """Whether a value is what JSON Schema calls an integer: 8 or 8.0, and no boolean."""
    return type(value) is int or (type(value) is float and value.is_integer())
