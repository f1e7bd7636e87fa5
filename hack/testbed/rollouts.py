"""What happens to a model that is asked hundreds of times a second, scenario by scenario, and the figures of each.

The end-to-end tests run them short and say what must hold; the benchmark runs them long and states the figures. Every
scenario begins with a trial that serves and ends with one that serves; whatever a client noticed is in the load.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import onnx

from testbed.load import Load
from testbed.trial import STOP_FIRST, Trial


@dataclass(frozen=True)
class Promotion:
    """A new version took over."""

    load: Load
    seconds: float
    """From the tag's move until no pod of the old version was left."""
    both: float
    """From the first answer of the new version to the last of the old one."""
    weights: tuple[int, ...]
    """Of the new version, as status told them, each once."""


def promote(trial: Trial, strategy: dict[str, Any], requests: int) -> Promotion:
    """Replace v1 by v2 under load, and go on until so many requests are over and v2 has answered alone for a while."""
    trial.serve("v1", rollout=strategy)
    with trial.watching() as watched, trial.load("v1", "v2") as load:
        trial.await_more(load, requests // 10)
        digest = trial.publish("v2")
        began = time.time()
        trial.await_active(digest)
        ended = time.time()
        trial.await_requests(load, requests)
        trial.await_more(load, requests // 10)
    weights: list[int] = []
    for _, model in watched.seen:
        weight = (model.get("status", {}).get("rollout") or {}).get("weight")
        if weight is not None and weight not in weights:
            weights.append(weight)
    first = min((answer.at for answer in load.timeline() if answer.version == "v2"), default=0.0)
    return Promotion(load, ended - began, load.last_at("v1") - first, tuple(weights))


@dataclass(frozen=True)
class TakenBack:
    """A bad version was taken back."""

    load: Load
    reason: str
    message: str
    verdict: float
    """When status said so here (POSIX time)."""
    to_last_good: float
    """Seconds from then to the last answer of the bad version; 0 when it had had none after it."""
    to_verdict: float
    """Seconds from the bad version's first answer, or first crash, to the verdict; 0 when it had neither."""


def take_back(
    trial: Trial,
    strategy: dict[str, Any],
    built: onnx.ModelProto,
    requests: int,
    *,
    golden: bool = True,
    **spec: Any,
) -> TakenBack:
    """Publish a bad version as v2 beside v1 under load; go on until so many requests are over and it is long gone."""
    trial.serve("v1", rollout=strategy, **spec)
    with ExitStack() as stack:
        models = stack.enter_context(trial.watching())
        pods = stack.enter_context(trial.watching("pods"))
        load = stack.enter_context(trial.load("v1", "v2"))
        trial.await_more(load, requests // 10)
        digest = trial.publish("v2", built, golden=golden)
        label = digest.removeprefix("sha256:")[:16]
        told = trial.await_rolled_back(digest)
        verdict = trial.bed.kube.until(
            lambda: models.first(
                lambda model: (model["status"].get("rolledBack") or {}).get("digest") == digest
            ),
            "the watch to see it",
        )
        trial.await_requests(load, requests)
        trial.await_more(load, requests // 10)
        trial.bed.kube.until(
            lambda: not trial.bed.kube.list("pods", trial.namespace, f"edgemodel.io/digest={label}"),
            "the bad version's pods to be gone",
            timeout=120,
        )

    def crashed(pod: dict[str, Any]) -> bool:
        return pod["metadata"]["labels"].get("edgemodel.io/digest") == label and any(
            "terminated" in {**status.get("state", {}), **status.get("lastState", {})}
            for status in pod["status"].get("containerStatuses", [])
        )

    begins = [answer.at for answer in load.timeline() if answer.version == "v2"][:1]
    with suppress(LookupError):
        begins.append(pods.first(crashed))
    return TakenBack(
        load,
        told["reason"],
        told["message"],
        verdict,
        max(0.0, load.last_at("v2") - verdict),
        max(0.0, verdict - min(begins)) if begins else 0.0,
    )


def disturb(trial: Trial, act: Callable[[], object], requests: int, *, resend: bool = False) -> Load:
    """Do something beside a load on v1, and go on until so many requests are over and it is well behind."""
    with trial.load("v1", resend=resend) as load:
        trial.await_more(load, requests // 4)
        act()
        trial.await_requests(load, requests)
        trial.await_more(load, requests // 4)
    return load


def stop_first(trial: Trial, requests: int) -> tuple[Load, float]:
    """Replace v1 by v2 where there is room for one; return the load and how long nobody got an answer, in seconds."""
    trial.serve("v1", rollout=STOP_FIRST)
    with trial.load("v1", "v2") as load:
        trial.await_more(load, requests // 10)
        digest = trial.publish("v2")
        trial.await_active(digest)
        trial.await_requests(load, requests)
        trial.await_more(load, requests // 10)
    return load, load.longest_gap()
