"""Where the server is and how it is spoken to: protocol, address, TLS, token; and the bytes of an HTTP request to it."""

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
        authority: whom to ask for: HTTP's Host, HTTP/2's ``:authority``.
        path: that goes before ``/v2``: a gateway's ``/<namespace>/<name>``; "" for none, and for gRPC.
        grpc: it is spoken to by gRPC.
        tls: how to speak TLS; None does without.
        token: for ``Authorization: Bearer``; "" for none.
    """

    host: str
    port: int
    authority: str
    path: str = ""
    grpc: bool = False
    tls: ssl.SSLContext | None = None
    token: str = field(default="", repr=False)

    @classmethod
    def parse(
        cls, url: str, *, token: str = "", ca_file: Path | None = None, authority: str | None = None
    ) -> "Target":
        """Return the server at a URL.

        Args:
            url: ``http://host:port`` or ``https://…``, perhaps with a path; or ``grpc://host:port`` or ``grpcs://…``.
            token: shown to the server; "" for none.
            ca_file: PEM of the authorities to trust instead of the system's.
            authority: whom to ask for at that host; None for the host itself.

        Raises:
            Stalled: ``InvalidSpec``; this is no such URL, file, token or authority.
        """
        try:
            parts = urlsplit(url)
            grpc, secure = parts.scheme in ("grpc", "grpcs"), parts.scheme in ("https", "grpcs")
            port = parts.port or (443 if secure else 80)
        except ValueError as error:
            raise Stalled("InvalidSpec", f"{url!r}: not a URL: {error}") from None
        if not parts.hostname or not (grpc or secure or parts.scheme == "http") or not _word(parts.netloc):
            raise Stalled(
                "InvalidSpec", f"expected http://host:port, https://, grpc:// or grpcs://, found {url!r}"
            )
        if parts.query or parts.fragment or "@" in parts.netloc:
            raise Stalled("InvalidSpec", f"{url!r}: expected no user, query or fragment in it")
        path = quote(parts.path.rstrip("/"), safe="/%")
        if grpc and path:
            raise Stalled(
                "InvalidSpec", f"{url!r}: gRPC has no path; a gateway's model is named by --authority"
            )
        if not _word(token):
            raise Stalled("InvalidSpec", "the token: expected printable ASCII without spaces")
        if authority is not None and not (authority and _word(authority)):
            raise Stalled("InvalidSpec", f"--authority: expected a host's name, found {authority!r}")
        if ca_file is not None and not secure:
            raise Stalled("InvalidSpec", f"--ca-file is for https and grpcs, and the URL is {url}")
        tls = _tls(ca_file, "h2" if grpc else "http/1.1") if secure else None
        return cls(parts.hostname, port, authority or parts.netloc, path, grpc, tls, token)

    def request(
        self, method: str, path: str, body: bytes = b"", headers: Iterable[tuple[str, str]] = ()
    ) -> bytes:
        """Return a whole HTTP request for a path from ``/v2`` on."""
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


def _word(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


def _tls(ca_file: Path | None, protocol: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except OSError as error:  # ssl.SSLError is one
        raise Stalled(
            "InvalidSpec", f"{ca_file}: expected certificates in PEM: {error.strerror or error}"
        ) from None
    context.set_alpn_protocols([protocol])
    return context
