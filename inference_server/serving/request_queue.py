"""Requests that wait for one model: their order, their sums, and what is handed to an idle session.

Keeps state and neither threads nor a clock: whoever owns it passes the time and holds a lock. Promises that a request which
was cancelled or has expired is never handed out, and that sums are right at any moment. Rules: `batching`.
"""

from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from inference_server.engine.plan import Plan
from inference_server.messages import Call
from inference_server.serving.batching import backlog, choose, refusal, wait_for_more
from inference_server.serving.costs import Costs
from inference_server.tensors import Array

# Weight of the newest gap between two arrivals.
_WEIGHT = 0.1
_OPEN = (0, 0.0, 0.0)
WORTH_SECONDS = 0.0005
"""A run is held back for others only where sharing it saves so much computing."""


@dataclass(slots=True, eq=False)
class Waiting:
    """One request in the queue.

    Attributes:
        inputs: Its arrays.
        outputs: Names of outputs it asks for.
        key: Requests with equal keys can share a run; None shares with nobody.
        rows: Size of its first axis; 1 where that is no batch axis.
        elements: Elements of all inputs.
        arrived: When it was queued.
        deadline: When nobody wants the answer any more.
        future: What its caller awaits; the queue leaves it alone.
        rows_left: Rows that no session has taken yet.
        rows_done: Rows that have been computed.
        parts: Outputs of the pieces computed so far, by their first row.
        gone: Cancelled, expired or answered: not to be computed.
        call: Where it is noted how the request fared; None for nowhere.
    """

    inputs: Mapping[str, Array]
    outputs: tuple[str, ...]
    key: Hashable | None
    rows: int
    elements: int
    arrived: float
    deadline: float | None
    future: Any
    rows_left: int = 0
    rows_done: int = 0
    parts: dict[int, list[Array]] | None = None
    gone: bool = False
    call: Call | None = None

    @property
    def elements_left(self) -> int:
        """Elements that no session has taken yet."""
        return self.elements * self.rows_left // self.rows if self.rows_left != self.rows else self.elements


@dataclass(slots=True)
class Piece:
    """The part of a request that one run computes."""

    request: Waiting
    first: int
    rows: int


@dataclass(slots=True)
class Batch:
    """What one run computes.

    Attributes:
        pieces: In the order of their rows in the run.
        rows: Sum of their rows.
        elements: Sum of their elements.
        smallest_first: Whose turn it was; None when all that waited had one size.
        taken: When it was taken.
        expected: Seconds it will probably take.
        thread: Identity of the thread that computes it; 0 before one does.
    """

    pieces: list[Piece]
    rows: int
    elements: int
    smallest_first: bool | None
    taken: float
    expected: float
    thread: int = 0


@dataclass(slots=True)
class _Group:
    """Sums over waiting requests that can share runs."""

    rows: int = 0
    elements: int = 0
    requests: int = 0


