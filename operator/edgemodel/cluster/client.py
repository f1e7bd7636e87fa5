"""A thin layer over ``kubernetes.aio``: dict in, dict out, every failure one of our own errors.

Promises: each call is bounded in time; a mutating call is refused the moment the fence is down (leadership
lost); errors name verb and path and never carry a body or a credential. Leaves to others: what to write
(``apply``, ``events``, ``lease``) and what to read (``gather``).

The package's typed models are not used: they load lazily, so a client that stays with raw paths never pays
for them.
"""

import asyncio
import json
import os
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from edgemodel import __version__
from edgemodel.cluster.kinds import POD, SERVICE_MONITOR, Kind
from edgemodel.errors import Stalled, Transient

Object = dict[str, Any]

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"

_TIMEOUT = aiohttp.ClientTimeout(total=15, connect=5)
_WATCH_SECONDS = 290
"""How long one watch lives: a new one also finds what a line that broke without a word has swallowed."""
_MAX_EVENT = 8 << 20
"""Longest event of a watch in bytes; etcd takes 1.5 MB an object."""
_PAGE = 250


class Forbidden(Transient):
    """The API server knows who we are and does not let us; more RBAC is needed."""


class Conflict(Transient):
    """Somebody else changed, created or deleted the object first: look again."""


class Gone(Transient):
    """The object, its namespace or its kind is not there."""


class Rejected(Stalled):
    """The API server, a quota or an admission policy refuses the object; sending it again at once changes nothing."""


class Withheld(Transient):
    """A PodDisruptionBudget does not let this pod go now."""


class NotLeading(Transient):
    """The fence is down: another replica may be at work, so nothing is written."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where the API server is and who we are to it."""

    server: str
    ca_file: str | None
    certificate_file: str | None
    key_file: str | None
    token: str | None = field(repr=False)
    verify: bool


