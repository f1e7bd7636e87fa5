"""Reads, about once a second, what the pods of a candidate and of the active version say of themselves.

Promises

* Only while a model has a candidate with pods; otherwise nothing runs and nothing is kept.
* Pods are not trusted: an answer that is slow, long, or nonsense counts as none. Nothing but a pod's own address is asked;
  no redirects, no proxy, no cookies.
* Reading takes a tenth of one core at most: with many models that change at once, rounds come less often. Counters lose
  nothing by it.
* A pass is asked for when a verdict changed or its samples doubled, once a round at most: a candidate that is held for hours
  on a busy site costs no passes.

Everything is in memory. After a restart of the operator evidence begins anew, and ``CandidateEvidence.since`` says so.
Leaves to others: which pods there are (passes tell), counting (``rollout.evidence``), judging (``rollout.gate``).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import aiohttp

from edgemodel.artifact import strict_json
from edgemodel.controller.sightings import Key
from edgemodel.controller.workqueue import WorkQueue
from edgemodel.reconcile.child import digest_label, shown_version
from edgemodel.reconcile.deployment import PORT
from edgemodel.reconcile.observed import GatewayPod, Observed
from edgemodel.reconcile.pods import clean
from edgemodel.reconcile.servers import Server, read_server
from edgemodel.reconcile.verdicts import limits
from edgemodel.reconcile.wanted import steps
from edgemodel.rollout.evidence import CandidateEvidence, GoldenResult, Ledger, Role, Sample
from edgemodel.rollout.gate import GateLimits, judge
from edgemodel.rollout.server_metrics import NotMetrics, read_sample
from edgemodel.rollout.shadow import Copies, Reading, ShadowLedger, Trial, read_copies

log = logging.getLogger(__name__)

SECONDS = 1.0
"""Time from one round to the next, and time that a pod has to answer, unless it is said otherwise."""
MAX_METRICS = 1 << 20
MAX_GOLDEN = 1 << 16
_AT_ONCE = 32
_BUSY = 0.1
"""Part of one core that reading may take."""
_POD_MESSAGE = 200
GATEWAY_PORT = 8083
"""Of the gateway's own metrics; the chart sets no other."""


class Unreadable(Exception):
    """A pod gave no answer that is of use."""


@dataclass(slots=True)
class _Trial:
    """One candidate, and what is known of it."""

    ledger: Ledger
    model: str
    versions: dict[Role, str]
    """What the label ``version`` holds."""
    servers: dict[Role, tuple[Server, ...]]
    read_at: float
    copies: ShadowLedger
    gateways: tuple[GatewayPod, ...] = ()
    """Those that make copies of requests for it; none when none are to be made."""
    shadowed: bool = False
    limits: GateLimits = field(default_factory=GateLimits)
    told: tuple[object, ...] = ()
    """Verdicts for which a pass was asked for."""
    told_samples: tuple[int, int] = (0, 0)
    golden: dict[str, GoldenResult] = field(default_factory=dict)
    """By the pod's uid."""

    def news(self) -> bool:
        """Say whether the evidence is worth a pass, and take it for told."""
        found = self.evidence()
        judged = judge(self.limits, found.candidate, found.active, found.shadowed)
        verdicts = tuple((one.name, one.result) for one in judged)
        compared = found.shadowed.total.compared if found.shadowed is not None else 0
        samples = (found.candidate.total.requests, compared)
        few = all(
            before <= now < 2 * max(1, before) for before, now in zip(self.told_samples, samples, strict=True)
        )
        if verdicts == self.told and few:
            return False
        self.told, self.told_samples = verdicts, samples
        return True

    def evidence(self) -> CandidateEvidence:
        present = {server.uid for server in self.servers.get("candidate", ())}
        golden = tuple(result for uid, result in self.golden.items() if uid in present)
        return self.ledger.evidence(golden, self.copies.seen() if self.shadowed else None)