@dataclass(slots=True)
class RequestQueue:
    """The queue of one model.

    Args:
        plan: How it is computed.
        costs: What runs cost; corrected as batches end.
        most_waiting: Most requests that may wait.

    Attributes:
        expired: Requests that `take` found to be late; for their owner to tell, and to clear.
        coming: Requests that are expected in a moment; the owner sets it to 0 when they stay away.
    """

    plan: Plan
    costs: Costs
    most_waiting: int
    expired: list[Waiting] = field(default_factory=list)
    coming: int = 0
    _waiting: deque[Waiting] = field(default_factory=deque)
    _groups: dict[Hashable, _Group] = field(default_factory=dict)
    _sizes: dict[int, int] = field(default_factory=dict)
    _running: list[Batch] = field(default_factory=list)
    _favour: float = 0.0  # seconds by which turns of the oldest are ahead of turns of the smallest
    _gap: float = 1.0
    _last_arrival: float = 0.0
    _until: float = 0.0
    # Of the last one refused, until the queue moves: its elements, when its run would have ended, and that run's seconds.
    _shut: tuple[int, float, float] = _OPEN

    @property
    def _most_rows(self) -> int:
        return self.plan.batch_rows if self.plan.batchable else 1

    @property
    def _most_elements(self) -> float:
        return self.plan.batch_elements or float("inf")

    def _rows_of_a_run(self, rows: int, elements: int) -> int:
        """Return the most rows of a run with rows like these."""
        most = self._most_rows
        if most > 1 and self.plan.batch_elements and elements:
            most = max(1, min(most, self.plan.batch_elements * rows // elements))
        return most

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> tuple[Batch, ...]:
        """Batches that were taken and have not ended."""
        return tuple(self._running)

    def refuse(self, rows: int, elements: int, deadline: float | None, now: float) -> str | None:
        """Return why a request of this size would not be let in; None when it is. Costs nothing without a deadline."""
        count = len(self._waiting)
        if deadline is None and count < self.most_waiting:
            return None
        # In overload most are refused for what the last one was: nothing was taken since, and they ask for no less.
        size, end, own = self._shut
        if deadline is not None and deadline < end and elements >= size and count < self.most_waiting:
            return refusal(end - own - now, own, deadline - now, count, self.most_waiting)
        wait = self.predicted_wait(elements, now) * (1 + self.costs.usual_error)
        own = self._own_seconds(rows, elements)
        left = None if deadline is None else deadline - now
        reason = refusal(wait, own, left, count, self.most_waiting)
        if reason is not None and count < self.most_waiting:
            self._shut = elements, now + wait + own, own
        return reason

    def _own_seconds(self, rows: int, elements: int) -> float:
        """Return what the run takes that a request will be in: with company, if there is some."""
        most = self._rows_of_a_run(rows, elements)
        if most > rows and elements:
            waiting = sum(group.elements for group in self._groups.values())
            elements = min(elements + waiting, elements * most // rows)
        return self.costs.at_most(elements)

    def predicted_wait(self, elements: int, now: float) -> float:
        """Return the seconds before a run with a request of this size would begin."""
        sessions, seconds = self.plan.sessions, self.costs.seconds
        under_way = sum(max(0.0, batch.taken + batch.expected - now) for batch in self._running)
        if len(self._sizes) <= 1:
            ahead = sum(self._group_seconds(group) for group in self._groups.values())
        else:
            # It gets every second turn: it waits for what is as small or smaller, and for as much of the rest, at least
            # one run.
            smaller = larger = longest = 0.0
            for waiting in self._waiting:
                cost = seconds(waiting.elements_left)
                if waiting.elements_left <= elements:
                    smaller += cost
                else:
                    larger += cost
                    longest = max(longest, cost)
            ahead = smaller + min(larger, max(smaller, longest))
        return (under_way + ahead) / sessions

    def push(self, waiting: Waiting) -> None:
        """Add a request; whether it is let in was asked before."""
        waiting.rows_left = waiting.rows
        since = waiting.arrived - self._last_arrival
        self._last_arrival = waiting.arrived
        self._gap += _WEIGHT * (min(since, 1.0) - self._gap)
        self._waiting.append(waiting)
        self._add(waiting)
        if self.coming:
            self.coming -= 1

    def expect(self, batch: Batch, now: float, seconds: float) -> None:
        """Hold a run that is not full back for as many requests as a batch answers, if a run together saves enough.

        Args:
            batch: Has just been computed. Clients with one request at a time ask again at once, and would find that the few
                that waited were taken: runs of one and of fifteen in turn, for instance.
            now: The moment.
            seconds: Longest time to hold back.
        """
        one, costs = batch.elements // len(batch.pieces), self.costs.seconds
        saved = costs(one) + costs(batch.elements) - costs(one + batch.elements)
        shared = self._rows_of_a_run(len(batch.pieces), batch.elements) > 1
        if shared and self.plan.queue_delay and saved > WORTH_SECONDS:
            self.coming = len(batch.pieces)
            self._until = now + seconds

    @property
    def holds_back(self) -> bool:
        """Whether requests are expected in a moment, those that wait can share a run with them, and it has room."""
        if not self.coming or len(self._groups) != 1:
            return False
        ((key, group),) = self._groups.items()
        return key is not None and group.rows < self._rows_of_a_run(group.rows, group.elements)

    def forget(self, waiting: Waiting) -> None:
        """Take a request out that nobody waits for any more."""
        if not waiting.gone:
            waiting.gone = True
            self._shut = _OPEN
            if waiting.rows_left:
                self._waiting.remove(waiting)
                self._drop(waiting)

    def take(self, now: float) -> tuple[Batch | None, float | None]:
        """Return the next batch for a session that is idle.

        Requests whose deadline cannot be met any more go to `expired` instead.

        Returns:
            The batch, or None; and for how long the session should wait for more before it asks again, None for until
            something is pushed.
        """
        if self.holds_back and now < self._until:
            return None, self._until - now
        while self._waiting:
            mixed = len(self._sizes) > 1
            smallest_first = mixed and self._favour >= 0
            indices = [0]
            if len(self._waiting) > 1:
                indices = choose(self._waiting, self._most_rows, self._most_elements, smallest_first)
            batch = self._batch(indices, now, smallest_first if mixed else None)
            if not self._expire(batch, now):
                break
        else:
            self._favour = 0.0
            return None, None
        wait = self._wait(batch, now)
        if wait > 0:
            return None, wait
        self._remove(indices, batch)
        self._running.append(batch)
        self._shut = _OPEN
        return batch, None

    def ended(self, batch: Batch, seconds: float) -> None:
        """Learn that a batch was computed in so many seconds."""
        self._running.remove(batch)
        self._shut = _OPEN
        self.costs.observe(batch.elements, seconds)
        if batch.smallest_first is not None:
            self._favour += -seconds if batch.smallest_first else seconds

    def clear(self) -> list[Waiting]:
        """Take out and return everything that waits."""
        left = list(self._waiting)
        for waiting in left:
            waiting.gone = True
            self._drop(waiting)
        self._waiting.clear()
        self._shut = _OPEN
        return left

    def _group_seconds(self, group: _Group) -> float:
        if self._most_rows == 1:
            return group.requests * self.costs.seconds(group.elements // group.requests)
        most = self._rows_of_a_run(group.rows, group.elements)
        return backlog(group.rows, group.elements, most, self.costs.seconds)

    def _wait(self, batch: Batch, now: float) -> float:
        lead = batch.pieces[0].request
        if not self.plan.queue_delay or lead.key is None or batch.rows >= self._most_rows:
            return 0.0
        if len(batch.pieces) < len(self._waiting):
            return 0.0  # others wait that cannot join: time is short
        count = len(batch.pieces)
        if batch.elements + batch.elements // count > self._most_elements:
            return 0.0
        left = self.plan.queue_delay - (now - lead.arrived)
        return wait_for_more(
            count, batch.elements, batch.elements // count, self._gap, left, self.costs.seconds
        )

    def _batch(self, indices: list[int], now: float, smallest_first: bool | None) -> Batch:
        pieces, rows, elements = [], 0, 0
        for index in indices:
            waiting = self._waiting[index]
            count, size = waiting.rows_left, waiting.elements_left
            most = self.plan.piece_rows
            if most and waiting.key is not None and count > most:
                size = size * most // count
                count = most
            pieces.append(Piece(waiting, waiting.rows - waiting.rows_left, count))
            rows += count
            elements += size
        return Batch(pieces, rows, elements, smallest_first, now, self.costs.seconds(elements))

    def _remove(self, indices: list[int], batch: Batch) -> None:
        whole = []
        for index, piece in zip(indices, batch.pieces, strict=True):
            waiting = piece.request
            self._drop(waiting)
            waiting.rows_left -= piece.rows
            if waiting.rows_left:
                self._add(waiting)
            else:
                whole.append(index)
        if whole == list(range(len(whole))):
            for _ in whole:
                self._waiting.popleft()
        else:
            taken = set(whole)
            self._waiting = deque(other for index, other in enumerate(self._waiting) if index not in taken)

    def _expire(self, batch: Batch, now: float) -> bool:
        """Take those out of the queue that cannot be answered in time with this batch; return whether there are any."""
        ends = now + self.costs.at_most(batch.elements)
        late = [
            piece.request
            for piece in batch.pieces
            if piece.request.deadline is not None and piece.request.deadline < ends
        ]
        for waiting in late:
            self.forget(waiting)
        self.expired += late
        return bool(late)

    def _add(self, waiting: Waiting) -> None:
        elements = waiting.elements_left
        group = self._groups.get(waiting.key)
        if group is None:
            group = self._groups[waiting.key] = _Group()
        group.requests += 1
        group.rows += waiting.rows_left
        group.elements += elements
        self._sizes[elements] = self._sizes.get(elements, 0) + 1

    def _drop(self, waiting: Waiting) -> None:
        """Undo `_add` for what is left of a request."""
        elements = waiting.elements_left
        group = self._groups[waiting.key]
        group.requests -= 1
        group.rows -= waiting.rows_left
        group.elements -= elements
        if not group.requests:
            del self._groups[waiting.key]
        if self._sizes[elements] == 1:
            del self._sizes[elements]
        else:
            self._sizes[elements] -= 1
