"""What pages tell to type is taken: each ``edgemodel`` command by the real parser, each manifest by the types.

(That the examples do what they say is shown by ``tests/e2e/test_examples.py``.)
"""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgemodel.api import crd
from edgemodel.cli.main import parser
from inference_server.settings import read_settings
from tests.unit.docs.pages import PAGES, blocks, title

KINDS = {kind.name: kind for kind in crd.KINDS}


def commands(page: Path) -> list[list[str]]:
    """Return the words of each command line of ours on a page."""
    found = []
    for text in blocks(page, "sh", "console", ""):
        if "▶" in text:
            continue  # a drawing
        for line in text.replace("\\\n", " ").splitlines():
            told = re.match(r"\s*(?:\$ )?edgemodel ([a-z].*)", line)
            if told:
                words = shlex.split(told[1], comments=True)
                end = next(
                    (
                        at
                        for at, word in enumerate(words)
                        if word in {"|", "||", "&&", "&", ";"} or word[0] == ">"
                    ),
                    None,
                )
                found.append(words[:end])
    return found


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=title)
def test_every_command_is_one_that_the_parser_takes(page: Path) -> None:
    for words in commands(page):
        if words[0] == "operator":
            continue  # it has a parser of its own
        try:
            parser(words[0]).parse_args(words)
        except SystemExit as left:
            raise AssertionError(f"edgemodel {shlex.join(words)}") from left


def server_arguments(page: Path) -> list[list[str]]:
    """Return the words after each `python -m inference_server` on a page."""
    told = (
        re.search(r"python -m inference_server +(-.*?) *&?$", line)  # a shell's & is no argument
        for text in blocks(page, "sh", "console", "ini", "")
        for line in text.replace("\\\n", " ").splitlines()
    )
    return [shlex.split(one[1], comments=True) for one in told if one]


@pytest.mark.parametrize("page", [page for page in PAGES if server_arguments(page)], ids=title)
def test_every_start_of_the_server_is_one_that_it_takes(page: Path) -> None:
    for words in server_arguments(page):
        assert read_settings(words, {})


def manifests(page: Path) -> list[dict[str, Any]]:
    """Return the objects of our kinds on a page, the parts of one that its spec page shows made whole."""
    found = []
    for text in blocks(page, "yaml"):
        for document in yaml.safe_load_all(text):
            if not isinstance(document, dict):
                continue
            if str(document.get("apiVersion", "")).startswith("edgemodel.io/"):
                found.append(document)
            elif set(document) == {"spec"} and title(page) == "docs/spec/edgemodel.md":
                kind = {"apiVersion": "edgemodel.io/v1alpha1", "kind": "EdgeModel"}
                spec = {"image": "registry.local/m:1", **document["spec"]}
                found.append({**kind, "metadata": {"name": "a", "namespace": "b"}, "spec": spec})
    return found


@pytest.mark.parametrize("page", [page for page in PAGES if manifests(page)], ids=title)
def test_every_manifest_is_one_that_the_types_take(page: Path) -> None:
    for manifest in manifests(page):
        kind = KINDS[manifest["kind"]]
        kind.model.model_validate(manifest)
        assert unknown(manifest["spec"], crd.schema(kind)["properties"]["spec"]) == []


def unknown(given: Any, schema: dict[str, Any]) -> list[str]:
    """Return the fields of a manifest that its kind does not have."""
    if isinstance(given, list):
        return [name for one in given for name in unknown(one, schema["items"])]
    if not isinstance(given, dict) or "properties" not in schema:
        return []
    known = schema["properties"]
    return [name for name in given if name not in known] + [
        inner for name, value in given.items() if name in known for inner in unknown(value, known[name])
    ]
