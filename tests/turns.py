"""Whose turn it is: tests that need the machine to themselves wait for the others, and the others for them.

Workers of one run share two locks. Every test holds the one, most of them together; who needs to be alone holds it for
itself, and the other lock meanwhile keeps newcomers from overtaking. A worker that dies lets go of both.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RUN = "PYTEST_XDIST_TESTRUNUID"
"""Names the run to its workers; where there are none, nobody has to wait."""


@contextmanager
def turn(*, alone: bool) -> Iterator[None]:
    """Wait until a test may begin, and keep it from others' way while the block lasts.

    Args:
        alone: whether nothing may run beside it.
    """
    run = os.environ.get(RUN)
    if run is None:
        yield
        return
    path = Path(tempfile.gettempdir()) / f"edgemodel-tests-{run}"
    with path.with_suffix(".door").open("w") as door, path.with_suffix(".room").open("w") as room:
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        yield
