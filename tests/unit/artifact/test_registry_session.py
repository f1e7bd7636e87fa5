"""Failures, credentials, redirects, TLS: each fault of a registry, and that no secret goes where it must not."""

import asyncio
import json
from datetime import UTC, datetime

import pytest

from edgemodel.artifact.credentials import Credentials
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.registry_connections import Connections
from edgemodel.artifact.registry_errors import retry_after
from edgemodel.artifact.registry_session import Session, Target
from edgemodel.artifact.registry_settings import HostSettings, Limits, RegistrySettings
from edgemodel.errors import Transient
from tests.simulators.certificates import loopback_tls
from tests.simulators.registry import INDEX, RegistrySimulator
from tests.simulators.registry import MANIFEST as MEDIA_TYPE
from tests.unit.artifact.registry_client import SHORT, at, client, credentials_for, described, whole

MANIFEST = json.dumps({"schemaVersion": 2, "config": {}, "layers": []}).encode()


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


# -- credentials --------------------------------------------------------------------------------------------------------

ANN = {"ann": "hidden"}


@pytest.mark.parametrize("auth", ["basic", "bearer"])
async def test_a_credential_opens_the_door(auth):
    async with RegistrySimulator(auth=auth, users=ANN) as simulator:
        simulator.add_manifest("models/a", MANIFEST, tag="v1")
        async with client(
            simulator, credentials=credentials_for(simulator.host, ("ann", "hidden"))
        ) as registry:
            assert await registry.manifest(at(simulator)) == MANIFEST


@pytest.mark.parametrize("auth", ["basic", "bearer"])
async def test_several_credentials_are_tried_in_order(auth):
    async with RegistrySimulator(auth=auth, users=ANN) as simulator:
        simulator.add_manifest("models/a", MANIFEST, tag="v1")
        users = credentials_for(simulator.host, ("bob", "x"), ("ann", "wrong"), ("ann", "hidden"))
        async with client(simulator, credentials=users) as registry:
            assert await registry.manifest(at(simulator)) == MANIFEST
            simulator.requests.clear()
            assert await registry.manifest(at(simulator)) == MANIFEST
            assert len(simulator.requests) == 1, "what worked is remembered"


@pytest.mark.parametrize("auth", ["basic", "bearer"])
async def test_a_wrong_password_is_an_authentication_failure_and_shows_no_secret(auth):
    async with RegistrySimulator(auth=auth, users={"ann": "right"}) as simulator:
        async with client(
            simulator, credentials=credentials_for(simulator.host, ("ann", "hidden"))
        ) as registry:
            with pytest.raises(Transient) as caught:
                await registry.manifest(at(simulator))
        assert len(simulator.requests) <= 2, "a wrong password is not sent again and again"
    assert caught.value.reason == "AuthenticationFailed"
    assert "hidden" not in str(caught.value)
    assert "Basic" not in str(caught.value)


async def test_a_public_repository_behind_tokens_needs_no_credential():
    async with RegistrySimulator(auth="bearer") as simulator, client(simulator) as registry:
        simulator.add_manifest("models/a", MANIFEST, tag="v1")
        assert await registry.manifest(at(simulator)) == MANIFEST
        assert "authorization" not in simulator.seen("GET", "/token")[0].headers


async def test_without_credentials_the_message_says_there_are_none():
    async with RegistrySimulator(auth="basic", users=ANN) as simulator, client(simulator) as registry:
        with pytest.raises(Transient) as caught:
            await registry.manifest(at(simulator))
    assert caught.value.reason == "AuthenticationFailed"
    assert "no credentials" in caught.value.message


async def test_tokens_are_kept_by_repository_and_renewed_when_they_expire():
    async with RegistrySimulator(auth="bearer", users=ANN) as simulator:
        simulator.token_lifetime = 300
        for repository in ("models/a", "models/b"):
            simulator.add_manifest(repository, MANIFEST, tag="v1")
        async with client(
            simulator, credentials=credentials_for(simulator.host, ("ann", "hidden"))
        ) as registry:
            for _ in range(3):
                await registry.manifest(at(simulator))
                await registry.manifest(at(simulator, repository="models/b"))
            assert len(simulator.seen("GET", "/token")) == 2
            simulator._tokens.clear()
            await registry.manifest(at(simulator))
            assert len(simulator.seen("GET", "/token")) == 3


