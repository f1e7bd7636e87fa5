"""A client of the API server for programs that ask it for little, over httpx; the agents of nodes and gateways are such.

Promises
- The ServiceAccount's token is read again every minute, as the kubelet replaces it; it is in no log and no error.
- Every request ends in bounded time, every answer in bounded memory. No proxy, no redirect, no cookie, plain HTTP only
  where the address says so.

Leaves to others: which objects are asked for, and when to try again.
Why not the kubernetes client: docs/adr/0011-agent-api-client.md.
"""

import json
import os
import socket
import ssl
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from edgemodel.errors import Stalled, Transient
from edgemodel.process.response_body import read_all

Object = dict[str, Any]

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
WATCH_SECONDS = 290
_SECONDS = 30.0
_TOKEN_SECONDS = 60.0
_MAX_ERROR = 1 << 16


@dataclass(frozen=True, slots=True)
class Habits:
    """What differs between the programs that ask."""

    user_agent: str
    max_bytes: int
    """Longest answer and longest watch event."""
    connections: int
    """Most at a time."""
    keepalive: tuple[int, int, int]
    """Seconds of silence, seconds between probes, and probes, after which a line that died without a word counts as gone: a
    watch would be blind until its end."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the API server is, and who asks it.

    Attributes:
        url: ``https://host:port``.
        namespace: the program's own.
        token_file: the ServiceAccount's token; None to send none.
        ca: PEM file of the authorities to trust; the system's when None.
    """

    url: str
    namespace: str
    token_file: Path | None = None
    ca: Path | None = None

    @classmethod
    def in_cluster(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Return what a pod has.

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
            namespace,
            SERVICE_ACCOUNT / "token",
            SERVICE_ACCOUNT / "ca.crt",
        )


class ApiFailed(Transient):
    """The API server could not be asked, or said no."""

    def __init__(self, message: str, *, status: int = 0, retry_after: float | None = None) -> None:
        super().__init__("ApiServerUnreachable", message, retry_after=retry_after)
        self.status = status
        """HTTP status; 0 when there was no answer."""


class WatchExpired(Exception):
    """The watch cannot go on from where it was: read anew."""


class KubeApi:
    """See the module's docstring; use as an async context manager.

    Args:
        address: where.
        habits: how.
    """

    def __init__(self, address: Address, habits: Habits) -> None:
        self.namespace = address.namespace
        self._max_bytes = habits.max_bytes
        self._token_file = address.token_file
        self._token, self._token_read = "", -_TOKEN_SECONDS
        url, ca = address.url, address.ca
        try:
            verify = ssl.create_default_context(cafile=ca) if url.startswith("https://") else False
            base = httpx.URL(url)
        except (OSError, httpx.InvalidURL) as error:
            raise Stalled("InvalidSpec", f"API server {url}: {ca or 'address'}: {error}") from None
        if base.scheme not in ("https", "http") or not base.host:
            raise Stalled(
                "InvalidSpec", f"API server {url}: expected an address such as https://10.43.0.1:443"
            )
        idle, interval, probes = habits.keepalive
        self._client = httpx.AsyncClient(
            base_url=base,
            transport=httpx.AsyncHTTPTransport(
                verify=verify,
                trust_env=False,
                limits=httpx.Limits(
                    max_connections=habits.connections, max_keepalive_connections=4, keepalive_expiry=90
                ),
                socket_options=[
                    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
                    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle),
                    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval),
                    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, probes),
                ],
            ),
            trust_env=False,
            timeout=httpx.Timeout(_SECONDS, connect=10.0),
            headers={
                "User-Agent": habits.user_agent,
                "Accept": "application/json",
                "Accept-Encoding": "identity",
            },
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    def heard(self, answer: httpx.Response) -> None:
        """Called with the head of each answer, for those that learn something from it."""

    async def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: object = None,
        *,
        content_type: str = "application/json",
    ) -> Object:
        """Return the object that one request is answered with.

        Raises:
            ApiFailed: no answer, or not that one.
        """
        headers = self._authorization()
        content = None
        if body is not None:
            content = json.dumps(body, separators=(",", ":")).encode()
            headers["Content-Type"] = content_type
        request = self._client.build_request(
            method, path, params=dict(query), headers=headers, content=content
        )
        try:
            answer = await self._client.send(request, stream=True)
            try:
                await self._check(answer)
                text = await read_all(answer, self._max_bytes, _SECONDS)
            finally:
                await answer.aclose()
        except httpx.HTTPError as error:
            raise _unreachable(f"{method} {path}", error) from None
        if text is None:
            raise ApiFailed(f"{method} {path}: the answer is longer than {self._max_bytes} bytes")
        return _object(text, f"{method} {path}")

    async def find(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: object = None,
        *,
        content_type: str = "application/json",
    ) -> Object | None:
        """Do as ``ask`` does; return None when there is no such object.

        Raises:
            ApiFailed: no answer, or not that one.
        """
        try:
            return await self.ask(method, path, query, body, content_type=content_type)
        except ApiFailed as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    async def events(
        self, path: str, version: str, query: Mapping[str, str]
    ) -> AsyncGenerator[tuple[str, Object], None]:
        """Yield what happens in a collection since a version, as type and object, bookmarks too, for five minutes at most.

        Args:
            path: of the collection.
            version: ``resourceVersion``.
            query: selectors.

        Raises:
            WatchExpired: it cannot go on from that version.
            ApiFailed: the connection or the server failed.
        """
        request = self._client.build_request(
            "GET",
            path,
            params={
                "watch": "true",
                "resourceVersion": version,
                "allowWatchBookmarks": "true",
                "timeoutSeconds": str(WATCH_SECONDS),
                **query,
            },
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
                    if len(buffer) > self._max_bytes:
                        raise ApiFailed(f"a watch event is longer than {self._max_bytes} bytes")
            finally:
                await answer.aclose()
        except httpx.HTTPError as error:
            raise _unreachable("watch", error) from None
        except ApiFailed as error:
            if error.status == HTTPStatus.GONE:
                raise WatchExpired(error.message) from None
            raise

    async def _check(self, answer: httpx.Response) -> None:
        self.heard(answer)
        if answer.is_success:
            return
        # Read to its end, or the connection could not be used again.
        text = await read_all(answer, _MAX_ERROR, _SECONDS) or b""
        try:
            message = str(json.loads(text)["message"])
        except (ValueError, KeyError, TypeError, RecursionError):
            message = answer.reason_phrase
        if answer.status_code == 401:
            self._token_read = -_TOKEN_SECONDS  # it may have been replaced before its minute was over
        wish = answer.headers.get("Retry-After", "")
        raise ApiFailed(
            f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {message[:500]}",
            status=answer.status_code,
            retry_after=float(wish) if wish.isdecimal() else None,
        )

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
