"""Reads tar archives from strangers: regular files and folders, under checked paths, up to a cap. Nothing else.

Promises: memory stays bounded whatever a header claims (Python's ``tarfile`` reads extended headers of any size whole); a
link, device, sparse or unknown entry is refused, and so is a path that ``model_files.Paths`` refuses; never more
than the cap is unpacked, be it from a gzip bomb. Leaves to others: where the bytes are written (``unpack``'s caller).

Format: POSIX pax and ustar (IEEE Std 1003.1, pax, "ustar Interchange Format"), GNU long names.
"""

import gzip
import io
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgemodel.artifact.digest import Hasher
from edgemodel.artifact.model_files import ModelFile, Paths
from edgemodel.artifact.oci_manifest import malformed
from edgemodel.errors import Refused

BLOCK = 512
MAX_ENTRIES = 10_000
MAX_HEADER = 64 << 10
"""Longest extended header in bytes."""
PIECE = 1 << 20
_GZIP_RATIO = 20  # weights compress by less than two; text by less than ten
_GZIP_ALLOWANCE = 64 << 20
_FILE_TYPES = (b"0", b"\0", b"7")
_NAMES = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    b"S": "sparse",
}


@dataclass(frozen=True, slots=True)
class _Header:
    name: str
    size: int
    kind: bytes


def unpack(archive: Path, file: ModelFile, folder: Path, paths: Paths, *, durable: bool = False) -> list[str]:
    """Unpack one layer below ``folder`` and return the files' paths.

    Args:
        archive: the layer, its digest already checked.
        file: says how it is packed and which of its folders is taken.
        folder: where the model directory is put together.
        paths: of all files of that directory; grows.
        durable: flush each file to disk.

    Raises:
        Refused: ``MalformedArtifact``; names the entry.
        OSError: the disk's own.
    """
    written = []
    for name, pieces in _members(archive, file):
        path = paths.add(name)
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as out:
            for piece in pieces:
                out.write(piece)
            if durable:
                out.flush()
                os.fsync(out.fileno())
        target.chmod(0o444)
        written.append(path)
    return written


def hashes(archive: Path, file: ModelFile) -> dict[str, Hasher]:
    """Return digest and size of every file that ``unpack`` would write, by its path; nothing is written.

    Raises:
        Refused: ``MalformedArtifact``; names the entry.
        OSError: the disk's own.
    """
    found = {}
    for path, pieces in _members(archive, file):
        found[path] = hasher = Hasher()
        for piece in pieces:
            hasher.update(piece)
    return found


def _members(archive: Path, file: ModelFile) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Yield each file's path and content; the content has to be read to its end before the next one is asked for."""
    if file.packing == "tar+zstd":
        raise malformed(
            f"layer {file.descriptor.digest}: is packed with zstd, which is not read; "
            "publish weights uncompressed (raw or tar)"
        )
    size = archive.stat().st_size
    # Of a plain archive the file's own end is the cap.
    cap = size + PIECE if file.packing == "tar" else _GZIP_ALLOWANCE + _GZIP_RATIO * size
    with archive.open("rb") as packed:
        stream = gzip.GzipFile(fileobj=packed) if file.packing == "tar+gzip" else packed
        source = _Source(stream, cap, file.path or str(file.descriptor.digest))
        for header in _entries(source):
            path = _wanted(header, file.folder)
            if path is None:
                source.skip(header.size)
            else:
                yield path, source.pieces(header.size)


@dataclass(frozen=True, slots=True)
class Span:
    """Where an entry's content stands in its archive, in bytes."""

    offset: int
    size: int


def index(archive: Path) -> dict[str, Span]:
    """Return where each file of a plain tar archive stands; nothing of its content is read.

    Raises:
        Refused: ``MalformedArtifact``; it is no tar archive, is cut short, names a file twice, or holds more than files
            and folders.
        OSError: the disk's own.
    """
    found: dict[str, Span] = {}
    size = archive.stat().st_size
    with archive.open("rb") as packed:
        source = _Source(packed, size, archive.name)
        for header in _entries(source):
            start = packed.tell()
            end = start + header.size + -header.size % BLOCK
            if end > size:
                raise source.wrong(f"ends inside {header.name[:80]!r}")
            path = _wanted(header, "")
            if path is not None:
                if path in found:
                    raise source.wrong(f"has two entries {path[:80]!r}")
                found[path] = Span(start, header.size)
            packed.seek(end)
    return found


