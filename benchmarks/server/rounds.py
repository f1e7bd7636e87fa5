"""How long a run measures, and which sections it has: ``SERVER_SECONDS`` and ``SERVER_ONLY`` in the environment."""

import contextlib
import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from benchmarks.server.load import Measured, WrongAnswers

T = TypeVar("T")

_SECONDS = 2.0
CONNECTIONS = (1, 16, 64)
SLICE_SECONDS = 1.0  # what wrk can do at least


@dataclass(frozen=True)
class Pace:
    """Lengths of measurements.

    Attributes:
        seconds: of each one.
        rounds: how often each is repeated; the median counts.
        overload: seconds of the overload.
    """

    seconds: float = _SECONDS
    rounds: int = 3
    overload: float = 60.0

    @property
    def slices(self) -> int:
        """Rounds of what is measured in slices: twice as long altogether."""
        return max(2, round(2 * self.rounds * self.seconds / SLICE_SECONDS))


def pace() -> Pace:
    """Return the whole run's lengths, or those of a quick run when ``SERVER_SECONDS`` says how long one measures."""
    told = os.environ.get("SERVER_SECONDS")
    return Pace() if told is None else Pace(float(told), 2, 10.0)


def chosen(names: Iterable[str]) -> list[str]:
    """Return the sections that ``SERVER_ONLY`` names, by commas; all of them without it.

    Raises:
        SystemExit: a name is none of theirs.
    """
    known = list(names)
    told = os.environ.get("SERVER_ONLY")
    wanted = told.split(",") if told else known
    if unknown := set(wanted) - set(known):
        raise SystemExit(
            f"SERVER_ONLY: expected names of {', '.join(known)}, found {', '.join(sorted(unknown))}"
        )
    return wanted


def in_rounds(rounds: int, names: Iterable[str], measure: Callable[[str], T]) -> dict[str, list[T]]:
    """Measure each in turn, round by round and every other round backwards; return the results of each by round.

    What the machine does besides then meets all of them alike.
    """
    found: dict[str, list[T]] = {name: [] for name in names}
    for number in range(rounds):
        for name in list(found)[:: -1 if number % 2 else 1]:
            found[name].append(measure(name))
    return found


def side_by_side(
    loads: Mapping[str, Callable[[int, float], Measured]], pace: Pace
) -> dict[int, dict[str, list[Measured]]]:
    """Measure servers that are all up, each by itself for a second at each number of connections, again and again.

    A machine that others use is half as fast now and then, for seconds: turns must be short to meet all of them alike.

    Args:
        loads: by name, from connections and seconds to what came of them.
        pace: how long.

    Returns:
        By connections and name, what was measured in each round.
    """
    for load in loads.values():
        with contextlib.suppress(WrongAnswers):  # no answer in that second, in which its workers come up
            load(16, SLICE_SECONDS)

    def ask(name: str) -> dict[int, Measured]:
        return {connections: loads[name](connections, SLICE_SECONDS) for connections in CONNECTIONS}

    found = in_rounds(pace.slices, loads, ask)
    return {
        connections: {name: [one[connections] for one in measured] for name, measured in found.items()}
        for connections in CONNECTIONS
    }


def rates(measured: Iterable[Measured]) -> list[float]:
    """Return the answers a second of some measurements."""
    return [one.rate for one in measured]


def median_ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Return the median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))
