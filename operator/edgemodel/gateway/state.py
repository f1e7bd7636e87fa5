"""HAProxy's files on disk: sets of them, each written whole, of which two links say which is read and which is good.

``now`` leads to the set that HAProxy reads when it starts or reloads, ``good`` to the last one that it has taken. A set is
written beside the others and then linked, so a death at any moment leaves the old one or the new one. Promises: a set that
was torn (a power cut, a full disk) is found out by its sums before anything starts from it. Leaves to others: what is in
the files. Imports next to nothing: the supervisor, which is to stay small, reads it as well.
"""

import os
from binascii import crc32
from collections.abc import Iterable, Mapping

NOW, GOOD = "now", "good"
ENDING = "ending"
"""Key of the map of weights that is 1 once no worker follows."""
_SETS, _SUMS, _END = "sets", "files.sum", "end"
_MAX_BYTES = 64 << 20
"""Of one file: as much as the folder's volume holds."""


def write(folder: str, files: Mapping[str, str]) -> str:
    """Write a set that nothing leads to yet; return its name.

    Raises:
        OSError: no space, say.
    """
    sets = f"{folder}/{_SETS}"
    os.makedirs(sets, mode=0o700, exist_ok=True)
    name = str(1 + max((int(one) for one in os.listdir(sets) if one.isdecimal()), default=0))
    os.mkdir(f"{sets}/{name}", mode=0o700)
    sums = ""
    for file, text in files.items():
        data = text.encode()
        _write(f"{sets}/{name}/{file}", data)
        sums += f"{crc32(data)} {len(data)} {file}\n"
    _write(f"{sets}/{name}/{_SUMS}", f"{sums}{_END}\n".encode())
    return name


def lead(folder: str, link: str, name: str | None) -> None:
    """Have ``now`` or ``good`` lead to a set, at once and whole; to none with None."""
    if name is None:
        if os.path.lexists(f"{folder}/{link}"):
            os.unlink(f"{folder}/{link}")
        return
    new = f"{folder}/.{link}.new"
    if os.path.lexists(new):
        os.unlink(new)
    os.symlink(f"{_SETS}/{name}", new)
    os.replace(new, f"{folder}/{link}")


def led_to(folder: str, link: str) -> str | None:
    """Return the name of the set that ``now`` or ``good`` leads to; None when there is none."""
    try:
        sets, _, name = os.readlink(f"{folder}/{link}").partition("/")
    except OSError:
        return None
    return name if sets == _SETS and name.isdecimal() else None


def read(folder: str, name: str) -> dict[str, str]:
    """Return the files of a set.

    Raises:
        ValueError: it is not whole; the message says what is wrong.
    """
    lines = _read(f"{folder}/{_SETS}/{name}/{_SUMS}").decode("ascii", "replace").split("\n")
    if lines[-2:] != [_END, ""]:
        raise ValueError(f"{_SUMS} of set {name} is torn")
    found = {}
    for line in lines[:-2]:
        total, _, rest = line.partition(" ")
        length, _, file = rest.partition(" ")
        if not file or "/" in file:
            raise ValueError(f"{_SUMS} of set {name} has a line that makes no sense: {line[:80]!r}")
        data = _read(f"{folder}/{_SETS}/{name}/{file}")
        if str(len(data)) != length or str(crc32(data)) != total:
            raise ValueError(f"{file} of set {name} is torn: {len(data)} bytes, expected {length[:20]}")
        found[file] = data.decode()
    if "haproxy.cfg" not in found:
        raise ValueError(f"set {name} has no haproxy.cfg")
    return found


def remove_all_but(folder: str, names: Iterable[str | None]) -> None:
    """Remove sets that nothing leads to any more."""
    keep = set(names)
    for name in os.listdir(f"{folder}/{_SETS}"):
        if name not in keep:
            remove(f"{folder}/{_SETS}/{name}")


def remove(folder: str) -> None:
    """Remove a folder of files, where there is one."""
    if os.path.isdir(folder):
        for file in os.listdir(folder):
            os.unlink(f"{folder}/{file}")
        os.rmdir(folder)


def _write(path: str, data: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from None
    if len(data) > _MAX_BYTES:
        raise ValueError(f"{path} has more than {_MAX_BYTES} bytes")
    return data
