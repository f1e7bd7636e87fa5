"""The commands that speak to a cluster: each is one small edit of an EdgeModel, or says why it would make no sense."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from edgemodel.cli import exit_codes
from tests.simulators.apiserver import ApiServerSimulator
from tests.unit.cli.conftest import Run

PATH = "/apis/edgemodel.io/v1alpha1/namespaces/vision/edgemodels/detector"
OLD = {"digest": "sha256:" + "a" * 64, "version": "1.0"}
NEW = {"digest": "sha256:" + "b" * 64, "version": "2.0"}


@pytest.fixture
async def server() -> AsyncIterator[ApiServerSimulator]:
    async with ApiServerSimulator().running() as simulator:
        yield simulator


@pytest.fixture
def words(server: ApiServerSimulator, tmp_path: Path) -> list[object]:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server.url}}],
        "users": [{"name": "u", "user": {}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return ["detector", "--namespace", "vision", "--kubeconfig", path]


def put(server: ApiServerSimulator, **status: object) -> None:
    server.put(
        PATH, {"apiVersion": "edgemodel.io/v1alpha1", "kind": "EdgeModel", "spec": {}, "status": status}
    )


def annotations(server: ApiServerSimulator) -> dict[str, str]:
    return dict(server.objects[PATH]["metadata"].get("annotations", {}))


async def test_promote_names_the_candidate(run: Run, server: ApiServerSimulator, words: list[object]) -> None:
    put(server, slots={"active": OLD, "candidate": NEW})
    done = await run("promote", *words)
    assert done.code == 0, done.err
    assert "version 2.0 takes over" in done.out
    assert annotations(server) == {"edgemodel.io/promote": NEW["digest"]}


async def test_promote_needs_a_candidate(run: Run, server: ApiServerSimulator, words: list[object]) -> None:
    put(server, slots={"active": OLD})
    done = await run("promote", *words)
    assert done.code == exit_codes.STALLED
    assert "no candidate" in done.err
    assert server.writes == []


@pytest.mark.parametrize(
    ("slots", "gone"),
    [
        ({"active": OLD, "candidate": NEW}, NEW),
        ({"active": NEW, "lastGood": OLD}, NEW),
        ({"active": NEW, "candidate": OLD, "lastGood": OLD}, NEW),
    ],
    ids=["candidate", "active", "on-its-way-back"],
)
async def test_rollback_names_what_is_to_go(
    run: Run, server: ApiServerSimulator, words: list[object], slots: object, gone: dict[str, str]
) -> None:
    put(server, slots=slots)
    assert (await run("rollback", *words)).code == 0
    assert annotations(server) == {"edgemodel.io/rollback": gone["digest"]}


async def test_rollback_needs_something_to_go_back_to(
    run: Run, server: ApiServerSimulator, words: list[object]
) -> None:
    put(server, slots={"active": OLD})
    done = await run("rollback", *words)
    assert done.code == exit_codes.STALLED
    assert "spec.replicas" in done.err


async def test_pause_and_its_end(run: Run, server: ApiServerSimulator, words: list[object]) -> None:
    put(server)
    assert (await run("pause", *words)).code == 0
    assert server.objects[PATH]["spec"]["rollout"]["paused"] is True
    assert (await run("pause", *words, "--end")).code == 0
    assert server.objects[PATH]["spec"]["rollout"]["paused"] is False


async def test_retry_asks_with_a_new_value_each_time(
    run: Run, server: ApiServerSimulator, words: list[object]
) -> None:
    put(server, rolledBack={**NEW, "reason": "GateFailed"})
    assert (await run("retry", *words)).code == 0
    first = annotations(server)["edgemodel.io/retry"]
    done = await run("retry", *words, "--output", "json")
    assert json.loads(done.out)["name"] == "detector"
    assert annotations(server)["edgemodel.io/retry"] != first


async def test_retry_takes_the_order_away_that_keeps_the_version_back(
    run: Run, server: ApiServerSimulator, words: list[object]
) -> None:
    put(server, slots={"active": OLD, "candidate": NEW})
    assert (await run("rollback", *words)).code == 0
    server.objects[PATH]["status"] = {"rolledBack": {**NEW, "reason": "Manual"}}
    assert (await run("retry", *words)).code == 0
    assert server.writes[-1].body["metadata"]["annotations"]["edgemodel.io/rollback"] is None


async def test_what_was_done_is_told_as_kubectl_would_do_it(
    run: Run, server: ApiServerSimulator, words: list[object]
) -> None:
    put(server)
    done = await run("pause", *words)
    assert (
        'kubectl patch em detector -n vision --type merge -p \'{"spec":{"rollout":{"paused":true}}}\''
        in done.err
    )


async def test_retry_needs_a_rollback(run: Run, server: ApiServerSimulator, words: list[object]) -> None:
    put(server)
    assert (await run("retry", *words)).code == exit_codes.STALLED


async def test_a_version_that_appeared_meanwhile_is_not_meant(
    run: Run, server: ApiServerSimulator, words: list[object]
) -> None:
    put(server, slots={"active": OLD, "candidate": NEW})
    version = server.objects[PATH]["metadata"]["resourceVersion"]
    await run("promote", *words)
    (patch,) = [request.body for request in server.writes]
    assert patch["metadata"]["resourceVersion"] == version


async def test_an_edgemodel_that_is_not_there(run: Run, words: list[object]) -> None:
    done = await run("pause", *words)
    assert done.code == exit_codes.STALLED
    assert "no EdgeModel vision/detector" in done.err
