"""Held takes sockets from whoever speaks HAProxy's protocol, whole or not at all, and gives them on by the same."""

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgemodel.gateway.held import MOST, Held

SECONDS = 10.0
AT_ONCE = 252
"""Sockets of one message, as HAProxy 2.6 has it (MAX_SEND_FD)."""

Answer = Callable[[socket.socket], None]


def count(number: int) -> bytes:
    return struct.pack("i", number)


@contextmanager
def peer(path: Path, answer: Answer) -> Iterator[None]:
    """Be HAProxy's runtime socket, for one who asks."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(SECONDS)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(SECONDS)
                assert connection.recv(64) == b"_getsocks\n"
                answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join()
    path.unlink()


def giving(sockets: list[socket.socket], *, more: bytes = b"") -> Answer:
    def answer(connection: socket.socket) -> None:
        connection.sendall(count(len(sockets)))
        for begin in range(0, len(sockets), AT_ONCE):
            part = [one.fileno() for one in sockets[begin : begin + AT_ONCE]]
            socket.send_fds(connection, [bytes(6 * len(part)) + more], part)
            if len(part) == AT_ONCE:
                assert len(connection.recv(4)) == 4

    return answer


def saying(*words: bytes) -> Answer:
    def answer(connection: socket.socket) -> None:
        for one in words:
            connection.sendall(one)

    return answer


def opened() -> dict[int, int]:
    """Return what this process has open, by descriptor: the kernel's numbers."""
    found = {}
    for one in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found[int(one.name)] = one.stat().st_ino
    return found


def numbers() -> set[int]:
    return set(opened().values())


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("held")


@pytest.fixture
def listeners() -> Iterator[list[socket.socket]]:
    found = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    yield found
    for one in found:
        one.close()


@pytest.fixture
def held() -> Iterator[Held]:
    found = Held()
    yield found
    found.let_go()


def closed(sockets: list[socket.socket]) -> set[int]:
    """Close these; return their numbers."""
    found = {os.fstat(one.fileno()).st_ino for one in sockets}
    for one in sockets:
        one.close()
    return found


def test_what_is_held_stays_open_until_it_is_let_go_of(
    folder: Path, held: Held, listeners: list[socket.socket]
) -> None:
    address = listeners[0].getsockname()
    with peer(folder / "s", giving(listeners)):
        held.take(str(folder / "s"))
    theirs = closed(listeners)
    assert theirs <= numbers()
    assert len(held) == 2
    socket.create_connection(address, SECONDS).close()
    held.let_go()
    assert not theirs & numbers()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, SECONDS)


def test_no_program_that_is_started_has_them_too(
    folder: Path, held: Held, listeners: list[socket.socket]
) -> None:
    with peer(folder / "s", giving(listeners)):
        held.take(str(folder / "s"))
    theirs = closed(listeners)
    open_here = [descriptor for descriptor, number in opened().items() if number in theirs]
    assert len(open_here) == 2
    assert not any(os.get_inheritable(one) for one in open_here)


def test_what_was_held_before_is_let_go_of_and_sockets_of_files_are_not_held(
    folder: Path, held: Held, listeners: list[socket.socket]
) -> None:
    with peer(folder / "s", giving(listeners[:1])):
        held.take(str(folder / "s"))
    with socket.socket(socket.AF_UNIX) as file, peer(folder / "s", giving([listeners[1], file])):
        file.bind(str(folder / "file"))
        held.take(str(folder / "s"))
    assert len(held) == 1
    first, second = (closed([one]) for one in listeners)
    assert not first & numbers()
    assert second <= numbers()


@pytest.mark.parametrize(
    "answer",
    [
        saying(),
        saying(count(0)),
        saying(count(-1)),
        saying(count(MOST + 1)),
        saying(b"Unknown command\n"),
        saying(b"\1"),
        saying(count(2)),
        saying(count(2), bytes(12)),
    ],
    ids=["nothing", "none", "negative", "too many", "words", "torn", "no message", "no sockets"],
)
def test_what_makes_no_sense_leaves_what_is_held(
    folder: Path, held: Held, listeners: list[socket.socket], answer: Answer
) -> None:
    with peer(folder / "s", giving(listeners)):
        held.take(str(folder / "s"))
    with peer(folder / "s", answer), pytest.raises((ValueError, OSError)):
        held.take(str(folder / "s"))
    assert len(held) == 2
    assert closed(listeners) <= numbers()


