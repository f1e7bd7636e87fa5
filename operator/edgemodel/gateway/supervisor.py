"""Process 1 of the gateway's container: runs HAProxy and the agent side by side, and starts again whichever ends.

Promises
- The agent's end costs HAProxy nothing: they are brothers. The agent that follows finds HAProxy by its sockets.
- HAProxy's end, the master process's or a worker's, is over at once: it starts with the last configuration that was taken,
  whether the agent is busy, dead or alive. There is never a second one: what a dead master process left is killed first.
- While HAProxy is away its listening sockets are not (``held``): connections wait in them for the one that starts, which has
  them from here. What they are is asked at each start, and whenever ``now`` and ``good`` lead to another set together, as
  they do once a reload was taken; so a port that is nobody's any more is let go of, whoever died meanwhile. The kernel says
  when a link was changed (F_NOTIFY, fcntl(2)); where it does not, they are looked at each second. When HAProxy is not back
  in time they are let go of: clients are rather refused, and go to another gateway, than kept waiting. All of this may fail,
  at no other cost.
- What is held here the ``keeper`` in the pod's other container holds as well (``deposit``). When the whole container dies,
  with this process, the next one has it from there, and HAProxy from the next one.
- What fails again and again is tried ever more rarely. An agent that hangs is killed, and HAProxy goes on.
- SIGTERM: nobody listens any more, requests that are under way get ``drain`` seconds, then all ends. No zombie stays.

Leaves to the agent: every configuration. It hands one over by a link in the state folder (``state``).

Run as ``python3 -I -S -c``, by ``edgemodel gateway``; imports next to nothing, as it lies in memory for ever.
"""

import fcntl
import os
import signal
import sys
import time
from collections.abc import Sequence

from edgemodel.gateway import state
from edgemodel.gateway.deposit import Deposit
from edgemodel.gateway.held import HOLD_SECONDS, KEEPER_SOCKET, Held
from edgemodel.gateway.log_line import say

MASTER_SOCKET, RUNTIME_SOCKET, HELD_SOCKET = "master.sock", "haproxy.sock", "held.sock"
BEAT, LOCK = "agent.beat", "supervisor.lock"
LAUNCH = "import sys; sys.path.insert(0, sys.argv.pop(1)); from edgemodel.gateway.supervisor import main; sys.exit(main())"
"""The program: its first argument is the folder that holds the package."""
LOOK_SECONDS = 0.05
"""Between two looks for a configuration to start with, or for an HAProxy that answers."""
IDLE_SECONDS, UNTOLD_SECONDS = 10.0, 1.0
"""Between two looks when nothing happens; the second where the kernel does not tell of links."""
BEAT_SECONDS = 120.0
"""An agent that has given no sign of life for so long is killed: small nodes are slow."""
STEADY_SECONDS = 10.0
"""What has run for so long is started again without a pause."""
FIRST_PAUSE, HAPROXY_PAUSE, AGENT_PAUSE = 0.05, 2.0, 30.0
"""Pauses grow from the first one to these."""
AGENT_END_SECONDS = 3.0
"""How long the agent may take to end, before HAProxy is told to."""
_ENDS = (signal.SIGTERM, signal.SIGINT)
_SIGNALS = (signal.SIGCHLD, signal.SIGIO, *_ENDS)
_SETTLE_SECONDS = 5.0


