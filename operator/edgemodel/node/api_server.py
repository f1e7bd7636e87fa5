"""The node agent's own few requests to the API server: its EdgeNode and its Lease, over one httpx client.

Promises
- Nothing but the objects of this one node is asked for or written.
- The ServiceAccount's token is read again every minute, as the kubelet replaces it; it is in no log and no error.
- Every request ends in bounded time, every answer in bounded memory. No proxy, no redirect, no cookie, plain HTTP only
  where the address says so.
- ``now`` is the API server's time, as its last answer told it: the node's own clock may be years off, and others compare.

Leaves to others: what is in the objects, and when to try again (``edge_node_watch``, ``report``, ``heartbeat``).
Why not the kubernetes client: docs/adr/0011-agent-api-client.md.
"""

import json
import os
import socket
import ssl
import time
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from edgemodel.api.applied import without_empty
from edgemodel.api.meta import API_VERSION, LEASE_PREFIX, NODE_MANAGER
from edgemodel.artifact.registry_session import read_all
from edgemodel.errors import Stalled, Transient

Object = dict[str, Any]

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
MAX_BYTES = 8 << 20
"""Longest answer and longest watch event; etcd takes 1.5 MB an object."""
WATCH_SECONDS = 290
_SECONDS = 30.0
_TOKEN_SECONDS = 60.0
_MERGE, _APPLY = "application/merge-patch+json", "application/apply-patch+yaml"
_KEEPALIVE = [
    # A line that died without a word would leave a watch blind until its end.
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
]


class ApiFailed(Transient):
    """The API server could not be asked, or said no."""

    def __init__(self, message: str, *, status: int = 0, retry_after: float | None = None) -> None:
        super().__init__("ApiServerUnreachable", message, retry_after=retry_after)
        self.status = status
        """HTTP status; 0 when there was no answer."""


class WatchExpired(Exception):
    """The watch cannot go on from where it was: read the object anew."""


