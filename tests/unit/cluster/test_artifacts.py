"""Looking and judging: what is asked of a registry, when, with whose credentials; what policies make of it."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from edgemodel.api.conditions import Reason
from edgemodel.api.trust_policy import ModelTrustPolicy
from edgemodel.api.v1alpha1 import EdgeModel
from edgemodel.artifact.policy import Policy
from edgemodel.artifact.reference import Reference
from edgemodel.artifact.registry_connections import Connections
from edgemodel.artifact.registry_settings import HostSettings, Limits, RegistrySettings
from edgemodel.artifact.signature import PrivateKey
from edgemodel.cluster import artifacts
from edgemodel.cluster.artifacts import ArtifactCache
from edgemodel.cluster.policies import ReadPolicy
from edgemodel.cluster.pull_secrets import PullSecrets
from edgemodel.reconcile.observed import Judged, Unresolved
from tests.simulators.publisher import Publisher
from tests.simulators.registry import RegistrySimulator

KEY = PrivateKey.generate()
NOW = datetime(2026, 6, 1, tzinfo=UTC)


class Bench:
    """A cache, a registry, a clock, and one EdgeModel's question."""

    def __init__(self, registry: RegistrySimulator, connections: Connections) -> None:
        self.registry = registry
        self.publisher = Publisher(registry)
        self.now = 1000.0
        self.changed: list[tuple[str, str]] = []
        self.counted: list[str] = []
        self.cache = ArtifactCache(
            connections,
            changed=lambda namespace, name: self.changed.append((namespace, name)),
            counted=self.counted.append,
            clock=lambda: self.now,
            wall=lambda: NOW,
            spread=lambda: 0.0,
            patience=1.0,
        )
        self.policies: tuple[ReadPolicy, ...] = (self.policy(KEY),)
        self.secrets = PullSecrets()

    def policy(self, *keys: PrivateKey, name: str = "site", usable: bool = True, **spec: Any) -> ReadPolicy:
        authorities = [{"name": f"k{n}", "publicKey": key.public.pem} for n, key in enumerate(keys)]
        resource = ModelTrustPolicy.model_validate(
            {
                "metadata": {"name": name},
                "spec": {
                    "match": {"images": [f"{self.registry.host}/**"]},
                    "authorities": authorities or [{"name": "absent"}],
                    **spec,
                },
            }
        )
        return (
            ReadPolicy(resource, Policy.from_resource(resource))
            if usable
            else ReadPolicy(resource, None, "no key")
        )

    def image(self, tag: str = "stable") -> str:
        return f"{self.registry.host}/models/detector:{tag}"

    def model(
        self, *, namespace: str = "vision", image: str = "", active: str = "", poll: str = "5m"
    ) -> EdgeModel:
        status = {}
        if active:
            pinned = f"{self.registry.host}/models/detector@{active}"
            status = {"slots": {"active": {"digest": active, "image": pinned}}}
        return EdgeModel.model_validate(
            {
                "metadata": {"name": "detector", "namespace": namespace},
                "spec": {"image": image or self.image(), "pollInterval": poll},
                "status": status,
            }
        )

    async def look(self, **about: Any) -> tuple[Judged | Unresolved, Judged | None]:
        model = self.model(**about)

        def governing(reference: Reference) -> tuple[ReadPolicy, ...]:
            return tuple(policy for policy in self.policies if policy.governs(reference, {}))

        return await self.cache.look(model, Reference.parse(model.spec.image), self.secrets, governing)

    async def judged(self, **about: Any) -> Judged:
        target, _ = await self.look(**about)
        assert isinstance(target, Judged), target
        return target

    async def unresolved(self, **about: Any) -> Unresolved:
        target, _ = await self.look(**about)
        assert isinstance(target, Unresolved), target
        return target


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with RegistrySimulator() as registry:
        settings = RegistrySettings({registry.host: HostSettings(plain_http=True)})
        limits = Limits(connect=0.5, read=0.5, response=1.0, tries=1, backoff=0.01)
        async with Connections(settings, limits) as connections:
            bench = Bench(registry, connections)
            yield bench
            await bench.cache.close()


async def test_a_signed_artifact_is_verified_and_counted_once(bench: Bench) -> None:
    digest = bench.publisher.publish("models/detector", "stable", version="1.4.0", keys=(KEY,))
    for _ in range(3):
        target = await bench.judged()
    assert target.digest == digest
    assert target.refusal is None
    assert target.release.version == "1.4.0"
    assert target.verified_by == ("site/k0",)
    assert target.image.endswith(f"models/detector@{digest}")
    assert bench.counted == ["Verified"]


