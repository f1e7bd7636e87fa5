"""Write golden samples for Magika: inputs, and what a model that is known to be good answers to them.

``python golden.py MODEL.onnx FOLDER``
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime

CONTENTS = {
    "python": b"import os\n\nfor name in sorted(os.listdir('.')):\n    print(name)\n" * 4,
    "html": b"<!DOCTYPE html><html><head><title>Edge</title></head><body><p>Hello</p></body></html>\n" * 4,
    "shell": b'#!/bin/sh\nset -eu\nfor f in *.log; do\n  gzip -9 "$f"\ndone\n' * 4,
}

model, folder = sys.argv[1], Path(sys.argv[2])
folder.mkdir()
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
names = [output.name for output in session.get_outputs()]
for name, content in CONTENTS.items():
    # The first and the last 1,024 bytes without surrounding white space, padded with the token 256.
    head, tail = list(content.lstrip()[:1024]), list(content.rstrip()[-1024:])
    tokens = head + [256] * (1024 - len(head)) + [256] * (1024 - len(tail)) + tail
    inputs = {"bytes": np.array([tokens], dtype=np.int32)}
    np.savez(folder / f"{name}.inputs.npz", **inputs)
    np.savez(folder / f"{name}.outputs.npz", **dict(zip(names, session.run(names, inputs), strict=True)))
(folder / "tolerances.json").write_text('{"default": {"absolute": 1e-4, "relative": 1e-3}}')
