"""`python -m inference_server.worker FD`: a further process of a server, started by the first one and by nobody else.

It loads the model as the first process found best, listens once it can serve, and does what the first process says over the
socket whose descriptor it is given. Signals that ask for an end are left to the first process: a terminal or a service
manager sends them to all.
"""

import logging
import os
import signal
import socket
import sys

from inference_server.errors import FatalError
from inference_server.processes.job import Job, receive
from inference_server.processes.link import Link, die_with
from inference_server.telemetry import logs

logger = logging.getLogger("inference_server")


async def _serve(job: Job, link: Link) -> None:
    # Imported once the process ignores signals and ends with its parent: it takes a moment.
    from inference_server.member import Member

    await Member(job, link).run()


def main() -> int:
    """Run until the first process says or ends; return the exit code."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    control = socket.socket(fileno=int(sys.argv[1]))
    try:
        job = receive(control)
    except EOFError:
        return 1  # the first process has ended; there is nobody to tell
    die_with(job.parent)
    import prometheus_client
    import uvloop

    logs.configure(job.settings.log_level, {"process": job.row})
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    try:
        uvloop.run(_serve(job, Link(control)))
    except FatalError as error:
        logger.warning(
            "process cannot serve", extra={"fields": {"reason": error.reason, "message": str(error)}}
        )
        return error.exit_code
    return 0


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    # Not sys.exit: as in `__main__`.
    os._exit(code)
