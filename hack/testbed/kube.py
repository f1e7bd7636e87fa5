"""``kubectl`` against one context; refuses a context that is not ours."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.paths import BIN
from testbed.shell import run
from testbed.waiting import until

OWN_CONTEXT_PREFIX = "edgemodel-"


class ForeignContext(RuntimeError):
    """Tests were pointed at a cluster that is not theirs."""


@dataclass(frozen=True)
class Kube:
    """One cluster, reached with the kubectl of ``hack/cluster``.

    Attributes:
        kubeconfig: file to read; None leaves it to kubectl's own default.
        context: name of the context.
        foreign: a person named this context; otherwise it must begin with ``edgemodel-``.
    """

    kubeconfig: Path | None
    context: str
    foreign: bool = False

    def __post_init__(self) -> None:
        if not self.foreign and not self.context.startswith(OWN_CONTEXT_PREFIX):
            raise ForeignContext(
                f"kube-context {self.context!r} does not begin with {OWN_CONTEXT_PREFIX!r}: "
                "start a cluster with `make cluster-up` and use its kubeconfig"
            )

    @property
    def flags(self) -> list[str]:
        """Flags that name the cluster, for kubectl."""
        return [
            *(["--kubeconfig", str(self.kubeconfig)] if self.kubeconfig else []),
            "--context",
            self.context,
        ]

    def __call__(
        self, *arguments: str, stdin: str | None = None, timeout: float = 120.0, check: bool = True
    ) -> str:
        """Run kubectl and return what it printed (both streams when it may fail)."""
        kubectl = BIN / "kubectl" if (BIN / "kubectl").exists() else Path("kubectl")
        done = run(kubectl, *self.flags, *arguments, stdin=stdin, timeout=timeout, check=check)
        return done.stdout if check else done.stdout + done.stderr

    def apply(self, document: str | dict[str, Any], *, check: bool = True) -> str:
        """Server-side apply one document, as a person would."""
        text = document if isinstance(document, str) else json.dumps(document)
        return self("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text, check=check)

    def get(self, kind: str, name: str, namespace: str = "default") -> dict[str, Any]:
        """Return one object; LookupError if there is none."""
        text = self("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
        if not text.strip():
            raise LookupError(f"no {kind} {namespace}/{name}")
        found: dict[str, Any] = json.loads(text)
        return found

    def list(self, kind: str, namespace: str = "default", selector: str = "") -> list[dict[str, Any]]:
        """Return all objects of a kind in a namespace."""
        text = self("get", kind, "-n", namespace, "-o", "json", *(["-l", selector] if selector else []))
        items: list[dict[str, Any]] = json.loads(text)["items"]
        return items

    def condition(self, name: str, kind: str, namespace: str = "default") -> dict[str, Any]:
        """Return one condition of an EdgeModel; LookupError while it has none."""
        for condition in self.get("edgemodel", name, namespace).get("status", {}).get("conditions", []):
            if condition["type"] == kind:
                found: dict[str, Any] = condition
                return found
        raise LookupError(f"{namespace}/{name} has no condition {kind}")

    def await_condition(
        self,
        name: str,
        kind: str,
        status: str,
        reason: str | None = None,
        namespace: str = "default",
        timeout: float = 60,
    ) -> dict[str, Any]:
        """Wait until a condition is as said and speaks of the present generation, and return it."""

        def there() -> dict[str, Any] | None:
            model = self.get("edgemodel", name, namespace)
            for condition in model.get("status", {}).get("conditions", []):
                if condition["type"] == kind:
                    fits = condition["status"] == status and reason in (None, condition["reason"])
                    current = condition.get("observedGeneration") == model["metadata"]["generation"]
                    if fits and current:
                        return dict(condition)
                    raise LookupError(json.dumps(condition))
            return None

        wanted = f"{kind}={status}" + (f"/{reason}" if reason else "")
        return until(there, f"{namespace}/{name} to be {wanted}", timeout=timeout)

    def until(self, check: Callable[[], Any], what: str, timeout: float = 60) -> Any:
        """Wait for something on this cluster."""
        return until(check, what, timeout=timeout)
