"""The gateway's own few requests to the API server: lists, watches and two Secrets, over one httpx client.

Promises: the ServiceAccount's token is read again every minute, as the kubelet replaces it; it is in no log and no error.
Every request ends in bounded time, every answer in bounded memory. No proxy, no redirect, no cookie.
"""

import json
import os
import socket
import ssl
import time
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from edgemodel.errors import Stalled, Transient

Object = dict[str, Any]

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
MAX_BYTES = 64 << 20
"""Longest list; a thousand EdgeModels and their pods have a tenth of it."""
PAGE = 500
WATCH_SECONDS = 290
_SECONDS = 30.0
_TOKEN_SECONDS = 60.0
_KEEPALIVE = [
    # A line that died without a word would leave a watch blind until its end.
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]


class ApiFailed(Transient):
    """The API server could not be asked, or said no."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__("ApiServerUnreachable", message)
        self.status = status
        """HTTP status; 0 when there was no answer."""


class WatchExpired(Exception):
    """The watch cannot go on from where it was: list anew."""


class ApiServer:
    """See the module's docstring; use as an async context manager.

    Args:
        url: ``https://host:port``.
        namespace: its own.
        token_file: the ServiceAccount's token; None to send none.
        ca: PEM file of the authorities to trust; the system's when None.
    """

    def __init__(
        self, url: str, *, namespace: str, token_file: Path | None = None, ca: Path | None = None
    ) -> None:
        self.namespace = namespace
        self._token_file = token_file
        self._token, self._token_read = "", -_TOKEN_SECONDS
        try:
            verify = ssl.create_default_context(cafile=ca) if url.startswith("https://") else False
            base = httpx.URL(url)
        except (OSError, httpx.InvalidURL) as error:
            raise Stalled("InvalidSpec", f"API server {url}: {ca or 'address'}: {error}") from None
        if base.scheme not in ("https", "http") or not base.host:
            raise Stalled(
                "InvalidSpec", f"API server {url}: expected an address such as https://10.43.0.1:443"
            )
        self._client = httpx.AsyncClient(
            base_url=base,
            transport=httpx.AsyncHTTPTransport(
                verify=verify,
                trust_env=False,
                limits=httpx.Limits(max_connections=16, max_keepalive_connections=4, keepalive_expiry=90),
                socket_options=_KEEPALIVE,
            ),
            trust_env=False,
            timeout=httpx.Timeout(_SECONDS, connect=10.0),
            headers={
                "User-Agent": "edgemodel-gateway",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
            },
        )

    @classmethod
    def in_cluster(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Return the client that a pod has.

        Raises:
            Stalled: ``InvalidSpec``; this is no pod.
        """
        environment = os.environ if environment is None else environment
        host = environment.get("KUBERNETES_SERVICE_HOST")
        port = environment.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise Stalled("InvalidSpec", "no $KUBERNETES_SERVICE_HOST: not in a cluster; say --api-server")
        try:
            namespace = (SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip()
        except OSError as error:
            raise Stalled("InvalidSpec", f"{SERVICE_ACCOUNT}: {error.strerror}: no ServiceAccount") from None
        return cls(
            f"https://{f'[{host}]' if ':' in host else host}:{port}",
            namespace=namespace,
            token_file=SERVICE_ACCOUNT / "token",
            ca=SERVICE_ACCOUNT / "ca.crt",
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def list(self, path: str, selector: str = "") -> tuple[list[Object], str]:
        """Return all objects of a collection, and the version from which to watch it.

        Raises:
            ApiFailed: no answer, or not that one.
        """
        items: list[Object] = []
        query = {"limit": str(PAGE), **({"labelSelector": selector} if selector else {})}
        while True:
            page = await self._ask(path, query)
            found, meta = page.get("items"), page.get("metadata")
            if not isinstance(found, list) or not isinstance(meta, dict):
                raise ApiFailed(f"GET {path}: expected a list")
            items += [item for item in found if isinstance(item, dict)]
            if not meta.get("continue"):
                return items, str(meta.get("resourceVersion", ""))
            query["continue"] = str(meta["continue"])

    async def watch(
        self, path: str, version: str, selector: str = ""
    ) -> AsyncGenerator[tuple[str, Object], None]:
        """Yield what happens in a collection, as type and object, bookmarks too, for five minutes at most.

        Raises:
            WatchExpired: it cannot go on from that version.
            ApiFailed: the connection or the server failed.
        """
        query = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
            **({"labelSelector": selector} if selector else {}),
        }
        request = self._client.build_request(
            "GET",
            path,
            params=query,
            headers=self._authorization(),
            timeout=httpx.Timeout(_SECONDS, read=WATCH_SECONDS + _SECONDS),
        )
        buffer = bytearray()
        try:
            answer = await self._client.send(request, stream=True)
            try:
                await self._check(answer)
                async for piece in answer.aiter_raw():
                    buffer += piece
                    *lines, rest = buffer.split(b"\n")
                    buffer = rest
                    for line in lines:
                        if line.strip():
                            yield _event(line)
                    if len(buffer) > MAX_BYTES:
                        raise ApiFailed(f"a watch event is longer than {MAX_BYTES} bytes")
            finally:
                await answer.aclose()
        except httpx.HTTPError as error:
            raise _unreachable("watch", error) from None

    async def secret(self, name: str) -> dict[str, str] | None:
        """Return the data of a Secret of its own namespace, still in base64; None when there is none.

        Raises:
            ApiFailed: no answer, or not that one.
        """
        try:
            found = await self._ask(f"/api/v1/namespaces/{self.namespace}/secrets/{name}", {})
        except ApiFailed as error:
            if error.status == 404:
                return None
            raise
        data = found.get("data") or {}
        return {str(key): str(value) for key, value in data.items()} if isinstance(data, dict) else {}

    async def _ask(self, path: str, query: Mapping[str, str]) -> Object:
        request = self._client.build_request("GET", path, params=dict(query), headers=self._authorization())
        text = bytearray()
        try:
            answer = await self._client.send(request, stream=True)
            try:
                await self._check(answer)
                async for piece in answer.aiter_raw():
                    text += piece
                    if len(text) > MAX_BYTES:
                        raise ApiFailed(f"GET {path}: the answer is longer than {MAX_BYTES} bytes")
            finally:
                await answer.aclose()
        except httpx.HTTPError as error:
            raise _unreachable(f"GET {path}", error) from None
        return _object(text, f"GET {path}")

    async def _check(self, answer: httpx.Response) -> None:
        if answer.is_success:
            return
        if answer.status_code == 410:
            raise WatchExpired("the version is gone")
        if answer.status_code == 401:
            self._token_read = -_TOKEN_SECONDS  # it may have been replaced before its minute was over
        path = answer.request.url.path
        raise ApiFailed(f"GET {path}: {answer.status_code} {answer.reason_phrase}", status=answer.status_code)

    def _authorization(self) -> dict[str, str]:
        if self._token_file is None:
            return {}
        if time.monotonic() - self._token_read >= _TOKEN_SECONDS:
            try:
                self._token = self._token_file.read_text(encoding="ascii").strip()
            except (OSError, ValueError) as error:
                what = getattr(error, "strerror", None) or "is not ASCII"
                raise ApiFailed(f"{self._token_file}: {what}: no token to show to the API server") from None
            self._token_read = time.monotonic()
        return {"Authorization": f"Bearer {self._token}"}


def _event(line: bytes | bytearray) -> tuple[str, Object]:
    event = _object(line, "watch")
    kind, found = str(event.get("type")), event.get("object")
    if not isinstance(found, dict):
        raise ApiFailed("watch: an event without an object")
    if kind == "ERROR":
        if found.get("code") == 410:
            raise WatchExpired(str(found.get("message", "")))
        raise ApiFailed(f"watch: {str(found.get('message', ''))[:500]}", status=int(found.get("code") or 0))
    return kind, found


def _object(text: bytes | bytearray, what: str) -> Object:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ApiFailed(f"{what}: the answer is not JSON") from None
    if not isinstance(document, dict):
        raise ApiFailed(f"{what}: expected an object, found {type(document).__name__}")
    return document


def _unreachable(what: str, error: httpx.HTTPError) -> ApiFailed:
    return ApiFailed(f"{what}: {type(error).__name__}: {error}"[:500])
