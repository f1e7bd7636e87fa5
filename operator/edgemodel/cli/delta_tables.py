"""``edgemodel inspect --delta``: what changed between two versions, what each codec costs, and why one was chosen."""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemodel.cli import deltas, output
from edgemodel.errors import Stalled

if TYPE_CHECKING:
    from edgemodel.artifact.delta_publish import Outcome, Version
    from edgemodel.artifact.delta_report import FileReport, Report, TensorChange

_SHOWN = 40
"""Tensors of a file that are printed: those that changed most, by bytes."""


@dataclass(frozen=True, slots=True)
class Table:
    """One table for a person."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def run(arguments: argparse.Namespace) -> int:
    """Compare the two and print it: tables on a terminal, JSON otherwise."""
    deltas.need_extras()
    from edgemodel.artifact.delta_report import report

    old, new = arguments.delta
    with tempfile.TemporaryDirectory(prefix="edgemodel-") as name:
        folder = Path(name)
        before = _version(arguments, old, folder / "old")
        after = _version(arguments, new, folder / "new")
        found = report(before, after, folder / "patches")
    if arguments.output == "json" or not sys.stdout.isatty():
        output.document(document(found))
    else:
        show(found)
    return 0


def _version(arguments: argparse.Namespace, text: str, folder: Path) -> "Version":
    """Return the files of a path on disk if there is one, else of a reference."""
    from edgemodel.artifact.reference import Reference

    if Path(text).exists():
        return _local(Path(text))
    try:
        reference = Reference.parse(text)
    except Stalled as error:
        raise Stalled(
            error.reason, f"{text}: no file or folder, and no reference either: {error.message}"
        ) from None
    (published,) = asyncio.run(deltas.bring(arguments, [reference], folder))
    return published.version


def _local(path: Path) -> "Version":
    from edgemodel.artifact import media_types
    from edgemodel.artifact.delta_publish import LocalFile, Version
    from edgemodel.artifact.manifest import Descriptor
    from edgemodel.artifact.model_directory import MODEL_JSON
    from edgemodel.artifact.publish import collect
    from edgemodel.artifact.store import hash_file

    files = []
    for name, place in collect([path]).items():
        if name == MODEL_JSON:
            continue  # delivery's own
        hasher = hash_file(place)
        files.append(
            LocalFile(name, Descriptor(media_types.MODEL_WEIGHT, hasher.digest(), hasher.size), place)
        )
    return Version(str(path), tuple(files))


def document(found: "Report") -> dict[str, Any]:
    """Return everything as JSON values."""
    return {
        "old": found.old.name,
        "new": found.new.name,
        "size": sum(file.descriptor.size for file in found.new.files),
        "unchanged": list(found.unchanged),
        "files": [
            {
                **deltas.outcome_document(file.outcome),
                "tried": [
                    {
                        "codec": attempt.codec,
                        "size": attempt.size,
                        "share": attempt.size / file.outcome.new.descriptor.size if attempt.size else None,
                        "encodeSeconds": round(attempt.encode_seconds, 3),
                        "applySeconds": round(attempt.apply_seconds, 3),
                        "note": attempt.note,
                    }
                    for attempt in file.outcome.attempts
                ],
                "tensors": [_tensor(tensor) for tensor in file.tensors],
            }
            for file in found.files
        ],
    }


def _tensor(tensor: "TensorChange") -> dict[str, Any]:
    members: dict[str, Any] = {
        "name": tensor.name,
        "dtype": tensor.dtype,
        "size": tensor.size,
        "status": tensor.status,
    }
    if tensor.old_name:
        members["oldName"] = tensor.old_name
    if tensor.status == "changed":
        members |= {
            "changedShare": tensor.changed,
            "maxDifference": tensor.largest,
            "meanDifference": tensor.mean,
            "maxUlp": tensor.largest_steps,
            "meanUlp": tensor.mean_steps,
        }
    return members


def tables(found: "Report") -> Iterator[Table]:
    """Return everything as tables."""
    for file in found.files:
        outcome = file.outcome
        name = outcome.new.path or "(archive)"
        if file.tensors:
            yield _tensor_table(name, file)
        if outcome.attempts:
            rows = tuple(_attempt_row(outcome, number) for number in range(len(outcome.attempts)))
            yield Table(
                f"{name}: what each codec costs",
                ("", "CODEC", "BYTES", "OF THE FILE", "ENCODE", "APPLY", "NOTE"),
                rows,
                outcome.why,
            )
        else:
            yield Table(name, (), (), outcome.why)


def _tensor_table(name: str, file: "FileReport") -> Table:
    moved = [tensor for tensor in file.tensors if tensor.status != "same"]
    same = len(file.tensors) - len(moved)
    moved.sort(key=lambda tensor: (-tensor.size * (tensor.changed or 1.0), tensor.name))
    rows = tuple(
        (
            tensor.name if not tensor.old_name else f"{tensor.name} (was {tensor.old_name})",
            tensor.dtype,
            output.size(tensor.size),
            *(
                (
                    f"{tensor.changed:.1%}",
                    f"{tensor.largest:.3g}",
                    f"{tensor.mean:.3g}",
                    f"{tensor.largest_steps}",
                    f"{tensor.mean_steps:.1f}",
                )
                if tensor.status == "changed"
                else (tensor.status, "-", "-", "-", "-")
            ),
        )
        for tensor in moved[:_SHOWN]
    )
    notes = [f"{same} of {len(file.tensors)} tensors did not change"] if same else []
    if len(moved) > _SHOWN:
        notes.append(f"{len(moved) - _SHOWN} more changed; --output json lists all")
    heads = ("TENSOR", "TYPE", "SIZE", "CHANGED", "MAX |Δ|", "MEAN |Δ|", "MAX ULP", "MEAN ULP")
    return Table(f"{name}: what changed", heads, rows, "; ".join(notes))


def _attempt_row(outcome: "Outcome", number: int) -> tuple[str, ...]:
    attempt, size = outcome.attempts[number], outcome.new.descriptor.size
    chosen = outcome.layer is not None and outcome.layer.codec == attempt.codec
    if attempt.size is None:
        return ("", attempt.codec, "-", "-", "-", "-", attempt.note)
    return (
        "*" if chosen else "",
        attempt.codec,
        str(attempt.size),
        f"{attempt.size / size:.2%}",
        _rate(size, attempt.encode_seconds),
        _rate(size, attempt.apply_seconds),
        attempt.note,
    )


def _rate(size: int, seconds: float) -> str:
    return f"{size / seconds / 1e6:.0f} MB/s" if seconds > 0.001 else "-"


def show(found: "Report") -> None:
    """Print tables, with rules and colours where ``rich`` is installed."""
    output.fields(
        [("old", found.old.name), ("new", found.new.name), ("unchanged", ", ".join(found.unchanged))]
    )
    if not found.files:
        print("no file changed")
    for table in tables(found):
        print()
        if not _rich(table):
            _plain(table)


def _plain(table: Table) -> None:
    output.fields([(table.title, " ")])
    if table.rows:
        output.table(table.heads, table.rows)
    if table.note:
        output.fields([("->", table.note)])


def _rich(table: Table) -> bool:
    try:
        from rich.console import Console
        from rich.table import Table as RichTable
        from rich.text import Text
    except ImportError:
        return False
    console = Console(highlight=False)
    drawn = RichTable(title=output.clean(table.title), title_justify="left")
    for number, head in enumerate(table.heads):
        drawn.add_column(head, justify="left" if number < 2 or head == "NOTE" else "right", overflow="fold")
    for row in table.rows:
        # As Text: what strangers call a tensor is no markup.
        drawn.add_row(*(Text(output.clean(cell)) for cell in row), style="bold" if row[0] == "*" else None)
    if table.rows:
        console.print(drawn)
    else:
        console.print(Text(output.clean(table.title), style="italic"))
    if table.note:
        console.print(Text("→ " + output.clean(table.note)))
    return True


__all__: Sequence[str] = ("Table", "document", "run", "show", "tables")
