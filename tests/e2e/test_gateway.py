"""Models answer through the gateway, by their Services and by one entry for all, whatever dies or is replaced around it.

On a cluster of its own: the gateway is turned off and on, which every other test would notice.
"""

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from testbed import magika_model
from testbed.installation import SYSTEM_NAMESPACE, Testbed, start
from testbed.load import Load
from tests.e2e.conftest import Site

GATEWAY = "deployment/edgemodel-gateway"
ONE = magika_model.SAMPLES["html"]


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    # Without its account, which goes with it, a pod of a gateway that is turned off can't see that it was forgotten.
    with start(
        "gateway", more={"gateway": {"drainSeconds": 60}}, keep=bool(os.environ.get("KEEP"))
    ) as testbed:
        yield testbed


def load(site: Site, url: str, **more: Any) -> Load:
    return Load(url, "detector", magika_model.cases("v1", "v2"), rate=15, **more)


def ask(url: str, **headers: str) -> int:
    """Ask once; return the HTTP status."""
    body = magika_model.request(ONE)
    return httpx.post(f"{url}/v2/models/detector/infer", json=body, headers=headers, timeout=10).status_code


TOKEN = {"authorization": "Bearer token-of-the-camera"}


def answers(url: str, *statuses: int) -> Callable[[], bool]:
    """Return a check of what a caller with the token is answered."""
    return lambda: ask(url, **TOKEN) in statuses


def by_gateway(site: Site) -> bool:
    """Tell whether the model's Service leads to the gateway, and to nothing else."""
    slices = site.kube.list("endpointslices", site.namespace, "kubernetes.io/service-name=detector")
    service = site.kube.get("service", "detector", site.namespace)
    names = {it["metadata"]["name"] for it in slices}
    return "selector" not in service["spec"] and names == {"detector-gateway"}


def by_pods(site: Site) -> bool:
    """Tell whether it leads to pods, and to nothing else."""
    slices = site.kube.list("endpointslices", site.namespace, "kubernetes.io/service-name=detector")
    return bool(slices) and "detector-gateway" not in {it["metadata"]["name"] for it in slices}


def ready(pods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        pod
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"]
        and any(
            it["type"] == "Ready" and it["status"] == "True" for it in pod["status"].get("conditions", ())
        )
    ]


def test_a_model_answers_by_its_service_and_by_the_entry_for_all(site: Site) -> None:
    site.serve("v1")
    assert by_gateway(site)
    for url in (site.url(), site.bed.gateway_url(site.namespace, "detector")):
        answer = site.bed.infer(url, "detector", magika_model.request(ONE))
        assert answer["model_version"] == "v1"
    assert ask(site.bed.gateway_url(site.namespace, "nobody")) == 404


def test_a_serving_pod_that_is_killed_costs_no_request(site: Site) -> None:
    site.serve("v1", replicas=2)
    with load(site, site.url()) as sent:
        site.kube.until(lambda: sent.total > 50, "the load to run")
        victim = ready(site.pods())[0]["metadata"]["name"]
        site.kube("delete", "pod", victim, "-n", site.namespace, "--grace-period=0", "--force")
        site.kube.until(
            lambda: len([it for it in ready(site.pods()) if it["metadata"]["name"] != victim]) == 2,
            "a pod in its place",
        )
        seen = sent.total
        site.kube.until(lambda: sent.total > seen + 50, "the load to go on")
    print(sent.summary())
    assert sent.trouble == []


@pytest.mark.alone
def test_an_update_of_the_gateway_costs_no_request(site: Site) -> None:
    site.serve("v1")
    before = {pod["metadata"]["name"] for pod in site.bed.gateway_pods()}
    with load(site, site.url()) as sent:
        site.kube.until(lambda: sent.total > 50, "the load to run")
        site.kube("rollout", "restart", GATEWAY, "-n", SYSTEM_NAMESPACE)
        site.kube("rollout", "status", GATEWAY, "-n", SYSTEM_NAMESPACE, "--timeout=90s")
        site.kube.until(
            lambda: not before & {pod["metadata"]["name"] for pod in site.bed.gateway_pods()},
            "the old pod to be gone",
        )
        seen = sent.total
        site.kube.until(lambda: sent.total > seen + 50, "the load to go on")
    print(sent.summary())
    assert sent.trouble == []


def test_the_gateway_is_turned_off_and_on_and_no_request_is_lost(site: Site) -> None:
    site.serve("v1")
    with load(site, site.url()) as sent:
        site.kube.until(lambda: sent.total > 50, "the load to run")
        began = time.monotonic()
        site.bed.upgrade("gateway.enabled=false")
        site.kube.until(lambda: by_pods(site), "the Service to lead to pods")
        print(f"turned to pods after {time.monotonic() - began:.1f} s, the upgrade included")
        site.kube.until(lambda: site.bed.gateway_pods() == [], "the gateway to be gone", timeout=120)
        seen = sent.total
        site.kube.until(lambda: sent.total > seen + 50, "the load to go on")
        site.bed.upgrade("gateway.enabled=true")
        site.kube.until(lambda: by_gateway(site), "the Service to lead to the gateway")
        seen = sent.total
        site.kube.until(lambda: sent.total > seen + 50, "the load to go on")
    print(sent.summary())
    assert sent.trouble == []


def test_only_who_has_a_token_is_answered(site: Site) -> None:
    site.publish("v1")
    site.policy()
    site.apply(access={"bearerTokens": {"secretName": "callers"}})
    site.await_condition("Ready", "False", "AccessClosed")
    site.kube.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "callers", "namespace": site.namespace},
            "stringData": {"camera": "token-of-the-camera"},
        }
    )
    site.await_condition("Ready", "True", "Serving")
    urls = (site.url(), site.bed.gateway_url(site.namespace, "detector"))
    for url in urls:
        site.kube.until(answers(url, 200), "a caller to be let in")
        assert ask(url) == 401
        assert ask(url, authorization="Bearer something-else") == 401
    site.kube("delete", "secret", "callers", "-n", site.namespace)
    site.await_condition("Ready", "False", "AccessClosed")
    for url in urls:
        site.kube.until(answers(url, 401, 403), "nobody to be let in")


def test_a_gateway_that_is_gone_is_told_and_comes_back(site: Site) -> None:
    site.serve("v1")
    site.kube("scale", GATEWAY, "-n", SYSTEM_NAMESPACE, "--replicas=0")
    try:
        site.await_condition("Ready", "False", "GatewayMissing")
    finally:
        site.kube("scale", GATEWAY, "-n", SYSTEM_NAMESPACE, "--replicas=1")
    site.await_condition("Ready", "True", "Serving")
    site.kube.until(lambda: ask(site.url()) == 200, "it to answer")
