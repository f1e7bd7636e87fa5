"""Redirects of a registry, and certificates on the way: nothing goes where it must not."""

import pytest

from edgemodel.artifact.credentials import Credentials
from edgemodel.artifact.digest import Digest
from edgemodel.errors import Transient
from tests.simulators.certificates import loopback_tls
from tests.simulators.registry import INDEX, RegistrySimulator
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
