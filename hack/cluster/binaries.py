"""Builds the cluster's own binaries from their Go modules, once.

A binary is keyed by the sources and pinned dependencies that it is made of, and kept outside the checkout
(`layout.cache_dir()`/bin), so a second checkout or a `git clean` costs nothing. The newest ones are also
linked under their plain names, for people: `~/.cache/edgemodel/bin/kubectl`.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cluster.layout import HELM_VERSION, KUBERNETES_VERSION, ClusterError, cache_dir

SOURCES = Path(__file__).parent / "cmd"
_KUBERNETES_FLAGS = [
    f"-X k8s.io/component-base/version.gitVersion={KUBERNETES_VERSION}",
    "-X k8s.io/component-base/version.gitMajor=1",
    "-X k8s.io/component-base/version.gitMinor=34",
    # Without it `kubectl version` complains that it can't parse the server's.
    "-X k8s.io/component-base/version.gitTreeState=clean",
]


@dataclass(frozen=True)
class Module:
    """One binary: a folder under cmd/, the package to build in it, and what the linker sets."""

    name: str
    package: str = "."
    link_flags: tuple[str, ...] = ()
    also_called: tuple[str, ...] = ()
    build_minutes: int = 1

    @property
    def directory(self) -> Path:
        return SOURCES / self.name

    def key(self) -> str:
        digest = hashlib.sha256()
        for path in sorted(self.directory.iterdir()):
            if path.suffix in {".go", ".mod", ".sum"}:
                digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
        digest.update(repr((self.package, self.link_flags)).encode())
        return digest.hexdigest()[:16]

    def path(self) -> Path:
        return cache_dir() / "bin" / f"{self.name}-{self.key()}" / self.name


KUBE = Module("kube", link_flags=tuple(_KUBERNETES_FLAGS), also_called=("kubectl",), build_minutes=7)
COREDNS = Module("coredns", build_minutes=2)
PAUSE = Module("pause")
HELM = Module(
    "helm",
    package="helm.sh/helm/v4/cmd/helm",
    link_flags=(f"-X helm.sh/helm/v4/internal/version.version={HELM_VERSION}",),
    build_minutes=2,
)
MODULES = (KUBE, PAUSE, COREDNS, HELM)


def ensure(modules: tuple[Module, ...], say: Callable[[str], None]) -> None:
    """Build those that are not in the cache. Two callers at once build each only once.

    Raises:
        ClusterError: There is no Go toolchain, or the build failed.
    """
    directory = cache_dir() / "bin"
    directory.mkdir(parents=True, exist_ok=True)
    for module in modules:
        if not module.path().exists():
            with (directory / f".{module.name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not module.path().exists():
                    _build(module, say)
        _link(module)


def _build(module: Module, say: Callable[[str], None]) -> None:
    if not shutil.which("go"):
        raise ClusterError(
            f"{module.name} has to be built, and there is no `go` on PATH; install Go 1.26 or newer"
        )
    say(f"building {module.name} (about {module.build_minutes} min on two cores, once)")
    started = time.monotonic()
    target = module.path()
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(".new")
    command = ["go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly"]
    command += ["-ldflags", " ".join(["-s -w", *module.link_flags]), "-o", str(temporary), module.package]
    environment = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"}
    result = subprocess.run(
        command, cwd=module.directory, env=environment, check=False, capture_output=True, text=True
    )
    if result.returncode != 0:
        tail = "\n".join(result.stderr.splitlines()[-20:])
        raise ClusterError(
            f"building {module.name} failed (exit {result.returncode}):\n{tail}\n"
            f"To see it whole: cd {module.directory} && {' '.join(command[:2])} {module.package}"
        )
    temporary.replace(target)
    say(f"built {module.name} in {time.monotonic() - started:.0f} s: {target}")


def _link(module: Module) -> None:
    for name in (module.name, *module.also_called):
        link = cache_dir() / "bin" / name
        if link.resolve() == module.path():
            continue
        temporary = link.with_name(f".{name}.new")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(module.path().relative_to(link.parent))
        temporary.replace(link)
