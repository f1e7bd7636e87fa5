"""Small model files in several formats and layouts, and what becomes of them when they are trained a little."""

import json
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from edgemodel.artifact.delta import codec
from edgemodel.artifact.delta.tensors import tensors_of

ONNX = {"F32": TensorProto.FLOAT, "F16": TensorProto.FLOAT16, "I8": TensorProto.INT8, "U8": TensorProto.UINT8,
        "BF16": TensorProto.BFLOAT16, "F64": TensorProto.DOUBLE}  # fmt: skip
NUMPY = {"F32": "<f4", "F16": "<f2", "I8": "i1", "U8": "u1", "BF16": "<u2", "F64": "<f8"}


def weights(dtype="F32", count=20_000, seed=1):
    generator = np.random.default_rng(seed)
    values = generator.standard_normal(count).astype("f4") * np.float32(0.02)
    if dtype in ("I8", "U8"):
        return (values * 2000).astype("i1").view(NUMPY[dtype])
    if dtype == "BF16":
        return (values.view("<u4") >> 16).astype("<u2")
    return values.astype(NUMPY[dtype])


def trained(values, dtype="F32", seed=2):
    generator = np.random.default_rng(seed)
    if dtype in ("I8", "U8", "BF16"):
        return (values + generator.integers(0, 2, len(values)).astype(values.dtype)).astype(values.dtype)
    return (values + generator.standard_normal(len(values)) * 1e-5).astype(values.dtype)


def safetensors(path, tensors, note=""):
    """Write a safetensors file: ``tensors`` are (name, dtype, values)."""
    header, at = {"__metadata__": {"note": note}}, 0
    for name, dtype, values in tensors:
        header[name] = {
            "dtype": dtype,
            "shape": [len(values)],
            "data_offsets": [at, at + values.nbytes],
        }
        at += values.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(v.tobytes() for _, _, v in tensors))
    return path


def onnx(path, tensors, *, external=None, producer="test"):
    """Write an ONNX model of initializers, which are in ``external`` (name, {tensor: offset}) if it is given."""
    made = []
    for name, dtype, values in tensors:
        tensor = TensorProto(name=name, data_type=ONNX[dtype], dims=[len(values)])
        if external is None:
            tensor.raw_data = values.tobytes()
        else:
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (
                ("location", external[0]),
                ("offset", external[1][name]),
                ("length", values.nbytes),
            ):
                tensor.external_data.add(key=key, value=str(value))
        made.append(tensor)
    one = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", one[:1], one[1:], made)
    path.write_bytes(helper.make_model(graph, producer_name=producer).SerializeToString())
    return path


def rebuild(base, patch, size):
    """Apply a patch and return what came out."""
    out = bytearray()
    codec.apply(base, patch, out.extend, size=size)
    return bytes(out)


def patched(name, old, new, folder, *, old_beside=None, new_beside=None, level=None):
    """Make a patch of ``name``'s kind, see that it gives ``new``, and return its bytes."""
    patch = folder / f"patch.{name}"
    codec.encode(
        name,
        old,
        new,
        patch,
        old_tensors=tensors_of(old, beside=old_beside or {}) if old else None,
        new_tensors=tensors_of(new, beside=new_beside or {}),
        level=level,
    )
    content = Path(new).read_bytes()
    assert rebuild(old, patch, len(content)) == content
    return patch.read_bytes()