@pytest.mark.parametrize("fault", ["more", "fewer", "names", "second message"])
def test_sockets_of_an_answer_that_makes_no_sense_are_closed(
    folder: Path, held: Held, listeners: list[socket.socket], fault: str
) -> None:
    sent = [*listeners, *(socket.create_server(("127.0.0.1", 0)) for _ in range(AT_ONCE))]

    def answer(connection: socket.socket) -> None:
        if fault == "names":
            giving(listeners, more=b"eth0")(connection)
        elif fault == "second message":
            connection.sendall(count(len(sent)))
            socket.send_fds(connection, [bytes(6 * AT_ONCE)], [one.fileno() for one in sent[:AT_ONCE]])
            connection.recv(4)
        else:
            connection.sendall(count(1 if fault == "more" else 3))
            socket.send_fds(connection, [bytes(12)], [one.fileno() for one in listeners])

    with peer(folder / "s", answer), pytest.raises((ValueError, OSError)):
        held.take(str(folder / "s"))
    assert len(held) == 0
    assert not closed(sent) & numbers()


def test_one_that_does_not_answer_is_not_waited_for(
    folder: Path, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgemodel.gateway.held.ASK_SECONDS", 0.05)
    with pytest.raises(FileNotFoundError):
        held.take(str(folder / "s"))
    given_up = threading.Event()

    def answer(_: socket.socket) -> None:
        given_up.wait(SECONDS)

    with peer(folder / "s", answer):
        with pytest.raises(TimeoutError):
            held.take(str(folder / "s"))
        given_up.set()


def given(path: Path, total: int) -> list[socket.socket]:
    """Ask as HAProxy does that starts."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(SECONDS)
        connection.connect(str(path))
        connection.sendall(b"_getsocks\n")
        assert connection.recv(4) == count(total)
        found: list[socket.socket] = []
        while len(found) < total:
            data, descriptors, _, _ = socket.recv_fds(connection, 65536, AT_ONCE)
            assert data == bytes(6 * len(descriptors))
            found += [socket.socket(fileno=one) for one in descriptors]
            connection.sendall(count(len(found)))
        assert connection.recv(1) == b""
    return found


@pytest.mark.parametrize("total", [1, AT_ONCE - 1, AT_ONCE, AT_ONCE + 1, 2 * AT_ONCE + 1])
def test_they_are_given_on_by_a_child_that_ends(folder: Path, held: Held, total: int) -> None:
    sent = [socket.create_server(("127.0.0.1", 0)) for _ in range(total)]
    with peer(folder / "s", giving(sent)):
        held.take(str(folder / "s"))
    theirs = closed(sent)
    for _ in range(2):  # as often as HAProxy starts
        held.give(str(folder / "held"))
        assert (folder / "held").stat().st_mode & 0o777 == 0o600
        got = given(folder / "held", total)
        assert os.waitpid(held.giver, 0) == (held.giver, 0)
        held.giver = 0
        assert closed(got) == theirs
    assert len(held) == total


@pytest.mark.parametrize("by", ["let go", "given anew"])
def test_a_child_whom_nobody_asked_has_them_no_longer(
    folder: Path, held: Held, listeners: list[socket.socket], by: str
) -> None:
    with peer(folder / "s", giving(listeners)):
        held.take(str(folder / "s"))
    held.give(str(folder / "held"))
    first = held.giver
    if by == "let go":
        held.let_go()
    else:
        held.give(str(folder / "held"))
        assert held.giver != first
        closed(given(folder / "held", 2))
        os.waitpid(held.giver, 0)
    held.giver = 0
    assert os.waitpid(first, 0)[1] == 9
