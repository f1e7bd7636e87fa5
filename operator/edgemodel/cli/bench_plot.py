"""Draws what ``edgemodel bench`` found into a file: latency by percentile, a line for each load. Needs matplotlib."""

from collections.abc import Sequence
from pathlib import Path

from edgemodel.cli.bench_figures import named
from edgemodel.errors import Stalled
from edgemodel.loadtest.result import Outcome

FORMATS = (".png", ".svg")
_TICKS = {0.0: "0", 0.5: "50", 0.9: "90", 0.99: "99", 0.999: "99.9", 0.9999: "99.99", 0.99999: "99.999"}


def need_extra(path: Path) -> None:
    """Say at once, and not after the measuring, what is missing for a plot.

    Raises:
        Stalled: ``InvalidSpec``; matplotlib is not installed, or there is no such folder or format.
    """
    if path.suffix not in FORMATS:
        raise Stalled("InvalidSpec", f"--plot {path}: expected a name that ends in .png or .svg")
    if not path.absolute().parent.is_dir():
        raise Stalled("InvalidSpec", f"--plot {path}: there is no folder {path.absolute().parent}")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise Stalled("InvalidSpec", "--plot needs matplotlib: install edgemodel[plots]") from None


def draw(path: Path, title: str, outcomes: Sequence[Outcome]) -> None:
    """Write the plot.

    Raises:
        Stalled: ``InvalidSpec``; the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    furthest = 2.0
    for outcome in outcomes:
        count = outcome.latency.count
        if not count:
            continue
        # As HdrHistogram's plots: each nine as wide as the one before it.
        points = [
            (1 / (1 - (reached - 0.5) / count), seconds * 1e3)
            for seconds, reached in outcome.latency.cumulative()
        ]
        furthest = max(furthest, points[-1][0])
        axes.plot(
            *zip(*points, strict=True), label=f"{named(outcome.load)}: {outcome.throughput:.0f} answers/s"
        )
    axes.set(xscale="log", yscale="log", xlabel="percentile", ylabel="latency, ms", title=title)
    ticks = {1 / (1 - share): text for share, text in _TICKS.items() if 1 / (1 - share) <= furthest}
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
    try:
        figure.savefig(path)
    except OSError as error:
        raise Stalled("InvalidSpec", f"{path}: cannot be written ({error.strerror})") from None
