"""A progress bar on standard error, when that is a terminal and ``rich`` is installed; otherwise nothing."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[object, int], None]
"""Takes what moved (not shown) and by how many bytes."""


def _nothing(_what: object, _count: int) -> None:
    return


@contextmanager
def bar(title: str, total: int | None = None) -> Iterator[Advance]:
    """Show a bar while the block runs.

    Args:
        title: what is going on.
        total: bytes in all, when that is known beforehand.
    """
    if not sys.stderr.isatty():
        yield _nothing
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
    except ImportError:
        yield _nothing
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda _what, count: progress.advance(task, count)
