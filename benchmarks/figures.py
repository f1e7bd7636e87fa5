"""Record figures, hold them against their goals, print one line each and keep the result with machine and date."""

import json
import os
import platform
from collections.abc import Callable, Iterable
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

    def keep(self, known: Iterable[str], chosen: Iterable[str]) -> None:
        """Keep what was recorded of parts that do not run this time.

        Args:
            known: names of all parts; figures and notes of each begin with its name.
            chosen: those that run.
        """
        parts = tuple(known)
        others = set(parts) - set(chosen)
        path = RESULTS / f"{self.name}.json"
        before: dict[str, Any] = (
            json.loads(path.read_text()) if path.exists() else {"figures": [], "notes": {}}
        )

        def kept(name: str) -> str:
            # The longest name that fits: kill_gateway_agent's are not kill_gateway's.
            owner = max((part for part in parts if f"{name}_".startswith(f"{part}_")), key=len, default="")
            return owner if owner in others else ""

        days: dict[str, str] = before["notes"].get("recorded", {})
        days = {part: day for part, day in days.items() if part in others}
        for entry in before["figures"]:
            if owner := kept(entry["name"]):
                self.figures.append(Figure(**entry))
                days.setdefault(owner, before["date"])
        self.notes |= {note: text for note, text in before["notes"].items() if kept(note)}
        self.notes["recorded"] = days

    def ran(self, part: str) -> None:
        """Note the day on which a part ran, and write what there is."""
        self.notes["recorded"][part] = datetime.now(UTC).strftime("%Y-%m-%d")
        self.write()

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
