"""Open connections to registries: one pool for each set of trusted authorities, shared by all sessions of a process.

Promises: plain HTTP only where the settings say so; cookies are neither kept nor sent; bodies are never decompressed.
``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY`` are respected, as are ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` for registries
that have no CA of their own in the settings. Leaves to others: credentials, redirects and retries (``registry_session``).
"""

import logging
import re
import ssl
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Self

import httpcore
import httpx

from edgemodel.artifact.registry_settings import Limits, RegistrySettings
from edgemodel.errors import Transient

# httpx logs whole URLs, and blob stores put secrets into them; httpcore logs headers.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)

# asyncio hands over what has arrived, up to 256 KiB; httpcore's own 64 KiB would cut that into four and copy the rest
# each time. Measured on 512 MB over loopback: 0.45 s of processor time in place of 1.2 s.
httpcore.AsyncHTTP11Connection.READ_NUM_BYTES = 1 << 18


_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----", re.ASCII)


class Connections:
    """Open connections to registries, shared by any number of sessions; use as an async context manager."""

    def __init__(self, settings: RegistrySettings | None = None, limits: Limits | None = None) -> None:
        self.settings = settings or RegistrySettings()
        self.limits = limits or Limits()
        self._clients: dict[str, httpx.AsyncClient] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()

    def base(self, host: str) -> httpx.URL:
        """Return ``https://host``, or ``http://host`` where the settings say plain HTTP."""
        name = "registry-1.docker.io" if host in ("docker.io", "index.docker.io") else host
        return httpx.URL(f"{'http' if self.settings.for_host(host).plain_http else 'https'}://{name}")

    def client(self, url: httpx.URL) -> httpx.AsyncClient:
        """Return the client for a URL: one for each set of trusted authorities."""
        authority = url.netloc.decode("ascii")
        ca = None
        if url.scheme == "https":
            # A URL leaves its default port out; references and settings may name it.
            ca = self.settings.for_host(authority).ca
            if ca is None:
                ca = self.settings.for_host(f"{authority}:443").ca
        key = url.scheme if ca is None else ca
        if key not in self._clients:
            self._clients[key] = self._open(url, ca)
        return self._clients[key]

    def _open(self, url: httpx.URL, ca: str | None) -> httpx.AsyncClient:
        verify: ssl.SSLContext | bool = True
        if url.scheme == "http":
            # Trusts nobody: loading the system's authorities costs 20 ms that plain HTTP does not need.
            verify = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        elif ca is not None:
            verify = _trusting(ca, url.netloc.decode("ascii"))
        limits = self.limits
        return httpx.AsyncClient(
            verify=verify,
            timeout=httpx.Timeout(limits.read, connect=limits.connect),
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=16, keepalive_expiry=30),
            # One client serves many namespaces: a cookie would carry one's session into another's request.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            headers={"User-Agent": "edgemodel", "Accept-Encoding": "identity"},
        )


def _trusting(ca: str, host: str) -> ssl.SSLContext:
    """Return a context that trusts the certificates in ``ca`` and no other."""
    # Only the blocks: bundles hold comments, in any language, and those are no ASCII.
    certificates = "\n".join(_CERTIFICATE.findall(ca))
    problem = "it holds no certificate"
    if certificates:  # Python would trust the system's authorities in place of none
        try:
            return ssl.create_default_context(cadata=certificates)
        except ssl.SSLError as error:
            problem = str(error.reason)
    raise Transient(
        "RegistryUnreachable",
        f"the CA configured for registry {host} cannot be read ({problem}): expected PEM",
    )
