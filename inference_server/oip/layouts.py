"""Where the tensors of a binary request lie, remembered by the JSON in front of them.

Pure but for the memory it keeps. Clients send the same JSON again and again before other numbers; parsing and checking
it costs several times what making arrays of the numbers does. Promises that a remembered request becomes what parsing
it would: only requests are kept whose tensors need no look at their values, and a layout counts for the very model it
was checked against. Bounded; full, it starts over.
"""

from dataclasses import dataclass

import numpy as np

from inference_server.messages import InferenceRequest, ModelMetadata
from inference_server.oip.binary import Buffer
from inference_server.tensors import Array

_MOST_LAYOUTS = 64
_MOST_JSON_BYTES = 4096


@dataclass(frozen=True, slots=True)
class _Layout:
    model: ModelMetadata
    size: int
    # Name, shape, type and offset of each input.
    tensors: tuple[tuple[str, tuple[int, ...], np.dtype[np.generic], int], ...]
    outputs: tuple[str, ...]
    timeout: float | None
    binary_outputs: frozenset[str]


class Layouts:
    """Layouts of requests that were taken before."""

    def __init__(self) -> None:
        self._layouts: dict[bytes, _Layout] = {}

    def find(
        self, text: bytes, body: Buffer, model: ModelMetadata
    ) -> tuple[InferenceRequest, frozenset[str]] | None:
        """Return a request, and which outputs it wants as binary data; None when there is no layout for it.

        Args:
            text: The JSON.
            body: It, and all that follows it.
            model: The model it is for.
        """
        layout, before = self._layouts.get(text), len(text)
        if layout is None or layout.model is not model or layout.size != len(body) - before:
            return None
        arrays: dict[str, Array] = {}
        for name, shape, numpy_type, start in layout.tensors:
            array: Array = np.ndarray(shape, numpy_type, body, before + start)
            arrays[name] = array if array.flags.aligned else array.copy()
        return InferenceRequest(arrays, layout.outputs, "", layout.timeout), layout.binary_outputs

    def keep(
        self,
        text: bytes,
        binary: memoryview,
        model: ModelMetadata,
        request: InferenceRequest,
        binary_outputs: frozenset[str],
    ) -> None:
        """Remember a request that was parsed and checked, if it is of the kind that may be.

        Args:
            text: Its JSON.
            binary: All that followed it.
            model: The model it was checked against.
            request: What it became; its inputs in the order of the JSON.
            binary_outputs: The outputs that it wants as binary data.
        """
        if request.id or len(text) > _MOST_JSON_BYTES:
            return  # an id makes it one of a kind
        tensors, start = [], 0
        for name, array in request.inputs.items():
            # Values of strings and booleans are checked each time; an empty array needs no place.
            if array.dtype.kind in "Ob" or not array.size:
                return
            tensors.append((name, array.shape, array.dtype, start))
            start += array.nbytes
        if start != len(binary):
            return  # some of the values are in the JSON
        if len(self._layouts) >= _MOST_LAYOUTS:
            self._layouts.clear()
        layout = _Layout(model, start, tuple(tensors), request.outputs, request.timeout, binary_outputs)
        self._layouts[text] = layout
