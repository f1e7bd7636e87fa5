"""What HAProxy 2.6 tells of its servers, from response times: sums in whole ms, as its freq_ctr.h keeps them."""

from dataclasses import dataclass, field

from edgemodel.gateway.pace import FULL, SAMPLES, Pace, Seen, Turn


@dataclass
class Told:
    """One server's counters."""

    name: str
    weight: int = FULL
    answers: int = 0
    inflight: int = 0
    longest: int = 0
    failures: int = 0
    _sum: int = 0

    def answer(self, milliseconds: float) -> None:
        value = int(milliseconds)
        self.answers += 1
        # The oldest part falls out once there are more answers than the mean is taken of.
        self._sum += value - (-(-self._sum // SAMPLES) if self.answers > SAMPLES else 0)
        self.longest = max(self.longest, value)

    def restart(self) -> None:
        """Count from the beginning, as a new worker does."""
        self.answers = self._sum = self.longest = self.failures = 0

    @property
    def seen(self) -> Seen:
        mean = -(-self._sum // max(1, min(self.answers, SAMPLES)))
        return Seen(self.name, self.weight, self.answers, self.inflight, mean, self.longest, self.failures)


@dataclass
class Model:
    """Servers, and the pace that looks at them."""

    servers: list[Told]
    pace: Pace = field(default_factory=Pace)
    now: float = 0.0

    def look(self, *, waiting: int = 0, limit: int | None = None) -> Turn:
        """Look, and do what is said; half a second later than the last time, or sooner where that was asked."""
        turn = self.pace.look(self.now, [it.seen for it in self.servers], waiting=waiting, limit=limit)
        self.now += 0.1 if turn.soon else 0.5
        for server in self.servers:
            server.weight = turn.weights[server.name]
            server.longest = 0 if turn.clear else server.longest
        return turn
