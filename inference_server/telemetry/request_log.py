"""One line of JSON on stdout for a sample of the requests, and for those that failed.

Promises never to hold up a request: a line goes into a bounded queue and a thread writes it; when whoever reads
stdout is slow, lines are dropped and counted (`inference_request_log_dropped_total`). A request that failed on the
server's side is always logged, at most `ERRORS_PER_SECOND` of them; the others by chance. A line holds no tensor, and
of what a client made up only its id, the model's name and the trace id, cut short.
"""

import os
import random
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

import orjson

from inference_server.telemetry.metrics import Metrics
from inference_server.telemetry.request_record import RequestRecord

ERRORS_PER_SECOND = 10.0
_STDOUT = 1
_MOST_LINES = 2048
_TEXT_CHARACTERS = 128
_MILLISECONDS = 1000.0


def encode(record: RequestRecord, now: float) -> bytes:
    """Return a line of JSON with its line end; empty fields are left out.

    Args:
        record: What to tell.
        now: Seconds since 1970.
    """
    document: dict[str, object] = {
        "time": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds"),
        "event": "request",
        "model": _cut(record.model),
        "version": record.version,
        "protocol": record.protocol,
        "code": record.code,
        "total_ms": round(record.total * _MILLISECONDS, 3),
    }
    if record.rows:
        document["queue_ms"] = round(record.queue * _MILLISECONDS, 3)
        document["compute_ms"] = round(record.compute * _MILLISECONDS, 3)
        document["batch_rows"] = record.rows
    counts = (("bytes_in", record.bytes_in), ("bytes_out", record.bytes_out))
    document.update((name, value) for name, value in counts if value)
    texts = (("id", record.id), ("trace_id", record.trace), ("cache", record.cache))
    document.update((name, _cut(text)) for name, text in texts if text)
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)


def _cut(text: str) -> str:
    # A lone surrogate can come from JSON; orjson does not write it.
    return text[:_TEXT_CHARACTERS].encode("utf-8", "replace").decode()


class RequestLog:
    """The request log of a server.

    Args:
        share: Which part of the requests that went well is logged, from 0 to 1.
        metrics: Where dropped lines are counted.
        write: Writes bytes, blocks, and returns how many it took; stdout unless given.
        chance: A number from 0 to below 1, new at each call.
        clock: Seconds that only grow.
        processes: Processes that write to the same stdout; each logs its part of the failed ones.
    """

    def __init__(
        self,
        share: float,
        metrics: Metrics,
        write: Callable[[bytes], int] | None = None,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
        processes: int = 1,
    ) -> None:
        self._share = share
        self._write = write or (lambda data: os.write(_STDOUT, data))
        self._chance = chance
        self._clock = clock
        self._dropped = metrics.log_dropped
        self._dropping = threading.Lock()  # the writer drops lines too
        self._lines: deque[tuple[float, RequestRecord]] = deque()
        self._some = threading.Event()
        self._closing = False
        self._errors_per_second = ERRORS_PER_SECOND / processes
        self._errors_left = self._errors_per_second
        # What is longer is not written at once, and another process's lines could come in between (pipe(7)).
        self._most_at_once = select.PIPE_BUF if processes > 1 else sys.maxsize
        self._errors_since = clock()
        self._writer = threading.Thread(target=self._run, name="request-log", daemon=True)
        self._writer.start()

    def wants(self, code: str) -> bool:
        """Whether a request that ended like this is to be logged; call it once for each."""
        if code.startswith("5"):
            return self._error_allowed() or self._chance() < self._share
        return self._chance() < self._share

    def put(self, record: RequestRecord) -> None:
        """Have a line written, or count it as dropped."""
        if len(self._lines) >= _MOST_LINES:
            self._drop(1)
            return
        self._lines.append((time.time(), record))
        self._some.set()

    def close(self, timeout: float = 1.0) -> None:
        """Write what is left, for so many seconds at most."""
        self._closing = True
        self._some.set()
        self._writer.join(timeout)

    def _drop(self, lines: int) -> None:
        with self._dropping:
            self._dropped.inc(lines)

    def _error_allowed(self) -> bool:
        now = self._clock()
        gained = (now - self._errors_since) * self._errors_per_second
        self._errors_left = min(max(1.0, self._errors_per_second), self._errors_left + gained)
        self._errors_since = now
        if self._errors_left < 1:
            return False
        self._errors_left -= 1
        return True

    def _run(self) -> None:
        while True:
            self._some.wait()
            self._some.clear()
            closing = self._closing
            while self._lines:
                self._flush()
            if closing:
                return

    def _flush(self) -> None:
        """Write the lines that wait now; those for which there is no reader any more are counted."""
        taken = [self._lines.popleft() for _ in range(min(len(self._lines), 256))]
        data = b"".join(encode(record, now) for now, record in taken)
        try:
            while data:
                end = len(data)
                if end > self._most_at_once:
                    end = data.rfind(b"\n", 0, self._most_at_once) + 1 or self._most_at_once
                data = data[self._write(data[:end]) :]
        except OSError:  # a closed pipe; requests are answered all the same
            self._drop(data.count(b"\n"))