async def test_many_requests_at_once_ask_for_one_token():
    async with RegistrySimulator(auth="bearer", users=ANN) as simulator:
        simulator.add_manifest("models/a", MANIFEST, tag="v1")
        async with client(
            simulator, credentials=credentials_for(simulator.host, ("ann", "hidden"))
        ) as registry:
            await asyncio.gather(*(registry.manifest(at(simulator)) for _ in range(8)))
        assert len(simulator.seen("GET", "/token")) == 1


async def test_one_hosts_credential_is_never_shown_to_another():
    async with RegistrySimulator(auth="basic", users=ANN) as mine, RegistrySimulator() as other:
        other.add_manifest("models/a", MANIFEST, tag="v1")
        other.fault("GET", "/manifests/", status=401, headers={"WWW-Authenticate": "Basic realm=x"})
        async with client(mine, other, credentials=credentials_for(mine.host, ("ann", "hidden"))) as registry:
            with pytest.raises(Transient):
                await registry.manifest(at(other))
        assert all("authorization" not in request.headers for request in other.requests)


async def test_a_password_is_not_sent_to_a_token_service_without_tls(tmp_path):
    context, ca = loopback_tls(tmp_path)
    async with RegistrySimulator() as thief, RegistrySimulator(tls=context) as simulator:
        challenge = f'Bearer realm="{thief.base}/token",service="x"'
        simulator.fault("GET", "/manifests/", times=None, status=401, headers={"WWW-Authenticate": challenge})
        users = credentials_for(simulator.host, ("ann", "hidden"))
        async with client(simulator, ca=ca, credentials=users) as registry:
            with pytest.raises(Transient) as caught:
                await registry.manifest(at(simulator))
        assert thief.requests == []
    assert "https" in caught.value.message


async def test_a_ready_bearer_token_and_an_identity_token_are_used():
    async with RegistrySimulator(auth="bearer") as simulator:
        simulator.add_manifest("models/a", MANIFEST, tag="v1")
        simulator._tokens["ready"] = "repository:models/a:pull"
        config = json.dumps({"auths": {simulator.host: {"registrytoken": "ready"}}})
        async with client(simulator, credentials=Credentials.parse([config])) as registry:
            assert await registry.manifest(at(simulator)) == MANIFEST
        config = json.dumps({"auths": {simulator.host: {"identitytoken": "renew-me"}}})
        async with client(simulator, credentials=Credentials.parse([config])) as registry:
            with pytest.raises(Transient):
                await registry.manifest(at(simulator, repository="models/b"))
        (request,) = simulator.seen("POST", "/token")
        assert b"refresh_token=renew-me" in request.body
        assert b"grant_type=refresh_token" in request.body


# -- redirects ----------------------------------------------------------------------------------------------------------


async def test_a_redirect_to_another_host_is_followed_without_authorization():
    content = b"x" * 5000
    async with RegistrySimulator(auth="basic", users=ANN) as simulator, RegistrySimulator() as store:
        store.add_blob("models/a", content)
        simulator.fault("GET", "/blobs/", times=None, redirect=store.base)
        users = credentials_for(simulator.host, ("ann", "hidden"))
        simulator.add_manifest("models/a", MANIFEST, tag="v1")
        async with client(simulator, store, credentials=users) as registry:
            await registry.manifest(at(simulator))
            assert await whole(registry, at(simulator), described(content)) == content
        assert "authorization" in simulator.seen("GET", "/blobs/")[-1].headers
        assert all("authorization" not in request.headers for request in store.requests)