class Child:
    """One process, with all that it started: they are a group."""

    def __init__(self, name: str, longest_pause: float) -> None:
        self.name = name
        self.pid = 0
        """0 while it does not run."""
        self.due = 0.0
        """When it may be started (monotonic)."""
        self.began = 0.0
        self._longest = longest_pause
        self._failures = 0

    def start(self, command: Sequence[str]) -> None:
        """Start it; what cannot be started has ended."""
        self.began = time.monotonic()
        null = os.open("/dev/null", os.O_RDWR)
        try:
            self.pid = os.posix_spawnp(
                command[0],
                list(command),
                os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1)],
                setsid=True,
                setsigmask=(),
            )
        except OSError as error:
            say("error", f"{self.name} cannot be started: {command[0]}: {error.strerror}")
            self._pause()
        else:
            say("info", f"{self.name} started", f', "pid": {self.pid}')
        finally:
            os.close(null)

    def ended(self, code: int) -> None:
        """Note its end."""
        say("warning", f"{self.name} ended", f', "pid": {self.pid}, "code": {code}')
        self.pid = 0
        self._pause()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to it; SIGKILL goes to all that it started, too."""
        if self.pid:
            try:
                (os.killpg if number == signal.SIGKILL else os.kill)(self.pid, number)
            except ProcessLookupError:
                pass

    def _pause(self) -> None:
        now = time.monotonic()
        self._failures = 1 if now - self.began >= STEADY_SECONDS else self._failures + 1
        pause = FIRST_PAUSE * 2.0 ** min(self._failures - 2, 20) if self._failures > 1 else 0.0
        self.due = now + min(pause, self._longest)


class Supervisor:
    """See the module's docstring.

    Args:
        folder: the state folder.
        binary: HAProxy's program.
        drain: seconds that requests may take at the end.
        agent: the agent's command; empty for none, as in tests.
    """

    def __init__(self, folder: str, binary: str, drain: float, agent: Sequence[str]) -> None:
        self._folder, self._drain, self._agent_command = folder, drain, agent
        self._haproxy_command = (
            *(binary, "-W", "-db", "-S", f"{folder}/{MASTER_SOCKET},mode,600"),
            *("-f", f"{folder}/{state.NOW}/haproxy.cfg"),
        )
        self.haproxy, self.agent = Child("HAProxy", HAPROXY_PAUSE), Child("the agent", AGENT_PAUSE)
        self._seen: tuple[str | None, str | None] | None = None
        """The sets that were looked at, and were not whole."""
        self._beat, self._beaten = 0, 0.0
        self._held, self._deposit = Held(), Deposit(f"{folder}/{KEEPER_SOCKET}")
        self._holds: tuple[int, str | None, str | None] = (-1, None, None)
        """HAProxy's process and the sets that the links led to when it was asked last what it listens at."""
        self._hold_until = 0.0
        """What is held may be wrong, and is let go of then (monotonic); 0 while it is right."""
        self._hold_again = 0.0
        """When one that runs and of which nothing is held is asked again (monotonic)."""

    def run(self) -> int:
        """Run until SIGTERM; return the exit code."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        idle = IDLE_SECONDS if _told_of_links(self._folder) else UNTOLD_SECONDS
        self._held.adopt(self._deposit.take_out())
        while True:
            self._reap()
            now = time.monotonic()
            if not self.haproxy.pid and now >= self.haproxy.due and self._configured():
                self.haproxy.start((*self._haproxy_command, *self._give()))
            if self._agent_command and not self.agent.pid and now >= self.agent.due:
                self.agent.start(self._agent_command)
            self._look_after_the_agent(now)
            self._hold(now)
            self._deposit.follow(self._held.sockets)
            calm = self.haproxy.pid and self.agent.pid and not self._hold_until
            if self._wait(idle if calm else LOOK_SECONDS) in _ENDS:
                self._end()
                return 0

    def _wait(self, seconds: float) -> int:
        """Wait for a signal, or for that long, which counts as a child's."""
        told = signal.sigtimedwait(_SIGNALS, max(0.0, seconds))
        return signal.SIGCHLD if told is None else told.si_signo

    def _reap(self) -> None:
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None:
                return
            child = next((one for one in (self.haproxy, self.agent) if one.pid == found.si_pid), None)
            if child is not None:
                # Before its number is free again: workers of a master process that died, a check that ran.
                child.kill()
            os.waitpid(found.si_pid, 0)
            if found.si_pid == self._held.giver:
                self._held.giver = 0
            if child is not None:
                child.ended(found.si_status)

    def _configured(self) -> bool:
        """Tell whether there is a configuration to start with, and put it where HAProxy reads it."""
        now, good = (state.led_to(self._folder, link) for link in (state.NOW, state.GOOD))
        if (now, good) == self._seen:
            return False
        for name in (good, now):
            if name is None:
                continue
            try:
                state.read(self._folder, name)
            except ValueError as error:
                say("error", f"this configuration is not started with: {error}")
                continue
            if name != now:
                state.lead(self._folder, state.NOW, name)
            for socket in (MASTER_SOCKET, RUNTIME_SOCKET):
                if os.path.lexists(f"{self._folder}/{socket}"):
                    os.unlink(f"{self._folder}/{socket}")
            return True
        if now or good:
            say("error", "no configuration is whole: HAProxy starts when the agent has made one")
        self._seen = (now, good)
        return False

    def _look_after_the_agent(self, now: float) -> None:
        try:
            beat = os.stat(f"{self._folder}/{BEAT}").st_mtime_ns
        except OSError:
            beat = 0
        if beat != self._beat or not self.agent.pid:
            self._beat, self._beaten = beat, now
        elif now - max(self._beaten, self.agent.began) > BEAT_SECONDS:
            say("error", f"the agent gave no sign of life for {BEAT_SECONDS:g} s and is killed")
            self._beaten = now
            self.agent.kill()

    # -- HAProxy's sockets ----------------------------------------------------------------------------------------------

    def _give(self) -> tuple[str, ...]:
        """Have an HAProxy that is about to start get what is held; return its arguments for that."""
        if not self._held:
            return ()
        path = f"{self._folder}/{HELD_SOCKET}"
        try:
            self._held.give(path)
        except OSError as error:
            say("warning", f"HAProxy starts without the sockets of the one before: {error}")
            return ()
        return ("-x", path)

    def _hold(self, now: float) -> None:
        """Hold what HAProxy listens at, and nothing that it listened at before."""
        seen = (
            self.haproxy.pid,
            state.led_to(self._folder, state.NOW),
            state.led_to(self._folder, state.GOOD),
        )
        # While the agent has HAProxy reload, either worker may answer.
        reloading = self.agent.pid and seen[0] == self._holds[0] and seen[1] != seen[2]
        if reloading:
            return
        if seen == self._holds and (self._held or not self.haproxy.pid or now < self._hold_again):
            self._hold_until = 0.0
            return
        self._hold_until = self._hold_until or now + HOLD_SECONDS
        problem = "HAProxy is not back"
        if self.haproxy.pid:
            try:
                self._held.take(f"{self._folder}/{RUNTIME_SOCKET}")
            except (OSError, ValueError) as error:
                problem = str(error)
            else:
                self._holds, self._hold_until = seen, 0.0
                return
        if now >= self._hold_until:
            if self.haproxy.pid or self._held:
                say("warning", f"HAProxy's sockets are not held: {problem}")
            self._held.let_go()
            self._holds, self._hold_until, self._hold_again = seen, 0.0, now + IDLE_SECONDS

    # -- the end --------------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        self._held.let_go()
        self._deposit.follow(self._held.sockets)
        self.agent.kill(signal.SIGTERM)
        self._await_end(self.agent, AGENT_END_SECONDS)
        if self.haproxy.pid:
            try:
                from edgemodel.gateway import last_words

                last_words.say_that_none_follows(
                    f"{self._folder}/{MASTER_SOCKET}", f"{self._folder}/{state.NOW}"
                )
            except OSError as error:
                say("warning", f"HAProxy's workers were not told of the end: {error}")
            self.haproxy.kill(signal.SIGUSR1)
            self._await_end(self.haproxy, self._drain)
        for child in (self.haproxy, self.agent):
            child.kill()
            self._await_end(child, _SETTLE_SECONDS)
        say("info", "ended")

    def _await_end(self, child: Child, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while child.pid and time.monotonic() < ends:
            self._wait(ends - time.monotonic())
            self._reap()


def _told_of_links(folder: str) -> bool:
    """Have the kernel send SIGIO, from now on, when something in the folder is renamed; tell whether it will."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)  # open for as long as it is to be told
        fcntl.fcntl(descriptor, fcntl.F_NOTIFY, fcntl.DN_RENAME | fcntl.DN_MULTISHOT)
    except OSError as error:
        say("info", f"the kernel does not tell of changes in {folder}: {error.strerror}")
        return False
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Run with the state folder, HAProxy's program, the seconds of the drain, and the agent's command."""
    folder, binary, drain, *agent = sys.argv[1:] if argv is None else argv
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/{LOCK}", "a", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("error", f"another gateway runs with the state folder {folder}; expected one of its own")
            return 1
        return Supervisor(folder, binary, float(drain), agent).run()
