"""What this node says about each of its entries: one line each, kept beside the store, so that a restart changes no line.

``since`` moves with the state and with nothing else, ``altered_at`` when files are found altered. The operator moves pods
that are older than that, so a restart of the agent must never move it. Times are the API server's.

Promises: what was said stands until something else is said; ``changed`` is called for every difference.
Leaves to others: writing it to the API server (``report``).
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from edgemodel.api.conditions import Reason
from edgemodel.api.edge_node import HeldModel
from edgemodel.artifact.digest import Digest
from edgemodel.node.entry import Key

_MESSAGE, _FALLBACK = 1024, 512
_ALTERED = frozenset({Reason.INTEGRITY_FAILED, Reason.TAMPER_DETECTED})


class Board:
    """The lines, by entry.

    Args:
        now: the API server's time.
        changed: called after each change, with whether it was more than bytes.
    """

    def __init__(self, now: Callable[[], datetime], changed: Callable[[bool], None]) -> None:
        self.now = now
        self._changed = changed
        self._lines: dict[Key, HeldModel] = {}
        self._earlier: dict[Key, HeldModel] = {}

    def remember(self, status: object) -> None:
        """Take what an earlier process said, ``EdgeNode.status``; what is not understood is passed over."""
        models = status.get("models") if isinstance(status, Mapping) else None
        for item in models if isinstance(models, list) else ():
            try:
                line = HeldModel.model_validate(item)
            except ValidationError:
                continue
            key = Key(line.namespace, line.name, Digest(line.digest))
            if line.since is not None:
                self._earlier.setdefault(key, line)

    def keep(self, keys: Iterable[Key]) -> None:
        """Have a line for these entries and for no other."""
        wanted = set(keys)
        if wanted == self._lines.keys():
            return
        self._lines = {key: line for key, line in self._lines.items() if key in wanted}
        for key in wanted - self._lines.keys():
            earlier = self._earlier.get(key)
            self._lines[key] = earlier or HeldModel(
                namespace=key.namespace, name=key.name, digest=key.digest, state="Pending", since=self.now()
            )
        self._earlier.clear()
        self._changed(True)

    def line(self, key: Key) -> HeldModel | None:
        """Return what is said about an entry."""
        return self._lines.get(key)

    def say(self, key: Key, **what: Any) -> None:
        """Say something about an entry, by fields of ``HeldModel``; nothing when it is no entry any more."""
        line = self._lines.get(key)
        if line is None:
            return
        for name, most in (("message", _MESSAGE), ("fallback_reason", _FALLBACK)):
            if name in what:
                what[name] = what[name][:most]
        # Words of enumerations become plain ones: nothing is validated here.
        what = {name: str(value) if isinstance(value, str) else value for name, value in what.items()}
        said = line.model_copy(update=what)
        if said == line:
            return
        if said.state != line.state:
            said = said.model_copy(update={"since": self.now()})
        if said.reason in _ALTERED and line.reason not in _ALTERED:
            said = said.model_copy(update={"altered_at": self.now()})
        self._lines[key] = said
        self._changed(said.model_copy(update={"bytes": line.bytes}) != line)

    def lines(self) -> list[HeldModel]:
        """Return all lines, by namespace, name and digest."""
        return [self._lines[key] for key in sorted(self._lines)]
