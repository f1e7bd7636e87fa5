"""What ``edgemodel bench`` prints: a table and a chart for people, or everything for programs."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from edgemodel.cli import output
from edgemodel.loadtest.result import QUANTILES, Closed, Open, Outcome

_ROWS = 12
_WIDTH = 48
_BUSY = 0.9
"""Of a core: with more the client measures itself."""


def named(load: Closed | Open) -> str:
    """Name a load."""
    if isinstance(load, Open):
        return f"rate {load.rate:g}/s"
    return f"concurrency {load.concurrency}"


def document(
    model: str, request_bytes: int, outcomes: Sequence[Outcome], *, grpc: bool, binary: bool
) -> dict[str, Any]:
    """Return everything as JSON values; latencies are in milliseconds."""
    return {
        "model": model,
        "protocol": "grpc" if grpc else "http",
        "tensorData": "binary" if binary else "json",
        "requestBytes": request_bytes,
        "loads": [_one(outcome) for outcome in outcomes],
    }


def _one(outcome: Outcome) -> dict[str, Any]:
    load, latency = outcome.load, outcome.latency
    asked: dict[str, Any] = (
        {"loop": "open", "rate": load.rate, "arrivals": "random" if load.random else "even"}
        if isinstance(load, Open)
        else {"loop": "closed", "concurrency": load.concurrency}
    )
    percentiles = {name: _ms(value) for name, value in outcome.percentiles.items()}
    return {
        **asked,
        "seconds": round(outcome.seconds, 3),
        "answered": outcome.answered,
        "throughput": round(outcome.throughput, 2),
        "latencyMs": {**percentiles, "max": _ms(latency.largest), "mean": _ms(latency.mean)},
        "errors": dict(outcome.errors),
        "firstErrors": dict(outcome.examples),
        "clientShare": round(outcome.client_share, 3),
        "histogramMs": [[_ms(seconds), count] for seconds, count in latency.buckets()],
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 6)


def show(outcomes: Sequence[Outcome], *, chart: bool) -> None:
    """Print the table, what the errors said, and perhaps the charts."""
    heads = ["LOAD", "ANSWERS/S", *(name.upper() for name in QUANTILES), "MAX", "ERRORS"]
    rows = [_row(outcome) for outcome in outcomes]
    if not (sys.stdout.isatty() and _rich(heads, rows)):
        output.table(heads, rows)
    for outcome in outcomes:
        for kind, words in outcome.examples.items():
            print(output.clean(f"{named(outcome.load)}: {kind}: {words}"))
        if outcome.client_share > _BUSY:
            output.note(
                f"{named(outcome.load)}: this client used {outcome.client_share:.0%} of a core; "
                "it may be what was measured, not the server"
            )
    if chart:
        for outcome in outcomes:
            print()
            for line in bars(outcome, blocks=_draws_blocks()):
                print(line)


def _row(outcome: Outcome) -> list[str]:
    percentiles = outcome.percentiles
    times = [duration(percentiles[name]) if percentiles else "-" for name in QUANTILES]
    largest = duration(outcome.latency.largest) if percentiles else "-"
    errors = ", ".join(f"{count} {kind}" for kind, count in sorted(outcome.errors.items())) or "0"
    return [named(outcome.load), f"{outcome.throughput:.1f}", *times, largest, errors]


def duration(seconds: float) -> str:
    """Return a duration with three figures: ``0.412 ms``, ``1.30 s``."""
    value, unit = (seconds, "s") if seconds >= 1 else (seconds * 1e3, "ms")
    places = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{places}f} {unit}"


def bars(outcome: Outcome, *, blocks: bool) -> Iterator[str]:
    """Draw how latencies are spread: a bar for each range, and the share of requests that its end was enough for."""
    yield f"{named(outcome.load)}: latency of {outcome.latency.count} requests"
    full, part = ("█", "▏▎▍▌▋▊▉") if blocks else ("#", "")
    spread = outcome.latency.spread(_ROWS)
    most, reached = max((count for _, _, count in spread), default=1), 0
    for _, to, count in spread:
        reached += count
        eighths = round(8 * _WIDTH * count / most)
        bar = full * (eighths // 8) + (part[eighths % 8 - 1] if part and eighths % 8 else "")
        if count and not bar:
            bar = "."
        yield f"{'≤' if part else '<='} {duration(to):>9}  {reached / outcome.latency.count:8.3%}  {bar}".rstrip()


def _draws_blocks() -> bool:
    try:
        "█▏≤".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _rich(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return False
    drawn = Table(box=box.SIMPLE)
    for number, head in enumerate(heads):
        last = head == "ERRORS"
        drawn.add_column(head, justify="left" if number == 0 or last else "right", no_wrap=not last)
    for row in rows:
        style = "bold red" if row[-1] != "0" else ""
        drawn.add_row(*map(Text, row[:-1]), Text(output.clean(row[-1]), style=style))
    Console(highlight=False).print(drawn)
    return True
