"""Exit codes of the command line: one for each thing that a script may want to do next."""

from edgemodel.errors import EdgeModelError, Refused, Stalled

OK = 0
UNEXPECTED = 1
USAGE = 2
REFUSED = 3
STALLED = 4
TRANSIENT = 5
INTERRUPTED = 130
TERMINATED = 143

MEANINGS = {
    OK: "done",
    UNEXPECTED: "a fault of edgemodel itself; the traceback says where, please report it",
    USAGE: "the command line is wrong; --help says how it should be",
    REFUSED: "an artifact was judged and does not pass: unsigned, wrong key, altered, expired",
    STALLED: "a person must act: a wrong reference, key, file or setting",
    TRANSIENT: "network, registry or disk failed; the same command may succeed later",
    INTERRUPTED: "stopped by Ctrl-C",
    TERMINATED: "stopped by SIGTERM; the same command goes on where it was",
}


def of(error: EdgeModelError) -> int:
    """Return the code for an error, by its type."""
    if isinstance(error, Refused):
        return REFUSED
    if isinstance(error, Stalled):
        return STALLED
    return TRANSIENT
