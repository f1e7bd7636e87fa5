"""Where the server is and how it is spoken to: address, TLS, token; and the bytes of a request to it."""

import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

from edgemodel.errors import Stalled


@dataclass(frozen=True, slots=True)
class Target:
    """A server.

    Attributes:
        host: name or address to connect to.
        port: TCP port.
        authority: for the Host header.
        path: that goes before ``/v2``: a gateway's ``/<namespace>/<name>``; "" for none.
        tls: how to speak TLS; None speaks plain HTTP.
        token: for ``Authorization: Bearer``; "" for none.
    """

    host: str
    port: int
    authority: str
    path: str = ""
    tls: ssl.SSLContext | None = None
    token: str = field(default="", repr=False)

    @classmethod
    def parse(cls, url: str, *, token: str = "", ca_file: Path | None = None) -> "Target":
        """Return the server at a URL.

        Args:
            url: ``http://host:port`` or ``https://…``, perhaps with a path.
            token: shown to the server; "" for none.
            ca_file: PEM of the authorities to trust instead of the system's.

        Raises:
            Stalled: ``InvalidSpec``; this is no such URL, file or token.
        """
        try:
            parts = urlsplit(url)
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError as error:
            raise Stalled("InvalidSpec", f"{url!r}: not a URL: {error}") from None
        host, plain = parts.hostname or "", parts.netloc.isascii() and parts.netloc.isprintable()
        if parts.scheme not in ("http", "https") or not host or not plain:
            raise Stalled("InvalidSpec", f"expected http://host:port or https://host:port, found {url!r}")
        if parts.query or parts.fragment or "@" in parts.netloc:
            raise Stalled("InvalidSpec", f"{url!r}: expected no user, query or fragment in it")
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise Stalled("InvalidSpec", "the token: expected printable ASCII without spaces")
        if ca_file is not None and parts.scheme == "http":
            raise Stalled("InvalidSpec", f"--ca-file is for https, and the URL is {url}")
        path = quote(parts.path.rstrip("/"), safe="/%")
        tls = _tls(ca_file) if parts.scheme == "https" else None
        return cls(host, port, parts.netloc, path, tls, token)

    def request(
        self, method: str, path: str, body: bytes = b"", headers: Iterable[tuple[str, str]] = ()
    ) -> bytes:
        """Return a whole request for a path from ``/v2`` on."""
        lines = [f"{method} {self.path}{path} HTTP/1.1", f"Host: {self.authority}", "Accept: */*"]
        if self.token:
            lines.append(f"Authorization: Bearer {self.token}")
        lines += [f"{name}: {value}" for name, value in headers]
        if method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*lines, "", ""]).encode() + body


def model_path(model: str, version: str | None = None) -> str:
    """Return the path of a model."""
    path = f"/v2/models/{quote(model, safe='')}"
    return path if version is None else f"{path}/versions/{quote(version, safe='')}"


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except OSError as error:  # ssl.SSLError is one
        raise Stalled(
            "InvalidSpec", f"{ca_file}: expected certificates in PEM: {error.strerror or error}"
        ) from None
    context.set_alpn_protocols(["http/1.1"])
    return context