async def test_a_redirect_keeps_the_range():
    content = b"xy" * 5000
    async with RegistrySimulator() as simulator, RegistrySimulator() as store:
        store.add_blob("models/a", content)
        simulator.fault("GET", "/blobs/", times=None, redirect=store.base)
        async with client(simulator, store) as registry:
            assert await whole(registry, at(simulator), described(content), 4001) == content[4001:]
        assert store.requests[-1].headers["range"] == "bytes=4001-"


async def test_the_other_host_may_not_ask_for_our_password():
    async with RegistrySimulator(auth="basic", users=ANN) as store, RegistrySimulator() as simulator:
        store.add_blob("models/a", b"x")
        simulator.fault("GET", "/blobs/", times=None, redirect=store.base)
        users = Credentials(
            credentials_for(simulator.host, ("ann", "hidden")).entries
            + credentials_for(store.host, ("ann", "hidden")).entries
        )
        async with client(simulator, store, credentials=users) as registry:
            with pytest.raises(Transient):
                await whole(registry, at(simulator), described(b"x"))
        assert all("authorization" not in request.headers for request in store.requests)


async def test_https_is_never_left_for_http(tmp_path):
    context, ca = loopback_tls(tmp_path)
    async with RegistrySimulator() as plain, RegistrySimulator(tls=context) as simulator:
        plain.add_blob("models/a", b"x")
        simulator.fault("GET", "/blobs/", times=None, redirect=plain.base)
        async with client(simulator, plain, ca=ca) as registry:
            with pytest.raises(Transient) as caught:
                await whole(registry, at(simulator), described(b"x"))
        assert plain.requests == []
    assert caught.value.reason == "TransferFailed"


async def test_a_ca_bundle_may_hold_comments_in_any_language(tmp_path):
    context, ca = loopback_tls(tmp_path)
    async with (
        RegistrySimulator(tls=context) as simulator,
        client(simulator, ca=f"# Autorité de certification\n{ca}") as registry,
    ):
        simulator.add_manifest("models/a", MANIFEST, tag="v1")
        assert await registry.manifest(at(simulator)) == MANIFEST


@pytest.mark.parametrize("ca", ["", "é", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"])
async def test_a_ca_without_a_certificate_is_said_and_not_replaced_by_the_systems(tmp_path, ca):
    context, _ = loopback_tls(tmp_path)
    async with RegistrySimulator(tls=context) as simulator, client(simulator, ca=ca) as registry:
        with pytest.raises(Transient, match="the CA configured for registry"):
            await registry.manifest(at(simulator))
        assert simulator.requests == []


async def test_https_is_not_left_for_an_address_that_the_registry_names(tmp_path):
    context, ca = loopback_tls(tmp_path)
    async with RegistrySimulator() as plain, RegistrySimulator(tls=context) as simulator:
        simulator.fault("POST", "/uploads/", status=202, headers={"Location": f"{plain.base}/v2/models/a/u"})
        index = b'{"schemaVersion": 2, "manifests": []}'
        link = {"Content-Type": INDEX, "Link": f"<{plain.base}/v2/x/referrers/y>; rel=next"}
        simulator.fault("GET", "/referrers/", status=200, headers=link, body=index)
        digest = Digest.of(b"secret weights")
        async with client(simulator, plain, ca=ca) as registry:
            with pytest.raises(Transient, match="https"):
                await registry.put_blob(at(simulator), digest, 14, b"secret weights")
            with pytest.raises(Transient, match="https"):
                await registry.referrers(at(simulator), digest)
        assert plain.requests == []


async def test_redirects_in_a_circle_end():
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        simulator.fault("GET", "/manifests/", times=None, redirect=simulator.base)
        with pytest.raises(Transient) as caught:
            await registry.manifest(at(simulator))
        assert len(simulator.requests) == SHORT.redirects + 1
    assert caught.value.reason == "TransferFailed"


async def test_cookies_are_not_kept():
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        simulator.add_manifest("models/a", MANIFEST, tag="v1")
        simulator.fault("GET", "/manifests/", times=None, headers={"Set-Cookie": "session=ann; Path=/"})
        await registry.manifest(at(simulator))
        await registry.manifest(at(simulator))
        assert all("cookie" not in request.headers for request in simulator.requests)


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
