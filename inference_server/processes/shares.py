"""How many processes serve a model, and when one that ended is started again.

Pure.
"""

_MOST_DELAY = 60.0
_FIRST_DELAY = 0.25
_ROOM = 2
"""The processes take this part of the memory at most, for requests need some too: half of it."""


def processes_that_pay(*, inline: bool, cpus: int, resident: int, memory: int) -> int:
    """Return how many processes are worth their memory.

    Args:
        inline: Whether runs are so cheap that the event loop computes them: then reading and writing is what takes time, and
            other models use more CPUs by sessions and threads, with one copy of the model.
        cpus: CPUs that may be kept busy all the time.
        resident: Bytes that the first process has in memory, the model included; each other takes no more.
        memory: Bytes that there are for all of them.

    `inline=True, cpus=4, resident=50, memory=1000` → 4; with `memory=300` → 3; with `cpus=0` or `inline=False` → 1.
    """
    if not inline:
        return 1
    return max(1, min(cpus, memory // (_ROOM * resident)))


def restart_delay(ends: int) -> float:
    """Return the seconds before a process is started again that ended so many times in a row: 0.25, 0.5, 1 … 60."""
    return float(min(_MOST_DELAY, _FIRST_DELAY * 2.0 ** (min(ends, 20) - 1)))
