"""Registries around the testbed: hands on the open one, a private one with TLS and a password, and ones that misbehave."""

import base64
import datetime as dt
import ipaddress
import json
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from testbed.paths import BIN
from testbed.publisher import Publisher
from testbed.shell import run
from testbed.waiting import until

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
USERNAME, PASSWORD = "edge", "only-for-tests"
PASSWORD_LINE = "edge:$2b$05$FgmNeUg/ZAa8YM.jAegf6eJn55sz.q2NpYZELBL0xwDS640465bZS\n"


def digest_of(data: bytes) -> str:
    """Return ``sha256:…`` of ``data``."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data)
    return f"sha256:{digest.finalize().hex()}"


@dataclass(frozen=True)
class RegistryTools:
    """What someone who can write to a registry can do to it.

    Attributes:
        host: ``address:port``, plain HTTP.
        storage: folder in which the registry keeps its blobs.
    """

    host: str
    storage: Path

    def _client(self) -> httpx.Client:
        return httpx.Client(
            base_url=f"http://{self.host}", timeout=30, headers={"accept": f"{MANIFEST}, {INDEX}"}
        )

    def manifest(self, repository: str, reference: str) -> bytes:
        """Return the bytes of a manifest or index."""
        with self._client() as client:
            return client.get(f"/v2/{repository}/manifests/{reference}").raise_for_status().content

    def put(self, repository: str, reference: str, data: bytes, kind: str = MANIFEST) -> str:
        """Store a manifest under a tag or digest and return its digest."""
        with self._client() as client:
            client.put(
                f"/v2/{repository}/manifests/{reference}", content=data, headers={"content-type": kind}
            ).raise_for_status()
        return digest_of(data)

    def _copy_signatures(self, source: str, signed: bytes, repository: str, subject: bytes) -> None:
        """Attach the signatures of ``signed`` to ``subject``, as an attacker would who has no key."""
        index = json.loads(self.manifest(source, digest_of(signed).replace(":", "-")))
        entries = []
        for entry in index["manifests"]:
            referrer = json.loads(self.manifest(source, entry["digest"]))
            for blob in [*referrer["layers"], referrer["config"]]:
                self._mount(source, repository, blob["digest"])
            referrer["subject"] = {"mediaType": MANIFEST, "digest": digest_of(subject), "size": len(subject)}
            data = json.dumps(referrer).encode()
            digest = self.put(repository, digest_of(data), data)
            entries.append({**entry, "digest": digest, "size": len(data)})
        index["manifests"] = entries
        self.put(repository, digest_of(subject).replace(":", "-"), json.dumps(index).encode(), INDEX)

    def _mount(self, source: str, repository: str, digest: str) -> None:
        with self._client() as client:
            response = client.post(
                f"/v2/{repository}/blobs/uploads/", params={"mount": digest, "from": source}
            )
            assert response.status_code == 201, response.text

    def tamper_manifest(self, repository: str, honest: str, tag: str) -> str:
        """Alter the manifest at tag ``honest``, store it as ``tag`` with the honest one's signatures; return its digest."""
        original = self.manifest(repository, honest)
        manifest = json.loads(original)
        manifest.setdefault("annotations", {})["io.edgemodel.version"] = "v2-and-a-back-door"
        altered = json.dumps(manifest).encode()
        self._copy_signatures(repository, original, repository, altered)
        return self.put(repository, tag, altered)

    def copy(self, source: str, tag: str, repository: str, to_tag: str) -> str:
        """Copy an artifact with its signatures into another repository; return its digest."""
        data = self.manifest(source, tag)
        manifest = json.loads(data)
        for blob in [manifest["config"], *manifest["layers"]]:
            self._mount(source, repository, blob["digest"])
        self._copy_signatures(source, data, repository, data)
        return self.put(repository, to_tag, data)

    def flip_byte_of_largest_layer(self, repository: str, tag: str) -> None:
        """Change one byte in the middle of a blob on the registry's disk."""
        layers = json.loads(self.manifest(repository, tag))["layers"]
        layer = max(layers, key=lambda one: int(one["size"]))
        name = layer["digest"].removeprefix("sha256:")
        path = self.storage / "docker/registry/v2/blobs/sha256" / name[:2] / name / "data"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    def oras_push(self, reference: str, files: list[Path]) -> None:
        """Push files as a plain artifact with the oras command."""
        run(
            BIN / "oras",
            "push",
            "--plain-http",
            f"{self.host}/{reference}",
            *(f"{path.name}:application/octet-stream" for path in files),
            cwd=files[0].parent,
        )


