"""The client: paths, paging, fence, and what each failure becomes."""

import asyncio
from pathlib import Path

import pytest
from kubernetes.aio.client.configuration import Configuration

from edgemodel.cluster.client import ApiServer, Conflict, Forbidden, Gone, NotLeading, Rejected, connect
from edgemodel.cluster.kinds import CONFIG_MAP, EDGE_MODEL, MODEL_TRUST_POLICY, NAMESPACE, SERVICE_MONITOR
from edgemodel.errors import Stalled, Transient
from tests.simulators.apiserver import ApiServerSimulator, Fault

MAP = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "a", "namespace": "vision"},
    "data": {"k": "v"},
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (EDGE_MODEL.path(), "/apis/edgemodel.io/v1alpha1/edgemodels"),
        (
            EDGE_MODEL.path("vision", "a", subresource="status"),
            "/apis/edgemodel.io/v1alpha1/namespaces/vision/edgemodels/a/status",
        ),
        (CONFIG_MAP.path("vision"), "/api/v1/namespaces/vision/configmaps"),
        (NAMESPACE.path(name="vision"), "/api/v1/namespaces/vision"),
        (MODEL_TRUST_POLICY.path("ignored", "p"), "/apis/edgemodel.io/v1alpha1/modeltrustpolicies/p"),
        (CONFIG_MAP.path("a/../b", "x?y"), "/api/v1/namespaces/a%2F..%2Fb/configmaps/x%3Fy"),
    ],
)
def test_paths_are_those_of_the_api_server_and_names_cannot_leave_theirs(path: str, expected: str) -> None:
    assert path == expected


async def test_an_object_that_is_not_there_is_none(api: ApiServer) -> None:
    assert await api.get(CONFIG_MAP, "vision", "absent") is None


async def test_only_service_monitors_list_as_nothing_where_the_kind_is_not_served(
    api: ApiServer, server: ApiServerSimulator
) -> None:
    server.faults.append(Fault(lambda _, path: path.endswith("s"), status=404))
    assert await api.list(SERVICE_MONITOR) == ()
    with pytest.raises(Transient, match=r"serve modeltrustpolicies of edgemodel\.io/v1alpha1"):
        await api.list(MODEL_TRUST_POLICY)


async def test_lists_are_read_page_by_page_and_items_get_their_kind_back(
    api: ApiServer, server: ApiServerSimulator
) -> None:
    for number in range(260):
        server.put(f"/api/v1/namespaces/vision/configmaps/c{number:03}", {**MAP, "metadata": {}})
    found = await api.list(CONFIG_MAP, "vision")
    assert len(found) == 260
    assert {(item["apiVersion"], item["kind"]) for item in found} == {("v1", "ConfigMap")}
    assert len(server.seen) == 2


async def test_apply_names_its_field_manager_and_forces(api: ApiServer, server: ApiServerSimulator) -> None:
    live = await api.apply(CONFIG_MAP, MAP, manager="edgemodel-operator")
    assert live["metadata"]["uid"]
    request = server.writes[0]
    assert request.method == "PATCH"
    assert request.query == {"fieldManager": "edgemodel-operator", "force": "true"}
    assert request.headers["Content-Type"] == "application/apply-patch+yaml"
    assert request.body == MAP


async def test_a_child_of_another_uid_is_not_deleted(api: ApiServer, server: ApiServerSimulator) -> None:
    live = await api.apply(CONFIG_MAP, MAP, manager="m")
    assert not await api.delete(CONFIG_MAP, "vision", "a", uid="another")
    assert server.objects
    assert await api.delete(CONFIG_MAP, "vision", "a", uid=live["metadata"]["uid"])
    assert not server.objects
    assert not await api.delete(CONFIG_MAP, "vision", "a", uid=live["metadata"]["uid"])


async def test_a_lowered_fence_lets_reads_pass_and_holds_writes_back(
    api: ApiServer, server: ApiServerSimulator
) -> None:
    api.fence = lambda: False
    assert await api.get(CONFIG_MAP, "vision", "a") is None
    with pytest.raises(NotLeading):
        await api.apply(CONFIG_MAP, MAP, manager="m")
    with pytest.raises(NotLeading):
        await api.delete(CONFIG_MAP, "vision", "a", uid="u")
    assert server.writes == []
    assert api.writes == 0


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (403, Forbidden),
        (404, Gone),
        (409, Conflict),
        (422, Rejected),
        (400, Rejected),
        (500, Transient),
        (401, Transient),
    ],
)
async def test_each_refusal_becomes_the_error_that_says_what_to_do(
    api: ApiServer, server: ApiServerSimulator, status: int, error: type[Exception]
) -> None:
    server.faults.append(Fault(lambda method, _: method == "PATCH", status=status))
    with pytest.raises(error) as caught:
        await api.apply(CONFIG_MAP, MAP, manager="m")
    if error is not Rejected:
        assert "PATCH /api/v1/namespaces/vision/configmaps/a" in str(caught.value)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (
            403,
            'deployments.apps "a" is forbidden: exceeded quota: small, requested: count/deployments.apps=1',
        ),
        (403, 'admission webhook "registry.site" denied the request: images must come from the site'),
        (403, "ValidatingAdmissionPolicy 'x' with binding 'y' denied request: no"),
        (
            500,
            "failed to create typed patch object (a/b; apps/v1, Kind=Deployment): .spec.vale: field not declared in schema",
        ),
    ],
)
async def test_what_another_try_would_not_mend_is_a_persons_business(
    api: ApiServer, server: ApiServerSimulator, status: int, message: str
) -> None:
    server.faults.append(Fault(lambda method, _: method == "PATCH", status=status, message=message))
    with pytest.raises(Rejected) as caught:
        await api.apply(CONFIG_MAP, MAP, manager="m")
    assert caught.value.message == message


async def test_the_servers_wish_to_wait_is_kept(api: ApiServer, server: ApiServerSimulator) -> None:
    server.faults.append(Fault(lambda *_: True, status=429, headers={"Retry-After": "7"}))
    with pytest.raises(Transient) as caught:
        await api.get(CONFIG_MAP, "vision", "a")
    assert caught.value.retry_after == 7


async def test_a_server_that_is_not_there_is_transient_and_no_token_is_told() -> None:
    configuration = Configuration(host="http://127.0.0.1:1")
    configuration.api_key = {"BearerToken": "bearer secret-token"}
    async with ApiServer(configuration) as api:
        with pytest.raises(Transient) as caught:
            await api.get(CONFIG_MAP, "vision", "a")
        assert caught.value.reason == "ApiServerUnreachable"
        assert "secret-token" not in str(caught.value)
        assert "secret-token" not in repr(await api.credentials())


async def test_a_token_file_that_changes_is_followed(server: ApiServerSimulator) -> None:
    configuration = Configuration(host=server.url)
    tokens = iter(["one", "two"])
    configuration.api_key = {"BearerToken": "bearer none"}
    configuration.refresh_api_key_hook = lambda it: it.api_key.update(BearerToken=f"bearer {next(tokens)}")
    async with ApiServer(configuration) as api:
        await api.get(CONFIG_MAP, "vision", "a")
        await api.get(CONFIG_MAP, "vision", "a")
    assert [request.headers["Authorization"] for request in server.seen] == ["bearer one", "bearer two"]


async def test_without_any_configuration_the_message_says_what_to_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(Stalled, match="KUBECONFIG or --kubeconfig"):
        await asyncio.wait_for(connect(kubeconfig=tmp_path / "absent"), 1.5)
