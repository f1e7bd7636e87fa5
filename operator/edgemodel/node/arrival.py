"""One entry's way onto the node: judged, waited for its window and its turn, brought, installed; and again after a failure.

Promises
- Nothing is given to a pod but what passed the policies of now, judged by what is on this disk; a registry is asked for more
  signatures only when these do not suffice. No clock has a part in it.
- A failure is said, waited out with full jitter, and tried again, for ever; whoever waits is told of it at once.
- A way that was cut (process killed, entry changed, window closed) goes on where it was.

Leaves to others: which entries there are (``arrivals``), bytes (``transfer``), what else is in the store (``store``).
"""

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from edgemodel.api import schedule
from edgemodel.api.conditions import Reason
from edgemodel.artifact import sealing
from edgemodel.artifact.credentials import Credentials
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.image_layout import ImageLayout
from edgemodel.artifact.policy import Policy
from edgemodel.artifact.reference import Reference
from edgemodel.artifact.registry import Registry
from edgemodel.artifact.trust import Verdict
from edgemodel.artifact.verify import Examined, examine
from edgemodel.errors import EdgeModelError, Refused, Stalled, Transient, Waiting
from edgemodel.node import imports
from edgemodel.node.backoff import Backoff, share, spread
from edgemodel.node.entry import Entry
from edgemodel.node.site import Site
from edgemodel.node.transfer import Brought, Progress

log = logging.getLogger(__name__)

_REASONS = {
    "Full": Reason.PULLED,
    "Delta": Reason.DELTA_APPLIED,
    "Imported": Reason.IMPORTED,
    "": Reason.PULLED,
}
_LOOK_SECONDS = 60.0
"""How often a closed window is looked at again: the clock may be set meanwhile."""


