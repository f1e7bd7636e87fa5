"""What may run is decided by policies as they are now; what serves goes on serving whatever is refused."""

from edgemodel.artifact.signature import PrivateKey
from edgemodel.cluster.kinds import CONFIG_MAP, MODEL_TRUST_POLICY
from tests.control_plane.operator_process import OperatorProcess
from tests.control_plane.site import Site
from tests.control_plane.waiting import until


async def test_without_a_policy_nothing_runs_and_a_policy_added_lets_it_in(
    site: Site, running: OperatorProcess
) -> None:
    digest = site.publish("1.0.0")
    await site.apply(pollInterval="0s")
    await site.becomes("ArtifactVerified", "False", "NoMatchingPolicy")
    assert await site.deployments() == ()
    await site.policy()
    await site.serves(digest)


async def test_an_unsigned_version_is_refused_while_the_old_one_serves_and_comes_in_once_signed(
    site: Site, running: OperatorProcess
) -> None:
    first = await site.serve()
    second = site.publish("2.0.0", signed=False)
    message = await site.becomes("ArtifactVerified", "False", "SignatureMissing")
    assert "serv" in message.lower()
    await site.serves(first)
    await until(lambda: site.events("SignatureRejected"), "the refusal is told")
    site.publisher.sign(f"{site.namespace}/detector", second, site.key)
    await site.serves(second)


async def test_a_signature_by_a_key_nobody_trusts_is_refused(site: Site, running: OperatorProcess) -> None:
    site.publish("1.0.0", keys=(PrivateKey.generate(),))
    await site.policy()
    await site.apply()
    await site.becomes("ArtifactVerified", "False", "KeyUnknown")
    assert await site.deployments() == ()
    refused = await running.metric("edgemodel_signature_verifications_total", result="KeyUnknown")
    assert refused == 1


async def test_an_older_sequence_than_ever_ran_is_refused(site: Site, running: OperatorProcess) -> None:
    newer = site.publish("2.0.0", sequence=2)
    await site.policy()
    await site.apply()
    await site.serves(newer)
    site.publish("1.0.0", sequence=1)
    await site.becomes("ArtifactVerified", "False", "DowngradeRefused")
    await site.serves(newer)
    await until(lambda: site.events("DowngradeRefused"), "the refusal is told")


async def test_a_policy_that_changes_or_goes_counts_at_once_without_the_registry_and_stops_nothing(
    site: Site, running: OperatorProcess
) -> None:
    await site.serve(pollInterval="0s")
    asked = len(site.registry.requests)
    await site.policy(key=PrivateKey.generate())
    await site.becomes("ArtifactVerified", "False", "KeyUnknown")
    assert (await site.condition("Ready"))[:2] == ("True", "Serving")
    await site.policy()
    await site.becomes("ArtifactVerified", "True", "Verified")
    await site.remove_policy()
    await site.becomes("ArtifactVerified", "False", "NoMatchingPolicy")
    assert (await site.condition("Ready"))[:2] == ("True", "Serving")
    assert len(await site.deployments()) == 1
    assert len(site.registry.requests) == asked
    await site.policy()
    await site.becomes("ArtifactVerified", "True", "Verified")


async def test_the_policies_the_pods_judge_by_are_todays(site: Site, running: OperatorProcess) -> None:
    await site.serve()
    other = PrivateKey.generate()
    await site.policy(
        authorities=[
            {"name": "site", "publicKey": site.key.public.pem},
            {"name": "second", "publicKey": other.public.pem},
        ]
    )

    async def delivered() -> bool:
        config = await site.api.get(CONFIG_MAP, site.namespace, "detector-delivery")
        return config is not None and "second" in config["data"]["policies.json"]

    await until(delivered, "the new key is delivered")


async def test_a_policys_status_says_whether_it_can_be_used_and_what_it_governs(
    site: Site, running: OperatorProcess
) -> None:
    site.publish("1.0.0")
    key_in_secret = {
        "name": "site",
        "publicKeySecret": {"namespace": site.namespace, "name": "keys", "key": "cosign.pub"},
    }
    name = await site.policy(authorities=[key_in_secret])

    async def status() -> tuple[str, int, int]:
        live = await site.api.get(MODEL_TRUST_POLICY, None, name)
        assert live is not None
        found = live.get("status") or {}
        valid = [it["status"] for it in found.get("conditions", ()) if it["type"] == "Valid"]
        return (
            "".join(valid),
            found.get("models", -1),
            live["metadata"]["generation"] - found.get("observedGeneration", 0),
        )

    async def is_(expected: tuple[str, int, int]) -> bool:
        return await status() == expected

    await until(lambda: is_(("False", 0, 0)), "a policy without its key is not valid")
    await site.apply()
    await site.becomes("ArtifactVerified", "False", "KeyUnknown")
    await until(lambda: is_(("False", 1, 0)), "it governs one model")
    await site.secret("keys", "Opaque", "cosign.pub", site.key.public.pem)
    await site.policy(authorities=[key_in_secret], threshold=1, requireSequence=False, allowDowngrade=True)
    await until(lambda: is_(("True", 1, 0)), "with its key it is valid")
    await site.becomes("ArtifactVerified", "True", "Verified")
    await site.delete()
    await until(lambda: is_(("True", 0, 0)), "it governs nothing any more")
