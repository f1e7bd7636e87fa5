"""sha256 digests: the one way content is named, and the only place that hashes.

Promises: a ``Digest`` always is ``sha256:`` and 64 lower-case hex digits, so that two of them are equal
exactly when their text is, and that one may be used as a file name or in a URL without quoting. Other
algorithms are refused: OCI allows them, but a second one would make one artifact nameable in two ways.
"""

import hashlib
import re
from typing import Self

_FORM = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


class Digest(str):
    """``sha256:<64 lower-case hex digits>``; a plain string wherever one is wanted."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Check the form; raises ``ValueError`` as ``parse`` does."""
        if not _FORM.fullmatch(text):
            raise ValueError(f"expected sha256: and 64 lower-case hex digits, found {text[:80]!r}")
        return super().__new__(cls, text)

    @classmethod
    def parse(cls, text: object) -> Self:
        """Return ``text`` as a digest.

        Raises:
            ValueError: it is not a string of that form; the message quotes at most its first 80 characters.
        """
        if not isinstance(text, str):
            raise ValueError(f"expected a digest sha256:…, found {type(text).__name__}")  # noqa: TRY004 - one error for callers
        return cls(text)

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Self:
        """Return the digest of ``data``."""
        return cls("sha256:" + hashlib.sha256(data).hexdigest())

    @property
    def hex(self) -> str:
        """The 64 hex digits."""
        return self[7:]

    @property
    def short(self) -> str:
        """The first 16 hex digits: for labels, file names for people, and logs. Never for comparing."""
        return self[7:23]


class Hasher:
    """Digest of content that arrives in pieces, and how many bytes came."""

    __slots__ = ("_sha256", "size")

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self.size = 0

    def update(self, piece: bytes | bytearray | memoryview) -> None:
        """Take the next piece."""
        self._sha256.update(piece)
        self.size += len(piece) if not isinstance(piece, memoryview) else piece.nbytes

    def digest(self) -> Digest:
        """Return the digest of all pieces so far."""
        return Digest("sha256:" + self._sha256.hexdigest())
