"""Publish and sign models with the ``edgemodel`` command, as a publisher would."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.shell import run

EDGEMODEL = Path(sys.executable).with_name("edgemodel")
PASSWORD = {"EDGEMODEL_PASSWORD": "for-tests-only"}


@dataclass(frozen=True)
class Key:
    """A signing key pair on disk."""

    private: Path
    public: Path

    @property
    def pem(self) -> str:
        """The public half, for a policy."""
        return self.public.read_text()


def trust_policy(name: str, images: list[str], keys: list[Key], **spec: Any) -> dict[str, Any]:
    """Return a ModelTrustPolicy that lets in what any of ``keys`` signed under ``images``; ``spec`` overrides."""
    authorities = [{"name": key.private.stem, "publicKey": key.pem} for key in keys]
    return {
        "apiVersion": "edgemodel.io/v1alpha1",
        "kind": "ModelTrustPolicy",
        "metadata": {"name": name},
        "spec": {"match": {"images": images}, "authorities": authorities, **spec},
    }


@dataclass(frozen=True)
class Publisher:
    """Works in one folder against one registry."""

    folder: Path
    registry: str
    flags: tuple[str, ...] = ("--plain-http",)
    """How the registry is reached."""

    def key(self, name: str = "site") -> Key:
        """Return the key pair of that name; made on first use."""
        key = Key(self.folder / f"{name}.key", self.folder / f"{name}.pub")
        if not key.private.exists():
            run(EDGEMODEL, "keygen", "--output-key-prefix", self.folder / name, env=PASSWORD)
        return key

    def publish(
        self,
        model: Path,
        reference: str,
        *,
        version: str,
        sequence: int | None = None,
        key: Key | None = None,
        extra: tuple[Path, ...] = (),
        more: tuple[str, ...] = (),
        timeout: float = 120.0,
    ) -> str:
        """Push ``model`` under ``reference`` (repository:tag), sign it if a key is given, and return its digest.

        ``timeout`` is in seconds: deltas of large models take long.
        """
        command = [
            str(EDGEMODEL),
            "publish",
            *(str(path) for path in (model, *extra)),
            "--to",
            f"{self.registry}/{reference}",
        ]
        command += [*self.flags, "--output", "json", "--version", version]
        command += ["--sequence", str(sequence)] if sequence is not None else []
        command += ["--key", str(key.private)] if key else []
        done = run(*command, *more, env=PASSWORD, timeout=timeout)
        return str(json.loads(done.stdout)["digest"])

    def sign(self, reference: str, key: Key) -> None:
        """Sign what is already there; ``reference`` is repository:tag or repository@sha256:…."""
        run(
            EDGEMODEL, "sign", f"{self.registry}/{reference}", "--key", key.private, *self.flags, env=PASSWORD
        )
