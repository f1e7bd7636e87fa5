"""Log lines of the gateway's small processes, as ``process.logs`` writes them, whose imports are larger than they are."""

import sys
import time


def say(level: str, message: str, more: str = "", *, by: str = "supervisor") -> None:
    """Write one; ``more`` is JSON that follows the message, ``by`` the module."""
    seconds = time.time()
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}+00:00"
    text = message.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    begin = f'{{"time": "{at}", "level": "{level}", "logger": "edgemodel.gateway.{by}"'
    sys.stderr.write(f'{begin}, "message": "{text}"{more}}}\n')
