"""What clients notice of rollouts, rollbacks, deaths and drains: 50,000 requests each, 700 a second (500 where slow).

Two nodes and two gateways on this machine; every answer is held against what ONNX Runtime says of the version named in it.
The goals are no failed and no wrong answer anywhere but where the strategy says that service pauses (StopFirst), at
most 3 s from a verdict to the last answer of the version that was taken back, and at most 15 s from a candidate's first
crash to its being taken back. A candidate that answers 500 to some requests is found out by these answers, so there are
some: how many is stated. When a gateway's agent dies nobody notices. When HAProxy dies, or the whole container, its
connections break, and new ones wait until it is back. Clients here send those whose connection broke once more, as HTTP
clients do with what may be repeated.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.figures import Report
from testbed import bad_models, rollouts
from testbed.installation import Testbed, start
from testbed.load import Load
from testbed.publisher import Publisher
from testbed.trial import AGENT, CANARY, HAPROXY, NAME, SUPERVISOR, SURGE, Trial

REQUESTS = int(os.environ.get("ROLLOUT_REQUESTS", "50000"))
RATE, BUSY_RATE = 700.0, 500.0
"""Requests a second; the second where each takes a millisecond of a core."""
LIMITED = {"resources": {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}}}


class Bench:
    """The scenarios, one after the other, on one cluster."""

    def __init__(self, bed: Testbed, folder: Path, report: Report) -> None:
        self.bed, self.report = bed, report
        self.publisher = Publisher(folder, bed.registry)
        self.folder = folder

    @contextmanager
    def trial(self, name: str, *, rounds: int = 0) -> Iterator[Trial]:
        """Yield a trial in a namespace of its own, which is gone afterwards."""
        namespace = f"bench-{name.replace('_', '-')}"
        self.bed.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        key = self.publisher.key("bench")
        made = Trial(
            self.bed,
            namespace,
            self.publisher,
            key,
            self.folder,
            rate=BUSY_RATE if rounds else RATE,
            rounds=rounds,
        )
        print(f"\n{time.strftime('%X')} {name}", flush=True)
        try:
            yield made
        except BaseException:
            print(self.bed.describe(namespace)[-20_000:], flush=True)
            raise
        finally:
            made.end()
            self.bed.kube.until(
                lambda: not self.bed.kube.list("pods", namespace), "the pods to be gone", timeout=120
            )

    def load(self, name: str, load: Load, *, goal: bool = True) -> None:
        """State what came of a load."""
        print(f"  {load.summary()}", flush=True)
        for words in load.trouble[:5]:
            print(f"  {words}", flush=True)
        zero = 0 if goal else None
        self.report.add(f"{name}_requests", load.total, "", ">=", REQUESTS)
        self.report.add(f"{name}_failed", len(load.failures), "", "<=" if goal else "", zero)
        self.report.add(f"{name}_wrong", len(load.wrong), "", "<=", 0)
        self.report.add(f"{name}_p50", load.percentile(0.5) * 1e3, "ms")
        self.report.add(f"{name}_p99", load.percentile(0.99) * 1e3, "ms")

    def promote(self, name: str, strategy: dict[str, Any]) -> None:
        """Replace a version by a good one."""
        with self.trial(name) as trial:
            promotion = rollouts.promote(trial, strategy, REQUESTS)
        self.load(name, promotion.load)
        self.report.add(f"{name}_seconds", promotion.seconds, "s")
        self.report.add(f"{name}_both_answer_seconds", promotion.both, "s")
        self.report.notes[f"{name}_weights"] = promotion.weights

    def take_back(
        self,
        name: str,
        strategy: dict[str, Any],
        built: Any,
        rounds: int = 0,
        *,
        goal: bool = True,
        **spec: Any,
    ) -> None:
        """Replace a version by a bad one, which must not stay."""
        with self.trial(name, rounds=rounds) as trial:
            back = rollouts.take_back(trial, strategy, built, REQUESTS, **spec)
        self.load(name, back.load, goal=goal)
        self.report.add(f"{name}_answers_of_bad", back.load.answers["v2"], "")
        self.report.add(f"{name}_to_verdict_seconds", back.to_verdict, "s")
        self.report.add(f"{name}_verdict_to_last_good_seconds", back.to_last_good, "s", "<=", 3)
        self.report.notes[f"{name}_reason"] = f"{back.reason}: {back.message}"

    def disturb(
        self, name: str, act: Callable[[Trial], object], *, resend: bool = False, goal: bool = True
    ) -> None:
        """Do something beside a load."""
        with self.trial(name) as trial:
            trial.serve("v1")
            load = rollouts.disturb(trial, lambda: act(trial), REQUESTS, resend=resend)
        self.load(name, load, goal=goal)
        self.report.add(f"{name}_longest_gap", load.longest_gap(), "s")
        if resend:
            self.report.add(f"{name}_sent_twice", load.resent, "")


def drain(trial: Trial) -> None:
    """Drain a node until the pods are elsewhere, and take it back in."""
    with trial.drained(trial.nodes()[1]):
        trial.bed.kube.until(lambda: trial.ready_pods() == 2, "the pods to be elsewhere", timeout=120)


def reconfigure(trial: Trial) -> None:
    """Change what the gateway has to know of the model, several times."""
    for limit in (64, 256, 128):
        trial.apply(traffic={"queue": {"limit": limit, "timeout": "4s"}, "sticky": limit == 64})
        trial.bed.kube.await_condition(NAME, "Ready", "True", "Serving", trial.namespace)


def crash(bench: Bench) -> None:
    """Replace a version by one that the kernel kills while it loads."""
    bench.take_back("crashing", SURGE, bad_models.crashing("v2"), server=LIMITED)
    verdict = next(one for one in bench.report.figures if one.name == "crashing_to_verdict_seconds")
    bench.report.add("crashing_to_rolled_back_seconds", verdict.value, "s", "<=", 15)


def stop_first(bench: Bench) -> None:
    """Replace a version where there is room for one."""
    with bench.trial("stop_first") as trial:
        load, gap = rollouts.stop_first(trial, REQUESTS)
    bench.load("stop_first", load, goal=False)
    bench.report.add("stop_first_gap", gap, "s")


def scenarios(bench: Bench) -> dict[str, Callable[[], None]]:
    """Return all of them, in their order."""
    leaking = bad_models.leaking("v2", requests=400, megabytes=200)
    patient = {**CANARY, "steps": [{"weight": 20, "pause": "60s"}]}
    rounds = bad_models.SLOW_ROUNDS // 5

    def kill(processes: bytes) -> Callable[[Trial], object]:
        return lambda trial: trial.kill_gateway(processes)

    return {
        "surge": lambda: bench.promote("surge", SURGE),
        "canary": lambda: bench.promote("canary", CANARY),
        "wrong_surge": lambda: bench.take_back("wrong_surge", SURGE, bad_models.wrong("v2")),
        "wrong_canary": lambda: bench.take_back("wrong_canary", CANARY, bad_models.wrong("v2")),
        "slow": lambda: bench.take_back("slow", CANARY, bad_models.slow("v2"), rounds),
        "failing": lambda: bench.take_back("failing", CANARY, bad_models.failing("v2"), goal=False),
        "crashing": lambda: crash(bench),
        "leaking": lambda: bench.take_back("leaking", patient, leaking, server=LIMITED),
        "kill_server": lambda: bench.disturb("kill_server", Trial.kill_server),
        "kill_operator": lambda: bench.disturb("kill_operator", Trial.kill_operator),
        "kill_node_agent": lambda: bench.disturb(
            "kill_node_agent", lambda trial: trial.nodes()[1].kill_agent()
        ),
        "kill_gateway_agent": lambda: bench.disturb("kill_gateway_agent", kill(AGENT)),
        "kill_haproxy": lambda: bench.disturb("kill_haproxy", kill(HAPROXY), resend=True),
        "kill_gateway": lambda: bench.disturb("kill_gateway", kill(SUPERVISOR), resend=True),
        "drain": lambda: bench.disturb("drain", drain),
        "reconfigure": lambda: bench.disturb("reconfigure", reconfigure),
        "crowd": lambda: bench.disturb("crowd", lambda trial: trial.crowd(100)),
        "stop_first": lambda: stop_first(bench),
    }


def run() -> bool:
    """Run the benchmark, or only the scenarios named in ``ROLLOUT_ONLY``; True when every goal is met."""
    report = Report("rollout")
    more = {"gateway": {"replicas": 2}, "node": {"heartbeatSeconds": 3}, "settings": {"nodeLookInterval": 3}}
    with (
        start("bench", nodes=2, more=more) as bed,
        TemporaryDirectory(prefix="edgemodel-bench-") as folder,
    ):
        known = scenarios(Bench(bed, Path(folder), report))
        chosen = [name for name in os.environ.get("ROLLOUT_ONLY", "").split(",") if name] or list(known)
        report.keep(known, chosen)
        for name in chosen:
            try:
                known[name]()
            except (AssertionError, TimeoutError) as error:
                # One that did not come to its end is a figure as well, and hides no other.
                print(f"  {name} did not end: {error}"[:2000], flush=True)
                report.add(f"{name}_ended", 0, "", ">=", 1)
                report.notes[f"{name}_did_not_end"] = str(error)[:500]
            report.ran(name)
    return report.finish()
