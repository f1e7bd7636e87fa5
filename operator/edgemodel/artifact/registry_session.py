"""Requests to registries over HTTP: connections, credentials, redirects, retries, and errors a person can act on.

Promises
- An ``Authorization`` header goes to the host it is meant for and to no other, whatever redirects say.
- https is never left for http; at most ``Limits.redirects`` are followed, each by hand.
- 408, 429, 5xx and a broken network are tried again, a bounded number of times, with jitter; ``Retry-After`` is honoured.
- No secret is in an error or a log: neither header, nor token, nor query (blob stores sign URLs in the query).

Leaves to others: what the answers mean (``registry``), sockets, TLS and proxies (``registry_connections``).

Sources: OCI distribution-spec 1.1; RFC 9110 §10.2.3 (Retry-After), §11.6 (challenges); distribution's token specification.
"""

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

from edgemodel.artifact.credentials import Credential, Credentials
from edgemodel.artifact.registry_connections import Connections
from edgemodel.artifact.registry_errors import (
    NETWORK_ERRORS,
    RETRIED,
    bad_redirect,
    joined,
    lasting,
    refused,
    unreachable,
)
from edgemodel.errors import Transient
from edgemodel.process.response_body import read_all

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CHALLENGE = re.compile(r'([a-zA-Z][a-zA-Z0-9_]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))')
_PIECE = 1 << 17  # bytes of a body that are written under one time limit
_TOKEN_SECONDS = 60.0  # distribution's token specification: what a token lasts when expires_in is absent

Body = bytes | Callable[[], AsyncIterable[bytes]] | None
"""A body that can be sent again: bytes, or a function that begins it anew."""


@dataclass(frozen=True, slots=True)
class Target:
    """A repository on a registry, and what is to be done there."""

    host: str
    repository: str
    actions: str = "pull"


@dataclass(slots=True)
class _Authorization:
    header: str = field(repr=False)
    expires: float = float("inf")


@dataclass(frozen=True, slots=True)
class _Challenge:
    scheme: str
    parameters: Mapping[str, str]


