"""How ``edgemodel gateway`` becomes the supervisor: soon, without the agent's imports, as HAProxy waits for it."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import edgemodel
from edgemodel.gateway.settings import GatewaySettings
from edgemodel.gateway.supervisor import LAUNCH


def supervisor(settings: GatewaySettings, binary: str, agent: Sequence[str]) -> tuple[str, ...]:
    """Return the command of a supervisor of HAProxy and of an agent, which is a command, too."""
    root = Path(edgemodel.__file__).parent.parent
    # Isolated and without site: half the memory.
    python = (sys.executable, "-I", "-S", "-c", LAUNCH, str(root))
    return (*python, str(settings.state_folder), binary, f"{settings.drain_seconds:g}", *agent)


def supervise(settings: GatewaySettings, binary: str, agent: Sequence[str]) -> NoReturn:
    """Become that supervisor; this process is none of ours any more."""
    command = supervisor(settings, binary, agent)
    os.execv(command[0], command)  # noqa: S606 - no shell is what is wanted