class _Source:
    """The unpacked stream, counted."""

    def __init__(self, stream: BinaryIO | gzip.GzipFile, cap: int, name: str) -> None:
        self._stream = stream
        self._left = cap
        self._name = name

    def wrong(self, what: str) -> Refused:
        return malformed(f"archive {self._name}: {what}")

    def read(self, size: int) -> bytes:
        """Read exactly so many bytes."""
        self._left -= size
        if self._left < 0:
            raise self.wrong("unpacks to more than its size allows; is it a bomb?")
        try:
            content = self._stream.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise self.wrong("is damaged: its compressed data cannot be read") from None
        if len(content) != size:
            raise self.wrong("ends too early")
        return content

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield an entry's content and read the padding behind it."""
        left = size
        while left:
            piece = self.read(min(left, PIECE))
            left -= len(piece)
            yield piece
        self.read(-size % BLOCK)

    def skip(self, size: int) -> None:
        for _ in self.pieces(size):
            pass


def _entries(source: _Source) -> Iterator[_Header]:
    name: str | None = None
    size: int | None = None
    for _ in range(MAX_ENTRIES):
        block = source.read(BLOCK)
        if not any(block):
            return
        header = _header(block, source)
        if header.kind in b"xgLK":
            if header.size > MAX_HEADER:
                raise source.wrong(
                    f"has an extended header of {header.size} bytes; at most {MAX_HEADER} are read"
                )
            content = b"".join(source.pieces(header.size))
            if header.kind == b"L":
                name = _text(content.rstrip(b"\0"), source)
            elif header.kind == b"x":
                records = _pax(content, source)
                name = records.get("path", name)
                if "size" in records:
                    size = _decimal(records["size"], source)
                if any(key.startswith("GNU.sparse") for key in records):
                    raise source.wrong("has a sparse entry; only whole files are unpacked")
            continue
        yield _Header(
            name if name is not None else header.name, size if size is not None else header.size, header.kind
        )
        name = size = None
    raise source.wrong(f"has more than {MAX_ENTRIES} entries")


def _header(block: bytes, source: _Source) -> _Header:
    stored = _number(block[148:156], source)
    if sum(block) - sum(block[148:156]) + 8 * 0x20 != stored:
        raise source.wrong("is damaged: a header's checksum is wrong")
    name = block[:100].split(b"\0", 1)[0]
    if block[257:263] == b"ustar\0" and (prefix := block[345:500].split(b"\0", 1)[0]):
        name = prefix + b"/" + name
    return _Header(_text(name, source), _number(block[124:136], source), block[156:157])


def _number(digits: bytes, source: _Source) -> int:
    if digits[0] & 0x80:  # GNU: binary, for files of 8 GiB and more
        return int.from_bytes(digits[1:], "big")
    text = digits.split(b"\0", 1)[0].strip()
    if not text:
        return 0
    if not all(letter in b"01234567" for letter in text):
        raise source.wrong("is damaged: a header's number is not octal")
    return int(text, 8)


def _decimal(text: str, source: _Source) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 16:
        raise source.wrong("has a size that is not a number")
    return int(text)


def _text(raw: bytes, source: _Source) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise source.wrong("has a name that is not UTF-8") from None


def _pax(content: bytes, source: _Source) -> dict[str, str]:
    """Read records of length, key and value, each ended by a line feed."""
    records = {}
    stream = io.BytesIO(content)
    while position := content[stream.tell() :].partition(b" ")[0]:
        if not position.isdigit() or len(position) > 6:
            raise source.wrong("has an extended header that cannot be read")
        record = stream.read(int(position))
        key, equals, value = record[len(position) + 1 :].partition(b"=")
        if len(record) != int(position) or not equals or not value.endswith(b"\n"):
            raise source.wrong("has an extended header that cannot be read")
        records[_text(key, source)] = _text(value[:-1], source)
    return records


def _wanted(header: _Header, folder: str) -> str | None:
    """Return a file's path in the model directory; None for folders, and for what lies outside the folder that is taken.

    Raises:
        Refused: it is inside, and neither a file nor a folder.
    """
    name = header.name.removeprefix("./")
    if folder and (not name.startswith(folder) or name == folder):
        return None
    if header.kind == b"5":
        return None
    if header.kind not in _FILE_TYPES:
        kind = _NAMES.get(header.kind, f"of the unknown type {header.kind!r}")
        raise malformed(f"archive entry {header.name[:80]!r}: is {kind}; only files and folders are unpacked")
    if folder and name.rpartition("/")[2].startswith(".wh."):
        raise malformed(
            f"archive entry {header.name[:80]!r}: deletes a file of an earlier layer; put all in one layer"
        )
    return name.removeprefix(folder)
