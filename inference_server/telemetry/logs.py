"""Structured logs: one JSON object a line on stderr, and the termination log a container runtime picks up.

Never carries a request's body or tensors. Fields beyond `time`, `level`, `event` come from
`extra={"fields": {…}}`.
"""

import bisect
import contextlib
import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from inference_server.errors import FatalError

# The kubelet keeps at most this much of a termination message.
# Source: Kubernetes, "Determine the reason for pod failure".
TERMINATION_MESSAGE_BYTES = 4096

_FIELD_CHARACTERS = 4000


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON.

    Args:
        fields: What stands in each line.
    """

    def __init__(self, fields: Mapping[str, object] | None = None) -> None:
        super().__init__()
        self._fields = fields or {}

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON; a traceback becomes one escaped string."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage()[:_FIELD_CHARACTERS],
        }
        line.update(self._fields)
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)[-_FIELD_CHARACTERS:]
        return json.dumps(line, default=str, ensure_ascii=False)


def configure(level: str = "INFO", fields: Mapping[str, object] | None = None) -> None:
    """Send every logger of the process to stderr as JSON lines, each with these fields."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(fields))
    logging.basicConfig(handlers=[handler], level=level, force=True)


def termination_message(error: FatalError) -> bytes:
    """Return the error as `{"reason", "message"}`, cut so that whole JSON fits the kubelet's cap."""
    message = str(error)

    def encoded(characters: int) -> bytes:
        document = {"reason": error.reason, "message": message[:characters]}
        return json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")

    # Escapes and multi-byte characters make the encoded size unpredictable: look for the longest that fits.
    sizes = range(1, min(len(message), TERMINATION_MESSAGE_BYTES) + 1)
    return encoded(bisect.bisect_right(sizes, TERMINATION_MESSAGE_BYTES, key=lambda size: len(encoded(size))))


def write_termination_log(error: FatalError, path: Path) -> None:
    """Leave the error where the kubelet looks; without that file (no container) write nothing."""
    if path.exists():
        # The message is on stderr too, and nothing better can be done with a read-only file.
        with contextlib.suppress(OSError):
            path.write_bytes(termination_message(error))
