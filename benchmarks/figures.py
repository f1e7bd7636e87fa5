"""Record figures, hold them against their goals, print one line each and keep the result with machine and date."""

import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Figure:
    """One number and what it should be.

    Attributes:
        name: snake_case, unique within the benchmark.
        value: in ``unit``.
        op: ``>=``, ``<=``, or empty when the number is only stated.
        goal: the number to reach, in ``unit``.
    """

    name: str
    value: float
    unit: str
    op: str = ""
    goal: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the goal is met; a figure without a goal is."""
        if self.goal is None:
            return True
        return self.value >= self.goal if self.op == ">=" else self.value <= self.goal


@dataclass
class Report:
    """The figures of one benchmark, with whatever explains them."""

    name: str
    figures: list[Figure] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, value: float, unit: str, op: str = "", goal: float | None = None) -> None:
        """Record one figure."""
        self.figures.append(Figure(name, round(value, 4), unit, op, goal))

    def write(self) -> None:
        """Write the result file."""
        RESULTS.mkdir(exist_ok=True)
        document = {
            "benchmark": self.name,
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "machine": machine(),
            "figures": [asdict(figure) for figure in self.figures],
            "notes": self.notes,
        }
        (RESULTS / f"{self.name}.json").write_text(json.dumps(document, indent=2) + "\n")

    def finish(self, show: Callable[[str], None] = print) -> bool:
        """Print a line per figure, write the result file, and say whether every goal was met."""
        self.write()
        for figure in self.figures:
            goal = f" (goal {figure.op} {figure.goal:g})" if figure.goal is not None else ""
            show(
                f"bench: {self.name} {figure.name} = {figure.value:g} {figure.unit}{goal} {'ok' if figure.ok else 'short'}"
            )
        return all(figure.ok for figure in self.figures)


def machine() -> str:
    """Name this machine: processor, cores, memory, kernel."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    gibibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores of {model}, {gibibytes:.0f} GiB, Linux {platform.release()}"
