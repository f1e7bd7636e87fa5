"""Reads the few counters that the gate needs from a pod's ``/metrics``, and nothing else of it.

Promises: one version's counters (labels ``model`` and ``version``, as in docs/reference/metrics.md), added up over protocols
and codes. What is read is bounded, and checked: whole numbers that fit, ascending bounds, cumulative buckets. Pods are not
trusted: one that writes nonsense is told apart from one that has answered nothing. Lines of other families are passed over
unread, and so are lines of another form: this is several times faster than a parser of the whole format.

Leaves to others: fetching, and the length of what is fetched.
"""

import math
import re
from itertools import pairwise

from edgemodel.rollout.evidence import Sample

MAX_SERIES = 4096
"""Lines of the families that are read."""
MAX_BUCKETS = 128
_MAX_COUNT = 2**53
_STARTED = "process_start_time_seconds "
_LINE = re.compile(
    r"^inference_request(?:(s_total)|_duration_seconds_(bucket|count))\{([^\n]{0,4000})\} ([0-9.eE+-]{1,32})(?: [0-9-]+)?$",
    re.MULTILINE,
)
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)')
_ESCAPE = re.compile(r"\\(.)")


class NotMetrics(ValueError):
    """The text is not what an inference server writes; the message says what was found."""


def read_sample(text: str, model: str, version: str) -> Sample:
    """Return the counters of one version; all zero if it has answered nothing yet.

    Args:
        text: Prometheus text format.
        model: value of the label ``model``.
        version: value of the label ``version``.

    Raises:
        NotMetrics: a line of the families that are needed cannot be, or not all of them together.
    """
    if "inference_requests" not in text:
        raise NotMetrics("no line of an inference server")
    requests = errors = timed = series = 0
    buckets: dict[float, int] = {}
    for found in _LINE.finditer(text):
        series += 1
        if series > MAX_SERIES:
            raise NotMetrics(f"more than {MAX_SERIES} lines of requests")
        total, kind, written, value = found.groups()
        labels = _labels(written)
        if labels.get("model") != model or labels.get("version") != version:
            continue
        count = _count(value)
        if total:
            requests += count
            errors += count if _is_error(labels.get("code", "")) else 0
        elif kind == "count":
            timed += count
        else:
            bound = _bound(labels.get("le", ""))
            if bound is not None:
                buckets[bound] = buckets.get(bound, 0) + count
                if len(buckets) > MAX_BUCKETS:
                    raise NotMetrics(f"more than {MAX_BUCKETS} buckets")
    bounds = tuple(sorted(buckets))
    below = tuple(buckets[bound] for bound in bounds)
    if any(before > after for before, after in pairwise((*below, timed))):
        raise NotMetrics("buckets of the histogram do not add up")
    if max(requests, timed) > _MAX_COUNT:
        raise NotMetrics("more requests than a counter holds")
    return Sample(requests, errors, timed, bounds, below, _started(text))


def _is_error(code: str) -> bool:
    """Say whether the server failed: 5xx. A client that left (499) or asked wrongly (4xx) is no fault of the model."""
    return len(code) == 3 and code[0] == "5"


def _labels(written: str) -> dict[str, str]:
    labels: dict[str, str] = {}
    at = 0
    while at < len(written):
        found = _LABEL.match(written, at)
        if found is None:
            raise NotMetrics("a line's labels cannot be read")
        name, value = found.groups()
        if name in labels:
            raise NotMetrics("a label is there twice")
        labels[name] = (
            _ESCAPE.sub(lambda it: "\n" if it[1] == "n" else it[1], value) if "\\" in value else value
        )
        at = found.end()
    return labels


def _count(value: str) -> int:
    try:
        number = float(value)
    except ValueError:
        raise NotMetrics("a count is no number") from None
    if not (0 <= number <= _MAX_COUNT and number == int(number)):
        raise NotMetrics("a count is negative, broken or too large")
    return int(number)


def _bound(le: str) -> float | None:
    """Return a bucket's bound; None for infinity, which ``_count`` repeats."""
    try:
        bound = float(le)
    except ValueError:
        raise NotMetrics("a bucket's bound is no number") from None
    if math.isnan(bound) or bound < 0:
        raise NotMetrics("a bucket's bound is no time")
    return None if math.isinf(bound) else bound


def _started(text: str) -> float | None:
    at = text.find(f"\n{_STARTED}")
    if at < 0:
        return None
    word = text[at + 1 + len(_STARTED) : at + 64].split("\n", 1)[0].split(" ", 1)[0]
    try:
        return float(word)
    except ValueError:
        return None
