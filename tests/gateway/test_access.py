"""Who may call: tokens, client certificates, the entry by TLS; what cannot be told lets nobody in."""

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edgemodel.gateway.own_secrets import LOOK_SECONDS
from tests.gateway.certificates import Identity, anybody, identity
from tests.gateway.clients import Client, answering, until
from tests.gateway.site import Site, made

pytestmark = [pytest.mark.process, pytest.mark.timeout(60)]
TOKENS = {"bearerTokens": {"secretName": "callers"}}
CERTIFICATES = {"clientCertificates": {"secretName": "authority"}}


def sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


@pytest.fixture
async def secured() -> AsyncIterator[Site]:
    """A site with TLS whose gateway does not run yet."""
    async with made(tls_secret="tls") as site:
        server = identity("gateway")
        site.secret("tls", {"tls.crt": server.pem, "tls.key": server.key_pem})
        yield site


async def led_to(site: Site, port: int, *, status: int) -> Client:
    client = Client(port)
    async with asyncio.timeout(20):
        while True:
            try:
                if (await client.ask()).status == status:
                    return client
            except (OSError, EOFError):
                client = Client(port)
            await asyncio.sleep(0.02)


async def test_only_a_caller_with_a_token_is_let_in(still: Site) -> None:
    pod = await still.pod()
    still.access(detector={"tokens": [sha256("right")]})
    port = still.model(access=TOKENS)
    async with still.running():
        client = await led_to(still, port, status=401)
        for header in ("Bearer wrong", "Bearer ", "Basic right", f"Bearer {sha256('right')}", "right"):
            assert (await client.ask(Authorization=header)).status == 401, header
        assert pod.answered == 0
        assert (await client.ask(Authorization="Bearer right")).status == 200
        entry = Client(still.settings.http_port)
        path = "/vision/detector/v2"
        assert (await entry.ask(path)).status == 401
        assert (await entry.ask(path, Authorization="Bearer right")).status == 200


async def test_a_token_that_is_taken_away_lets_nobody_in_any_more(still: Site) -> None:
    await still.pod()
    still.access(detector={"tokens": [sha256("one"), sha256("two")]})
    port = still.model(access=TOKENS)
    async with still.running():
        client = await led_to(still, port, status=401)
        assert (await client.ask(Authorization="Bearer one")).status == 200
        still.access(detector={"tokens": [sha256("two")]})
        reloads = still.changes("reload")
        await until(lambda: still.changes("reload") > reloads, "the change", LOOK_SECONDS + 10)
        await client.ask()  # its connection moves to the new worker behind this answer
        assert (await client.ask(Authorization="Bearer one")).status == 401
        assert (await client.ask(Authorization="Bearer two")).status == 200


@pytest.mark.parametrize(
    "entry",
    [None, {}, {"tokens": "all"}, {"tokens": ["x"]}, {"clientCA": "x"}],
    ids=["none", "empty", "no list", "no hash", "another kind"],
)
async def test_where_it_is_not_known_who_may_call_nobody_may(
    still: Site, entry: dict[str, Any] | None
) -> None:
    pod = await still.pod()
    still.access(**({} if entry is None else {"detector": entry}))
    port = still.model(access=TOKENS)
    async with still.running():
        client = await led_to(still, port, status=403)
        assert (await client.ask(Authorization="Bearer x")).status == 403
        assert pod.answered == 0


async def test_all_models_answer_by_tls(secured: Site) -> None:
    await secured.pod()
    port = secured.model()
    async with secured.running():
        await answering(port)
        entry = Client(secured.settings.https_port, ssl=anybody())
        assert (await entry.ask("/vision/detector/v2")).status == 200


