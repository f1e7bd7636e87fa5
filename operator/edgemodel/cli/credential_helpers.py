"""Asks docker's credential helpers (``credsStore``, ``credHelpers`` in config.json) for one registry's credential.

Promises: a helper is asked only about the registry at hand and only when the file holds no credential for it; what it
answers is neither shown nor kept. Used on the command line only: pods have pull secrets.

Protocol: docker/docker-credential-helpers, README ("Development"): the registry on standard input of
``docker-credential-<name> get``, a JSON document on its standard output.
"""

import json
import re
import subprocess
from typing import Any

from edgemodel.artifact.reference import DOCKER_HUB
from edgemodel.errors import Stalled

_SECONDS = 30
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_HUB_URL = "https://index.docker.io/v1/"
_TOKEN = "<token>"  # noqa: S105 - the name by which a helper says that the secret is an identity token


def with_helper(config: str, registry: str, source: str) -> str:
    """Return a config.json that also holds what the file's helper knows about a registry.

    Args:
        config: content of the file; returned unchanged when it names no helper for the registry, or is malformed.
        registry: ``host`` or ``host:port``.
        source: the file's name, for messages.

    Raises:
        Stalled: ``AuthenticationFailed``; the helper is missing or fails for another reason than knowing nothing.
    """
    try:
        document = json.loads(config)
        auths = document.get("auths") or {}
        name = (document.get("credHelpers") or {}).get(registry) or document.get("credsStore")
        known = any(entry and _same(key, registry) for key, entry in auths.items())
    except (ValueError, AttributeError, TypeError):
        return config  # whoever parses it says what is wrong
    if known or not isinstance(name, str):
        return config
    answer = _ask(name, _HUB_URL if registry in DOCKER_HUB else registry, source)
    if answer is None:
        return config
    if answer.get("Username") == _TOKEN:
        entry = {"identitytoken": answer.get("Secret", "")}
    else:
        entry = {"username": answer.get("Username", ""), "password": answer.get("Secret", "")}
    return json.dumps({**document, "auths": {**auths, registry: entry}})


def _same(key: str, registry: str) -> bool:
    """Tell whether a key of ``auths``, a host or a URL, is about a registry."""
    host = key.split("://", 1)[-1].partition("/")[0].lower()
    return host == registry or {host, registry} <= DOCKER_HUB


def _ask(name: str, registry: str, source: str) -> dict[str, Any] | None:
    if not _NAME.fullmatch(name):
        raise Stalled("AuthenticationFailed", f"{source}: {name!r} is not the name of a credential helper")
    program = f"docker-credential-{name}"
    try:
        done = subprocess.run(
            [program, "get"], input=registry, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Stalled(
            "AuthenticationFailed",
            f"{source} wants {program}, which cannot be run ({type(error).__name__}); install it, or name another file "
            "with --docker-config",
        ) from None
    if done.returncode != 0:
        # By its protocol a helper says so when it holds nothing for the registry: then we are anonymous there.
        if "credentials not found" in done.stdout:
            return None
        raise Stalled("AuthenticationFailed", f"{source}: {program} failed with code {done.returncode}")
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise Stalled("AuthenticationFailed", f"{source}: {program} gave no JSON object")
    return answer
