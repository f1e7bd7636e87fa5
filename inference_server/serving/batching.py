"""The decisions of the queue in front of a model: what an idle session takes, whether it waits for more, who is let in.

Pure functions over plain values, so that each rule is a table in a test; `request_queue` holds the state, `scheduler` the
threads. The rules:

Fairness. Sessions take turns between the oldest and the smallest of the requests that wait, and both kinds of turn get the
same time. So a small request waits for one run that is under way and for at most as much time of larger ones as smaller
ones before it take; and a large one gets half of the time, however many small ones come. Requests of one size: by age.

Large requests. One with more rows than a run may have is computed in pieces, and others get their turn in between.

Waiting. A session with a batch that is not full waits for the next request only if all who are then computed get their
answers earlier on average: when the next is expected soon, and computing it together is much cheaper than after.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Protocol


class Candidate(Protocol):
    """What the decisions look at in a request that waits."""

    @property
    def key(self) -> Hashable | None:
        """Requests with equal keys can share a run; None shares with nobody."""

    @property
    def rows_left(self) -> int:
        """Rows not yet taken."""

    @property
    def elements_left(self) -> int:
        """Elements of its inputs not yet taken: its size."""


def choose(
    waiting: Sequence[Candidate], most_rows: int, most_elements: float, smallest_first: bool
) -> list[int]:
    """Return which requests the next run computes, by index; the first one leads.

    Args:
        waiting: By age, the oldest first; not empty.
        most_rows: Most rows of a run that several share. A request with more leads alone.
        most_elements: Most elements of such a run.
        smallest_first: Whose turn it is: the smallest one's (of equal ones the oldest), or the oldest one's.
    """
    lead, first = 0, waiting[0]
    if smallest_first:
        lead, first = min(enumerate(waiting), key=lambda entry: entry[1].elements_left)
    chosen = [lead]
    room, space = most_rows - first.rows_left, most_elements - first.elements_left
    if first.key is None or room <= 0 or space <= 0:
        return chosen
    for index, other in enumerate(waiting):
        if (
            other.key == first.key
            and other.rows_left <= room
            and other.elements_left <= space
            and index != lead
        ):
            chosen.append(index)
            room -= other.rows_left
            space -= other.elements_left
            if room <= 0 or space <= 0:
                break
    return chosen


def wait_for_more(
    requests: int,
    elements: int,
    next_elements: int,
    gap: float,
    left: float,
    seconds: Callable[[int], float],
) -> float:
    """Return for how many seconds an idle session should wait for one more request to share its run; 0: not at all.

    Compares the sum of all latencies, those in the batch and the next one's, of waiting and of beginning now.

    Args:
        requests: Number of requests in the batch.
        elements: Elements in the batch.
        next_elements: Elements that the next request will probably have.
        gap: Expected seconds until it comes.
        left: Most seconds that the oldest of the batch may still be kept.
        seconds: Cost of a run with so many elements.
    """
    if left <= 0 or gap > left:
        return 0.0
    alone, together = seconds(elements), seconds(elements + next_elements)
    waited = requests * (gap + together) + together
    begun = requests * alone + max(0.0, alone - gap) + seconds(next_elements)
    return min(left, 2 * gap) if waited < begun else 0.0


def backlog(rows: int, elements: int, most_rows: int, seconds: Callable[[int], float]) -> float:
    """Return the seconds that requests which can share runs need together on one session.

    Args:
        rows: Their rows.
        elements: Their elements.
        most_rows: Most rows of a run.
        seconds: Cost of a run with so many elements.
    """
    if rows <= most_rows:
        return seconds(elements)
    full = max(1, elements * most_rows // rows)
    return seconds(full) * elements / full


def refusal(wait: float, own: float, left: float | None, waiting: int, most_waiting: int) -> str | None:
    """Return why a request is not let into the queue, for the client; None when it is.

    Args:
        wait: Predicted seconds before its run begins.
        own: Predicted seconds of its run.
        left: Seconds until its deadline; None without one.
        waiting: Requests that wait already.
        most_waiting: Most that may.
    """
    if waiting >= most_waiting:
        return f"overloaded: {waiting} requests wait already, and no more may (predicted wait {wait:.3g} s); try again later"
    if left is not None and wait + own > left:
        return (
            f"overloaded: the predicted wait of {wait:.3g} s and {own:.3g} s of computing pass the deadline in "
            f"{max(0.0, left):.3g} s; try again later or allow more time"
        )
    return None
