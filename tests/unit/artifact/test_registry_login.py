"""Credentials of a registry: which is shown to whom, and that none goes where it must not."""

import asyncio
import json

import pytest

from edgemodel.artifact.credentials import Credentials
from edgemodel.errors import Transient
from tests.simulators.certificates import loopback_tls
from tests.simulators.registry import RegistrySimulator
from tests.unit.artifact.registry_client import (
    ANN,
    MANIFEST,
    at,
    client,
    credentials_for,
)


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
