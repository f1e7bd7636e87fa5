"""The gateway's own few requests to the API server: lists, watches and two Secrets."""

from collections.abc import AsyncGenerator
from http import HTTPStatus

from edgemodel.kube_api import Address, ApiFailed, Habits, KubeApi, Object, WatchExpired

PAGE = 500
HABITS = Habits(
    user_agent="edgemodel-gateway",
    max_bytes=64 << 20,  # a list; a thousand EdgeModels and their pods have a tenth of it
    connections=16,
    keepalive=(15, 5, 3),
)


class ApiServer(KubeApi):
    """See the module's docstring; use as an async context manager."""

    def __init__(self, address: Address) -> None:
        super().__init__(address, HABITS)

    async def list(self, path: str, selector: str = "") -> tuple[list[Object], str]:
        """Return all objects of a collection, and the version from which to watch it.

        Raises:
            WatchExpired: it changed too much between two pages.
            ApiFailed: no answer, or not that one.
        """
        items: list[Object] = []
        query = {"limit": str(PAGE), **_selecting(selector)}
        while True:
            try:
                page = await self.ask("GET", path, query)
            except ApiFailed as error:
                if error.status == HTTPStatus.GONE:
                    raise WatchExpired(error.message) from None
                raise
            found, meta = page.get("items"), page.get("metadata")
            if not isinstance(found, list) or not isinstance(meta, dict):
                raise ApiFailed(f"GET {path}: expected a list")
            items += [item for item in found if isinstance(item, dict)]
            if not meta.get("continue"):
                return items, str(meta.get("resourceVersion", ""))
            query["continue"] = str(meta["continue"])

    def watch(self, path: str, version: str, selector: str = "") -> AsyncGenerator[tuple[str, Object], None]:
        """Yield what happens in a collection, as type and object (``KubeApi.events``)."""
        return self.events(path, version, _selecting(selector))

    async def secret(self, name: str) -> dict[str, str] | None:
        """Return the data of a Secret of its own namespace, still in base64; None when there is none.

        Raises:
            ApiFailed: no answer, or not that one.
        """
        found = await self.find("GET", f"/api/v1/namespaces/{self.namespace}/secrets/{name}", {})
        if found is None:
            return None
        data = found.get("data") or {}
        return {str(key): str(value) for key, value in data.items()} if isinstance(data, dict) else {}


def _selecting(selector: str) -> dict[str, str]:
    return {"labelSelector": selector} if selector else {}
