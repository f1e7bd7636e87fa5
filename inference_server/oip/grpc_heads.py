"""What stands before the values in a small request of one raw tensor, remembered from request to request. Pure.

Clients send the same names and shapes before other numbers. A message that begins with bytes which were parsed before, and
is as long as that one was, says the same but for its last field, the values: found again, it spares the parsing. Promises
that only a request which was accepted whole is remembered, for the very description of the model that accepted it.
"""

from dataclasses import dataclass

from inference_server.messages import InferenceRequest, ModelMetadata

_MOST = 64


@dataclass(frozen=True, slots=True)
class Head:
    """A request without its values.

    Attributes:
        data: The message up to the values.
        model: The model's name as the client wrote it.
        version: Its version as the client wrote it.
        metadata: The model that took it.
        request: What was taken; of its one input only name, shape and datatype hold.
        typed: Whether the answer is to be typed.
    """

    data: bytes
    model: str
    version: str
    metadata: ModelMetadata
    request: InferenceRequest
    typed: bool


class Heads:
    """The heads that were seen last."""

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}  # of a whole message: of its head
        self._heads: dict[bytes, Head] = {}

    def find(self, data: memoryview) -> Head | None:
        """Return the head of a message, if it is known."""
        size = self._sizes.get(len(data))
        return None if size is None else self._heads.get(bytes(data[:size]))

    def keep(self, head: Head, size: int) -> None:
        """Remember a head of a message of `size` bytes, whose last field begins its values right behind the head."""
        if len(self._heads) >= _MOST:
            self._heads.clear()
            self._sizes.clear()
        self._sizes[size] = len(head.data)
        self._heads[head.data] = head
