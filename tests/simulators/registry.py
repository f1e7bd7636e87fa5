"""An OCI distribution registry in memory, on a loopback port, with switches for everything that can go wrong on the way.

It speaks the protocol over a real socket, so clients are tested whole: connections, redirects, ranges, TLS. It checks what a
registry checks (digests on upload, credentials, token scopes) and records every request. Faults are switched on by
``fault(…)`` and apply to the first requests that match.

::

    async with RegistrySimulator() as registry:
        registry.fault("GET", r"/blobs/", status=503, headers={"Retry-After": "1"})
"""

import asyncio
import base64
import hashlib
import json
import re
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

from tests.simulators.registry_faults import Answer, Fault, Request

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_ROUTE = re.compile(
    r"/v2/(?P<repository>.+?)/(?P<kind>manifests|blobs/uploads|blobs|referrers)(?:/(?P<key>[^/]*))?$"
)


def digest_of(content: bytes) -> str:
    """``sha256:<hex>`` of some bytes."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


class RegistrySimulator:
    """See the module's docstring. Attributes may be changed at any time.

    Args:
        auth: None, ``basic`` or ``bearer``.
        users: name to password.
        tls: a server-side context to speak HTTPS.
        ranges: whether ``Range`` is honoured on blobs.
        referrers: whether the referrers API exists.
        referrers_page: how many descriptors one page of referrers holds.
    """

    def __init__(
        self,
        *,
        auth: str | None = None,
        users: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        ranges: bool = True,
        referrers: bool = True,
        referrers_page: int = 1000,
    ) -> None:
        self.auth = auth
        self.users = dict(users or {})
        self.tls = tls
        self.ranges = ranges
        self.referrers = referrers
        self.referrers_page = referrers_page
        self.token_lifetime = 300
        self.blobs: dict[str, dict[str, bytes]] = {}
        self.manifests: dict[str, dict[str, tuple[str, bytes]]] = {}
        self.tags: dict[str, dict[str, str]] = {}
        self.requests: list[Request] = []
        self.connections = 0
        self.host = ""
        self._faults: list[Fault] = []
        self._tokens: dict[str, str] = {}
        self._uploads: dict[str, bytearray] = {}
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._gone = asyncio.Event()

    # -- for tests --------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self.tls)
        self.host = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self._gone.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def base(self) -> str:
        """``http://host:port`` or ``https://host:port``."""
        return f"{'https' if self.tls else 'http'}://{self.host}"

    def fault(self, method: str, path: str, *, times: int | None = 1, **what: object) -> Fault:
        """Make the next ``times`` requests whose path matches the pattern go wrong; see ``Fault`` for how."""
        fault = Fault(method, re.compile(path), times, **what)  # type: ignore[arg-type]
        self._faults.append(fault)
        return fault

    def add_blob(self, repository: str, content: bytes) -> str:
        """Store a blob and return its digest."""
        digest = digest_of(content)
        self.blobs.setdefault(repository, {})[digest] = content
        return digest

    def add_manifest(
        self, repository: str, content: bytes, *, tag: str = "", media_type: str = MANIFEST
    ) -> str:
        """Store a manifest, perhaps under a tag, and return its digest."""
        digest = digest_of(content)
        self.manifests.setdefault(repository, {})[digest] = (media_type, content)
        if tag:
            self.tags.setdefault(repository, {})[tag] = digest
        return digest

    def seen(self, method: str, path: str = "") -> list[Request]:
        """Return the requests of a method whose path matches the pattern."""
        return [r for r in self.requests if r.method == method and re.search(path, r.path)]

    # -- the wire ---------------------------------------------------------------------------------------------------

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await self._read(reader)) is not None:
                if request.method == "?":
                    await self._send(writer, request, Answer(400, {"Connection": "close"}), None)
                    break
                self.requests.append(request)
                fault = next((f for f in self._faults if f.matches(request)), None)
                if fault is not None:
                    fault.hits += 1
                if not await self._send(writer, request, self._answer(request, fault), fault):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass  # the client hung up: its right
        finally:
            writer.close()

    @staticmethod
    async def _read(reader: asyncio.StreamReader) -> Request | None:
        line = await reader.readline()
        if not line:
            return None
        if b" HTTP/1." not in line:
            return Request("?", "/", {}, {})  # not HTTP: a TLS greeting, for one
        method, target, _ = line.decode().split(" ", 2)
        headers: dict[str, str] = {}
        while (line := await reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            headers[name.strip().lower()] = value.strip()
        body = bytearray()
        if headers.get("transfer-encoding") == "chunked":
            while size := int((await reader.readline()).split(b";")[0], 16):
                body += await reader.readexactly(size)
                await reader.readline()
            await reader.readline()
        elif "content-length" in headers:
            body += await reader.readexactly(int(headers["content-length"]))
        parts = urlsplit(target)
        return Request(
            method, parts.path, parse_qs(parts.query, keep_blank_values=True), headers, bytes(body)
        )

    async def _send(
        self, writer: asyncio.StreamWriter, request: Request, answer: Answer, fault: Fault | None
    ) -> bool:
        """Send and return whether the connection may be used again."""
        body = answer.body
        unframed = fault is not None and fault.unframed
        if not unframed:
            answer.headers.setdefault("Content-Length", str(len(body)))
        head = [
            f"HTTP/1.1 {answer.status} Simulated",
            *(f"{k}: {v}" for k, v in answer.headers.items()),
            "",
            "",
        ]
        writer.write("\r\n".join(head).encode())
        if request.method == "HEAD" or answer.status == 204:
            await writer.drain()
            return True
        if fault is not None and fault.truncate is not None:
            writer.write(body[: fault.truncate])
            await writer.drain()
            return False
        if fault is not None and fault.stall is not None:
            writer.write(body[: fault.stall])
            await writer.drain()
            await self._gone.wait()
            return False
        if fault is not None and fault.trickle is not None:
            size, pause = fault.trickle
            for start in range(0, len(body), size):
                writer.write(body[start : start + size])
                await writer.drain()
                await asyncio.sleep(pause)
            return True
        writer.write(body)
        await writer.drain()
        return not unframed

    # -- the registry -----------------------------------------------------------------------------------------------

    def _answer(self, request: Request, fault: Fault | None) -> Answer:
        if fault is not None and fault.redirect is not None:
            return Answer(307, {"Location": fault.redirect + request.path})
        if fault is not None and fault.status is not None:
            return Answer(fault.status, dict(fault.headers), fault.body or b"")
        answer = self._route(request)
        if fault is not None:
            answer.headers.update(fault.headers)
            body = bytearray(answer.body if fault.body is None else fault.body) + fault.extra
            if fault.corrupt is not None:
                body[fault.corrupt] ^= 1
            answer.body = bytes(body)
            answer.headers.pop("Content-Length", None)
        return answer

    def _route(self, request: Request) -> Answer:
        if request.path == "/token":
            return self._token(request)
        route = _ROUTE.match(request.path)
        repository = route["repository"] if route else ""
        if (refusal := self._unauthorized(request, repository)) is not None:
            return refusal
        if request.path == "/v2/":
            return Answer()
        if route is None:
            return Answer(404)
        kind, key = route["kind"], route["key"] or ""
        if kind == "manifests":
            return self._manifest(request, repository, key)
        if kind == "referrers":
            return self._referrers(request, repository, key)
        if kind == "blobs":
            return self._blob(request, repository, key)
        return self._upload(request, repository, key)

    def _manifest(self, request: Request, repository: str, key: str) -> Answer:
        if request.method == "PUT":
            digest = self.add_manifest(
                repository,
                request.body,
                tag="" if key.startswith("sha256:") else key,
                media_type=request.headers["content-type"],
            )
            if key.startswith("sha256:") and key != digest:
                return Answer(400)
            headers = {"Location": f"/v2/{repository}/manifests/{digest}", "Docker-Content-Digest": digest}
            subject = json.loads(request.body).get("subject")
            if subject and self.referrers:
                headers["OCI-Subject"] = subject["digest"]
            return Answer(201, headers)
        digest = key if key.startswith("sha256:") else self.tags.get(repository, {}).get(key, "")
        stored = self.manifests.get(repository, {}).get(digest)
        if stored is None:
            return Answer(404, body=b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
        media_type, content = stored
        headers = {"Content-Type": media_type, "Docker-Content-Digest": digest}
        return Answer(200, headers, content)

    def _blob(self, request: Request, repository: str, digest: str) -> Answer:
        content = self.blobs.get(repository, {}).get(digest)
        if content is None:
            return Answer(404, body=b'{"errors":[{"code":"BLOB_UNKNOWN"}]}')
        wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        if wanted is None or not self.ranges:
            return Answer(200, {"Content-Type": "application/octet-stream"}, content)
        start = int(wanted[1])
        if start >= len(content):
            return Answer(416)
        return Answer(
            206, {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}, content[start:]
        )

    def _referrers(self, request: Request, repository: str, digest: str) -> Answer:
        if not self.referrers:
            return Answer(404)
        found = []
        for name, (media_type, content) in self.manifests.get(repository, {}).items():
            document = json.loads(content)
            if isinstance(document, dict) and document.get("subject", {}).get("digest") == digest:
                kind = document.get("artifactType") or document["config"]["mediaType"]
                found.append(
                    {"mediaType": media_type, "digest": name, "size": len(content), "artifactType": kind}
                )
        start = int(request.query.get("page", ["0"])[0]) * self.referrers_page
        headers = {"Content-Type": INDEX}
        if start + self.referrers_page < len(found):
            following = start // self.referrers_page + 1
            headers["Link"] = f'</v2/{repository}/referrers/{digest}?page={following}>; rel="next"'
        manifests = found[start : start + self.referrers_page]
        body = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}
        return Answer(200, headers, json.dumps(body).encode())

    def _upload(self, request: Request, repository: str, key: str) -> Answer:
        if request.method == "POST":
            key = str(len(self._uploads))
            self._uploads[key] = bytearray()
            return Answer(202, {"Location": f"/v2/{repository}/blobs/uploads/{key}?state=1"})
        upload = self._uploads[key]
        upload += request.body
        if request.method == "PATCH":
            return Answer(
                202,
                {
                    "Location": f"/v2/{repository}/blobs/uploads/{key}?state=1",
                    "Range": f"0-{len(upload) - 1}",
                },
            )
        digest = request.query["digest"][0]
        if digest_of(bytes(upload)) != digest:
            return Answer(400, body=b'{"errors":[{"code":"DIGEST_INVALID"}]}')
        self.add_blob(repository, bytes(upload))
        return Answer(201, {"Location": f"/v2/{repository}/blobs/{digest}"})

    # -- credentials ------------------------------------------------------------------------------------------------

    def _unauthorized(self, request: Request, repository: str) -> Answer | None:
        given = request.headers.get("authorization", "")
        action = "pull" if request.method in ("GET", "HEAD") else "push"
        if self.auth == "basic" and not self._known(given):
            return Answer(401, {"WWW-Authenticate": 'Basic realm="simulator"'})
        if self.auth == "bearer":
            scope = self._tokens.get(given.removeprefix("Bearer "))
            granted = scope is not None and scope.startswith(f"repository:{repository}:") and action in scope
            if not granted:
                wanted = f"repository:{repository}:pull" + (",push" if action == "push" else "")
                challenge = f'Bearer realm="{self.base}/token",service="simulator",scope="{wanted}"'
                return Answer(401, {"WWW-Authenticate": challenge})
        return None

    def _known(self, authorization: str) -> bool:
        if not authorization.startswith("Basic "):
            return False
        name, _, password = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        return bool(name) and self.users.get(name) == password

    def _token(self, request: Request) -> Answer:
        given = request.headers.get("authorization", "")
        if self.users and not self._known(given):
            return Answer(401)
        token = f"token-{len(self._tokens)}"
        self._tokens[token] = " ".join(request.query.get("scope", []))
        body = {"token": token, "expires_in": self.token_lifetime}
        return Answer(200, {"Content-Type": "application/json"}, json.dumps(body).encode())