async def test_between_polls_the_registry_is_left_alone_and_a_poll_of_a_still_tag_is_one_request(
    bench: Bench,
) -> None:
    bench.publisher.publish("models/detector", "stable", keys=(KEY,))
    await bench.judged()
    asked = len(bench.registry.requests)
    bench.now += 299
    await bench.judged()
    assert len(bench.registry.requests) == asked
    assert bench.cache.next_look("vision", "detector") == pytest.approx(1.0)
    bench.now += 2
    await bench.judged()
    assert [request.method for request in bench.registry.requests[asked:]] == ["HEAD"]


async def test_a_moved_tag_is_found_at_the_next_poll_and_the_old_version_judged_from_memory(
    bench: Bench,
) -> None:
    first = bench.publisher.publish("models/detector", "stable", version="1", keys=(KEY,), content=b"1")
    await bench.judged()
    second = bench.publisher.publish("models/detector", "stable", version="2", keys=(KEY,), content=b"2")
    bench.now += 301
    asked = len(bench.registry.requests)
    target, active = await bench.look(active=first)
    assert isinstance(target, Judged)
    assert target.digest == second
    assert active is not None
    assert active.digest == first
    assert active.refusal is None
    assert not [request for request in bench.registry.requests[asked:] if first in request.path]


async def test_after_a_restart_the_active_version_is_fetched_by_its_digest(bench: Bench) -> None:
    first = bench.publisher.publish("models/detector", "stable", version="1", keys=(KEY,), content=b"1")
    bench.publisher.publish("models/detector", "stable", version="2", content=b"2")
    target, active = await bench.look(active=first)
    assert isinstance(target, Judged)
    assert target.refusal is not None
    assert active is not None
    assert active.refusal is None


async def test_a_refused_artifact_is_looked_at_again_soon_and_let_in_once_signed(bench: Bench) -> None:
    digest = bench.publisher.publish("models/detector", "stable")
    target = await bench.judged()
    assert target.refusal is not None
    assert target.refusal[0] == Reason.SIGNATURE_MISSING
    assert bench.cache.next_look("vision", "detector") == 15
    bench.publisher.sign("models/detector", digest, KEY)
    bench.now += 16
    assert (await bench.judged()).refusal is None
    assert bench.counted == ["SignatureMissing", "Verified"]


async def test_a_changed_policy_counts_at_once_and_asks_no_registry(bench: Bench) -> None:
    bench.publisher.publish("models/detector", "stable", keys=(KEY,))
    await bench.judged()
    asked = len(bench.registry.requests)
    bench.policies = ()
    target = await bench.judged()
    assert target.refusal is not None
    assert target.refusal[0] == Reason.NO_MATCHING_POLICY
    bench.policies = (bench.policy(PrivateKey.generate()),)
    target = await bench.judged()
    assert target.refusal is not None
    assert target.refusal[0] == Reason.KEY_UNKNOWN
    assert target.verified_by == ()
    assert len(bench.registry.requests) == asked


@pytest.mark.parametrize("mode", ["Enforce", "Warn"])
async def test_a_policy_that_cannot_be_read_lets_nothing_in_though_another_would(
    bench: Bench, mode: str
) -> None:
    bench.publisher.publish("models/detector", "stable", keys=(KEY,))
    bench.policies = (bench.policy(KEY), bench.policy(name="broken", usable=False, mode=mode))
    target = await bench.judged()
    assert target.refusal == (Reason.KEY_UNKNOWN, "no key")


async def test_a_downgrade_is_refused_by_the_mark_in_status(bench: Bench) -> None:
    bench.publisher.publish("models/detector", "stable", sequence=3, keys=(KEY,))
    model = bench.model()
    marked = model.model_copy(update={"status": model.status.model_copy(update={"highest_sequence": 4})})
    target, _ = await bench.cache.look(
        marked, Reference.parse(marked.spec.image), bench.secrets, lambda _: bench.policies
    )
    assert isinstance(target, Judged)
    assert target.refusal is not None
    assert target.refusal[0] == Reason.DOWNGRADE_REFUSED


async def test_a_failing_registry_says_so_backs_off_and_the_active_version_is_still_judged(
    bench: Bench,
) -> None:
    digest = bench.publisher.publish("models/detector", "stable", keys=(KEY,))
    await bench.judged()
    bench.registry.fault("HEAD", "", times=None, status=503)
    bench.now += 301
    target, active = await bench.look(active=digest)
    assert isinstance(target, Unresolved)
    assert target.reason == Reason.REGISTRY_UNREACHABLE
    assert not target.stalled
    assert active is not None
    assert active.digest == digest
    assert bench.cache.next_look("vision", "detector") == 5
    bench.policies = ()
    _, active = await bench.look(active=digest)
    assert active is not None
    assert active.refusal is not None