class ApiServer:
    """One connection pool to one API server."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._api = ApiClient(configuration)
        self._api.user_agent = f"edgemodel-operator/{__version__}"
        self.fence: Callable[[], bool] = lambda: True
        """Asked before every mutating call; False refuses it."""
        self.writes = 0
        """Mutating calls sent so far."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._api.close()

    async def credentials(self) -> Credentials:
        """Return address and credentials as they are now, for the other client here: kopf's watches."""
        configuration = self._configuration
        auth = (await configuration.auth_settings()).get("BearerToken")
        scheme, _, token = (auth["value"] if auth and auth["value"] else "").partition(" ")
        return Credentials(
            server=configuration.host,
            ca_file=configuration.ssl_ca_cert,
            certificate_file=configuration.cert_file,
            key_file=configuration.key_file,
            token=token.strip() if scheme.lower() == "bearer" else None,
            verify=configuration.verify_ssl,
        )

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        """Return one object, or None when it does not exist."""
        try:
            return await self._call("GET", kind.path(namespace, name))
        except Gone:
            return None

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> tuple[Object, ...]:
        """Return all objects of a kind, page by page; of ServiceMonitors none where the kind is not served.

        ``labels`` and ``fields`` narrow it down to objects that have all of these.

        Items of a list carry neither ``apiVersion`` nor ``kind``; both are put back.

        Raises:
            Gone: the kind is not served; that says nothing about its objects.
        """
        query: dict[str, str | int] = {"limit": _PAGE}
        for selector, wanted in (("labelSelector", labels), ("fieldSelector", fields)):
            if wanted:
                query[selector] = ",".join(f"{key}={value}" for key, value in sorted(wanted.items()))
        found: list[Object] = []
        while True:
            try:
                page = await self._call("GET", kind.path(namespace), query=query)
            except Gone as error:
                if kind is SERVICE_MONITOR:
                    return ()
                raise Gone(
                    "Gone",
                    f"{error.message}; expected the API server to serve {kind.plural} of {kind.api_version}: "
                    "is its CustomResourceDefinition installed?",
                ) from error
            for item in page.get("items") or ():
                item["apiVersion"], item["kind"] = kind.api_version, kind.name
                found.append(item)
            token = page.get("metadata", {}).get("continue")
            if not token:
                return tuple(found)
            query["continue"] = token

    async def watch(
        self, kind: Kind, namespace: str, *, labels: Mapping[str, str]
    ) -> AsyncGenerator[tuple[str, Object], None]:
        """Yield ``(ADDED | MODIFIED | DELETED, object)``: first all that there are, then what happens, for some minutes.

        Raises:
            Transient: it ended otherwise than by its time.
        """
        query = {
            "watch": "true",
            "labelSelector": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
            "timeoutSeconds": _WATCH_SECONDS,
        }
        path = kind.path(namespace)
        url = self._configuration.host.rstrip("/") + path + f"?{urlencode(query)}"
        timeout = aiohttp.ClientTimeout(total=_WATCH_SECONDS + 30, connect=5)
        buffer = b""
        try:
            answer = await self._api.rest_client.request(
                "GET", url, headers=await self._headers("application/json"), _request_timeout=timeout
            )
            try:
                if answer.status != 200:
                    raise _error("WATCH", path, answer.status, await answer.read(), None)
                async for piece in answer.response.content.iter_any():
                    *lines, buffer = (buffer + piece).split(b"\n")
                    for line in lines:
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            raise Transient(
                                "ApiServerError", f"WATCH {path}: {event['object'].get('message')}"
                            )
                        yield event["type"], event["object"]
                    if len(buffer) > _MAX_EVENT:
                        raise Transient(
                            "ApiServerError", f"WATCH {path}: an event is longer than {_MAX_EVENT} bytes"
                        )
            finally:
                answer.response.close()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Transient("ApiServerUnreachable", f"WATCH {path}: {type(error).__name__}") from error

    async def probe(self, kind: Kind, namespace: str | None) -> None:
        """List at most one object: raises what listing all of them would raise."""
        await self._call("GET", kind.path(namespace), query={"limit": 1})

    async def read(self, path: str) -> Object | None:
        """Return what stands at a path of no object, such as ``/apis/GROUP/VERSION``; None for 404."""
        try:
            return await self._call("GET", path)
        except Gone:
            return None

    async def apply(
        self, kind: Kind, manifest: Mapping[str, Any], *, manager: str, subresource: str | None = None
    ) -> Object:
        """Server-side apply; takes over fields that somebody else set.

        Raises:
            Conflict: ``metadata.uid`` is given and the live object has another one.
            Rejected: the API server finds the manifest invalid.
        """
        metadata = manifest["metadata"]
        path = kind.path(metadata.get("namespace"), metadata["name"], subresource=subresource)
        query: dict[str, str | int] = {"fieldManager": manager, "force": "true"}
        return await self._call("PATCH", path, query=query, body=manifest, content_type=APPLY)

    async def create(self, kind: Kind, manifest: Mapping[str, Any], *, fenced: bool = True) -> Object:
        """Create an object; ``Conflict`` when the name is taken. Only leader election goes unfenced."""
        path = kind.path(manifest["metadata"].get("namespace"))
        return await self._call("POST", path, body=manifest, fenced=fenced)

    async def replace(self, kind: Kind, manifest: Mapping[str, Any], *, fenced: bool = True) -> Object:
        """Replace an object; ``Conflict`` when its resourceVersion has moved on."""
        metadata = manifest["metadata"]
        path = kind.path(metadata.get("namespace"), metadata["name"])
        return await self._call("PUT", path, body=manifest, fenced=fenced)

    async def merge(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        patch: Mapping[str, Any],
        *,
        subresource: str | None = None,
    ) -> Object:
        """JSON merge patch."""
        path = kind.path(namespace, name, subresource=subresource)
        return await self._call("PATCH", path, body=patch, content_type=MERGE)

    async def delete(
        self, kind: Kind, namespace: str | None, name: str, *, uid: str, grace: int | None = None
    ) -> bool:
        """Delete the object with this uid, its dependents in the background; False when it was gone.

        ``grace`` is how many seconds a pod gets to end; its own when None.
        """
        body: Object = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        try:
            await self._call("DELETE", kind.path(namespace, name), body=body)
        except (Gone, Conflict):
            return False
        return True

    async def evict(self, namespace: str, name: str, *, uid: str) -> bool:
        """Have the pod with this uid go, as budgets allow; False when it was gone.

        Raises:
            Withheld: a PodDisruptionBudget forbids it now.
        """
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": {"preconditions": {"uid": uid}},
        }
        try:
            await self._call("POST", POD.path(namespace, name, subresource="eviction"), body=body)
        except (Gone, Conflict):
            return False
        return True

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        fenced: bool = True,
    ) -> Object:
        if method != "GET":
            if fenced and not self.fence():
                raise NotLeading(
                    "NotLeading", f"{method} {path} held back: this replica does not lead any more"
                )
            self.writes += 1
        headers = await self._headers(content_type)
        url = self._configuration.host.rstrip("/") + path + (f"?{urlencode(query)}" if query else "")
        try:
            answer = await self._api.rest_client.request(
                method, url, headers=headers, body=body, _request_timeout=_TIMEOUT
            )
            payload = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            what = type(error).__name__ if isinstance(error, TimeoutError) else str(error)
            raise Transient("ApiServerUnreachable", f"{method} {path}: {what}") from error
        if 200 <= answer.status < 300:
            found: Object = json.loads(payload) if payload else {}
            return found
        raise _error(method, path, answer.status, payload, answer.headers.get("Retry-After"))

    async def _headers(self, content_type: str) -> dict[str, str]:
        headers = {
            "Accept": "application/json",
            "Content-Type": content_type,
            "User-Agent": self._api.user_agent,
        }
        auth = (await self._configuration.auth_settings()).get("BearerToken")
        if auth is not None and auth["value"]:
            headers["Authorization"] = auth["value"]
        return headers


