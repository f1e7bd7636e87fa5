"""Does the candidate answer as the active version does? One test of the gate, on copies of requests."""

import math

from edgemodel.rollout.shadow import Shadowed
from edgemodel.rollout.statistics import ratio_evidence

COPIES_A_SECOND = 200.0
"""More answers than these of one second tell no more than these would."""


def agreement(seen: Shadowed) -> float:
    """Return the part of the answers that agreed; 0 without any."""
    return seen.total.agree / seen.total.compared if seen.total.compared else 0.0


def disagreement_evidence(seen: Shadowed, least: float) -> float:
    """Return the evidence that less than a part ``least`` agrees; see ``statistics.ratio_evidence``.

    Where all are to agree, one that does not is proof.
    """
    if least >= 1 and seen.total.differ:
        return math.inf
    blocks = []
    for one in seen.rounds:
        if one.compared:
            weight = min(1.0, COPIES_A_SECOND * max(one.seconds, 1.0) / one.compared)
            blocks.append((weight * one.differ, weight * one.compared, 1.0 - least))
    return ratio_evidence(blocks)
