"""A steady load of real requests in the background; every answer is checked against the version that says it gave it.

``testbed.load_client`` sends them, in a process of its own; here is what came of it. A failure is anything that a caller
would notice: a refused or broken connection, a status other than 200, no answer in time. A wrong answer is one that
differs from ONNX Runtime's own for the version named in it, or names a version that should not answer.
"""

import itertools
import json
import math
import subprocess
import sys
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from testbed.paths import ROOT


@dataclass(frozen=True)
class Case:
    """One request, and what each version answers to it.

    Attributes:
        body: JSON of the request.
        expected: by version, the values of the model's one output, flattened.
    """

    body: str
    expected: Mapping[str, Sequence[float]]


@dataclass(frozen=True, order=True)
class Answer:
    """One right answer: when it came (POSIX time), how long after it was due, in seconds, and from which version."""

    at: float
    latency: float
    version: str


@dataclass
class Load:
    """Requests to one model at a steady rate, from ``with`` to its end.

    Attributes:
        url: base URL of the model's Service, or of a path in front of it.
        model: name in the inference path.
        cases: sent in turn.
        rate: requests a second.
        connections: most at a time; they are kept alive.
        resend: send a request once more, on a new connection, if its connection broke before any of its answer came.
        headers: of each request, besides the usual.
    """

    url: str
    model: str
    cases: Sequence[Case]
    rate: float = 100.0
    connections: int = 64
    timeout: float = 10.0
    resend: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)
    """Right ones, by version."""
    failures: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    resent: int = 0

    def __enter__(self) -> "Load":
        self._timeline: list[Answer] = []
        self._failed_at: list[float] = []
        self._wrong_at: list[float] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "testbed.load_client"],
            cwd=ROOT / "hack",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(self._target()) + "\n")
        self._process.stdin.flush()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=self.timeout + 20)
        finally:
            self._process.kill()
            self._reader.join(timeout=10)
            self._process.stdout.close()
        if self._process.returncode != 0:
            raise AssertionError(
                f"the load ended with {self._process.returncode}; its standard error says why"
            )

    def _target(self) -> dict[str, Any]:
        return {
            "url": f"{self.url}/v2/models/{self.model}/infer",
            "rate": self.rate,
            "connections": self.connections,
            "timeout": self.timeout,
            "resend": self.resend,
            "requests": 0,
            "headers": dict(self.headers),
            "cases": [
                {"body": case.body, "expected": {v: list(values) for v, values in case.expected.items()}}
                for case in self.cases
            ],
        }

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            window = json.loads(line)
            for version, answers in window["answers"].items():
                self._timeline += [Answer(at, latency, version) for at, latency in answers]
                self.answers[version] += len(answers)
            for at, words in window["failed"]:
                self._failed_at.append(at)
                self.failures.append(f"{at:.3f} {words}")
            for at, words in window["wrong"]:
                self._wrong_at.append(at)
                self.wrong.append(f"{at:.3f} {words}")
            self.resent += window["resent"]

    @property
    def total(self) -> int:
        """Requests that are over, whatever became of them."""
        return sum(self.answers.values()) + len(self.failures) + len(self.wrong)

    @property
    def trouble(self) -> list[str]:
        """Everything that a caller would have noticed."""
        return sorted(self.failures + self.wrong)

    def timeline(self) -> list[Answer]:
        """Return the right answers by time."""
        return sorted(self._timeline)

    def last_at(self, version: str) -> float:
        """Return when a version was last heard (POSIX time); 0 for never."""
        return max((answer.at for answer in self._timeline if answer.version == version), default=0.0)

    def longest_gap(self, since: float = 0.0) -> float:
        """Return the longest time without a right answer, in seconds, after ``since`` (POSIX time)."""
        times = [answer.at for answer in self.timeline()]
        times = times[bisect_left(times, since) :]
        return max((later - earlier for earlier, later in itertools.pairwise(times)), default=0.0)

    def percentile(
        self, share: float, *, version: str = "", since: float = 0.0, until: float = math.inf
    ) -> float:
        """Return the latency, in seconds, that this share of right answers does not exceed."""
        found: list[float] = sorted(
            answer.latency
            for answer in self._timeline
            if version in ("", answer.version) and since <= answer.at < until
        )
        if not found:
            raise LookupError("no answers in that time")
        return found[min(len(found) - 1, math.ceil(share * len(found)) - 1)]

    def windows(self, seconds: float = 0.1) -> list[tuple[float, Counter[str]]]:
        """Return answers by version, failed and wrong ones, per window: (its begin in POSIX time, counts)."""
        found: dict[int, Counter[str]] = {}
        for answer in self._timeline:
            found.setdefault(int(answer.at / seconds), Counter())[answer.version] += 1
        for name, times in (("failed", self._failed_at), ("wrong", self._wrong_at)):
            for at in times:
                found.setdefault(int(at / seconds), Counter())[name] += 1
        return [(number * seconds, counts) for number, counts in sorted(found.items())]

    def summary(self) -> str:
        """Say in a line what came of it."""
        versions = ", ".join(f"{count} from {version}" for version, count in sorted(self.answers.items()))
        latency = (
            f"p50 {self.percentile(0.5) * 1e3:.1f} ms, p99 {self.percentile(0.99) * 1e3:.1f} ms"
            if self._timeline
            else "no latency"
        )
        return (
            f"{self.total} requests: {versions}; {len(self.failures)} failed, {len(self.wrong)} wrong, "
            f"{self.resent} sent twice; {latency}"
        )
