"""A deposit passes sockets to the keeper and gets them back; whatever the keeper does, the supervisor goes on."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import edgemodel
from edgemodel.gateway import deposit as module
from edgemodel.gateway.deposit import Deposit
from edgemodel.gateway.held import KEEPER_SOCKET
from edgemodel.gateway.keeper import LAUNCH

pytestmark = [pytest.mark.process, pytest.mark.timeout(30)]

SECONDS = 10.0
HOLD_SECONDS = 0.3
PROGRAM = LAUNCH.replace("; ", f"; it.HOLD_SECONDS = {HOLD_SECONDS}; ")


class Keeper:
    def __init__(self, folder: Path) -> None:
        self.path = folder / KEEPER_SOCKET
        self.path.unlink(missing_ok=True)
        package = Path(edgemodel.__file__).parent.parent
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-P", "-c", PROGRAM, str(folder)],
            env={"PYTHONPATH": str(package)},
            stderr=subprocess.PIPE,
            text=True,
        )
        until(self.path.exists)

    def end(self) -> str:
        """Have it end, if it has not; return what it said."""
        self.process.terminate()
        return self.process.communicate(timeout=SECONDS)[1]


def until(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.01)


def died(deposit: Deposit) -> None:
    """Be a supervisor that has died."""
    if deposit._connection is not None:
        deposit._connection.close()
        deposit._connection = None


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture
def keeper(folder: Path) -> Iterator[Keeper]:
    found = Keeper(folder)
    yield found
    found.process.kill()
    found.process.communicate()


@pytest.fixture
def deposit(folder: Path) -> Iterator[Deposit]:
    found = Deposit(str(folder / KEEPER_SOCKET))
    yield found
    died(found)


def listeners(count: int) -> list[socket.socket]:
    return [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]


def numbers(pid: int) -> set[str]:
    """Return the sockets that a process has open."""
    found = set()
    for one in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(str(one.readlink()))
    return found


def given_away(deposit: Deposit, keeper: Keeper, sockets: list[socket.socket]) -> set[str]:
    """Have them held by the keeper alone; return which they are."""
    theirs = {f"socket:[{os.fstat(one.fileno()).st_ino}]" for one in sockets}
    deposit.follow([*sockets])
    until(lambda: theirs <= numbers(keeper.process.pid))
    for one in sockets:
        one.close()
    return theirs


@pytest.mark.parametrize("count", [1, 252, 505])
def test_the_next_supervisor_gets_what_the_one_before_had(
    deposit: Deposit, keeper: Keeper, count: int
) -> None:
    assert deposit.take_out() == []
    theirs = given_away(deposit, keeper, listeners(count))
    died(deposit)
    following = Deposit(str(keeper.path))
    found = following.take_out()
    assert {f"socket:[{os.fstat(one.fileno()).st_ino}]" for one in found} == theirs
    time_to_hold = time.monotonic() + 2 * HOLD_SECONDS
    until(lambda: time.monotonic() > time_to_hold)
    assert theirs <= numbers(keeper.process.pid)
    following.follow([])
    until(lambda: not theirs & numbers(keeper.process.pid))
    for one in found:
        one.close()
    died(following)


def test_what_nobody_comes_back_for_is_let_go_of(deposit: Deposit, keeper: Keeper) -> None:
    theirs = given_away(deposit, keeper, listeners(2))
    died(deposit)
    until(lambda: not theirs & numbers(keeper.process.pid))
    assert deposit.take_out() == []
    assert "the supervisor is not back" in keeper.end()


def test_what_is_given_takes_the_place_of_what_was(deposit: Deposit, keeper: Keeper) -> None:
    first = given_away(deposit, keeper, listeners(2))
    second = given_away(deposit, keeper, listeners(1))
    until(lambda: not first & numbers(keeper.process.pid))
    assert second <= numbers(keeper.process.pid)


def test_told_to_end_it_stays_until_nothing_is_held(deposit: Deposit, keeper: Keeper) -> None:
    theirs = given_away(deposit, keeper, listeners(1))
    keeper.process.terminate()
    more = given_away(deposit, keeper, listeners(1))
    until(lambda: not theirs & numbers(keeper.process.pid))
    assert more <= numbers(keeper.process.pid)
    deposit.follow([])
    assert keeper.process.wait(SECONDS) == 0


def test_told_to_end_it_ends_at_once_where_nothing_is_held(keeper: Keeper) -> None:
    assert keeper.end() == ""
    assert keeper.process.returncode == 0


@pytest.mark.parametrize("words", [b"x", b"_getsocks\n", b"\1\0\0\0abcdef", b"\xff\xff\xff\xff"])
def test_nonsense_is_the_end_of_a_connection_and_of_nothing_else(
    deposit: Deposit, keeper: Keeper, words: bytes
) -> None:
    theirs = given_away(deposit, keeper, listeners(1))
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(SECONDS)
        stranger.connect(str(keeper.path))
        stranger.sendall(words)
        stranger.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):  # where it has not read all of it
            while stranger.recv(100):
                pass
    until(lambda: not theirs & numbers(keeper.process.pid))  # nobody else came in time
    given_away(deposit, keeper, listeners(1))


def test_a_folder_that_is_missing_is_borne_until_sigterm(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-S", "-P", "-c", LAUNCH, str(tmp_path / "missing")],
        env={"PYTHONPATH": str(Path(edgemodel.__file__).parent.parent)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "no socket can be made" in process.stderr.readline()
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    try:
        process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    assert process.returncode == 0


def test_without_a_keeper_nothing_is_said(deposit: Deposit, capfd: pytest.CaptureFixture[str]) -> None:
    assert deposit.take_out() == []
    deposit.follow(listeners(0))
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(deposit._path)
    deposit.follow(listeners(0))
    assert capfd.readouterr().err == ""


def test_a_keeper_that_dies_is_told_of_once_and_its_follower_is_told_all(
    deposit: Deposit, keeper: Keeper, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sockets = listeners(2)
    deposit.follow(sockets)
    keeper.process.kill()
    keeper.process.wait()
    for _ in range(3):
        deposit.follow(sockets)
    assert capfd.readouterr().err.count("does not hold them: it has ended") == 1
    second = Keeper(folder)
    try:
        deposit.follow(sockets)
        given_away(deposit, second, sockets)
    finally:
        second.process.kill()
        second.process.communicate()
    assert "is back" in capfd.readouterr().err


@pytest.mark.parametrize("answer", [b"", b"\1\0\0\0abcdef", b"\xff\xff\xff\xff", None])
def test_a_keeper_that_hangs_or_talks_nonsense_is_left_alone_for_a_while(
    deposit: Deposit,
    answer: bytes | None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, "ASK_SECONDS", 0.1)
    asked = 0
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(deposit._path)
        listener.listen(8)
        listener.settimeout(SECONDS)

        def serve() -> None:
            nonlocal asked
            connection, _ = listener.accept()
            asked += 1
            with connection:
                if answer is None:
                    done.wait(SECONDS)
                else:
                    connection.sendall(answer)

        done = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        began = time.monotonic()
        assert deposit.take_out() == []
        for _ in range(3):
            deposit.follow(listeners(0))
        assert time.monotonic() - began < 1
        done.set()
        thread.join()
    assert asked == 1
    assert capfd.readouterr().err.count("does not hold them") == 1
