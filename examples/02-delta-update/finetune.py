"""Move every weight of a model a little, as a short fine-tuning does: ``python finetune.py OLD.onnx NEW.onnx SEED``."""

import sys

import numpy as np
import onnx
from onnx import numpy_helper

old, new, seed = sys.argv[1:]
model = onnx.load(old)
random = np.random.default_rng(int(seed))
for weights in model.graph.initializer:
    values = numpy_helper.to_array(weights)
    if values.dtype == np.float32 and values.size > 1:
        moved = values * (1 + 1e-3 * random.standard_normal(values.shape)).astype(np.float32)
        weights.CopyFrom(numpy_helper.from_array(moved, weights.name))
onnx.save(model, new)