def certificate(address: str, folder: Path) -> tuple[Path, Path]:
    """Write a self-signed certificate for an IP address; return its path and its key's."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edgemodel testbed")])
    now = dt.datetime.now(dt.UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = folder / "tls.crt", folder / "tls.key"
    cert_path.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return cert_path, key_path


@dataclass(frozen=True)
class PrivateRegistry:
    """A Debian docker-registry with TLS from a private CA and basic authentication."""

    host: str
    ca: Path
    username: str = USERNAME
    password: str = PASSWORD

    def publisher(self, folder: Path) -> Publisher:
        """Return a publisher that may write; what it needs is put into ``folder``."""
        credentials = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        config = folder / "private-registry.json"
        config.write_text(json.dumps({"auths": {self.host: {"auth": credentials}}}))
        return Publisher(folder, self.host, ("--ca-file", str(self.ca), "--docker-config", str(config)))

    def pull_secret(self, name: str, namespace: str) -> dict[str, Any]:
        """Return a Secret with which pods, or their node's agent, may read."""
        config = {"auths": {self.host: {"username": self.username, "password": self.password}}}
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/dockerconfigjson",
            "metadata": {"name": name, "namespace": namespace},
            "stringData": {".dockerconfigjson": json.dumps(config)},
        }


@contextmanager
def private_registry(address: str, port: int, folder: Path) -> Iterator[PrivateRegistry]:
    """Run one while the block lasts."""
    cert, key = certificate(address, folder)
    (folder / "htpasswd").write_text(PASSWORD_LINE)
    config: dict[str, Any] = {
        "version": 0.1,
        "log": {"accesslog": {"disabled": True}, "level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"{address}:{port}", "tls": {"certificate": str(cert), "key": str(key)}},
        "auth": {"htpasswd": {"realm": "edge", "path": str(folder / "htpasswd")}},
    }
    (folder / "config.yml").write_text(json.dumps(config))
    process = subprocess.Popen(
        ["docker-registry", "serve", str(folder / "config.yml")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    context = ssl.create_default_context(cafile=str(cert))

    def answers() -> bool:
        try:
            return httpx.get(f"https://{address}:{port}/v2/", verify=context).status_code == 401
        except httpx.TransportError:
            return False

    try:
        until(answers, "the private registry to answer", timeout=20)
        yield PrivateRegistry(f"{address}:{port}", cert)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)


class _Listener:
    """Accepts connections and keeps them without a word, or shows a certificate that nobody trusts."""

    def __init__(self, address: str, port: int, context: ssl.SSLContext | None) -> None:
        self._context = context
        self._held: list[socket.socket] = []
        self._socket = socket.create_server((address, port), reuse_port=False)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            if self._context is None:
                self._held.append(connection)
                continue
            try:
                self._context.wrap_socket(connection, server_side=True).close()
            except (ssl.SSLError, OSError):
                connection.close()

    def close(self) -> None:
        # Closed only, it would listen on for as long as its thread waits in accept.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for connection in self._held:
            connection.close()


@contextmanager
def troubled(address: str, folder: Path, ports: dict[str, int]) -> Iterator[dict[str, str]]:
    """Run the ones that misbehave; yield ``address:port`` by kind.

    ``closed``: nobody listens. ``silent``: takes the connection and never answers. ``wrong-certificate``: shows one that
    is signed by nobody.
    """
    cert, key = certificate(address, folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with ExitStack() as stack:
        for kind, chosen in (("silent", None), ("wrong-certificate", context)):
            stack.callback(_Listener(address, ports[kind], chosen).close)
        yield {kind: f"{address}:{port}" for kind, port in ports.items()}


def scratch(stack: ExitStack, name: str) -> Path:
    """Return a folder that is gone when the stack unwinds."""
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"edgemodel-{name}-")))
