"""What ONNX Runtime writes when it refuses, as errors of this server in words for a person.

Pure: text in, error out. The texts that are parsed are pinned by tests/unit/server/engine/test_model.py against the real
thing.
"""

import re

from inference_server.errors import LoadError, ModelLoadFailed, OutOfMemory, UnsupportedOpset

_OPSET = re.compile(
    r"Opset (?P<found>\d+) is under development.*?for domain (?P<domain>\S+) is till opset (?P<known>\d+)",
    re.S,
)
_IR_VERSION = re.compile(
    r"Unsupported model IR version: (?P<found>\d+), max supported IR version: (?P<known>\d+)"
)
_OPERATOR = re.compile(
    r"No Op registered for (?P<op>\S+) with domain_version of"
    r"|(?P<fatal>\S+?)\(-?\d+\) is not a registered function/op"
)
_KERNEL = re.compile(r"Could not find an implementation for (?P<op>\S+)\((?P<opset>\d+)\)")
_MEMORY = re.compile(r"bad_alloc|Failed to allocate memory|out of memory", re.I)
_NOISE = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : |^Load model from .*? failed:|/onnxruntime_src/\S+:\d+ |\n"
)


def load_error(name: str, version: str, size: int, limit: int | None, error: Exception) -> LoadError:
    """Return the typed form of what ONNX Runtime raised while loading.

    Args:
        name: Name of the file.
        version: Version of ONNX Runtime.
        size: Bytes of the file.
        limit: Bytes of memory that this process may use, None for no limit.
        error: What was raised.
    """
    text, runtime = str(error), f"onnxruntime {version}"
    if match := _OPSET.search(text):
        return UnsupportedOpset(
            f"{name}: needs opset {match['found']} of domain {match['domain']}; "
            f"{runtime} knows up to {match['known']}: export the model with an older opset, or use a newer server"
        )
    if match := _IR_VERSION.search(text):
        return UnsupportedOpset(
            f"{name}: has ONNX IR version {match['found']}; {runtime} knows up to {match['known']}: "
            "export the model with an older onnx release, or use a newer server"
        )
    if match := _OPERATOR.search(text):
        return UnsupportedOpset(
            f"{name}: needs the operator {match['op'] or match['fatal']}, which {runtime} does not have: "
            "export the model with standard operators, or use a newer server"
        )
    if match := _KERNEL.search(text):
        return UnsupportedOpset(
            f"{name}: needs the operator {match['op']} of opset {match['opset']} for a type that {runtime} does not compute "
            "it for here: export the model in FP32, or with casts around what computes"
        )
    if is_about_memory(error):
        return out_of_memory(name, size, limit)
    return ModelLoadFailed(
        f"{name}: {runtime} cannot load it: {plain(error)} "
        "Check the file with onnx.checker, export and publish it again"
    )


def is_about_memory(error: Exception) -> bool:
    """Return whether memory was what it lacked."""
    return isinstance(error, MemoryError) or _MEMORY.search(str(error)) is not None


def out_of_memory(name: str, size: int, limit: int | None) -> OutOfMemory:
    """Return the error of a model that does not fit in memory; arguments as in `load_error`."""
    allowed = "no limit set" if limit is None else f"limit of {limit} bytes"
    return OutOfMemory(
        f"{name}: does not fit in memory (file of {size} bytes, {allowed}): "
        "raise the memory limit, or use a smaller or quantised model"
    )


def plain(error: Exception) -> str:
    """Return onnxruntime's message without its build paths and status codes, as one line."""
    text = str(error)
    for _ in range(3):
        text = _NOISE.sub(lambda match: " " if match[0] == "\n" else "", text)
    return text.strip()[:600]