async def test_only_a_caller_whose_certificate_the_models_authority_issued_is_let_in(
    secured: Site, tmp_path: Path
) -> None:
    pod = await secured.pod()
    await secured.pod("other")
    mine, theirs = identity("authority"), identity("authority")  # of the same name, on purpose
    secured.access(detector={"clientCA": mine.pem}, other={"clientCA": theirs.pem})
    port = secured.model(access=CERTIFICATES)
    secured.model("other", access=CERTIFICATES)
    right = identity("client", mine).client_context(tmp_path)
    wrong = identity("client", theirs).client_context(tmp_path)

    async def ask(context: ssl.SSLContext, server_name: str | None, model: str = "detector") -> int:
        client = Client(secured.settings.https_port, ssl=context, server_name=server_name)
        try:
            return (await client.ask(f"/vision/{model}/v2")).status
        except (OSError, EOFError):
            return 0  # refused by TLS itself

    async with secured.running():
        await led_to(secured, port, status=403)
        assert await ask(right, "detector.vision") == 200
        answered = pod.answered
        assert await ask(anybody(), "detector.vision") == 403
        assert await ask(anybody(), "elsewhere") == 403
        assert await ask(right, "elsewhere") == 403
        assert await ask(wrong, "detector.vision") == 0
        # A certificate that is good for one model, by that model's name, is none for another.
        assert await ask(wrong, "other.vision", "detector") == 403
        assert await ask(wrong, "other.vision", "other") == 200
        assert pod.answered == answered


async def test_a_tls_session_is_not_resumed_under_another_name(secured: Site, tmp_path: Path) -> None:
    await secured.pod()
    mine, theirs = identity("authority"), identity("authority")
    secured.access(detector={"clientCA": mine.pem}, other={"clientCA": theirs.pem})
    port = secured.model(access=CERTIFICATES)
    secured.model("other", access=CERTIFICATES)
    async with secured.running():
        await led_to(secured, port, status=403)
        resumed = await asyncio.to_thread(_resume, secured, identity("client", theirs), tmp_path)
    assert resumed is False


def _resume(site: Site, client: Identity, folder: Path) -> bool:
    """Have OpenSSL keep the session of one model and come back with it by the other's name."""
    import socket

    context = client.client_context(folder)
    where = ("127.0.0.1", site.settings.https_port)
    with context.wrap_socket(socket.create_connection(where, 5), server_hostname="other.vision") as first:
        first.sendall(b"GET /vision/other/v2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        while first.recv(4096):
            pass
        session = first.session
    try:
        with context.wrap_socket(
            socket.create_connection(where, 5), server_hostname="detector.vision", session=session
        ) as second:
            second.sendall(b"GET /vision/detector/v2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return b" 200 " in second.recv(4096).split(b"\r\n")[0]
    except OSError:
        return False


async def test_an_authority_that_haproxy_does_not_take_costs_its_own_model_only(secured: Site) -> None:
    await secured.pod()
    await secured.pod("broken")
    secured.access(broken={"clientCA": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"})
    broken = secured.model("broken", access=CERTIFICATES)
    port = secured.model()
    async with secured.running():
        await answering(port)
        with pytest.raises(OSError):
            await Client(broken).ask()
        count = secured.gateway.metrics.registry.get_sample_value
        await until(lambda: count("edgemodel_gateway_routes_left_out") == 1, "the count")
        secured.model("broken")  # without access it is open, and sound
        await answering(broken)


async def test_a_certificate_that_haproxy_does_not_take_leaves_the_old_one(secured: Site) -> None:
    await secured.pod()
    port = secured.model()
    async with secured.running():
        await answering(port)
        entry = Client(secured.settings.https_port, ssl=anybody())
        secured.secret("tls", {"tls.crt": "broken", "tls.key": "broken"})
        await until(lambda: secured.gateway._refused_certificate != "", "the refusal", LOOK_SECONDS + 10)
        assert (await entry.ask("/vision/detector/v2")).status == 200
        renewed = identity("renewed")
        secured.secret("tls", {"tls.crt": renewed.pem, "tls.key": renewed.key_pem})
        await until(lambda: secured.gateway._certificate.startswith(renewed.pem.strip()), "the new one", 20)
        entry = Client(secured.settings.https_port, ssl=anybody())
        assert (await entry.ask("/vision/detector/v2")).status == 200
