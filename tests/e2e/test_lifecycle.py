"""What people do to a running model, and what happens to it by accident: all of it converges."""

from typing import Any

import httpx

from testbed import magika_model
from tests.e2e.conftest import Site


def _staying(pods: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the newest pod that is not going."""
    staying = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    return max(staying, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))


def test_kubectl_scale_and_delete(site: Site) -> None:
    site.serve("v1")
    site.kube("scale", "edgemodel", "detector", "-n", site.namespace, "--replicas=2")
    site.kube.until(lambda: site.status().get("readyReplicas") == 2, "two ready pods")
    site.kube("scale", "em", "detector", "-n", site.namespace, "--replicas=1")
    site.kube.until(lambda: site.status().get("replicas") == 1, "one pod")
    site.kube("delete", "em", "detector", "-n", site.namespace)
    for kind in ("deployments", "services", "poddisruptionbudgets", "configmaps"):
        site.kube.until(
            lambda kind=kind: not site.kube.list(kind, site.namespace, "edgemodel.io/model=detector"),
            f"no {kind}",
        )


def test_suspend_holds_everything_and_resume_catches_up(site: Site) -> None:
    old = site.serve("v1", sequence=1)
    site.apply(suspend=True)
    site.await_condition("Ready", "True", "Suspended")
    new = site.publish("v2", sequence=2)
    site.kube("delete", "service", "detector", "-n", site.namespace)
    # What is suspended tells nothing; a model that is applied later shows that the operator has been past it.
    site.publish("v1", name="other")
    site.apply("other")
    site.await_condition("ArtifactVerified", "True", name="other")
    assert site.active() == old
    assert site.kube.list("services", site.namespace, "edgemodel.io/model=detector") == []
    site.apply(suspend=False)
    site.await_active(new)
    site.kube.get("service", "detector", site.namespace)


def test_drift_and_deletion_of_children_are_mended(site: Site) -> None:
    site.serve("v1")
    (deployment,) = site.kube.list("deployments", site.namespace)
    name = deployment["metadata"]["name"]
    image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    site.kube("set", "image", f"deployment/{name}", "server=localhost/nothing:1", "-n", site.namespace)
    site.kube.until(
        lambda: (
            site.kube.get("deployment", name, site.namespace)["spec"]["template"]["spec"]["containers"][0][
                "image"
            ]
            == image
        ),
        "the image to be put back",
    )
    for kind, child in [
        ("service", "detector"),
        ("deployment", name),
        ("poddisruptionbudget", "detector"),
        ("configmap", "detector-delivery"),
    ]:
        uid = site.kube.get(kind, child, site.namespace)["metadata"]["uid"]
        site.kube("delete", kind, child, "-n", site.namespace)
        site.kube.until(
            lambda kind=kind, child=child, uid=uid: (
                site.kube.get(kind, child, site.namespace)["metadata"]["uid"] != uid
            ),
            f"{kind} {child} to be there again",
        )
    site.await_condition("Ready", "True", "Serving")


def test_a_change_of_the_spec_reaches_the_pods(site: Site) -> None:
    site.serve("v1")
    site.apply(
        server={
            "extraEnv": [{"name": "SITE", "value": "north"}],
            "processes": 2,
            "resources": {"limits": {"memory": "512Mi"}},
        }
    )

    def changed() -> bool:
        pods = site.kube.list("pods", site.namespace, "edgemodel.io/model=detector")
        (server,) = _staying(pods)["spec"]["containers"]
        return {"name": "SITE", "value": "north"} in server["env"] and server["resources"]["limits"][
            "memory"
        ] == "512Mi"

    def together() -> bool:
        return (
            httpx.get(f"{site.url()}/v2/models/detector", timeout=10).json()["parameters"]["processes"] == 2
        )

    site.kube.until(changed, "the pod to have the new environment")
    site.kube.until(together, "two processes to serve")
    site.await_condition("Ready", "True", "Serving")
    request = magika_model.request(magika_model.SAMPLES["html"])
    answers = [site.bed.infer(site.url(), "detector", request)["outputs"] for _ in range(20)]
    assert answers == answers[:1] * 20


def test_an_operator_that_is_killed_goes_on_where_it_was(site: Site) -> None:
    site.serve("v1", sequence=1)
    new = site.publish("v2", sequence=2)
    site.kube.until(lambda: site.status().get("slots", {}).get("candidate"), "a candidate")
    site.bed.kill_operator()
    site.await_active(new)
    site.await_condition("Progressing", "False", "Complete")
    answer = site.bed.infer(site.url(), "detector", magika_model.request(magika_model.SAMPLES["html"]))
    assert answer["model_version"] == "v2"


def test_stop_first_never_runs_two_versions(site: Site) -> None:
    site.serve("v1", sequence=1, rollout={"strategy": "StopFirst"})
    new = site.publish("v2", sequence=2)
    seen: set[int] = set()

    def replaced() -> bool:
        pods = site.kube.list("pods", site.namespace, "edgemodel.io/model=detector")
        running = {
            pod["metadata"]["labels"]["edgemodel.io/digest"]
            for pod in pods
            if any(c.get("ready") for c in pod["status"].get("containerStatuses", []))
        }
        seen.add(len(running))
        return site.active() == new

    site.kube.until(replaced, "v2 to serve")
    assert max(seen) == 1
