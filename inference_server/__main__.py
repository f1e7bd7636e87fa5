"""`python -m inference_server --model DIR_OR_FILE`: run one server, and say in words why it could not.

Exit code 0 after a drain; otherwise the one of the error (`inference_server.errors`), whose reason and
message are one JSON line on stderr and the content of the termination log.
"""

import logging
import os
import signal
import sys

from inference_server.errors import FatalError
from inference_server.settings import Settings, find_termination_log, read_settings
from inference_server.telemetry import logs

logger = logging.getLogger("inference_server")


async def _serve(settings: Settings) -> None:
    from inference_server.app import App

    await App(settings).run()


def main() -> int:
    """Run until SIGTERM; return the exit code."""
    # The first process of a container ignores signals that it has no handler for, and the imports take a moment.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    # numpy's BLAS would keep a buffer for each core; nothing here calls it. Must be set before numpy comes in.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import prometheus_client
    import uvloop

    logs.configure()
    termination_log = find_termination_log(sys.argv[1:], os.environ)
    try:
        settings = read_settings(sys.argv[1:], os.environ)
        logs.configure(settings.log_level)
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        uvloop.run(_serve(settings))
    except FatalError as error:
        logger.critical("cannot serve", extra={"fields": {"reason": error.reason, "message": str(error)}})
        logs.write_termination_log(error, termination_log)
        return error.exit_code
    return 0


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    # Not sys.exit: an inference or a load that did not end in time must not keep the process.
    os._exit(code)