class Session:
    """Sends requests with one set of credentials; tokens are kept here and shared with no other session."""

    def __init__(self, connections: Connections, credentials: Credentials | None = None) -> None:
        self.connections = connections
        self.limits = connections.limits
        self._credentials = credentials or Credentials()
        self._authorizations: dict[Target, _Authorization] = {}
        self._locks: dict[Target, asyncio.Lock] = {}

    @asynccontextmanager
    async def request(
        self,
        method: str,
        target: Target,
        path: str | httpx.URL,
        *,
        what: str,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        expect: Collection[int] = (200,),
    ) -> AsyncIterator[httpx.Response]:
        """Send a request, and hand on the answer with its body unread.

        Args:
            method: HTTP method.
            target: registry, repository and actions the credentials are asked for.
            path: path below the registry, or a whole URL the registry gave.
            what: what is asked for, in words, for messages.
            headers: more headers.
            body: what to send.
            expect: statuses that are handed on; every other one is an error.

        Raises:
            Transient: ``RegistryUnreachable``, ``AuthenticationFailed``, ``NotFound`` or ``TransferFailed``.
        """
        base = self.connections.base(target.host)
        url = joined(base, path) if isinstance(path, str) else path
        if base.scheme == "https" and url.scheme != "https":
            # An upload's Location, a next page: as good as a redirect.
            raise bad_redirect(base, what, f"to {url.scheme}://{url.host}")
        for attempt in range(1, self.limits.tries + 1):
            try:
                response = await self._authorized(method, target, url, what, headers or {}, body)
            except NETWORK_ERRORS as error:
                failure = unreachable(target.host, what, error)
                if lasting(error) or attempt == self.limits.tries:
                    raise failure from None
            else:
                if response.status_code in expect:
                    try:
                        yield response
                    finally:
                        await response.aclose()
                    return
                await response.aclose()
                failure = refused(target.host, what, response)
                if response.status_code not in RETRIED or attempt == self.limits.tries:
                    raise failure
            await self.pause(attempt, failure)

    async def pause(self, attempt: int, failure: Transient) -> None:
        """Wait before another try, or raise ``failure`` when the registry asks for a longer wait than we hold out."""
        if failure.retry_after is not None:
            if failure.retry_after > self.limits.longest_pause:
                raise failure
            await asyncio.sleep(failure.retry_after)
            return
        ceiling = min(self.limits.longest_pause, self.limits.backoff * 2 ** (attempt - 1))
        # Half fixed, half random: spreads a fleet of nodes that lost the same registry at the same moment.
        await asyncio.sleep(ceiling * (0.5 + random.random() / 2))  # noqa: S311 - not for secrecy

    # -- one try ----------------------------------------------------------------------------------------------------

    async def _authorized(
        self, method: str, target: Target, url: httpx.URL, what: str, headers: Mapping[str, str], body: Body
    ) -> httpx.Response:
        """Send with what authorization is known; when it is refused, try each credential in turn."""
        if not _same_origin(url, self.connections.base(target.host)):
            # The registry named another host (an upload's Location, a next page): it gets no credentials of ours.
            return await self._followed(method, url, what, headers, body, "")
        known = self._authorizations.get(target)
        if known is not None and known.expires <= time.monotonic():
            known = None
        response = await self._followed(method, url, what, headers, body, known.header if known else "")
        if response.status_code not in (401, 403) or not _same_origin(response.url, url):
            return response
        challenge = _parse_challenge(response.headers.get("WWW-Authenticate", ""))
        refusals: list[str] = []
        for authorization in self._candidates(target):
            await response.aclose()
            async with self._locks.setdefault(target, asyncio.Lock()):
                fresh = self._authorizations.get(target)
                # Another request of ours may have been given a token while this one waited.
                if fresh is None or fresh is known:
                    fresh = await self._authorization(target, challenge, authorization, refusals)
                    known = fresh
            if fresh is None:
                continue
            response = await self._followed(method, url, what, headers, body, fresh.header)
            if response.status_code not in (401, 403) or not _same_origin(response.url, url):
                return response
            refusals.append(f"status {response.status_code}")
            if self._authorizations.get(target) is fresh:
                del self._authorizations[target]
        await response.aclose()
        raise self._not_authorized(target, what, refusals or [f"status {response.status_code}"])

    def _candidates(self, target: Target) -> Iterator[Credential | None]:
        """Yield the credentials to try; None stands for an anonymous token, asked for only when there is no credential."""
        yield from self._credentials.matching(target.host, target.repository) or (None,)

    async def _authorization(
        self, target: Target, challenge: _Challenge, credential: Credential | None, refusals: list[str]
    ) -> _Authorization | None:
        """Turn one credential into a header as the challenge wants it, and remember it; None when that cannot be."""
        if challenge.scheme == "bearer":
            if credential is not None and credential.registry_token:
                found: _Authorization | None = _Authorization("Bearer " + credential.registry_token)
            else:
                found = await self._token(target, challenge, credential, refusals)
        elif credential is not None and credential.basic:
            found = _Authorization(credential.basic)
        else:
            found = None
        if found is not None:
            self._authorizations[target] = found
        return found

    async def _token(
        self, target: Target, challenge: _Challenge, credential: Credential | None, refusals: list[str]
    ) -> _Authorization | None:
        try:
            realm = httpx.URL(challenge.parameters.get("realm", ""))
        except (httpx.InvalidURL, ValueError):
            refusals.append("the address of its token service cannot be read")
            return None
        plain = self.connections.settings.for_host(target.host).plain_http
        if realm.scheme != "https" and not (realm.scheme == "http" and plain):
            refusals.append(f"its token service {realm.host or '(none)'} is not reached by https")
            return None
        # What this target needs, which may be more than the refused request did; a scope of another kind is believed.
        ours, asked = f"repository:{target.repository}:", challenge.parameters.get("scope", "")
        query = {"scope": asked if asked and not asked.startswith(ours) else ours + target.actions}
        if "service" in challenge.parameters:
            query["service"] = challenge.parameters["service"]
        client = self.connections.client(realm)
        if credential is not None and credential.identity_token:
            form = {**query, "grant_type": "refresh_token", "refresh_token": credential.identity_token}
            request = client.build_request("POST", realm, data={**form, "client_id": "edgemodel"})
        else:
            basic = {"Authorization": credential.basic} if credential is not None and credential.basic else {}
            request = client.build_request("GET", realm.copy_merge_params(query), headers=basic)
        response = await _send(client, request, self.limits.response)
        try:
            if response.status_code in RETRIED:
                raise refused(realm.netloc.decode(), "its token service", response)
            if response.status_code != 200:
                refusals.append(f"its token service {realm.host} answered {response.status_code}")
                return None
            content = await read_all(response, self.limits.manifest, self.limits.response)
        finally:
            await response.aclose()
        return self._read_token(realm, content, refusals)

    @staticmethod
    def _read_token(realm: httpx.URL, content: bytes | None, refusals: list[str]) -> _Authorization | None:
        try:
            document = json.loads(content or b"")
            token = document.get("token") or document.get("access_token")
            lifetime = float(document.get("expires_in") or _TOKEN_SECONDS)
        except (ValueError, AttributeError, TypeError, OverflowError, RecursionError):
            token, lifetime = None, 0.0
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            refusals.append(f"its token service {realm.host} gave no token that could be read")
            return None
        # Renewed a little early, so that a token does not die on its way.
        return _Authorization("Bearer " + token, time.monotonic() + lifetime * 0.9)

    def _not_authorized(self, target: Target, what: str, refusals: list[str]) -> Transient:
        tried = len(self._credentials.matching(target.host, target.repository))
        with_what = f"{tried} matching credential(s)" if tried else "no credentials, as none are given for it"
        return Transient(
            "AuthenticationFailed",
            f"registry {target.host} does not let us {target.actions} {target.repository} ({what}) with {with_what}: "
            f"{'; '.join(refusals)}; check the pull secret's registry, name and password",
        )

    async def _followed(
        self,
        method: str,
        url: httpx.URL,
        what: str,
        headers: Mapping[str, str],
        body: Body,
        authorization: str,
    ) -> httpx.Response:
        """Send one request and follow its redirects."""
        origin = url
        for _ in range(self.limits.redirects + 1):
            client = self.connections.client(url)
            sent = {**headers, "Authorization": authorization} if authorization else dict(headers)
            content = body() if callable(body) else body
            # A streamed body takes as long as it takes; each of its writes has its own time limit.
            seconds, timeout = None if callable(body) else self.limits.response, client.timeout
            if isinstance(body, bytes) and len(body) > _PIECE:
                # Written at once it would have to go out within one time limit, however slow the line. What the kernel
                # holds goes out while we wait for the answer already.
                content = _pieces(body)
                sent.setdefault("Content-Length", str(len(body)))
                seconds = self.limits.response + len(body) / self.limits.slowest
                timeout = httpx.Timeout(self.limits.read, connect=self.limits.connect, read=seconds)
            request = client.build_request(method, url, headers=sent, content=content, timeout=timeout)
            response = await _send(client, request, seconds)
            location = response.headers.get("Location", "")
            if response.status_code not in _REDIRECTS or not location:
                return response
            await response.aclose()
            following = joined(url, location)
            if following.scheme not in ("http", "https") or (url.scheme, following.scheme) == (
                "https",
                "http",
            ):
                raise bad_redirect(origin, what, f"to {following.scheme}://{following.host}")
            if not _same_origin(following, url):
                authorization = ""
            url = following
        raise bad_redirect(origin, what, f"more than {self.limits.redirects} times")


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), _PIECE):
        yield body[start : start + _PIECE]


async def _send(client: httpx.AsyncClient, request: httpx.Request, seconds: float | None) -> httpx.Response:
    try:
        async with asyncio.timeout(seconds):
            return await client.send(request, stream=True)
    except TimeoutError:
        raise httpx.ReadTimeout("no answer within the time allowed") from None
    except httpx.InvalidURL:
        # httpx reads Location even when it does not follow.
        raise httpx.RemoteProtocolError("the answer holds an address that is none") from None


def _same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    def port(url: httpx.URL) -> int:
        return url.port or (443 if url.scheme == "https" else 80)

    return (one.scheme, one.host, port(one)) == (other.scheme, other.host, port(other))


def _parse_challenge(header: str) -> _Challenge:
    """Read ``WWW-Authenticate``; a missing or unknown one is taken for Basic."""
    scheme, _, rest = header.strip().partition(" ")
    parameters = {m[1].lower(): m[2] if m[2] is not None else m[3] for m in _CHALLENGE.finditer(rest)}
    return _Challenge("bearer" if scheme.lower() == "bearer" else "basic", parameters)
