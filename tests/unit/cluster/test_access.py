"""Who may call: hashes only, nobody for want of a Secret, and never more than the EdgeModels say."""

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edgemodel.api.traffic import Access
from edgemodel.cluster import access as access_module
from edgemodel.cluster.access import MAX_TOKENS, AccessSecret, read_entry
from edgemodel.cluster.client import ApiServer
from edgemodel.errors import Transient
from tests.simulators.apiserver import ApiServerSimulator, Fault

OURS = "/api/v1/namespaces/system/secrets/edgemodel-gateway-access"
TOKENS = {"bearerTokens": {"secretName": "callers"}}
CERTIFICATES = {"clientCertificates": {"secretName": "authority"}}


def certificate() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "site")])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()


CA = certificate()


class Site:
    """EdgeModels and Secrets on a simulated API server."""

    def __init__(self, server: ApiServerSimulator, api: ApiServer) -> None:
        self.server, self.api = server, api
        self.ours = AccessSecret(api, namespace="system")
        server.put(OURS, {"kind": "Secret"})

    def secret(self, name: str, namespace: str = "vision", **data: str) -> None:
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        self.server.put(f"/api/v1/namespaces/{namespace}/secrets/{name}", {"data": encoded})

    def model(self, name: str, access: Any = None, namespace: str = "vision") -> None:
        path = f"/apis/edgemodel.io/v1alpha1/namespaces/{namespace}/edgemodels/{name}"
        self.server.put(path, {"spec": {"image": "x/y:z", **({"access": access} if access else {})}})

    def written(self) -> dict[str, Any]:
        data = self.server.objects[OURS].get("data") or {}
        return {key: json.loads(base64.b64decode(value)) for key, value in data.items() if value is not None}


@pytest.fixture
def site(server: ApiServerSimulator, api: ApiServer) -> Site:
    return Site(server, api)


def hashed(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


async def test_tokens_are_written_as_hashes_and_what_is_open_not_at_all(site: Site) -> None:
    site.secret("callers", camera="s3cret-of-the-camera\n", robot="s3cret-of-the-robot", empty="  ")
    site.model("detector", TOKENS)
    site.model("open")
    assert await site.ours.update() == (True, frozenset({("vision", "detector")}))
    wanted = sorted([hashed("s3cret-of-the-camera"), hashed("s3cret-of-the-robot")])
    assert site.written() == {"vision.detector.json": {"tokens": wanted}}
    assert "s3cret" not in json.dumps(site.server.writes[-1].body)
    assert await site.ours.update() == (False, frozenset())


async def test_authorities_are_certificates_and_nothing_else(site: Site) -> None:
    key = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"
    site.secret("authority", **{"ca.crt": key + CA})
    site.model("detector", CERTIFICATES)
    await site.ours.update()
    assert site.written() == {"vision.detector.json": {"clientCA": CA}}


async def test_a_public_authority_beside_the_tokens_is_no_token(site: Site) -> None:
    site.secret("callers", **{"ca.crt": CA, "camera": "abc"})
    entry = await read_entry(site.api, "vision", Access.model_validate(TOKENS))
    assert entry is not None
    assert entry.tokens == (hashed("abc"),)


@pytest.mark.parametrize(
    ("access", "secrets", "told"),
    [
        (TOKENS, {}, "Secret callers, which spec.access names, is missing"),
        (TOKENS, {"callers": {}}, "holds no token"),
        (TOKENS, {"callers": {"a": " \n"}}, "holds no token"),
        (TOKENS, {"callers": {f"t{n}": f"v{n}" for n in range(MAX_TOKENS + 1)}}, "at most"),
        (CERTIFICATES, {}, "Secret authority"),
        (CERTIFICATES, {"authority": {"tls.crt": CA}}, "has no key ca.crt"),
        (CERTIFICATES, {"authority": {"ca.crt": "rubbish"}}, "PEM certificates"),
        (
            CERTIFICATES,
            {"authority": {"ca.crt": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"}},
            "PEM certificates",
        ),
        (CERTIFICATES, {"authority": {"ca.crt": CA * 200}}, "at most"),
        (TOKENS | CERTIFICATES, {"callers": {"a": "b"}}, "Secret authority"),
    ],
)
async def test_nobody_is_let_in_for_want_of_a_secret(
    site: Site, access: dict[str, Any], secrets: dict[str, dict[str, str]], told: str
) -> None:
    for name, data in secrets.items():
        site.secret(name, **data)
    site.model("detector", access)
    entry = await read_entry(site.api, "vision", Access.model_validate(access))
    assert entry is not None
    assert told in entry.problem
    assert (entry.tokens, entry.client_ca) == (None, None)
    await site.ours.update()
    assert site.written() == {}
    assert site.ours.guarded == 1


async def test_a_secret_that_may_not_be_read_closes_its_model_and_no_other(site: Site) -> None:
    site.secret("callers", namespace="audio", a="b")
    site.model("detector", TOKENS)
    site.model("speech", TOKENS, namespace="audio")
    site.server.faults.append(Fault(lambda _, path: "/vision/secrets/" in path, status=403))
    await site.ours.update()
    assert list(site.written()) == ["audio.speech.json"]


async def test_an_api_server_that_fails_changes_nothing(site: Site) -> None:
    site.secret("callers", a="b")
    site.model("detector", TOKENS)
    await site.ours.update()
    before = site.written()
    site.server.faults.append(Fault(lambda _, path: "/vision/secrets/" in path, status=500))
    with pytest.raises(Transient):
        await site.ours.update()
    assert site.written() == before


async def test_a_secret_that_came_is_told_so_that_the_model_is_looked_at(site: Site) -> None:
    site.model("detector", TOKENS)
    await site.ours.update()
    site.secret("callers", a="b")
    assert await site.ours.update() == (True, frozenset({("vision", "detector")}))


async def test_an_entry_that_somebody_added_is_taken_out(site: Site) -> None:
    site.secret("callers", a="b")
    site.model("detector", TOKENS)
    await site.ours.update()
    live = site.server.objects[OURS]
    thief = base64.b64encode(json.dumps({"tokens": [hashed("mine")]}).encode()).decode()
    site.server.put(OURS, {**live, "data": {**live["data"], "vision.other.json": thief}})
    await site.ours.update()
    assert list(site.written()) == ["vision.detector.json"]


async def test_without_the_charts_secret_guarded_models_are_an_error_and_open_ones_none(site: Site) -> None:
    site.server.remove(OURS)
    site.model("open")
    assert await site.ours.update() == (False, frozenset())
    site.secret("callers", a="b")
    site.model("detector", TOKENS)
    with pytest.raises(Transient, match="the chart makes it"):
        await site.ours.update()
    assert OURS not in site.server.objects


async def test_models_that_there_is_no_room_for_are_closed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_module, "MAX_BYTES", 100)
    site.secret("callers", a="b")
    for name in ("a", "b"):
        site.model(name, TOKENS)
    await site.ours.update()
    assert list(site.written()) == ["vision.a.json"]
