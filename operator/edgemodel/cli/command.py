"""The form of a command: its place in the parser, and help that shows how it is used."""

import argparse
from collections.abc import Callable
from typing import Any

Commands = Any
"""What ``add_subparsers`` returns; argparse names its type only privately."""


def add(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    *,
    summary: str,
    about: str,
    examples: str,
) -> argparse.ArgumentParser:
    """Add a command to the parser and return its own parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.\n\n{about.strip()}",
        epilog="examples:\n" + "\n".join(f"  {line}" for line in examples.strip().splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser
