"""Writes docs/reference/cli.md out of the parser: what ``--help`` says and the page say is one text."""

import argparse
import os
from collections.abc import Iterator

from edgemodel.cli import exit_codes
from edgemodel.cli.main import parser

_WIDTH = "100"  # argparse wraps to the terminal's width; the page must not depend on whose that was

_HEAD = """\
# The command line

`edgemodel` publishes, signs, verifies, pulls and inspects models, and is the entry point of the operator and of the pods'
init containers. Every command prints text for people, or with `--output json` exactly one JSON document on standard
output, also when it fails: `{"error": {"type", "reason", "message"}}`. Progress and questions go to standard error.

Credentials are docker's (`docker login` writes them); passwords of keys come from `EDGEMODEL_PASSWORD`,
`COSIGN_PASSWORD` or the terminal, never from the command line. `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` are respected,
as are `SSL_CERT_FILE` and `SSL_CERT_DIR` where no `--ca-file` is given.

## Exit codes

| code | meaning |
|---|---|
"""


def page() -> str:
    """Return the page."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = _WIDTH
    try:
        codes = "".join(f"| {code} | {meaning} |\n" for code, meaning in exit_codes.MEANINGS.items())
        sections = "".join(f"\n## {name}\n\n```text\n{text}```\n" for name, text in _helps(parser()))
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    return _HEAD + codes + sections


def _helps(top: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    yield top.prog, top.format_help()
    for action in top._actions:  # noqa: SLF001 - argparse offers no other way to its subcommands
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for child in action.choices.values():
                if child.add_help:
                    yield from _helps(child)
