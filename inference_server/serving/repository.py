"""Several models of one server: a folder of model directories, what of it is loaded, and what goes when memory is short.

Promises: a model is what the folder of its name holds and nothing outside; loads happen one after the other, so that
the memory each takes can be measured; before one, the least recently used models are unloaded until the measured sum
stays within the bound. A request for a model that went so is refused with "try again" and has it loaded again; one
that somebody unloaded stays so until somebody loads it. A model that failed to load is tried again at a request only
after a while, at once when somebody asks for it by name.

Serves Triton's model repository extension (docs: "Model Repository Extension"). Off unless `--model-repository` is set.
"""

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from inference_server.errors import (
    InvalidRequest,
    LoadError,
    ModelFileNotFound,
    NotFound,
    NotReady,
    OutOfMemory,
)
from inference_server.files.model_directory import ModelFiles, find_model, inside
from inference_server.host.resident import give_back
from inference_server.serving.dataplane import DataPlane

logger = logging.getLogger(__name__)

State = Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]

# Names as they may stand in a URL, a metric's label and a folder, of any system.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MOST_MODELS = 1000
_RETRY_SECONDS = 60.0
# How long an unload waits for the requests that its model still has.
_UNLOAD_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A model as the index shows it; `reason` says why it is not ready."""

    name: str
    version: str
    state: State
    reason: str


@dataclass(slots=True)
class _Known:
    version: str = ""
    state: State = "UNAVAILABLE"
    reason: str = ""
    measured: int = 0  # resident bytes that its last load took
    on_request_only: bool = False  # somebody unloaded it
    failed: float | None = None  # moment of the last load that failed


Load = Callable[[ModelFiles], Awaitable[dict[str, object]]]


class ModelRepository:
    """The models of one folder.

    Args:
        root: The folder; each sub-folder is a model directory, and its name the model's.
        dataplane: Where loaded models are served.
        load: Loads a model, judges its golden samples, adds it to the data plane, and returns what the log is to tell of
            it; raises `LoadError`.
        most_bytes: Bound on the measured memory of all loaded models; None for none.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        root: Path,
        dataplane: DataPlane,
        load: Load,
        most_bytes: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._dataplane = dataplane
        self._load_and_add = load
        self._most_bytes = most_bytes
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._one_at_a_time = asyncio.Lock()
        self._wanted: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> dict[str, object]:
        """Load what fits, in the order of names, and return what the log is to tell of it.

        What cannot be loaded stands in the log and in the index.
        """
        await self._scan()
        for name, known in self._known.items():
            self._dataplane.announce(name, known.version)  # not ready before each had its turn
        for name, known in sorted(self._known.items()):
            if self._fits_beside_others(name, await asyncio.to_thread(_weigh, self._root / name)):
                with contextlib.suppress(InvalidRequest, NotFound):  # logged where it happened
                    await self.load(name)
            else:
                known.reason = "does not fit beside the models that are loaded; a request loads it"
            if known.state != "READY":
                await self._dataplane.remove(name)
        loaded = set(self._memory())
        return {"models": sorted(loaded), "not_loaded": sorted(set(self._known) - loaded)}

    async def index(self, *, only_ready: bool = False) -> list[IndexEntry]:
        """Return what the folder holds now, by name."""
        await self._scan()
        return [
            IndexEntry(name, known.version, known.state, known.reason)
            for name, known in sorted(self._known.items())
            if known.state == "READY" or not only_ready
        ]

    async def load(self, name: str) -> None:
        """Load a model by its name, or load it again if it is loaded: the folder may hold another one now.

        Raises:
            NotFound: There is no such folder.
            InvalidRequest: What it holds cannot be served; the message says why.
        """
        async with self._one_at_a_time:
            await self._load(name)

    async def unload(self, name: str) -> None:
        """Refuse a model's requests from now on, finish those it has, and free its memory.

        Raises:
            NotFound: There is no such model.
        """
        known = self._known.get(name)
        if known is None:
            raise self._no_model(name)
        known.on_request_only = True
        async with self._one_at_a_time:
            await self._unload(name, "unloaded on request")

    def version(self, name: str) -> str | None:
        """Return the version of a model that a request may have loaded, None for one that it may not."""
        known = self._known.get(name)
        return None if known is None or known.on_request_only else known.version

    def want(self, name: str) -> None:
        """Have a model loaded because a request came for it.

        Raises:
            NotReady: It failed a moment ago, or its server is ending.
        """
        known = self._known[name]
        if known.failed is not None and self._clock() - known.failed < _RETRY_SECONDS:
            raise NotReady(f"model {name!r} cannot be loaded now: {known.reason}")
        if name not in self._wanted and not self._dataplane.draining:
            task = self._wanted[name] = asyncio.get_running_loop().create_task(self._load_wanted(name))
            task.add_done_callback(lambda _: self._wanted.pop(name, None))

    async def close(self) -> None:
        """Begin no further load."""
        for task in tuple(self._wanted.values()):
            task.cancel()

    async def _load_wanted(self, name: str) -> None:
        async with self._one_at_a_time:
            known = self._known[name]
            if known.state == "READY" or known.on_request_only:
                return
            try:
                await self._load(name)
            except (InvalidRequest, NotFound) as error:  # the next request is told
                known.failed, known.reason = self._clock(), str(error)

    async def _load(self, name: str) -> None:
        files = await asyncio.to_thread(self._find, name)
        await self._unload(name, "being loaded again")
        known = self._known.setdefault(name, _Known())
        known.version, known.on_request_only, known.failed = files.version, False, None
        known.state, known.reason = "LOADING", ""
        try:
            size = await asyncio.to_thread(_weigh, files.root)
            self._check_size(size)
            await self._make_room(name, known.measured or size)
            told = await self._load_and_add(files)
        except LoadError as error:
            known.failed = self._clock()
            known.state, known.reason = "UNAVAILABLE", str(error)
            logger.error(  # noqa: TRY400 — the message is made for a person; the traceback is ours
                "model cannot be loaded",
                extra={"fields": {"model": name, "reason": error.reason, "message": str(error)}},
            )
            raise InvalidRequest(f"model {name!r} cannot be loaded: {error}") from None
        except BaseException:
            known.state, known.reason = "UNAVAILABLE", "its load was broken off"
            raise
        logger.info("model loaded", extra={"fields": told})
        known.state = "READY"
        # The largest of all its loads: one that took pages which another model left shows too little.
        known.measured = max(known.measured, self._dataplane.slot(name, None).model.memory_bytes)
        # The estimate was too low: what was loaded stays, others go.
        await self._make_room(name, 0)
        if self._most_bytes is not None and known.measured > self._most_bytes:
            logger.warning(
                "model takes more memory than --repository-memory-bytes; served alone",
                extra={"fields": {"model": name, "measured": known.measured, "bound": self._most_bytes}},
            )

    async def _unload(self, name: str, reason: str) -> None:
        known = self._known.get(name)
        if known is None:
            return
        if known.state == "READY":
            known.state, known.reason = "UNLOADING", ""
            going = asyncio.ensure_future(self._dataplane.remove(name))
            _, unfinished = await asyncio.wait((going,), timeout=_UNLOAD_SECONDS)
            await asyncio.to_thread(give_back)
            logger.info(
                "model unloaded",
                extra={"fields": {"model": name, "reason": reason, "requests_left": bool(unfinished)}},
            )
        known.state, known.reason = "UNAVAILABLE", reason

    def _memory(self) -> dict[str, int]:
        """Return the measured memory of each model that is loaded."""
        return {name: known.measured for name, known in self._known.items() if known.state == "READY"}

    def _fits_beside_others(self, name: str, needed: int) -> bool:
        others = sum(size for other, size in self._memory().items() if other != name)
        return self._most_bytes is None or others + needed <= self._most_bytes

    def _check_size(self, size: int) -> None:
        """Refuse what cannot fit, by the size of its files: what is measured varies from load to load.

        Raises:
            OutOfMemory: The files alone are larger than the bound.
        """
        if self._most_bytes is not None and size > self._most_bytes:
            raise OutOfMemory(
                f"its files have {size} bytes: expected at most {self._most_bytes}; "
                "raise --repository-memory-bytes, or use a smaller or quantised model"
            )

    async def _make_room(self, name: str, needed: int) -> None:
        """Unload the least recently used models, never this one, until `needed` bytes fit or none is left."""
        if self._most_bytes is None:
            return
        memory = self._memory()
        needed += memory.pop(name, 0)
        by_use = sorted((slot.used, slot.metadata.name) for slot in self._dataplane.slots)
        for _, other in by_use:
            if sum(memory.values()) + needed <= self._most_bytes:
                return
            if memory.pop(other, None) is not None:
                await self._unload(other, f"least recently used when {name!r} needed memory")

    def _find(self, name: str) -> ModelFiles:
        if not _NAME.fullmatch(name):
            raise self._no_model(name)
        try:
            root = self._root.resolve()
            folder = inside(root, name, f"{root}", ModelFileNotFound)
            if not folder.is_dir():
                raise self._no_model(name)
            return find_model(folder, name=name)
        except LoadError as error:
            raise InvalidRequest(f"model {name!r} cannot be loaded: {error}") from None

    async def _scan(self) -> None:
        """Learn of new folders, and forget those that are gone and not loaded."""
        found = await asyncio.to_thread(self._look)
        for name in [name for name, known in self._known.items() if known.state == "UNAVAILABLE"]:
            if name not in found:
                del self._known[name]
        for name, version_or_reason in found.items():
            known = self._known.setdefault(name, _Known(reason="was never loaded"))
            if known.state == "UNAVAILABLE":
                if isinstance(version_or_reason, InvalidRequest):
                    known.reason = str(version_or_reason)
                else:
                    known.version = version_or_reason

    def _look(self) -> dict[str, str | InvalidRequest]:
        """Return the version of each model that the folder holds, or why it is none."""
        try:
            names = sorted(path.name for path in self._root.iterdir() if _NAME.fullmatch(path.name))
        except OSError as error:
            logger.warning(
                "model repository cannot be read",
                extra={"fields": {"folder": str(self._root), "error": error.strerror}},
            )
            return {}
        found: dict[str, str | InvalidRequest] = {}
        for name in names[:_MOST_MODELS]:
            try:
                found[name] = self._find(name).version
            except InvalidRequest as error:
                found[name] = error
            except NotFound:  # a file, or a folder that has just gone
                continue
        return found

    def _no_model(self, name: str) -> NotFound:
        return NotFound(f"model {name[:100]!r}: expected the name of a folder in the model repository")


def _weigh(folder: Path) -> int:
    """Return the size of a folder's files: a guess at the memory that a first load takes."""
    try:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    except OSError:
        return 0
