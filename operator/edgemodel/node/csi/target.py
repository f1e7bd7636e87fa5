"""Where the kubelet may ask for a mount: ``<kubelet>/pods/<uid>/volumes/kubernetes.io~csi/<volume>/mount``, nothing else.

No part of it below the kubelet's directory may be a symbolic link. Pods can write below ``…/pods/<uid>`` too (emptyDir), but
never inside ``kubernetes.io~csi``, so only root on the node could change a part between this check and the mount.
"""

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from edgemodel.errors import Refused

# A pod's uid is a UUID, or 32 hex digits for static pods; a volume's name is a DNS label (kubernetes/api/core/v1).
_TARGET = re.compile(
    r"pods/([0-9A-Za-z-]{1,64})/volumes/kubernetes\.io~csi/[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?/mount"
)


class BadTarget(Refused):
    """The path is not one at which the kubelet mounts a pod's CSI volume."""

    def __init__(self, message: str) -> None:
        super().__init__("InvalidTarget", message)


@dataclass(frozen=True, slots=True)
class Target:
    """A path that was checked, and the pod it belongs to."""

    path: Path
    pod_uid: str


def parse(kubelet: Path, text: str) -> Target:
    """Return the target, looked at as text only.

    Raises:
        BadTarget: it has another shape.
    """
    prefix = f"{kubelet}/"
    found = _TARGET.fullmatch(text.removeprefix(prefix)) if text.startswith(prefix) else None
    if found is None:
        raise BadTarget(
            f"target_path: expected {kubelet}/pods/<uid>/volumes/kubernetes.io~csi/<volume>/mount, found "
            f"{text[:256]!r}; if the kubelet's directory is another one, set the chart's node.kubeletPath to it"
        )
    return Target(Path(text), found[1])


def check(kubelet: Path, target: Target) -> None:
    """Look at every part of the path that exists.

    Raises:
        BadTarget: a part is a link or no directory, or the parent is not there.
    """
    parts = [target.path, *target.path.parents]
    below = [part for part in reversed(parts) if part != kubelet and part.is_relative_to(kubelet)]
    for part in below:
        try:
            mode = os.lstat(part).st_mode
        except FileNotFoundError:
            if part == target.path:
                return
            raise BadTarget(
                f"target_path: expected the directory {part}, which the kubelet makes, found none"
            ) from None
        if not stat.S_ISDIR(mode):
            what = "a symbolic link" if stat.S_ISLNK(mode) else "something else"
            raise BadTarget(
                f"target_path: expected the directory {part}, found {what}; nothing is mounted there"
            )
