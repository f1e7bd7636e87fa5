"""A Kubernetes API server over loopback HTTP, for unit tests: objects, versions, preconditions, and faults.

It keeps what the real one promises and our code relies on: optimistic locking by resourceVersion, uid
preconditions, one name one object, paged lists, label selectors, watches that begin at a resourceVersion or with all there
is. It knows no schema, no defaults, no admission and no garbage collection; server-side apply is a plain deep merge. What
depends on any of those is tested in ``tests/control_plane``.
"""

import asyncio
import itertools
import json
import uuid
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Object = dict[str, Any]


@dataclass
class Fault:
    """Answers some requests in place of the server."""

    matches: Callable[[str, str], bool]
    status: int = 500
    message: str = "fault"
    headers: dict[str, str] = field(default_factory=dict)
    causes: list[str] = field(default_factory=list)
    """Reasons in the answer's details."""
    times: int = 1_000_000
    hang: bool = False
    """Accept the request and never answer."""
    lost: bool = False
    """Do the work, then answer with ``status`` all the same."""


@dataclass
class Seen:
    """One request."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


class ApiServerSimulator:
    """Holds objects by path."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.seen: list[Seen] = []
        self.faults: list[Fault] = []
        self.url = ""
        self.expired = 0
        """Watches from this resourceVersion or an earlier one get 410."""
        self._versions = itertools.count(100)
        self._events: list[tuple[int, str, str, Object]] = []
        self._happened = asyncio.Event()
        self._never = asyncio.Event()
        self._watching: list[web.Request] = []

    @property
    def writes(self) -> list[Seen]:
        return [request for request in self.seen if request.method != "GET"]

    def put(self, path: str, manifest: Object) -> Object:
        """Put an object there behind the API's back, as another client would."""
        namespace = (
            path.split("/namespaces/")[1].split("/", maxsplit=1)[0] if "/namespaces/" in path else None
        )
        metadata = {**manifest.get("metadata", {}), "name": path.rsplit("/", 1)[1]}
        if namespace:
            metadata["namespace"] = namespace
        return self._store(path, {**manifest, "metadata": metadata})

    def _store(self, path: str, manifest: Object) -> Object:
        before = self.objects.get(path, {}).get("metadata", {})
        metadata = {
            **manifest.get("metadata", {}),
            "uid": before.get("uid") or str(uuid.uuid4()),
            "resourceVersion": str(next(self._versions)),
        }
        metadata.setdefault("generation", 1)
        kind = "MODIFIED" if path in self.objects else "ADDED"
        self.objects[path] = {**manifest, "metadata": metadata}
        self._happen(kind, path, self.objects[path])
        return self.objects[path]

    def _happen(self, kind: str, path: str, item: Object) -> None:
        self._events.append((int(item["metadata"]["resourceVersion"]), kind, path, item))
        happened, self._happened = self._happened, asyncio.Event()
        happened.set()

    def remove(self, path: str) -> None:
        """Delete an object behind the API's back."""
        item = self.objects.pop(path)
        version = str(next(self._versions))
        self._happen("DELETED", path, {**item, "metadata": {**item["metadata"], "resourceVersion": version}})

    def end_watches(self) -> None:
        """Break every watch that is open now."""
        for request in self._watching:
            if request.transport is not None:
                request.transport.abort()

    @asynccontextmanager
    async def running(self) -> Any:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            self._never.set()
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        body = json.loads(text) if text else None
        seen = Seen(request.method, request.path, dict(request.query), dict(request.headers), body)
        self.seen.append(seen)
        for fault in self.faults:
            if fault.times > 0 and fault.matches(request.method, request.path):
                fault.times -= 1
                if fault.hang:
                    await self._never.wait()
                if fault.lost:
                    self._answer(seen)
                return self._status(fault.status, fault.message, headers=fault.headers, causes=fault.causes)
        if seen.method == "GET" and seen.query.get("watch") == "true":
            return await self._watch(request, seen)
        return self._answer(seen)

    async def _watch(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        anew = "resourceVersion" not in seen.query
        version = (
            self._events[-1][0] if anew and self._events else int(seen.query.get("resourceVersion") or 0)
        )
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        self._watching.append(request)
        try:
            for path, item in sorted(self.objects.items()) if anew else ():
                if path.rsplit("/", 1)[0] == seen.path and _selected(item, seen.query):
                    await response.write(json.dumps({"type": "ADDED", "object": item}).encode() + b"\n")
            if version <= self.expired and not anew:
                gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}
                await response.write(json.dumps(gone).encode() + b"\n")
                return response
            while not self._never.is_set():
                happened = self._happened
                for number, kind, path, item in list(self._events):
                    if (
                        number > version
                        and path.rsplit("/", 1)[0] == seen.path
                        and _selected(item, seen.query)
                    ):
                        event = json.dumps({"type": kind, "object": item}).encode()
                        await response.write(event + b"\n")
                        version = number
                waits = [asyncio.ensure_future(event.wait()) for event in (happened, self._never)]
                try:
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for wait in waits:
                        wait.cancel()
        except ConnectionError:
            pass  # the client hung up: its right
        finally:
            self._watching.remove(request)
        return response

    def _answer(self, seen: Seen) -> web.Response:
        path = seen.path.removesuffix("/status")
        match seen.method:
            case "GET" if path in self.objects:
                return web.json_response(self.objects[path])
            case "GET":
                return self._list(path, seen.query)
            case "POST" if path.endswith("/eviction"):
                return self._delete(path.removesuffix("/eviction"), seen.body["deleteOptions"])
            case "POST":
                path = f"{path}/{seen.body['metadata']['name']}"
                if path in self.objects:
                    return self._status(409, f"{path} already exists")
                return web.json_response(self._store(path, seen.body), status=201)
            case "PUT":
                return self._replace(path, seen.body)
            case "PATCH":
                return self._patch(path, seen)
            case "DELETE":
                return self._delete(path, seen.body or {})
        return self._status(405, "method")

    def _list(self, path: str, query: dict[str, str]) -> web.Response:
        collection, plural = path.rsplit("/", 1)
        found = []
        for where, item in sorted(self.objects.items()):
            parent = where.rsplit("/", 1)[0]
            across = "/namespaces/" in where and parent.split("/namespaces/")[0] == collection
            if parent != path and not (across and parent.endswith(f"/{plural}")):
                continue
            if _selected(item, query):
                found.append(item)
        known = {where.rsplit("/", 1)[0].rsplit("/", 1)[1] for where in self.objects} | {
            "edgemodels", "modeltrustpolicies", "deployments", "services", "configmaps", "pods", "secrets",
            "poddisruptionbudgets", "namespaces", "events", "leases", "nodes", "edgenodes", "endpointslices",
        }  # fmt: skip
        if plural not in known:
            return self._status(404, f"the server could not find {path}")
        start, limit = int(query.get("continue", 0)), int(query.get("limit", 10**9))
        metadata: Object = {"resourceVersion": "1"}
        if start + limit < len(found):
            metadata["continue"] = str(start + limit)
        items = [
            {key: value for key, value in item.items() if key not in ("apiVersion", "kind")}
            for item in found[start : start + limit]
        ]
        return web.json_response({"kind": "List", "metadata": metadata, "items": items})

    def _replace(self, path: str, body: Object) -> web.Response:
        live = self.objects.get(path)
        if live is None:
            return self._status(404, f"{path} not found")
        wanted = body["metadata"].get("resourceVersion")
        if wanted is not None and wanted != live["metadata"]["resourceVersion"]:
            return self._status(409, "the object has been modified")
        return web.json_response(self._store(path, body))

    def _patch(self, path: str, seen: Seen) -> web.Response:
        live = self.objects.get(path)
        uid = (seen.body.get("metadata") or {}).get("uid")
        if live is None and (seen.path != path or "merge" in seen.headers["Content-Type"]):
            return self._status(404, f"{path} not found")
        if uid is not None and (live is None or live["metadata"]["uid"] != uid):
            return self._status(409, "Precondition failed: UID in precondition")
        if live is None:
            return web.json_response(self._store(path, seen.body), status=201)
        if seen.path != path:
            return web.json_response(self._store(path, {**live, "status": seen.body["status"]}))
        return web.json_response(self._store(path, _merged(live, seen.body)))

    def _delete(self, path: str, body: Object) -> web.Response:
        live = self.objects.get(path)
        if live is None:
            return self._status(404, f"{path} not found")
        uid = body.get("preconditions", {}).get("uid")
        if uid is not None and uid != live["metadata"]["uid"]:
            return self._status(409, "Precondition failed: UID in precondition")
        self.remove(path)
        return web.json_response({"kind": "Status", "status": "Success"})

    @staticmethod
    def _status(
        code: int, message: str, *, headers: dict[str, str] | None = None, causes: list[str] | None = None
    ) -> web.Response:
        body: Object = {"kind": "Status", "status": "Failure", "code": code, "message": message}
        if causes:
            body["details"] = {"causes": [{"reason": cause} for cause in causes]}
        return web.json_response(body, status=code, headers=headers)


def _merged(live: Any, patch: Any) -> Any:
    if not isinstance(live, dict) or not isinstance(patch, dict):
        return patch
    merged = {**live, **{key: _merged(live.get(key), value) for key, value in patch.items()}}
    return {key: value for key, value in merged.items() if key not in patch or patch[key] is not None}


def _selected(item: Object, query: dict[str, str]) -> bool:
    labels = item["metadata"].get("labels") or {}
    for wanted in filter(None, query.get("labelSelector", "").split(",")):
        label, asked, value = wanted.partition("=")
        if labels.get(label) != value if asked else label not in labels:
            return False
    for wanted in filter(None, query.get("fieldSelector", "").split(",")):
        field, value = wanted.split("=")
        found: Any = item
        for part in field.split("."):
            found = (found or {}).get(part)
        if found != value:
            return False
    return True
