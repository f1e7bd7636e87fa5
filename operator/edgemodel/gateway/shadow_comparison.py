"""Do two versions say the same of one request? Pure.

What agrees: the same outputs by name, each of the same datatype and shape, and in each

* of floats, along the last axis: the largest value is at the same place (the same class), or all values are within
  ``RELATIVE`` and ``ABSOLUTE`` of the active version's; where the last axis has one element, or there is none, only the
  latter; a NaN agrees with a NaN at the same place and with nothing else;
* of anything else (integers, booleans, strings): all values are equal.

Which version a server says that it is, and the request's id, are not looked at. A list of coordinates agrees when its
largest is at the same place: whoever wants more than that of a model wants golden samples with tolerances.
"""

import math
from collections.abc import Sequence
from typing import Literal

from edgemodel.gateway.shadow_answers import FLOATS, Answer, Tensor, Unreadable, read_outputs

RELATIVE = 1e-2
ABSOLUTE = 1e-3
_OK = 200
_SERVER_ERROR = 500

Outcome = Literal["agree", "differ", "failed", "unanswered", "incomparable", "dropped"]
"""failed: the candidate answered with a server error. unanswered: it gave no answer. incomparable: the active version's
answer cannot be read, or one is too long. dropped: no copy was made, there was no room."""
OUTCOMES: tuple[Outcome, ...] = ("agree", "differ", "failed", "unanswered", "incomparable", "dropped")


def compare(active: Answer, candidate: Answer) -> Outcome:
    """Compare a candidate's answer with the active version's, whose status was 200.

    What the active version's answer shows to be comparable, and the candidate's is not, differs.
    """
    if candidate.status >= _SERVER_ERROR:
        return "failed"
    if candidate.status != _OK:
        return "differ"
    try:
        expected = read_outputs(active)
    except Unreadable:
        return "incomparable"
    try:
        found = read_outputs(candidate)
    except Unreadable:
        return "differ"
    same = expected.keys() == found.keys() and all(agree(one, found[name]) for name, one in expected.items())
    return "agree" if same else "differ"


def agree(active: Tensor, candidate: Tensor) -> bool:
    """Say whether two tensors mean the same; see the module's docstring."""
    if (active.datatype, active.shape) != (candidate.datatype, candidate.shape):
        return False
    if active.datatype not in FLOATS:
        return active.data == candidate.data
    row = active.shape[-1] if active.shape else 1
    mine = [float(one) for one in active.data]
    theirs = [float(one) for one in candidate.data]
    if row <= 1:
        return _close(mine, theirs)
    return all(_same_row(mine[at : at + row], theirs[at : at + row]) for at in range(0, len(mine), row))


def _same_row(mine: Sequence[float], theirs: Sequence[float]) -> bool:
    if not any(map(math.isnan, mine)) and not any(map(math.isnan, theirs)):
        most = max(mine)
        # Where several are the largest any of them will do: which of them is first says nothing.
        if mine[theirs.index(max(theirs))] == most:
            return True
    return _close(mine, theirs)


def _close(mine: Sequence[float], theirs: Sequence[float]) -> bool:
    return all(map(_near, mine, theirs))


def _near(mine: float, other: float) -> bool:
    if mine == other or (math.isnan(mine) and math.isnan(other)):
        return True
    if not (math.isfinite(mine) and math.isfinite(other)):
        return False
    return abs(mine - other) <= ABSOLUTE + RELATIVE * abs(mine)
