"""What the operator hands an init container: trust policies and registry settings as files, pull secrets as a folder.

::

    <config>/policies.json                    a list of ModelTrustPolicy objects, keys inline
    <config>/registries.json                  registry settings by host; may be missing
    <secrets>/<number>/.dockerconfigjson      pull secrets, tried in the order of their numbers; may be missing

Promises: what cannot be read is refused by the file's name, and nothing is assumed in its place: no policies file, no trust.
"""

import json
from pathlib import Path

from edgemodel.artifact.credentials import Credentials
from edgemodel.artifact.policy import Policy
from edgemodel.artifact.registry_settings import RegistrySettings
from edgemodel.errors import Stalled

POLICIES = "policies.json"
REGISTRIES = "registries.json"
_FILE = ".dockerconfigjson"


def read_policies(folder: Path) -> list[Policy]:
    """Read the policies.

    Raises:
        Stalled: ``InvalidSpec``.
    """
    path = folder / POLICIES
    try:
        documents = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise Stalled(
            "InvalidSpec", f"{path}: expected a list of trust policies in JSON ({_short(error)})"
        ) from None
    if not isinstance(documents, list):
        raise Stalled(
            "InvalidSpec", f"{path}: expected a list of trust policies, found {type(documents).__name__}"
        )
    return [Policy.from_json(json.dumps(document)) for document in documents]


def read_registries(folder: Path) -> RegistrySettings:
    """Read the registry settings; the defaults when there is no such file.

    Raises:
        Stalled: ``InvalidSpec``.
    """
    path = folder / REGISTRIES
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return RegistrySettings()
    except OSError as error:
        raise Stalled("InvalidSpec", f"{path}: cannot be read ({_short(error)})") from None
    return RegistrySettings.from_json(content)


def read_secrets(folder: Path | None) -> Credentials:
    """Read the pull secrets; none when there is no such folder.

    Raises:
        Stalled: ``AuthenticationFailed``; names the file, never what is in it.
    """
    if folder is None or not folder.is_dir():
        return Credentials()
    # A Secret volume also holds ``..data`` and the like, which are not ours.
    found = [entry / _FILE for entry in folder.iterdir() if not entry.name.startswith("..")]
    files = sorted((path for path in found if path.is_file()), key=_order)
    try:
        return Credentials.parse([path.read_bytes() for path in files], sources=[str(path) for path in files])
    except OSError as error:
        raise Stalled(
            "AuthenticationFailed", f"{folder}: a pull secret cannot be read ({_short(error)})"
        ) from None


def _order(path: Path) -> tuple[int, str]:
    name = path.parent.name
    return (int(name) if name.isdigit() else 1 << 30, name)


def _short(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
