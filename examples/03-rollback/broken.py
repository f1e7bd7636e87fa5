"""Write a model that loads and answers nonsense, as after a bad export: ``python broken.py GOOD.onnx BAD.onnx``."""

import sys

import numpy as np
import onnx
from onnx import numpy_helper

good, bad = sys.argv[1:]
model = onnx.load(good)
for weights in model.graph.initializer:
    values = numpy_helper.to_array(weights)
    if values.dtype == np.float32 and values.ndim > 1:
        weights.CopyFrom(numpy_helper.from_array(-values, weights.name))
onnx.save(model, bad)