async def test_a_registry_that_wants_to_be_left_alone_is(bench: Bench) -> None:
    bench.registry.fault("GET", "", times=None, status=429, headers={"Retry-After": "90"})
    await bench.unresolved()
    assert bench.cache.next_look("vision", "detector") == pytest.approx(90, abs=1)


async def test_an_absent_tag_and_an_absent_pull_secret_are_both_told(bench: Bench) -> None:
    bench.secrets = PullSecrets(absent=("pull",))
    target = await bench.unresolved()
    assert target.reason == Reason.NOT_FOUND
    assert "name pull" in target.message


async def test_a_malformed_pull_secret_is_a_persons_business_and_stays_secret(bench: Bench) -> None:
    bench.secrets = PullSecrets((b'{"auths": "hunter2"',), ("Secret pull",))
    target = await bench.unresolved()
    assert target.reason == Reason.AUTHENTICATION_FAILED
    assert target.stalled
    assert "Secret pull" in target.message
    assert "hunter2" not in target.message


async def test_new_credentials_are_used_at_once(bench: Bench) -> None:
    bench.registry.auth = "basic"
    bench.registry.users["edge"] = "right"
    bench.publisher.publish("models/detector", "stable", keys=(KEY,))
    assert (await bench.unresolved()).reason == Reason.AUTHENTICATION_FAILED
    config = {"auths": {bench.registry.host: {"username": "edge", "password": "right"}}}
    bench.secrets = PullSecrets((json.dumps(config).encode(),), ("Secret pull",))
    assert (await bench.judged()).refusal is None


async def test_one_namespaces_look_is_never_anothers_answer(bench: Bench) -> None:
    bench.registry.auth = "basic"
    bench.registry.users["edge"] = "right"
    bench.publisher.publish("models/detector", "stable", keys=(KEY,))
    config = {"auths": {bench.registry.host: {"username": "edge", "password": "right"}}}
    bench.secrets = PullSecrets((json.dumps(config).encode(),), ("Secret pull",))
    await bench.judged(namespace="rich")
    bench.secrets = PullSecrets()
    assert (await bench.unresolved(namespace="poor")).reason == Reason.AUTHENTICATION_FAILED


async def test_a_registry_that_hangs_holds_up_no_pass_and_its_answer_makes_one(bench: Bench) -> None:
    bench.publisher.publish("models/detector", "stable", keys=(KEY,))
    news = asyncio.Event()

    def changed(namespace: str, name: str) -> None:
        bench.changed.append((namespace, name))
        news.set()

    bench.cache = slow = ArtifactCache(
        bench.cache._connections,
        changed=changed,
        clock=lambda: bench.now,
        wall=lambda: NOW,
        spread=lambda: 0.0,
        patience=0.05,
    )
    bench.registry.fault("GET", "manifests", times=1, stall=0)
    target = await bench.unresolved()
    assert target.reason == Reason.RECONCILING
    assert slow.next_look("vision", "detector") is None
    async with asyncio.timeout(1.5):
        await news.wait()
    assert bench.changed == [("vision", "detector")]
    assert (await bench.unresolved()).reason == Reason.REGISTRY_UNREACHABLE
    await slow.close()


async def test_after_a_restart_a_dead_registry_holds_up_a_model_that_serves_for_a_moment_only(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "LATER_PATIENCE", 0.05)
    bench.cache._patience = 60.0
    digest = bench.publisher.publish("models/detector", "stable", keys=(KEY,))
    bench.registry.fault("GET", "manifests", times=None, stall=0)
    bench.registry.fault("HEAD", "manifests", times=None, stall=0)
    async with asyncio.timeout(1.0):
        target = await bench.unresolved(active=str(digest))
    assert target.reason == Reason.RECONCILING


async def test_a_model_that_is_gone_leaves_nothing_behind(bench: Bench) -> None:
    bench.publisher.publish("models/detector", "stable", keys=(KEY,))
    await bench.judged()
    bench.cache.forget("vision", "detector")
    assert bench.cache.next_look("vision", "detector") is None
    assert bench.cache._entries == {}


async def test_a_pinned_image_is_asked_for_once(bench: Bench) -> None:
    digest = bench.publisher.publish("models/detector", "stable", keys=(KEY,))
    image = f"{bench.registry.host}/models/detector@{digest}"
    await bench.judged(image=image)
    asked = len(bench.registry.requests)
    bench.now += 1e6
    await bench.judged(image=image)
    assert len(bench.registry.requests) == asked
    assert bench.cache.next_look("vision", "detector") is None