class Evidence:
    """What is known of all candidates; see the module's docstring. ``close`` it in the end."""

    def __init__(
        self,
        queue: WorkQueue[Key],
        *,
        port: int = PORT,
        gateway_port: int = GATEWAY_PORT,
        interval: float = SECONDS,
        patience: float = SECONDS,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._queue = queue
        self._port = port
        self._gateway_port = gateway_port
        self._interval = interval
        self._patience = patience
        self._clock = clock
        self._wall = wall
        self._trials: dict[Key, _Trial] = {}
        self._wake = asyncio.Event()
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._worked = 0.0
        self._client: aiohttp.ClientSession | None = None

    def observe(self, observed: Observed) -> CandidateEvidence | None:
        """Take over which pods there are; return what is known of the candidate, None when there is none."""
        model = observed.model
        key = Key("EdgeModel", model.metadata.namespace, model.metadata.name)
        candidate, active = model.status.slots.candidate, model.status.slots.active
        if candidate is None:
            self._trials.pop(key, None)
            return None
        trial = self._trials.get(key)
        if trial is None or trial.ledger.digest != candidate.digest:
            ledger = Ledger(candidate.digest)
            copies = ShadowLedger(Trial(key.namespace, key.name, candidate.digest))
            trial = self._trials[key] = _Trial(ledger, key.name, {}, {}, self._clock(), copies)
        trial.limits = limits(model.spec.rollout.gate, len(steps(model.spec.rollout)))
        rollout = model.status.rollout
        step = (rollout.step, rollout.step_since) if rollout is not None else None
        # Before pods are looked at: what ended since the last look has ended in this step.
        weight = rollout.weight if rollout is not None else 0
        trial.ledger.begin(step, weight, self._wall())
        trial.copies.begin(step)
        # With all requests its own there are none of the active version's to be copied.
        copied = model.spec.traffic.shadow.percent > 0 and weight < 100
        trial.shadowed = copied and observed.gateway is not None
        trial.gateways = (observed.gateway or ()) if trial.shadowed else ()
        servers = [server for pod in observed.pods if (server := read_server(pod, self._port)) is not None]
        slots: tuple[tuple[Role, Any], ...] = (("candidate", candidate), ("active", active))
        for role, slot in slots:
            label = digest_label(slot.digest) if slot is not None else None
            own = tuple(server for server in servers if server.digest == label)
            trial.servers[role] = own
            trial.versions[role] = shown_version(slot) if slot is not None else ""
            trial.ledger.see(role, {server.uid: server.life for server in own})
        self._wake.set()
        return trial.evidence()

    def forget(self, namespace: str, name: str) -> None:
        """Drop what is known: the model is gone."""
        self._trials.pop(Key("EdgeModel", namespace, name), None)

    async def run(self) -> None:
        """Make rounds for ever; rest while there is no candidate."""
        while True:
            if not self._trials:
                await self._rest()
            began, self._worked = self._clock(), 0.0
            await self.round()
            wanted = max(self._interval, self._worked / _BUSY)
            await asyncio.sleep(max(0.0, began + wanted - self._clock()))

    async def round(self) -> None:
        """Read every pod of every candidate, and of the active version beside it, once."""
        trials = list(self._trials.items())
        gateways = {pod.uid: pod.address for _, trial in trials for pod in trial.gateways}
        read = await asyncio.gather(*map(self._gateway, gateways.values()))
        copies = dict(zip(gateways, read, strict=True))
        ended = await asyncio.gather(
            *(self._read(key, trial, copies) for key, trial in trials), return_exceptions=True
        )
        for (key, _), error in zip(trials, ended, strict=True):
            if isinstance(error, Exception):
                # A mistake of ours, met by what one model's pods wrote: it must not end the operator of all the others.
                log.error(
                    "evidence not read",
                    extra={"namespace": key.namespace, "object": key.name},
                    exc_info=error,
                )

    async def close(self) -> None:
        """Close all connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _rest(self) -> None:
        await self.close()
        while not self._trials:
            self._wake.clear()
            await self._wake.wait()

    async def _read(self, key: Key, trial: _Trial, gateways: Mapping[str, Reading | None]) -> None:
        # Until a candidate has pods it waits to be delivered, for hours perhaps.
        if not trial.servers["candidate"]:
            trial.read_at = self._clock()
            return
        asked: list[tuple[Role, Server]] = [
            (role, server) for role, servers in trial.servers.items() for server in servers if server.url
        ]
        untold = [server for role, server in asked if role == "candidate" and server.uid not in trial.golden]
        samples, told = await asyncio.gather(
            asyncio.gather(*(self._sample(trial, role, server) for role, server in asked)),
            asyncio.gather(*(self._golden(trial.model, server) for server in untold)),
        )
        now = self._clock()
        seconds, trial.read_at = now - trial.read_at, now
        read: dict[Role, dict[str, Sample | None]] = {"candidate": {}, "active": {}}
        for (role, server), sample in zip(asked, samples, strict=True):
            read[role][server.uid] = sample
        began = time.perf_counter()
        new = Copies()
        if trial.shadowed:
            new = trial.copies.add({pod.uid: gateways.get(pod.uid) for pod in trial.gateways}, seconds)
        counted = trial.ledger.add(read, seconds, unanswered=new.unanswered)
        news = (counted or new.any) and trial.news()
        self._worked += time.perf_counter() - began
        for server, result in zip(untold, told, strict=True):
            if result is not None:
                trial.golden[server.uid] = result
                news = True
        if news and self._trials.get(key) is trial:
            self._queue.add(key)

    async def _sample(self, trial: _Trial, role: Role, server: Server) -> Sample | None:
        try:
            _, body = await self._get(f"{server.url}/metrics", MAX_METRICS)
            began = time.perf_counter()
            try:
                return read_sample(body.decode(), trial.model, trial.versions[role])
            finally:
                self._worked += time.perf_counter() - began
        except (Unreadable, NotMetrics, UnicodeDecodeError) as error:
            log.debug("no metrics of a pod", extra={"pod": server.name, "error": str(error)})
            return None

    async def _gateway(self, address: str) -> Reading | None:
        """Return what a pod of the gateway counted; None when it gave no answer."""
        host = f"[{address}]" if ":" in address else address
        try:
            _, body = await self._get(f"http://{host}:{self._gateway_port}/metrics", MAX_METRICS)
            began = time.perf_counter()
            try:
                return read_copies(body.decode())
            finally:
                self._worked += time.perf_counter() - began
        except (Unreadable, UnicodeDecodeError) as error:
            log.debug("no metrics of the gateway", extra={"address": address, "error": str(error)})
            return None

    async def _golden(self, model: str, server: Server) -> GoldenResult | None:
        """Return how a pod did on golden samples; None when it gave no answer, and is asked again."""
        try:
            status, body = await self._get(f"{server.url}/v2/models/{model}/golden", MAX_GOLDEN)
            if status == HTTPStatus.NOT_FOUND:
                return GoldenResult(server.name, "Absent", "the server knows nothing of golden samples")
            return read_golden(server.name, body)
        except Unreadable as error:
            log.debug("no golden samples of a pod", extra={"pod": server.name, "error": str(error)})
            return None

    async def _get(self, url: str, most: int) -> tuple[int, bytes]:
        if self._client is None:
            self._client = _client()
        try:
            async with (
                self._free,
                asyncio.timeout(self._patience),
                self._client.get(url, allow_redirects=False) as response,
            ):
                if response.status not in (HTTPStatus.OK, HTTPStatus.NOT_FOUND):
                    raise Unreadable(f"status {response.status}")
                body = bytearray()
                async for piece in response.content.iter_any():
                    body += piece
                    if len(body) > most:
                        raise Unreadable(f"more than {most} bytes")
                return response.status, bytes(body)
        except TimeoutError:
            raise Unreadable(f"no whole answer in {self._patience:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unreadable(type(error).__name__) from None


def read_golden(pod: str, body: bytes) -> GoldenResult:
    """Read what a server tells of golden samples: ``{"outcome", "failures": [{"sample", "output", "message"}]}``.

    Raises:
        Unreadable: it is something else.
    """
    try:
        told = strict_json.parse(body, max_bytes=MAX_GOLDEN)
    except strict_json.NotStrictJson as error:
        raise Unreadable(f"the answer {error}") from None
    outcome = told.get("outcome") if isinstance(told, Mapping) else None
    if outcome not in ("Pass", "Fail", "Absent"):
        raise Unreadable("no outcome that is known")
    failures = told.get("failures")
    first = failures[0] if isinstance(failures, list) and failures else {}
    words = ""
    if outcome == "Fail" and isinstance(first, Mapping):
        words = ", ".join(
            f"{part} {first[part]}" if part != "message" else str(first[part])
            for part in ("sample", "output", "message")
            if isinstance(first.get(part), str) and first[part]
        )
    return GoldenResult(pod, outcome, clean(words, _POD_MESSAGE))


def _client() -> aiohttp.ClientSession:
    # Not httpx, which takes seven times the CPU: this is done for each pod, each second.
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=_AT_ONCE, keepalive_timeout=30),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        headers={
            "User-Agent": "edgemodel-operator",
            "Accept": "text/plain, application/json",
            "Accept-Encoding": "identity",
        },
    )
