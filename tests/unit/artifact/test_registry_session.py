"""Failures of a registry, TLS and writing: each fault, and what is tried again."""

import asyncio
from datetime import UTC, datetime

import pytest

from edgemodel.artifact.digest import Digest
from edgemodel.artifact.registry_connections import Connections
from edgemodel.artifact.registry_errors import retry_after
from edgemodel.artifact.registry_session import Session, Target
from edgemodel.artifact.registry_settings import HostSettings, Limits, RegistrySettings
from edgemodel.errors import Transient
from tests.simulators.certificates import loopback_tls
from tests.simulators.registry import MANIFEST as MEDIA_TYPE
from tests.simulators.registry import RegistrySimulator
from tests.unit.artifact.registry_client import (
    ANN,
    MANIFEST,
    SHORT,
    at,
    client,
    credentials_for,
    described,
    whole,
)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_a_passing_fault_is_tried_again(status):
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        simulator.add_manifest("models/a", MANIFEST, tag="v1")
        simulator.fault("GET", "/manifests/", times=2, status=status)
        assert await registry.manifest(at(simulator)) == MANIFEST


@pytest.mark.parametrize(
    ("status", "reason", "requests"),
    [
        (400, "TransferFailed", 1),
        (401, "AuthenticationFailed", 1),
        (403, "AuthenticationFailed", 1),
        (404, "NotFound", 1),
        (429, "RegistryUnreachable", SHORT.tries),
        (503, "RegistryUnreachable", SHORT.tries),
    ],
)
async def test_a_lasting_fault_has_its_own_reason_and_a_bounded_number_of_tries(status, reason, requests):
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        simulator.fault("GET", "/manifests/", times=None, status=status)
        with pytest.raises(Transient) as caught:
            await registry.manifest(at(simulator))
        assert caught.value.reason == reason
        assert simulator.host in caught.value.message
        assert len(simulator.requests) == requests


async def test_retry_after_is_waited_for():
    limits = Limits(tries=3, backoff=30.0, longest_pause=60.0)
    async with RegistrySimulator() as simulator, client(simulator, limits=limits) as registry:
        simulator.add_manifest("models/a", MANIFEST, tag="v1")
        simulator.fault("GET", "/manifests/", status=429, headers={"Retry-After": "0"})
        async with asyncio.timeout(1.0):  # the backoff alone would be 15 s or more
            assert await registry.manifest(at(simulator)) == MANIFEST


async def test_a_long_retry_after_is_handed_to_the_caller():
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        simulator.fault("GET", "/manifests/", times=None, status=429, headers={"Retry-After": "3600"})
        with pytest.raises(Transient) as caught:
            await registry.manifest(at(simulator))
        assert caught.value.retry_after == 3600
        assert len(simulator.requests) == 1


def test_retry_after_may_be_a_date_and_nonsense_is_passed_over():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after("Thu, 01 Jan 2026 00:00:10 GMT", now) == 10
    assert retry_after("Wed, 31 Dec 2025 00:00:10 GMT", now) == 0
    assert retry_after("120", now) == 120
    assert retry_after("soon", now) is None
    assert retry_after("-5", now) is None
    assert retry_after("", now) is None


async def test_nobody_listening_is_unreachable():
    async with RegistrySimulator() as simulator:
        reference = at(simulator)
    async with client(simulator) as registry:
        with pytest.raises(Transient) as caught:
            await registry.manifest(reference)
    assert caught.value.reason == "RegistryUnreachable"
    assert reference.registry in caught.value.message


async def test_a_registry_that_never_answers_is_unreachable():
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        simulator.add_manifest("models/a", MANIFEST, tag="v1")
        simulator.fault("GET", "/manifests/", times=None, stall=3)
        with pytest.raises(Transient) as caught:
            await registry.manifest(at(simulator))
    assert caught.value.reason == "RegistryUnreachable"


async def test_connections_are_used_again():
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        simulator.add_manifest("models/a", MANIFEST, tag="v1")
        for _ in range(5):
            await registry.manifest(at(simulator))
        assert simulator.connections == 1


# -- TLS ----------------------------------------------------------------------------------------------------------------


async def test_a_private_ca_is_trusted_when_given(tmp_path):
    context, ca = loopback_tls(tmp_path)
    async with RegistrySimulator(tls=context) as simulator, client(simulator, ca=ca) as registry:
        simulator.add_manifest("models/a", MANIFEST, tag="v1")
        assert await registry.manifest(at(simulator)) == MANIFEST


async def test_an_unknown_certificate_is_refused_at_once_and_says_what_to_do(tmp_path):
    context, _ = loopback_tls(tmp_path)
    async with RegistrySimulator(tls=context) as simulator, client(simulator) as registry:
        with pytest.raises(Transient) as caught:
            await registry.manifest(at(simulator))
        assert simulator.connections == 0
    assert caught.value.reason == "RegistryUnreachable"
    assert "certificate" in caught.value.message
    assert "ca" in caught.value.message


async def test_plain_http_is_never_tried_unless_said_so():
    async with RegistrySimulator() as simulator, client() as registry:
        with pytest.raises(Transient) as caught:
            await registry.manifest(at(simulator))
        assert simulator.requests == []
    assert "plainHTTP" in caught.value.message


# -- writing ------------------------------------------------------------------------------------------------------------


async def test_blobs_and_manifests_can_be_written_and_read_back():
    async with RegistrySimulator(auth="bearer", users=ANN) as simulator:
        users = credentials_for(simulator.host, ("ann", "hidden"))
        async with client(simulator, credentials=users) as registry:

            async def pieces():
                for _ in range(3):
                    yield b"x" * 1000

            content = b"x" * 3000
            await registry.put_blob(at(simulator), Digest.of(content), 3000, pieces)
            assert await whole(registry, at(simulator), described(content)) == content
            assert await registry.put_manifest(at(simulator), MANIFEST, MEDIA_TYPE) is False
            assert await registry.manifest(at(simulator)) == MANIFEST
            await registry.put_blob(at(simulator), Digest.of(content), 3000, pieces)
        assert len(simulator.seen("POST", "/uploads/")) == 1, "what is there is not sent again"


async def test_an_uploads_other_host_gets_no_authorization():
    content = b"x" * 3000
    async with RegistrySimulator(auth="basic", users=ANN) as simulator, RegistrySimulator() as store:
        users = credentials_for(simulator.host, ("ann", "hidden"))
        store._uploads["0"] = bytearray()
        simulator.fault(
            "POST", "/uploads/", status=202, headers={"Location": f"{store.base}/v2/m/blobs/uploads/0"}
        )
        async with client(simulator, store, credentials=users) as registry:
            await registry.put_blob(at(simulator), Digest.of(content), 3000, content)
        assert store.blobs["m"]
        assert all("authorization" not in request.headers for request in store.requests)


async def test_a_large_chunk_goes_out_over_a_slow_line():
    """As long as something moves; the line needs longer for all of it than for any other answer."""
    body, came = bytes(8 << 20), 0

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal came
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"content-length: 8388608" in head.lower()
        while came < len(body):
            came += len(await reader.read(1 << 17))
            await asyncio.sleep(0.01)
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(slowly, "127.0.0.1", 0, limit=1 << 16)
    host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    limits = Limits(read=0.3, response=0.2, tries=1, slowest=4 << 20)
    settings = RegistrySettings({host: HostSettings(plain_http=True)})
    async with server, Connections(settings, limits) as connections:
        target = Target(host, "models/a", "pull,push")
        async with Session(connections).request(
            "PUT", target, "/v2/models/a/u", what="a chunk", body=body, expect=(201,)
        ):
            pass
    assert came == len(body)
