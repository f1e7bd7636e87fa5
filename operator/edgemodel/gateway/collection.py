"""Follows one collection of the API server: a copy of it, kept in step, and a word whenever it changes.

Promises: ends for no failure, only with its task; what was known stays known while the API server is away. Leaves to
others: what the objects mean.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import aclosing

from edgemodel.gateway.api_server import ApiServer
from edgemodel.kube_api import ApiFailed, Object, WatchExpired

log = logging.getLogger(__name__)

LONGEST_PAUSE = 15.0


class Collection:
    """``objects`` holds the copy, by namespace and name.

    Args:
        api: where it is.
        path: of the collection.
        selector: labels of what is followed.
        changed: told after each change.
        keep: makes an object smaller before it is kept.
    """

    def __init__(
        self,
        api: ApiServer,
        path: str,
        *,
        selector: str = "",
        changed: Callable[[], None],
        keep: Callable[[Object], Object] = lambda found: found,
    ) -> None:
        self._api, self._path, self._selector = api, path, selector
        self._changed, self._keep = changed, keep
        self.objects: dict[tuple[str, str], Object] = {}
        self.listed = False
        """It was read at least once."""
        self.in_step = False
        """It is followed now."""
        self._begun = self._done = 0
        """How often it was begun from the beginning, and the last of these that was read."""
        self._again = asyncio.Event()
        self._read = asyncio.Event()

    async def read_anew(self) -> None:
        """Wait until it was read from the beginning, by a request that begins now, and is followed from there.

        A watch whose line was down for a while says nothing of it, and what it missed may come late.
        """
        wanted = self._begun + 1
        self._again.set()
        while self._done < wanted:
            self._read.clear()
            await self._read.wait()

    async def follow(self) -> None:
        """Follow it until cancelled."""
        while True:
            self._again.clear()
            self._begun += 1
            following = asyncio.ensure_future(self._follow())
            again = asyncio.ensure_future(self._again.wait())
            try:
                await asyncio.wait({following, again}, return_when=asyncio.FIRST_COMPLETED)
                if following.done():
                    following.result()  # a fault of ours ends the process
            finally:
                for task in (following, again):
                    task.cancel()
                await asyncio.gather(following, again, return_exceptions=True)

    async def _follow(self) -> None:
        version, failures = "", 0
        while True:
            try:
                if not version:
                    found, version = await self._api.list(self._path, self._selector)
                    self.objects = {_key(one): self._keep(one) for one in found}
                    self.listed = self.in_step = True
                    self._done = self._begun
                    self._read.set()
                    self._changed()
                failures, began = 0, asyncio.get_running_loop().time()
                async with aclosing(self._api.watch(self._path, version, self._selector)) as events:
                    async for kind, found_one in events:
                        version = str((found_one.get("metadata") or {}).get("resourceVersion") or version)
                        self._take(kind, found_one)
                if asyncio.get_running_loop().time() - began < 1.0:
                    await asyncio.sleep(1.0)  # a proxy that ends every watch at once is not to be hammered
            except WatchExpired:
                version = ""
            except ApiFailed as error:
                version, self.in_step = "", False
                failures += 1
                pause = min(LONGEST_PAUSE, 0.5 * 2.0 ** min(failures, 10)) * (0.5 + random.random() / 2)  # noqa: S311
                log.warning(
                    "what was known goes on being used",
                    extra={"cause": error.message, "pause": round(pause, 1)},
                )
                await asyncio.sleep(pause)

    def _take(self, kind: str, found: Object) -> None:
        if kind in ("ADDED", "MODIFIED"):
            kept, key = self._keep(found), _key(found)
            if self.objects.get(key) != kept:
                self.objects[key] = kept
                self._changed()
        elif kind == "DELETED" and self.objects.pop(_key(found), None) is not None:
            self._changed()


def _key(found: Object) -> tuple[str, str]:
    meta = found.get("metadata") or {}
    return str(meta.get("namespace", "")), str(meta.get("name", ""))
