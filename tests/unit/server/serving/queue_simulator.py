"""Sessions that compute in simulated time: what becomes of requests that arrive at given moments."""

import heapq
import itertools
from dataclasses import dataclass

from inference_server.engine.plan import Plan
from inference_server.serving.costs import Costs
from inference_server.serving.request_queue import RequestQueue, Waiting

ROW = 10  # elements


@dataclass
class Outcome:
    """What became of one request: "answered", "late" or "refused", and when."""

    arrived: float
    rows: int
    kind: str = ""
    ended: float = 0.0

    @property
    def latency(self):
        return self.ended - self.arrived


def plan(**changes):
    values = {"batchable": True, "batch_rows": 8, "sessions": 1} | changes
    return Plan(**values)


def simulate(arrivals, takes, plan, *, most_waiting=1000, known=None):
    """Return the outcome of each arrival.

    Args:
        arrivals: `(moment, rows, seconds until the deadline or None)`.
        takes: Real seconds of a run by its rows.
        plan: How the model is computed.
        most_waiting: As the queue's.
        known: Costs that calibration found, by rows; the real ones if not given.
    """
    points = tuple((rows * ROW, (known or takes)(rows)) for rows in (1, 8, 64))
    queue = RequestQueue(plan, Costs(points), most_waiting)
    order = itertools.count()
    events = [(at, next(order), "arrive", (rows, within)) for at, rows, within in arrivals]
    heapq.heapify(events)
    outcomes, idle, runs = [], plan.sessions, []

    def let_sessions_take(now):
        nonlocal idle
        while idle:
            batch, wait = queue.take(now)
            for late in queue.expired:
                late.future.kind, late.future.ended = "late", now
            queue.expired.clear()
            if batch is None:
                if wait:
                    heapq.heappush(events, (now + wait, next(order), "look", None))
                return
            idle -= 1
            runs.append((now, batch))
            heapq.heappush(events, (now + takes(batch.rows), next(order), "end", batch))

    while events:
        now, _, what, detail = heapq.heappop(events)
        if what == "arrive":
            rows, within = detail
            outcome = Outcome(now, rows)
            outcomes.append(outcome)
            deadline = None if within is None else now + within
            if queue.refuse(rows, rows * ROW, deadline, now) is not None:
                outcome.kind, outcome.ended = "refused", now
            else:
                key = "k" if plan.batchable else None
                queue.push(Waiting({}, ("y",), key, rows, rows * ROW, now, deadline, outcome))
        elif what == "end":
            idle += 1
            queue.ended(detail, takes(detail.rows))
            for piece in detail.pieces:
                piece.request.rows_done += piece.rows
                if piece.request.rows_done == piece.request.rows:
                    piece.request.future.kind, piece.request.future.ended = "answered", now
        let_sessions_take(now)
    assert len(queue) == 0
    assert not queue._groups
    assert not queue._sizes
    return outcomes, [
        (at, [(piece.request.future.arrived, piece.rows) for piece in batch.pieces]) for at, batch in runs
    ]
