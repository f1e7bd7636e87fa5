"""What a peer of HTTP/2 may do that costs work and carries no request: an allowance, and a bound on open header blocks.

Pure; time is given. Source: CVE-2019-9511 to 9518, CVE-2023-44487 (resets) and CVE-2024-27316 (CONTINUATION).
"""

from dataclasses import dataclass

from inference_server.http2.frames import ConnectionFault, ErrorCode
from inference_server.http2.headers import HEADER_LIST_BYTES

# So many such frames at once, so many more a second, and two more for each answer.
CHARGES = 1000.0
CHARGES_PER_SECOND = 100.0
CHARGES_PER_ANSWER = 2.0
BLOCK_FRAMES = 16


class Allowance:
    """A bucket of frames: SETTINGS, PING, resets, PRIORITY, empty DATA, what is unknown.

    Args:
        now: Seconds of a clock that only rises.
    """

    __slots__ = ("_filled", "_left")

    def __init__(self, now: float) -> None:
        self._left = CHARGES
        self._filled = now

    def earn(self) -> None:
        """Count an answer."""
        self._left = min(CHARGES, self._left + CHARGES_PER_ANSWER)

    def charge(self, now: float) -> None:
        """Count such a frame.

        Raises:
            ConnectionFault: There were too many.
        """
        self._left -= 1
        if self._left >= 0:
            return
        self._left = min(CHARGES, (now - self._filled) * CHARGES_PER_SECOND) - 1
        self._filled = now
        if self._left < 0:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many frames that carry no request")


@dataclass(slots=True)
class OpenBlock:
    """A header block whose end has not come."""

    stream: int
    flags: int
    fragments: bytearray
    frames: int = 0

    def add(self, fragment: memoryview) -> None:
        """Take a CONTINUATION, which may be empty.

        Raises:
            ConnectionFault: The block passes its bound, in bytes or in frames.
        """
        self.fragments += fragment
        self.frames += 1
        if len(self.fragments) > HEADER_LIST_BYTES or self.frames > BLOCK_FRAMES:
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM,
                f"headers: expected at most {HEADER_LIST_BYTES} bytes in {BLOCK_FRAMES} frames",
            )
