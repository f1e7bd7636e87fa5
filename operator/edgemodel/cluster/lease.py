"""Leader election on one Lease: at most one replica acts, another takes over when it is silent.

Clock-skew safe, as client-go's: the time another holder wrote is never compared with our clock. A standby
notes, by its own monotonic clock, when it last *saw* the Lease change, and takes over only when it has
watched it stand still for the whole lease duration. The leader, by its own clock, stops acting at the renew
deadline, which ends before any standby's wait can: ``leading()`` turns False by itself, without a task
having to run. That is the fence the client asks before each write.

A write that was sent just before the deadline may land after it, as with client-go; ours are applies and
deletions with a uid as precondition, so a late one repeats what the next leader would do.

Leaves to others: what leading means, and ending the process once leadership is lost (``controller.app``
does). Source of the protocol: client-go tools/leaderelection; the fields are those of
coordination.k8s.io/v1.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from edgemodel.cluster.client import ApiServer, Conflict, Object
from edgemodel.cluster.kinds import LEASE
from edgemodel.errors import EdgeModelError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """Seconds; duration > renew deadline > retry: a leader gives up before a standby takes over."""

    duration: float = 15.0
    renew_deadline: float = 10.0
    retry: float = 2.0

    def __post_init__(self) -> None:
        if not self.duration > self.renew_deadline > self.retry > 0:
            raise ValueError(
                f"expected duration > renew deadline > retry > 0, "
                f"found {self.duration} > {self.renew_deadline} > {self.retry}"
            )


class LeaseElection:
    """One candidate for one Lease."""

    def __init__(
        self,
        api: ApiServer,
        *,
        namespace: str,
        name: str,
        identity: str,
        times: LeaseTimes | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._times = times or LeaseTimes()
        self._clock = clock
        self._leads_until: float | None = None
        self._seen: tuple[object, ...] | None = None
        self._seen_at = 0.0

    def leading(self) -> bool:
        """Whether this replica may act now; costs nothing, does no I/O."""
        return self._leads_until is not None and self._clock() < self._leads_until

    async def acquire(self) -> None:
        """Return once this replica leads."""
        while True:
            try:
                if await self.attempt():
                    return
            except EdgeModelError as error:
                log.warning("lease not reachable", extra={"lease": self._name, "error": str(error)})
            await asyncio.sleep(self._times.retry * (1 + random.random() * 0.2))  # noqa: S311 - spreads load

    async def hold(self) -> None:
        """Keep renewing; return once leadership is lost."""
        while self.leading():
            await asyncio.sleep(self._times.retry)
            try:
                # A renewal that outlives the deadline is of no use: the fence is down by then.
                async with asyncio.timeout(self._times.renew_deadline):
                    if not await self.attempt():
                        return
            except (EdgeModelError, TimeoutError) as error:
                log.warning("lease not renewed", extra={"lease": self._name, "error": str(error)})

    async def attempt(self) -> bool:
        """Try once to get or renew the Lease; True when this replica leads.

        Raises:
            EdgeModelError: the API server could not be asked; what ``leading`` says goes on holding.
        """
        began = self._clock()
        live = await self._api.get(LEASE, self._namespace, self._name)
        if live is None:
            body = self._body({}, transitions=0, acquired=None)
        else:
            spec = live.get("spec") or {}
            self._observe(live)
            holder = spec.get("holderIdentity") or ""
            if holder and holder != self._identity and not self._stood_still():
                self._leads_until = None
                return False
            mine = holder == self._identity
            body = self._body(
                live["metadata"],
                transitions=int(spec.get("leaseTransitions") or 0) + (0 if mine else 1),
                acquired=spec.get("acquireTime") if mine else None,
            )
        try:
            written = await self._write(body, create=live is None)
        except Conflict:
            # Another replica was faster, or our own lost answer had got through: the next look tells.
            return self.leading()
        self._observe(written)
        self._leads_until = began + self._times.renew_deadline
        return True

    async def release(self) -> None:
        """Give the Lease up so that a standby need not wait; harmless when not leading."""
        if not self.leading():
            return
        live = await self._api.get(LEASE, self._namespace, self._name)
        self._leads_until = None
        if live is None or (live.get("spec") or {}).get("holderIdentity") != self._identity:
            return
        body = self._body(
            live["metadata"], transitions=int(live["spec"].get("leaseTransitions") or 0), acquired=None
        )
        body["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
        await self._write(body, create=False)

    def _observe(self, lease: Object) -> None:
        spec = lease.get("spec") or {}
        seen = (
            lease["metadata"].get("resourceVersion"),
            spec.get("holderIdentity"),
            spec.get("renewTime"),
            spec.get("leaseTransitions"),
        )
        if seen != self._seen:
            self._seen, self._seen_at = seen, self._clock()

    def _stood_still(self) -> bool:
        return self._clock() - self._seen_at > self._times.duration

    def _body(self, metadata: dict[str, Any], *, transitions: int, acquired: str | None) -> Object:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        kept = {key: metadata[key] for key in ("resourceVersion", "uid") if key in metadata}
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.name,
            "metadata": {"name": self._name, "namespace": self._namespace, **kept},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": max(1, round(self._times.duration)),
                "acquireTime": acquired or now,
                "renewTime": now,
                "leaseTransitions": transitions,
            },
        }

    async def _write(self, body: Object, *, create: bool) -> Object:
        # Election must write while the fence is still down.
        if create:
            return await self._api.create(LEASE, body, fenced=False)
        return await self._api.replace(LEASE, body, fenced=False)
