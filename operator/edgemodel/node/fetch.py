"""The init container's work: pull one pinned model into the pod's own volume, verified once more, right here.

Promises: judged by the policies the operator delivered, without a clock (a node's may be wrong) and without a mark (the
operator, which knows history, has decided); a directory that is whole already is left as it is, without a network, so that
a pod starts again after a reboot with its registry gone. Every failure is one typed error; ``report`` writes it where
Kubernetes shows it. Not flushed to disk: whatever is found there later is hashed again before it is believed.
"""

import json
from contextlib import suppress
from pathlib import Path

from edgemodel.artifact.pull import PulledModel, Wish, pull
from edgemodel.artifact.reference import Reference
from edgemodel.artifact.registry import Registry
from edgemodel.artifact.registry_connections import Connections
from edgemodel.errors import EdgeModelError, Stalled
from edgemodel.node.delivery import read_policies, read_registries, read_secrets

TERMINATION_BYTES = 4096
"""What Kubernetes keeps of a termination message."""


async def fetch(
    reference: Reference,
    output: Path,
    *,
    config: Path,
    secrets: Path | None = None,
    name: str = "",
    version: str = "",
    model_file: str | None = None,
) -> PulledModel:
    """Make ``output`` hold the model that ``reference`` pins.

    Raises:
        Refused, Stalled, Transient: as ``pull`` and ``delivery``; ``Stalled`` ``InvalidSpec`` when it is not pinned.
    """
    if reference.digest is None:
        raise Stalled(
            "InvalidSpec", f"{reference}: expected a reference pinned by @sha256:…, as the operator gives it"
        )
    wish = Wish(read_policies(config), name=name, version=version, model_file=model_file)
    credentials = read_secrets(secrets)
    async with Connections(read_registries(config)) as connections:
        return await pull(Registry(connections, credentials), reference, output, wish, durable=False)


def report(error: EdgeModelError, termination_log: Path) -> str:
    """Return the failure as one line of JSON, and leave it in the termination log where there is one."""
    message, line = error.message, ""
    while not line or len(line.encode()) > TERMINATION_BYTES:
        line = json.dumps({"reason": error.reason, "message": message}, ensure_ascii=False)
        message = message[: len(message) * 3 // 4]
    # The kubelet makes the file; where there is none, nobody would read it.
    with suppress(OSError):
        if termination_log.exists():
            termination_log.write_text(line, encoding="utf-8")
    return line
