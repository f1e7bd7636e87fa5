"""Evidence that something is worse than it may be, which stays valid however often one looks.

Every function returns the logarithm of an e-value: a number that is 1 or less on average as long as the version is no worse
than its limit. Evidence of 1/α or more therefore turns up with probability α at most over all looks together, not at each
look (Ville's inequality; Ramdas, Grünwald, Vovk, Shafer: "Game-theoretic statistics and safe anytime-valid inference",
2023). A test with a fixed sample, repeated every second, has no such bound: in the end it always finds something.

Each evidence is an average over several assumptions of how much worse the version is, so that none has to be right. An
average of e-values is an e-value.

Pure arithmetic on counts. Leaves to others: what is counted (``evidence``), what is concluded (``gate``).
"""

import math
from collections.abc import Iterable, Sequence

WORSE = (1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)
"""How many times the limit a ratio is assumed to be."""
ODDS = (2.0, 4.0, 10.0, 50.0)
"""How many times the other version's ratio it is assumed to be."""
STAKES = (0.02, 0.05, 0.15, 0.3, 0.5, 0.75, 0.95)
"""Part of what has been won so far that is put on the next share to be above its limit."""
_LEAST = 1e-6
_MOST = 0.999


def ratio_evidence(blocks: Iterable[tuple[float, float, float]]) -> float:
    """Return the evidence that events are bad with a higher probability than they may be.

    Args:
        blocks: one after the other: how many were bad, how many there were, the probability that is allowed. Events that
            hang together in groups of n count 1/n each, and then whatever happens within a group does no harm (Hölder's
            inequality). A limit of 0 allows none: the first bad one is proof.
    """
    by_limit: dict[float, tuple[float, float]] = {}
    for bad, total, allowed in blocks:
        bad_before, total_before = by_limit.get(allowed, (0.0, 0.0))
        by_limit[allowed] = (bad_before + bad, total_before + total)
    won = [0.0] * (len(WORSE) + 1)
    for allowed, (bad, total) in by_limit.items():
        limit = max(allowed, _LEAST)
        if limit >= _MOST or total <= 0:
            continue
        most = (1 + limit) / 2
        for index, times in enumerate((*WORSE, math.inf)):
            assumed = min(limit * times, most)
            won[index] += bad * math.log(assumed / limit)
            won[index] += (total - bad) * math.log((1 - assumed) / (1 - limit))
    return _mean(won)


def share_evidence(shares: Iterable[tuple[float, float]]) -> float:
    """Return the evidence that shares are above their limits on average.

    Args:
        shares: one after the other, each from 0 to 1 with the limit of its mean. Nothing else is assumed: what makes up one
            share may hang together in any way. (Waudby-Smith, Ramdas: "Estimating means of bounded random variables by
            betting", 2024.)
    """
    won = [0.0] * len(STAKES)
    for share, limit in shares:
        gain = share / max(limit, _LEAST) - 1.0
        for index, stake in enumerate(STAKES):
            won[index] += math.log1p(stake * gain)
    return _mean(won)


def difference_evidence(blocks: Iterable[tuple[float, float, float, float]]) -> float:
    """Return the evidence that one version errs more than another that ran beside it.

    Given how many of a block's requests failed, which of the two they fell to is a draw without replacement if both are
    alike, whatever the ratio was at that time: a bad minute of the whole machine is evidence of nothing.

    Args:
        blocks: of one stretch of time each: bad ones and all of the one, bad ones and all of the other; may be fractions.
    """
    won = [0.0] * len(ODDS)
    for bad, total, other_bad, other_total in blocks:
        if bad + other_bad <= 0 or total <= 0 or other_total <= 0:
            continue
        part = total / (total + other_total)
        for index, odds in enumerate(ODDS):
            whole = odds * part + 1 - part
            won[index] += bad * math.log(odds / whole) - other_bad * math.log(whole)
    return _mean(won)


def upper_bound(bad: float, total: float, alpha: float) -> float:
    """Return a probability that the true one exceeds, at any of all looks, with probability ``alpha`` at most.

    The largest against which no evidence of 1/alpha stands, for a Beta(1/2, 1/2) mixture (Robbins 1970).
    """
    if total <= 0:
        return 1.0
    good = total - bad
    mixture = math.lgamma(bad + 0.5) + math.lgamma(good + 0.5) - math.lgamma(total + 1) - math.log(math.pi)
    threshold = -math.log(alpha)
    low, high = bad / total, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        against = mixture - bad * math.log(max(middle, 1e-300)) - good * math.log1p(-min(middle, 1 - 1e-15))
        low, high = (middle, high) if against < threshold else (low, middle)
    return high


def _mean(logarithms: Sequence[float]) -> float:
    """Return the logarithm of the mean of numbers given by their logarithms."""
    most = max(logarithms)
    return most + math.log(math.fsum(math.exp(one - most) for one in logarithms) / len(logarithms))
