"""A progress bar on standard error, when that is a terminal and ``rich`` is installed; otherwise nothing."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgemodel.artifact.manifest import Descriptor

Advance = Callable[["Descriptor", int], None]
"""Takes a blob and how many more bytes of it moved."""


def _nothing(_what: "Descriptor", _count: int) -> None:
    return


@contextmanager
def bar(title: str) -> Iterator[Advance]:
    """Show a bar while the block runs; it fills up as the blobs that were heard of do."""
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
        task = progress.add_task(title, total=None)
        sizes: dict[str, int] = {}

        def advance(what: "Descriptor", count: int) -> None:
            sizes[what.digest] = what.size
            progress.update(task, total=sum(sizes.values()), advance=count)

        yield advance
