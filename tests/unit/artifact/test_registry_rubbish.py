"""Headers and documents from a registry that speaks nonsense: a typed error each time, never a traceback, never a hang."""

import json

import pytest

from edgemodel.artifact.credentials import Credentials
from edgemodel.artifact.digest import Digest
from edgemodel.artifact.registry_settings import RegistrySettings
from edgemodel.errors import EdgeModelError, Stalled, Transient
from tests.simulators.registry import INDEX, RegistrySimulator
from tests.unit.artifact.registry_client import at, client, credentials_for, described, whole

ADDRESSES = [
    "http://[",
    "http://a:99999/",
    "//",
    "http://\u0130x:0/",
    "ftp://a/",
    "javascript:alert(1)",
    "http:///",
    "\x7f",
]
DIGEST = Digest("sha256:" + "0" * 64)


@pytest.mark.parametrize("address", ADDRESSES)
async def test_a_redirect_to_nonsense(address):
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        headers = {"Location": address.encode().decode("latin-1")}
        simulator.fault("GET", "/blobs/", times=None, status=307, headers=headers)
        with pytest.raises(Transient):
            await whole(registry, at(simulator), described(b"x"))


@pytest.mark.parametrize("address", ADDRESSES)
async def test_an_upload_to_nonsense(address):
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        headers = {"Location": address.encode().decode("latin-1")}
        simulator.fault("POST", "/uploads/", times=None, status=202, headers=headers)
        with pytest.raises(Transient):
            await registry.put_blob(at(simulator), Digest.of(b"x"), 1, b"x")


@pytest.mark.parametrize("address", ADDRESSES)
async def test_a_token_service_at_nonsense(address):
    async with RegistrySimulator() as simulator:
        challenge = f'Bearer realm="{address.encode().decode("latin-1")}",service="x"'
        simulator.fault("GET", "/manifests/", times=None, status=401, headers={"WWW-Authenticate": challenge})
        users = credentials_for(simulator.host, ("ann", "hidden"))
        async with client(simulator, credentials=users) as registry:
            with pytest.raises(Transient) as caught:
                await registry.manifest(at(simulator))
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "challenge",
    [
        "",
        "Bearer",
        "Bearer realm",
        'Bearer realm="',
        "Digest qop=auth",
        ",,,",
        'Basic realm="\\"',
        "bearer " * 500,
    ],
)
async def test_a_challenge_of_nonsense(challenge):
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        simulator.fault("GET", "/manifests/", times=None, status=401, headers={"WWW-Authenticate": challenge})
        with pytest.raises(Transient) as caught:
            await registry.manifest(at(simulator))
    assert caught.value.reason == "AuthenticationFailed"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'{"token": 7}',
        b'{"token": ""}',
        b'{"token": "a\\r\\nX-Evil: 1"}',
        b'{"token": "a", "expires_in": []}',
        b'{"token": "a", "expires_in": 1' + b"0" * 400 + b"}",
        b"[" * 200_000,
        b"x" * (5 << 20),
    ],
    ids=range(10),
)
async def test_a_token_of_nonsense(body):
    async with RegistrySimulator(auth="bearer") as simulator, client(simulator) as registry:
        simulator.fault("GET", "/token", times=None, body=body)
        with pytest.raises(Transient) as caught:
            await registry.manifest(at(simulator))
    assert caught.value.reason == "AuthenticationFailed"


@pytest.mark.parametrize(
    "link", ["<>; rel=next", "<http://[>; rel=next", "<?page=1>; rel=next", "rel=next", "<" * 5000]
)
async def test_a_next_page_of_nonsense_ends(link):
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).encode()
        headers = {"Content-Type": INDEX, "Link": link}
        simulator.fault("GET", "/referrers/", times=None, status=200, headers=headers, body=index)
        try:
            found = await registry.referrers(at(simulator), DIGEST)
        except EdgeModelError:
            found = ()
        assert found == ()
        assert len(simulator.requests) <= registry.limits.referrer_pages + 1


async def test_a_next_page_on_another_host_gets_no_credentials():
    async with (
        RegistrySimulator(auth="basic", users={"ann": "hidden"}) as simulator,
        RegistrySimulator() as other,
    ):
        index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).encode()
        headers = {"Content-Type": INDEX, "Link": f"<{other.base}/v2/x/referrers/{DIGEST}>; rel=next"}
        simulator.fault("GET", "/referrers/", times=None, status=200, headers=headers, body=index)
        simulator.add_manifest("models/a", b'{"schemaVersion": 2}', tag="v1")
        users = credentials_for(simulator.host, ("ann", "hidden"))
        async with client(simulator, other, credentials=users) as registry:
            await registry.manifest(at(simulator))
            await registry.referrers(at(simulator), DIGEST)
        assert other.requests
        assert all("authorization" not in request.headers for request in other.requests)


@pytest.mark.parametrize("value", ["9" * 400, "Thu, 01 Jan 99999 00:00:00 GMT", "1e400", "\x80"])
async def test_a_retry_after_of_nonsense_is_no_wait_for_ever(value):
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        simulator.fault("GET", "/manifests/", times=None, status=429, headers={"Retry-After": value})
        with pytest.raises(Transient) as caught:
            await registry.manifest(at(simulator))
    assert caught.value.retry_after is None or caught.value.retry_after <= 86_400


async def test_what_is_no_http_is_unreachable():
    async with RegistrySimulator() as simulator, client(simulator) as registry:
        simulator.fault("GET", "/manifests/", times=None, status=200, headers={"Content-Length": "many"})
        simulator.add_manifest("models/a", b"{}", tag="v1")
        with pytest.raises(Transient) as caught:
            await registry.manifest(at(simulator))
    assert caught.value.reason == "RegistryUnreachable"


async def test_a_default_port_that_is_spelt_out_keeps_its_ca():
    from edgemodel.artifact.registry_connections import Connections
    from edgemodel.artifact.registry_settings import HostSettings

    bad = "-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----"
    connections = Connections(RegistrySettings({"r.local:443": HostSettings(ca=bad)}))
    with pytest.raises(Transient) as caught:
        connections.client(connections.base("r.local:443"))
    assert "CA configured" in caught.value.message


def test_nesting_without_end_is_refused():
    for parse in (RegistrySettings.from_json, lambda text: Credentials.parse([text])):
        with pytest.raises(Stalled):
            parse("[" * 100_000)  # type: ignore[operator]
