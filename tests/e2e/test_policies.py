"""Policies that are added, changed and removed while a model runs."""

from tests.e2e.conftest import Site

GARBLED = "-----BEGIN PUBLIC KEY-----\nbm90IGEga2V5\n-----END PUBLIC KEY-----\n"


def test_a_policy_added_later_lets_the_model_in(site: Site) -> None:
    digest = site.publish("v1")
    site.apply()
    site.await_condition("ArtifactVerified", "False", "NoMatchingPolicy")
    site.policy()
    site.await_active(digest)
    site.kube.until(
        lambda: (
            site.kube.get("modeltrustpolicy", f"{site.namespace}-site").get("status", {}).get("models") == 1
        ),
        "the policy to count the model",
    )


def test_a_revoked_key_stops_new_starts_and_not_what_runs(site: Site) -> None:
    digest = site.serve("v1")
    (pod,) = site.kube.list("pods", site.namespace, "edgemodel.io/model=detector")
    site.policy(authorities=[{"name": "site", "publicKey": site.key.pem, "revoked": True}])
    refusal = site.await_condition("ArtifactVerified", "False", "KeyRevoked")
    assert "serv" in refusal["message"]
    assert site.active() == digest
    assert site.kube.condition("detector", "Ready", site.namespace)["status"] == "True"
    site.kube("delete", "pod", pod["metadata"]["name"], "-n", site.namespace)
    site.await_condition("ArtifactDelivered", "False", "KeyRevoked")
    assert site.kube.condition("detector", "Ready", site.namespace)["status"] == "False"
    site.policy()
    site.await_condition("Ready", "True", "Serving", timeout=180)


def test_a_removed_policy_leaves_what_runs(site: Site) -> None:
    digest = site.serve("v1")
    site.kube("delete", "modeltrustpolicy", f"{site.namespace}-site")
    site.await_condition("ArtifactVerified", "False", "NoMatchingPolicy")
    assert site.active() == digest
    assert site.kube.condition("detector", "Ready", site.namespace)["status"] == "True"


def test_two_keys_of_three_are_needed(site: Site) -> None:
    second, third = site.publisher.key("second"), site.publisher.key("third")
    site.policy(site.key, second, third, threshold=2)
    digest = site.publish("v1")
    site.apply()
    site.await_condition("ArtifactVerified", "False")
    site.publisher.sign(f"{site.namespace}/detector@{digest}", third)
    site.await_active(digest)
    assert len(site.status()["slots"]["active"]["verifiedBy"]) == 2


def test_warn_mode_lets_it_through_and_says_so(site: Site) -> None:
    site.policy(mode="Warn")
    digest = site.publish("v1", key=None)
    site.apply()
    site.await_active(digest)
    site.await_condition("Ready", "True", "Serving")
    assert "Warn" in site.kube.condition("detector", "ArtifactVerified", site.namespace)["message"]


def test_a_key_that_cannot_be_read_is_named(site: Site) -> None:
    site.kube.apply(
        {
            "apiVersion": "edgemodel.io/v1alpha1",
            "kind": "ModelTrustPolicy",
            "metadata": {"name": f"{site.namespace}-broken"},
            "spec": {
                "match": {"images": [f"{site.bed.registry}/{site.namespace}/**"]},
                "authorities": [
                    {
                        "name": "garbled",
                        "publicKey": GARBLED,
                    }
                ],
            },
        }
    )
    site.policies.append(f"{site.namespace}-broken")

    def told() -> bool:
        policy = site.kube.get("modeltrustpolicy", f"{site.namespace}-broken")
        (valid,) = [c for c in policy.get("status", {}).get("conditions", []) if c["type"] == "Valid"]
        return valid["status"] == "False" and "garbled" in valid["message"]

    site.kube.until(told, "the policy to say which key is wrong")
