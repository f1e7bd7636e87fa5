"""``edgemodel``: finds the command, runs it, and turns what comes of it into an exit code.

Commands are imported when they run: ``edgemodel node fetch`` starts in every pod and must not pay for the rest.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from edgemodel import __version__
from edgemodel.cli import exit_codes, output
from edgemodel.errors import EdgeModelError

COMMANDS = (
    "publish",
    "delta",
    "sign",
    "verify",
    "pull",
    "inspect",
    "bundle",
    "keygen",
    "bench",
    "promote",
    "rollback",
    "pause",
    "retry",
    "node",
    "gateway",
    "operator",
    "crd",
)
"""In the order of ``--help``; each is a module of this package with ``add`` and ``run``."""

_DESCRIPTION = "Publish, sign, verify, pull and serve machine-learning models as OCI artifacts."
_EPILOG = """\
the way of a model:
  edgemodel keygen
  edgemodel publish model.onnx --to registry.example.com/models/detector:1.0 --version 1.0 --sequence 1 --key edgemodel.key
  edgemodel verify registry.example.com/models/detector:1.0 --key edgemodel.pub
  edgemodel pull registry.example.com/models/detector:1.0 --to ./detector --key edgemodel.pub

exit codes:
"""


def parser(only: str | None = None) -> argparse.ArgumentParser:
    """Build the parser: of all commands, or quickly of the one that is called."""
    codes = "\n".join(f"  {code:<4} {meaning}" for code, meaning in exit_codes.MEANINGS.items())
    top = argparse.ArgumentParser(
        prog="edgemodel",
        description=_DESCRIPTION,
        epilog=_EPILOG + codes,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"edgemodel {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True, dest="command")
    for name in COMMANDS if only not in COMMANDS else (only,):
        import_module(f"edgemodel.cli.{name}_command").add(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    if words[:1] == ["operator"]:
        # It has options of its own and the heaviest imports; they are its module's business.
        return int(import_module("edgemodel.controller.app").main(words[1:]) or 0)
    arguments = parser(words[0] if words else None).parse_args(words)
    try:
        code: int = arguments.run(arguments)
    except EdgeModelError as error:
        output.failure(error, as_json=getattr(arguments, "output", "text") == "json")
        return exit_codes.of(error)
    except KeyboardInterrupt:
        output.note("edgemodel: interrupted")
        return exit_codes.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output went away; there is nobody to tell.
        sys.stderr.close()
        return exit_codes.OK
    return code
