"""The gateway's own two Secrets: who may call which model, and the certificate of the entry by TLS.

They are read by name every few seconds: to watch them would need a right on all Secrets of the namespace. What was read last
goes on while the API server is away.
"""

import asyncio
import base64
import contextlib
import logging
from collections.abc import Callable

from edgemodel.gateway.api_server import ApiServer
from edgemodel.kube_api import ApiFailed

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
FIRST_SECONDS = 1.0
"""Between two tries to read them for the first time."""


class OwnSecrets:
    """``follow`` keeps the fields up to date.

    Args:
        api: where they are.
        access: name of the Secret that says who may call; empty for none.
        tls: name of the Secret of type kubernetes.io/tls; empty for none.
        changed: told after each change.
    """

    def __init__(self, api: ApiServer, *, access: str, tls: str, changed: Callable[[], None]) -> None:
        self._api, self._access, self._tls, self._changed = api, access, tls, changed
        self.access: dict[str, str] = {}
        """By ``<namespace>.<name>.json``: who may call that model."""
        self.certificate = ""
        """PEM of certificate chain and key, in this order; empty for no TLS."""
        self.read = False
        """They were read at least once."""

    async def follow(self) -> None:
        """Follow them until cancelled."""
        while True:
            try:
                found = await self._data(self._access), _certificate(await self._data(self._tls))
            except ApiFailed as error:
                log.warning("who may call stays as it was: %s", error.message)
            else:
                if not self.read or found != (self.access, self.certificate):
                    self.access, self.certificate = found
                    self.read = True
                    self._changed()
            await asyncio.sleep(LOOK_SECONDS if self.read else FIRST_SECONDS)

    async def _data(self, name: str) -> dict[str, str]:
        found = await self._api.secret(name) if name else None
        data: dict[str, str] = {}
        for key, value in (found or {}).items():
            with contextlib.suppress(ValueError):
                data[key] = base64.b64decode(value, validate=True).decode("utf-8")
        return data


def _certificate(data: dict[str, str]) -> str:
    parts = [data.get(name, "").strip() for name in ("tls.crt", "tls.key")]
    return "".join(f"{part}\n" for part in parts) if all(parts) else ""