def _error(
    method: str, path: str, status: int, payload: bytes, retry_after: str | None
) -> Transient | Stalled:
    causes: list[Any] = []
    try:
        told = json.loads(payload)
        detail = str(told.get("message", ""))
        causes = [one.get("reason") for one in (told.get("details") or {}).get("causes") or ()]
    except (ValueError, AttributeError, TypeError):
        detail = payload[:200].decode("utf-8", "replace")
    text = f"{method} {path}: {status} {detail}"[:2048]
    match status:
        # Not a matter of the operator's role: the namespace's quota, or the cluster's own admission.
        case 403 if re.search("exceeded quota|denied (the )?request", detail):
            return Rejected("InvalidSpec", detail)
        # What server-side apply says to a field that the kind does not have (apimachinery, structuredmerge.go).
        case 500 if detail.startswith("failed to create typed patch object"):
            return Rejected("InvalidSpec", detail)
        case 403:
            return Forbidden("Forbidden", f"{text}; give the operator's role this verb on this resource")
        case 404:
            return Gone("Gone", text)
        case 409:
            return Conflict("Conflict", text)
        # What the Eviction API says; requests that are too many for the API server have the same number.
        case 429 if "DisruptionBudget" in causes:
            return Withheld("Withheld", text)
        case 400 | 413 | 422:
            return Rejected("InvalidSpec", detail or text)
        case _:
            wish = float(retry_after) if retry_after and retry_after.isdigit() else None
            return Transient("ApiServerError", text, retry_after=wish)


async def connect(*, kubeconfig: Path | None = None, context: str | None = None) -> ApiServer:
    """Return a client for the cluster this process belongs to.

    In a pod: its service account, whose token file is read again every minute. Else: ``kubeconfig``, or the
    files in ``$KUBECONFIG``, or ``~/.kube/config``.

    Raises:
        Stalled: no usable configuration was found.
    """
    from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

    configuration = Configuration()
    try:
        if kubeconfig is None and context is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
            # Reads two small files of the pod's own projected volume, once.
            load_incluster_config(client_configuration=configuration)
        else:
            await asyncio.wait_for(
                load_kube_config(
                    config_file=str(kubeconfig) if kubeconfig else None,
                    context=context,
                    client_configuration=configuration,
                    persist_config=False,
                ),
                timeout=30,
            )
    except (ConfigException, OSError, TimeoutError) as error:
        raise Stalled(
            "InvalidSpec",
            f"no usable Kubernetes configuration: {error}; run in a pod with a service account, "
            "or set KUBECONFIG or --kubeconfig",
        ) from error
    # A TLS connection of asyncio's costs 256 KiB of buffer; a pass's reads come one after the other soon enough.
    configuration.connection_pool_maxsize = 6
    # Credentials never travel through a proxy that the environment happens to name; nor do kopf's watches.
    configuration.client_session_kwargs = {"trust_env": False}
    return ApiServer(configuration)
