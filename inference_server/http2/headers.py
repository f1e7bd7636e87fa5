"""Header blocks of HTTP/2: decoding with a memory, the rules for a request's headers, and blocks made in advance.

Promises that a block is decoded within a bound on what comes out, that a request's headers obey RFC 9113 section 8,
and that the same block on the same connection costs one look-up the second time. Compression proper is the library
hpack's. What is sent is never compressed with a table: a block is the same bytes for every connection.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from hpack import Decoder, HPACKError, OversizedHeaderListError
from hpack.table import HeaderTable

from inference_server.http2.frames import ConnectionFault, ErrorCode, StreamFault

Headers = list[tuple[bytes, bytes]]

# Both the block as it comes and what it expands to (RFC 7541 section 7.3: some bytes become 4 KiB each).
HEADER_LIST_BYTES = 16 * 1024
# A connection's requests differ by a deadline or a trace id at most.
_REMEMBERED = 64

_PSEUDO = frozenset({b":method", b":scheme", b":path", b":authority"})
# Section 8.2.2.
_OF_CONNECTIONS = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
)
# Of the static table (RFC 7541 appendix A): ":status: 200" as one byte, and "content-type" as a name.
STATUS_200 = b"\x88"
_NAME_INDEX = {b":status": 8, b"content-type": 31}

Judged = TypeVar("Judged")


class _Table(HeaderTable):
    """Counts what changes it."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0

    def add(self, name: bytes, value: bytes) -> None:
        self.changes += 1
        super().add(name, value)


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The headers of a request. Of a repeated field the last one stays.

    Attributes:
        method: `:method`.
        path: `:path`.
        fields: The rest by lower-case name, pseudo-headers excepted.
        length: What `content-length` says; None when there is none.
    """

    method: bytes
    path: bytes
    fields: dict[bytes, bytes]
    length: int | None


class HeaderBlocks(Generic[Judged]):
    """Decodes the header blocks of one connection, in their order.

    Args:
        judge: Makes of a request's headers whatever the connection keeps; its result is remembered by the block, so it
            must depend on the headers alone.
    """

    def __init__(self, judge: Callable[[RequestHead], Judged]) -> None:
        self._judge = judge
        self._decoder = Decoder(HEADER_LIST_BYTES)
        self._decoder.header_table = self._table = _Table()
        self._known: dict[bytes, Judged] = {}

    def request(self, block: bytes) -> Judged:
        """Return what `judge` makes of a request's headers.

        Raises:
            ConnectionFault: The block cannot be decoded, so none after it can.
            StreamFault: The headers are not those of a request.
        """
        known = self._known.get(block)
        if known is not None:
            return known
        changes = self._table.changes
        judged = self._judge(read_request(self.decode(block)))
        # A block that changed nothing refers to a table that is the same as before: the same bytes mean the same headers
        # until some other block changes it.
        if self._table.changes == changes:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[block] = judged
        return judged

    def decode(self, block: bytes) -> Headers:
        """Return the headers in a block.

        Raises:
            ConnectionFault: As `request`.
        """
        changes = self._table.changes
        if block and block[0] & 0xE0 == 0x20:  # sets the table's size (RFC 7541 section 6.3)
            self._table.changes += 1
        try:
            headers: Headers = list(self._decoder.decode(block, raw=True))
        except OversizedHeaderListError:
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM, f"headers: expected at most {HEADER_LIST_BYTES} bytes"
            ) from None
        except HPACKError as error:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, f"header block: {error}") from None
        if self._table.changes != changes:
            self._known.clear()
        return headers


def read_request(headers: Headers) -> RequestHead:
    """Return the head of a request.

    Raises:
        StreamFault: The headers are malformed (RFC 9113 sections 8.2 and 8.3.1).
    """
    pseudo: dict[bytes, bytes] = {}
    fields: dict[bytes, bytes] = {}
    for name, value in headers:
        if name[:1] == b":":
            if fields or name not in _PSEUDO or name in pseudo:
                raise _malformed(f"unexpected {name[:40]!r}")
            pseudo[name] = value
        else:
            _check_field(name, value)
            fields[name] = value
    method, path = pseudo.get(b":method"), pseudo.get(b":path")
    if not method or not path or not pseudo.get(b":scheme"):
        raise _malformed("expected :method, :scheme and :path")
    length = fields.get(b"content-length")
    if length is not None and (not length.isdigit() or len(length) > 18):
        raise _malformed("content-length")
    return RequestHead(method, path, fields, None if length is None else int(length))


def check_trailers(headers: Headers) -> None:
    """Accept the headers after a request's body.

    Raises:
        StreamFault: They are malformed.
    """
    for name, value in headers:
        if name[:1] == b":":
            raise _malformed(f"unexpected {name[:40]!r} in trailers")
        _check_field(name, value)


def literal(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a header block that neither uses nor changes a dynamic table (RFC 7541 section 6.2.2)."""
    block = bytearray()
    for name, value in headers:
        index = _NAME_INDEX.get(name, 0)
        block += _integer(index, 4)
        if not index:
            block += _integer(len(name), 7) + name
        block += _integer(len(value), 7) + value
    return bytes(block)


def _check_field(name: bytes, value: bytes) -> None:
    # Section 8.2.1: no upper case, no controls, nothing that could end a line where HTTP/1.1 is spoken next.
    if (
        not name
        or name.lower() != name
        or any(octet <= 0x20 or octet >= 0x7F for octet in name)
        or b":" in name
    ):
        raise _malformed(f"header name {name[:40]!r}")
    if any(octet in value for octet in (0, 10, 13)) or value.strip(b" \t") != value:
        raise _malformed(f"value of header {name[:40]!r}")
    if name in _OF_CONNECTIONS or (name == b"te" and value != b"trailers"):
        raise _malformed(f"unexpected {name!r}: HTTP/2 has no headers of a connection")


def _malformed(message: str) -> StreamFault:
    return StreamFault(ErrorCode.PROTOCOL_ERROR, f"malformed request: {message}")


def _integer(value: int, prefix_bits: int) -> bytes:
    """RFC 7541 section 5.1; the bits before the prefix are zero."""
    most = (1 << prefix_bits) - 1
    if value < most:
        return bytes((value,))
    encoded = bytearray((most,))
    value -= most
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