class Arrival:
    """One entry on its way, or here.

    Args:
        entry: may be replaced by one of the ``same_work``; call ``nudge`` then.
        site: see there.
    """

    def __init__(self, entry: Entry, site: Site) -> None:
        self.entry = entry
        self.directory: Path | None = None
        """What pods may mount; None until it is judged and whole."""
        self.failure: EdgeModelError | None = None
        """Why it is not here, after a try that failed."""
        self.blobs: frozenset[Digest] = frozenset()
        """What it is made of; empty until judged."""
        self._site = site
        self._damaged = False
        self._staggered = False
        self._begins: tuple[datetime, datetime] | None = None
        """When a window opens that was waited for, and when this node begins."""
        self._again = asyncio.Event()
        self._changed = asyncio.Event()

    # -- for those who wait -----------------------------------------------------------------------------------------

    async def changed(self) -> None:
        """Wait until ``directory`` or ``failure`` may have changed."""
        await self._changed.wait()

    def progress(self) -> str:
        """Say how far it is, for a person."""
        line = self._site.board.line(self.entry.key)
        if line is None:
            return "is no longer wanted here"
        if line.state == "Pending":
            return line.message or "waits for its turn on this node"
        if line.state == "Downloading" and line.total:
            return f"{line.bytes} of {line.total} bytes ({line.bytes * 100 // line.total} %) are on this node"
        return "is being verified on this node" if line.state == "Verifying" else line.message or line.state

    def _tell(self, directory: Path | None, failure: EdgeModelError | None) -> None:
        self.directory, self.failure = directory, failure
        told, self._changed = self._changed, asyncio.Event()
        told.set()

    # -- for those who know more ------------------------------------------------------------------------------------

    def nudge(self) -> None:
        """Look again now, whatever is being waited for."""
        self._again.set()

    def damage(self, message: str) -> None:
        """Its files are not what was verified: nobody mounts them any more, and they come anew."""
        self._damaged = True
        self._tell(None, None)
        board = self._site.board
        failed = Reason.INTEGRITY_FAILED.value
        board.say(self.entry.key, state="Failed", reason=failed, message=message, altered_at=board.now())
        self._again.set()

    def lost(self) -> None:
        """Its directory is not there any more."""
        self._tell(None, None)
        self._again.set()

    # -- the way ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Bring it, and see to it that it stays; ends only when cancelled."""
        backoff = Backoff(self._site.first_pause)
        wait: float | None
        while True:
            self._again.clear()
            try:
                if self._damaged:
                    # Whoever watches hears of it before it is mended; and a fleet with one fault does not come as one.
                    await asyncio.sleep(self._site.first_pause / 2 + spread(self._site.first_pause))
                await self._arrive()
                backoff.reset()
                wait = None
            except Waiting as error:
                backoff.reset()
                wait = error.after
                self._tell(None, None)
                if not self._damaged:
                    self._say("Pending", error)
            except EdgeModelError as error:
                wait = backoff.next(getattr(error, "retry_after", None))
                self._failed(error)
            except Exception as error:
                # The boundary of one entry: what is wrong with it must not stop the others.
                wait = backoff.next()
                log.exception("%s: a mistake of the agent's own", self.entry.key)
                self._failed(
                    Stalled("InternalError", f"the agent failed: {type(error).__name__}; see its log")
                )
            try:
                async with asyncio.timeout(wait):
                    await self._again.wait()
            except TimeoutError:
                continue

    def _failed(self, error: EdgeModelError) -> None:
        self._site.metrics.failures.labels(error.reason).inc()
        if self.failure is None or str(self.failure) != str(error):
            log.warning("%s: %s", self.entry.key, error)
        self._tell(None, error)
        if self._damaged:
            # The reason stays: pods on the old files are still to be moved.
            failed = Reason.INTEGRITY_FAILED.value
            message = f"its files were found changed, and cannot come anew: {error}"
            self._site.board.say(self.entry.key, state="Failed", reason=failed, message=message)
        else:
            self._say("Failed", error)

    def _say(self, state: str, error: EdgeModelError) -> None:
        self._site.board.say(self.entry.key, state=state, reason=error.reason, message=error.message)

    async def _arrive(self) -> None:
        entry, site = self.entry, self._site
        reference, policies = entry.reference(), entry.policies()
        await self._in_turn()
        examined, verdict, fresh = await self._judged(reference, policies)
        self.blobs = frozenset(file.descriptor.digest for file in verdict.files)
        if fresh:
            # Now, and not with its files: who waits a night for a window asks no registry once a minute.
            await asyncio.to_thread(site.store.keep, examined)
        directory = site.store.installed(entry.digest, entry.model_file)
        altered = False
        if directory is None:
            line, before = site.board.line(entry.key), self._made()
            brought = await self._brought(reference, examined, verdict)
            # What was Ready and had to be made anew was not what it was any more: pods may still have it mapped.
            altered = line is not None and line.state == "Ready" and before != self._made()
            self._count(brought)
        else:
            brought = Brought("", 0, 0, "", directory)
        self._here(brought, verdict, altered=altered)

    async def _in_turn(self) -> None:
        """Wait for this node's moment, so that a fleet which hears of a new version at once does not ask as one.

        Not where the version is here or was begun, nor where the model has no other: then somebody waits for it.
        """
        key, site = self.entry.key, self._site
        others = any(
            (line.namespace, line.name) == (key.namespace, key.name) and line.digest != key.digest
            for line in site.board.lines()
        )
        if self._staggered or self.entry.role != "Candidate" or self.entry.window is not None or not others:
            return
        self._staggered = True
        if await asyncio.to_thread(site.store.examined, key.digest) is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(site.stagger * share(f"{site.node}/{key}")):
                    await self._again.wait()  # it became the active one, say

    def _made(self) -> tuple[int, int] | None:
        """Return what tells the directory from one that is made anew; a number of an inode alone may come again."""
        try:
            there = self._site.store.directory(self.entry.digest, self.entry.model_file).lstat()
        except FileNotFoundError:
            return None
        return there.st_ino, there.st_mtime_ns

    def _here(self, brought: Brought, verdict: Verdict, *, altered: bool) -> None:
        line = self._site.board.line(self.entry.key)
        total = sum({file.descriptor.digest: file.descriptor.size for file in verdict.files}.values())
        what: dict[str, object] = {"state": "Ready", "bytes": total, "total": total}
        if brought.kind or line is None or line.state != "Ready":
            kind = brought.kind or (line.kind if line is not None else "")
            what |= {"kind": kind, "reason": _REASONS[kind].value, "message": ""}
        if brought.kind:
            what |= {"saved_bytes": brought.saved, "fallback_reason": brought.fallback_reason}
        if altered:
            what |= {"altered_at": self._site.board.now()}
        if self._damaged or altered:
            what |= {"message": "its files were found changed and have come anew"}
        self._damaged = False
        self._site.board.say(self.entry.key, **what)
        if self.directory != brought.directory:
            log.info(
                "%s is ready", self.entry.key, extra={"kind": brought.kind, "downloaded": brought.downloaded}
            )
        self._tell(brought.directory, None)

    def _count(self, brought: Brought) -> None:
        if brought.kind:
            self._site.metrics.transferred.labels(brought.kind).inc(brought.downloaded)
            self._site.metrics.saved.inc(brought.saved)

    # -- judging ----------------------------------------------------------------------------------------------------

    async def _judged(self, reference: Reference, policies: list[Policy]) -> tuple[Examined, Verdict, bool]:
        """Return the artifact and its verdict, and whether it was asked for elsewhere than on this disk.

        Raises:
            Refused: it does not pass.
            Stalled, Transient: nobody could be asked.
        """
        problem: EdgeModelError | None = None
        kept = await asyncio.to_thread(self._site.store.examined, self.entry.digest)
        if kept is not None:
            # The same bytes may lie in several repositories; policies speak of the one that is named here.
            examined, verdict = await _judge(kept, reference, policies)
            if verdict.refusal is None:
                return examined, verdict, False
            problem = verdict.refusal
            self._failed(problem)
        bundle = await asyncio.to_thread(imports.holding, self._site.store.root, self.entry.digest)
        for source in (bundle, None) if bundle is not None else (None,):
            try:
                found = await examine(source or self._registry(), reference)
            except EdgeModelError as error:
                problem = problem or error
                continue
            examined, verdict = await _judge(found, reference, policies)
            if verdict.refusal is None:
                return examined, verdict, True
            problem = verdict.refusal
        assert problem is not None, "every way out before this has a verdict"
        raise problem

    def _registry(self) -> Registry:
        return Registry(self._site.connections, self._credentials())

    def _credentials(self) -> Credentials:
        """Open the pull secrets.

        Raises:
            Refused, Stalled: ``AuthenticationFailed``; says nothing of what is in them.
        """
        sealed, key = self.entry.sealed_pull_secrets, self.entry.key
        if sealed is None:
            return Credentials()
        opened = self._site.key.open(
            sealed, sealing.pull_secret_context(self._site.node, key.namespace, key.name)
        )
        documents = sealing.unpack_documents(opened)
        return Credentials.parse(documents, sources=[f"pull secret {n + 1}" for n in range(len(documents))])

    # -- bringing ---------------------------------------------------------------------------------------------------

    async def _brought(self, reference: Reference, examined: Examined, verdict: Verdict) -> Brought:
        entry, site = self.entry, self._site
        bundle = await asyncio.to_thread(imports.holding, site.store.root, entry.digest)
        missing = any(not site.store.blobs.path(file.descriptor.digest).exists() for file in verdict.files)
        remote = missing and bundle is None
        if remote:
            self._closes()
        async with (site.downloads if remote else site.local).passing(entry.priority):
            # The window may have closed while others were before us.
            closes = self._closes() if remote else None
            began = asyncio.get_running_loop().time()
            timeout = asyncio.timeout((closes - site.clock()).total_seconds() if closes is not None else None)
            try:
                async with timeout:
                    brought = await self._bring(reference, examined, verdict, bundle)
            except TimeoutError:
                if not timeout.expired():
                    raise
                self._closes()
                raise Waiting(Reason.WAITING_FOR_WINDOW, "the download window closed", after=1.0) from None
            if brought.kind:
                taken = asyncio.get_running_loop().time() - began
                site.metrics.seconds.labels(brought.kind).observe(taken)
            return brought

    async def _bring(
        self, reference: Reference, examined: Examined, verdict: Verdict, bundle: ImageLayout | None
    ) -> Brought:
        transfers, entry = self._site.transfers, self.entry
        credentials = self._credentials()
        if bundle is not None:
            try:
                return await transfers.bring(
                    entry, reference, examined, verdict, credentials, self._progress, source=bundle
                )
            except (Refused, Transient) as error:
                if error.reason == Reason.DISK_FULL:
                    raise
                log.warning("%s: %s is of no use: %s", entry.key, bundle.path.name, error)
        return await transfers.bring(entry, reference, examined, verdict, credentials, self._progress)

    def _progress(self, progress: Progress) -> None:
        line = self._site.board.line(self.entry.key)
        if line is None:
            return
        what: dict[str, object] = {"bytes": progress.bytes, "total": progress.total, "kind": progress.kind}
        if self._damaged:
            # It stays Failed until it is whole again: pods on the old files are to be moved.
            self._site.board.say(self.entry.key, bytes=progress.bytes, total=progress.total)
            return
        if progress.state == "Verifying" and line.state in ("Ready", "Failed"):
            return  # what is here is looked through: nothing new to say yet
        if self.failure is not None:
            self._tell(None, None)
        reason = Reason.DOWNLOADING.value if progress.state == "Downloading" else ""
        self._site.board.say(self.entry.key, state=progress.state, reason=reason, message="", **what)

    def _closes(self) -> datetime | None:
        """Return when the download window closes; None when there is none, or pods need the model now.

        Raises:
            Waiting: ``WaitingForWindow``.
        """
        entry, now = self.entry, self._site.clock()
        if entry.window is None or entry.role == "Active":
            return None
        closes = schedule.open_until(entry.window, now)
        if closes is not None:
            if self._begins is not None and self._begins[0] <= now < self._begins[1] < closes:
                raise self._waiting("the download window is open; this node begins a little later", now)
            return closes
        opens = schedule.opens_at(entry.window, now)
        if opens is None:
            raise Stalled(Reason.INVALID_SPEC, f"download window {entry.window.schedule!r} never opens")
        if self._begins is None or self._begins[0] != opens:
            # Drawn once: who looks once a minute and draws again would begin when all the others look, too.
            self._begins = opens, opens + timedelta(seconds=spread(self._site.spread))
        when = opens.isoformat(timespec="minutes")
        raise self._waiting(f"the download window opens at {when}, by this node's clock", now)

    def _waiting(self, message: str, now: datetime) -> Waiting:
        assert self._begins is not None, "drawn before"
        after = (self._begins[1] - now).total_seconds()
        return Waiting(Reason.WAITING_FOR_WINDOW, message, after=min(after, _LOOK_SECONDS))


async def _judge(found: Examined, reference: Reference, policies: list[Policy]) -> tuple[Examined, Verdict]:
    examined = replace(found, reference=reference.pinned(found.digest))
    return examined, await asyncio.to_thread(examined.judge, policies)