class ApiServer:
    """See the module's docstring; use as an async context manager.

    Args:
        url: ``https://host:port``.
        node: name of the Node.
        namespace: where the Lease is.
        token_file: the ServiceAccount's token; None to send none.
        ca: PEM file of the authorities to trust; the system's when None.
    """

    def __init__(
        self, url: str, *, node: str, namespace: str, token_file: Path | None = None, ca: Path | None = None
    ) -> None:
        self.node = node
        self.namespace = namespace
        self._token_file = token_file
        self._token, self._token_read = "", -_TOKEN_SECONDS
        self._told: tuple[datetime, float] | None = None
        self._lease_seconds = 0
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
                limits=httpx.Limits(max_connections=8, max_keepalive_connections=4, keepalive_expiry=90),
                socket_options=_KEEPALIVE,
            ),
            trust_env=False,
            timeout=httpx.Timeout(_SECONDS, connect=10.0),
            headers={
                "User-Agent": "edgemodel-node",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
            },
        )

    @classmethod
    def in_cluster(cls, node: str, environment: Mapping[str, str] | None = None) -> Self:
        """Return the client that a pod has.

        Raises:
            Stalled: ``InvalidSpec``; this is no pod.
        """
        environment = os.environ if environment is None else environment
        host, port = (
            environment.get("KUBERNETES_SERVICE_HOST"),
            environment.get("KUBERNETES_SERVICE_PORT", "443"),
        )
        if not host:
            raise Stalled("InvalidSpec", "no $KUBERNETES_SERVICE_HOST: not in a cluster; say --api-server")
        try:
            namespace = (SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip()
        except OSError as error:
            raise Stalled("InvalidSpec", f"{SERVICE_ACCOUNT}: {error.strerror}: no ServiceAccount") from None
        return cls(
            f"https://{f'[{host}]' if ':' in host else host}:{port}",
            node=node,
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

    def now(self) -> datetime:
        """Return the API server's time to the second; the node's while no answer has come yet."""
        if self._told is None:
            return datetime.now(UTC).replace(microsecond=0)
        told, at = self._told
        return (told + timedelta(seconds=time.monotonic() - at)).replace(microsecond=0)

    # -- its EdgeNode -----------------------------------------------------------------------------------------------

    @property
    def _edge_nodes(self) -> str:
        return f"/apis/{API_VERSION}/edgenodes"

    async def get_edge_node(self) -> Object | None:
        """Return this node's EdgeNode; None when there is none.

        Raises:
            ApiFailed: no answer, or not that one.
        """
        return await self._ask("GET", f"{self._edge_nodes}/{self.node}", missing=True)

    async def create_edge_node(self) -> Object | None:
        """Make this node's EdgeNode, with nothing in its spec; None when there is one by now."""
        document = {
            "apiVersion": API_VERSION,
            "kind": "EdgeNode",
            "metadata": {"name": self.node},
            "spec": {},
        }
        try:
            return await self._ask("POST", self._edge_nodes, document, manager=True)
        except ApiFailed as error:
            if error.status == 409:
                return None
            raise

    async def watch_edge_node(self, resource_version: str) -> AsyncGenerator[Object, None]:
        """Yield this node's EdgeNode each time it changes, and bookmarks (of which only metadata is of use), for 5 minutes.

        Raises:
            WatchExpired: it cannot go on from that version, or the object is gone.
            ApiFailed: the connection or the server failed.
        """
        query = {
            "watch": "true",
            "fieldSelector": f"metadata.name={self.node}",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        request = self._client.build_request(
            "GET",
            self._edge_nodes,
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

    async def apply_status(self, status: Mapping[str, Any]) -> None:
        """Write this node's status, whole.

        Raises:
            ApiFailed: also when there is no EdgeNode (``status`` 404).
        """
        document = {
            "apiVersion": API_VERSION,
            "kind": "EdgeNode",
            "metadata": {"name": self.node},
            "status": without_empty(status),
        }
        path = f"{self._edge_nodes}/{self.node}/status"
        await self._ask("PATCH", path, document, content_type=_APPLY, manager=True, force=True)

    # -- its Lease --------------------------------------------------------------------------------------------------

    async def renew_lease(self, seconds: int) -> None:
        """Say that this node is alive.

        Args:
            seconds: after which it counts as offline, for whoever reads the Lease.

        Raises:
            ApiFailed: no answer, or not that one.
        """
        leases = f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases"
        name = f"{LEASE_PREFIX}{self.node}"
        spec: Object = {"renewTime": self.now().strftime("%Y-%m-%dT%H:%M:%S.000000Z")}
        if seconds != self._lease_seconds:
            # An earlier process may have had another rhythm, and the Lease still says so.
            spec["leaseDurationSeconds"] = seconds
        if (
            await self._ask("PATCH", f"{leases}/{name}", {"spec": spec}, content_type=_MERGE, missing=True)
            is None
        ):
            spec |= {"holderIdentity": self.node, "leaseDurationSeconds": seconds}
            document = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": name, "namespace": self.namespace},
                "spec": spec,
            }
            await self._ask("POST", leases, document)
        self._lease_seconds = seconds

    # -- within -----------------------------------------------------------------------------------------------------

    async def _ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content_type: str = "application/json",
        missing: bool = False,
        manager: bool = False,
        force: bool = False,
    ) -> Object | None:
        query = {"fieldManager": NODE_MANAGER} if manager else {}
        if force:
            query["force"] = "true"
        headers = self._authorization()
        content = None
        if body is not None:
            content = json.dumps(body, separators=(",", ":")).encode()
            headers["Content-Type"] = content_type
        request = self._client.build_request(method, path, params=query, headers=headers, content=content)
        try:
            answer = await self._client.send(request, stream=True)
            try:
                if missing and answer.status_code == 404:
                    self._learn_time(answer)
                    await read_all(answer, MAX_BYTES, _SECONDS)  # or the connection could not be used again
                    return None
                await self._check(answer)
                text = await read_all(answer, MAX_BYTES, _SECONDS)
            finally:
                await answer.aclose()
        except httpx.HTTPError as error:
            raise _unreachable(f"{method} {path}", error) from None
        return _object(text or b"", f"{method} {path}")

    async def _check(self, answer: httpx.Response) -> None:
        self._learn_time(answer)
        if answer.is_success:
            return
        text = await read_all(answer, 1 << 16, _SECONDS) or b""
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

    def _learn_time(self, answer: httpx.Response) -> None:
        try:
            told = parsedate_to_datetime(answer.headers.get("Date", ""))
        except ValueError:
            return
        self._told = (told if told.tzinfo else told.replace(tzinfo=UTC)).astimezone(UTC), time.monotonic()

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


def _event(line: bytes | bytearray) -> Object:
    event = _object(line, "watch")
    kind, found = event.get("type"), event.get("object")
    if not isinstance(found, dict):
        raise ApiFailed("watch: an event without an object")
    if kind == "DELETED":
        raise WatchExpired("the EdgeNode was deleted")
    if kind == "ERROR":
        if found.get("code") == 410:
            raise WatchExpired(str(found.get("message", "")))
        raise ApiFailed(f"watch: {str(found.get('message', ''))[:500]}", status=int(found.get("code") or 0))
    return found | {"kind": "Bookmark"} if kind == "BOOKMARK" else found


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
