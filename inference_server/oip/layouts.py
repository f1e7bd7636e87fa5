"""Where the tensors of a request lie, remembered by the JSON around them.

Pure but for the memory it keeps. Clients send the same JSON again and again with other numbers; parsing and checking
it costs as much as making arrays of the numbers, or several times that. Promises that a remembered request becomes what
parsing it would: binary requests are kept only if their tensors need no look at their values, the values of one in JSON are
looked at each time, and a layout counts for the very model it was checked against. Bounded; full, it starts over.
"""

import json
from dataclasses import dataclass

import numpy as np
import orjson

from inference_server.messages import InferenceRequest, ModelMetadata
from inference_server.oip.binary import Buffer
from inference_server.tensors import Array, decode_data

_MOST_LAYOUTS = 64
_MOST_JSON_BYTES = 4096
_MOST_LEARNED_BYTES = 64 * 1024
_DATA = b'"data"'


@dataclass(frozen=True, slots=True)
class _Layout:
    model: ModelMetadata
    size: int
    # Name, shape, type and offset of each input.
    tensors: tuple[tuple[str, tuple[int, ...], np.dtype[np.generic], int], ...]
    outputs: tuple[str, ...]
    timeout: float | None
    binary_outputs: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Form:
    """Of a request in JSON with one input: all but the input's values."""

    model: ModelMetadata
    after: bytes  # all that follows the list of values
    name: str
    shape: tuple[int, ...]
    datatype: str
    outputs: tuple[str, ...]
    timeout: float | None


class Layouts:
    """Layouts of requests that were taken before."""

    def __init__(self) -> None:
        self._layouts: dict[bytes, _Layout] = {}
        self._forms: dict[bytes, _Form] = {}  # by all that comes before the list of values

    def fill(self, body: Buffer, model: ModelMetadata) -> InferenceRequest | None:
        """Return a request in JSON; None when there is no layout for it.

        Args:
            body: The JSON, and nothing else.
            model: The model it is for.

        Raises:
            InvalidRequest: Its values are not what the input takes, in the words in which parsing would say so.
        """
        if type(body) is not bytes:
            return None  # a large one
        start = body.find(b"[", body.find(_DATA))
        form = self._forms.get(body[:start])
        if form is None or form.model is not model or not body.endswith(form.after):
            return None
        try:
            # A list by itself, so that nothing in it can be of the text around it.
            values = orjson.loads(body[start : len(body) - len(form.after)])
        except orjson.JSONDecodeError:
            return None  # parsing says where
        array = decode_data(values, form.shape, form.datatype, "inputs[0]")
        return InferenceRequest({form.name: array}, form.outputs, "", form.timeout)

    def keep_form(self, body: Buffer, model: ModelMetadata, request: InferenceRequest) -> None:
        """Remember a request in JSON that was parsed and checked, if it is of the kind that may be.

        Args:
            body: Its JSON, and nothing else.
            model: The model it was checked against.
            request: What it became; all its outputs are wanted in JSON.
        """
        if type(body) is not bytes or request.id or len(model.inputs) != 1 or len(body) > _MOST_LEARNED_BYTES:
            return
        before, name, rest = body.partition(_DATA)
        colon = rest.partition(b"[")[0]
        # Once, so that it is the input's, which was found; without escapes, by which it could be there twice.
        if _DATA in rest or colon.strip() != b":" or b"\\" in body:
            return
        before += name + colon
        text = body.decode()
        _, end = json.JSONDecoder().raw_decode(text, len(before.decode()))
        after = text[end:].encode()
        if len(before) + len(after) > _MOST_JSON_BYTES:
            return
        spec = model.inputs[0]
        if len(self._forms) >= _MOST_LAYOUTS:
            self._forms.clear()
        shape = request.inputs[spec.name].shape
        self._forms[before] = _Form(
            model, after, spec.name, shape, spec.datatype, request.outputs, request.timeout
        )

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
