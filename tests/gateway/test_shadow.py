"""Copies of requests go to a candidate and nobody notices: not its answers, not its slowness, not the agent's end."""

import asyncio
import contextlib
import hashlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.clients import Client, Load, answering, until, versions
from tests.gateway.site import ONE, TWO, Pod, Site

pytestmark = [pytest.mark.process, pytest.mark.timeout(60)]


def scores(*values: float, **more: Any) -> bytes:
    output = {"name": "scores", "datatype": "FP32", "shape": [1, len(values)], "data": values}
    return json.dumps({"model_name": "detector", "outputs": [output], **more}).encode()


RIGHT, WRONG = scores(0.9, 0.1, version=ONE), scores(0.1, 0.9, version=TWO)


def counted(site: Site, outcome: str) -> int:
    labels = {"namespace": "vision", "name": "detector", "digest": f"sha256:{TWO}", "outcome": outcome}
    found = site.gateway.metrics.registry.get_sample_value("edgemodel_gateway_shadow_requests_total", labels)
    return int(found or 0)


async def shadowed(site: Site, percent: int = 100, **more: Any) -> tuple[Client, Pod, Pod]:
    """Return a client of a model with a candidate that is shadowed, a pod of each version."""
    old, new = await site.pod(), await site.pod(version=TWO)
    old.content = new.content = RIGHT
    traffic = {"shadow": {"percent": percent}, **more.pop("traffic", {})}
    client = await answering(site.model(candidate=TWO, traffic=traffic, **more))
    await until(lambda: new.answered or percent < 100, "a copy")
    return client, old, new


async def asked(client: Client, times: int, expected: bytes = RIGHT) -> None:
    for _ in range(times):
        answer = await client.ask(body=b"x" * 100)
        assert (answer.status, answer.body) == (200, expected)
        assert not [name for name in answer.headers if name.startswith("x-edgemodel")]


async def test_every_request_is_copied_and_the_answers_are_those_of_the_active_version(site: Site) -> None:
    client, old, new = await shadowed(site)
    await until(lambda: site.gateway.shadow.held == 0, "all compared")
    before = new.answered
    new.content = WRONG
    await asked(client, 100)
    await until(lambda: counted(site, "differ") == 100, "all compared")
    assert new.answered - before == 100
    assert not [head for pod in (old, new) for head in pod.heads if "x-edgemodel" in head]
    assert site.gateway.shadow.held == 0
    assert client.connections == 1


async def test_a_share_of_the_requests_is_copied(site: Site) -> None:
    client, old, new = await shadowed(site, 20)
    await asked(client, 1000)
    await until(lambda: site.gateway.shadow.held == 0, "all compared")
    assert 140 <= new.answered <= 260  # 20 %, within five standard deviations
    assert old.answered >= 1000


async def test_the_candidates_own_requests_are_not_copied(site: Site) -> None:
    client, _, new = await shadowed(site, traffic={}, weight=50)
    new.content = scores(0.9, 0.1, mine=True)
    await until(lambda: site.gateway.shadow.held == 0, "all compared")
    before, copies = new.answered, counted(site, "agree")
    found = [(await client.ask()).body == new.content for _ in range(400)]
    await until(lambda: counted(site, "agree") - copies == found.count(False), "all compared")
    assert new.answered - before == 400
    assert 140 <= found.count(True) <= 260


async def test_nothing_is_copied_but_inferences_that_were_answered(site: Site) -> None:
    client, old, new = await shadowed(site)
    await until(lambda: site.gateway.shadow.held == 0, "all compared")
    before = new.answered
    for path in ("/v2/models/m", "/v2/infer/x", "/metrics"):
        await client.ask(path)
    old.status = 400
    for _ in range(10):
        assert (await client.ask()).status == 400
    old.status = 200
    await asked(client, 1)
    await until(lambda: counted(site, "agree") == new.answered == before + 1, "the last one alone")


async def test_a_long_request_goes_through_and_is_not_copied(site: Site) -> None:
    client, _, new = await shadowed(site)
    await until(lambda: site.gateway.shadow.held == 0, "all compared")
    before = new.answered
    assert (await client.ask(body=b"x" * (2 << 20))).body == RIGHT
    assert (await client.ask(body=b"x" * (1 << 20))).body == RIGHT
    await until(lambda: counted(site, "agree") == new.answered == before + 1, "the shorter one alone")


async def test_a_candidate_that_hangs_costs_clients_nothing(site: Site) -> None:
    client, _, new = await shadowed(site)
    new.hold = asyncio.Event()
    site.gateway.shadow._copy_seconds = 0.5
    began = asyncio.get_running_loop().time()
    await asked(client, 200)
    assert asyncio.get_running_loop().time() - began < 10
    assert counted(site, "dropped") > 0
    await until(lambda: counted(site, "unanswered") >= 32, "copies given up")
    new.hold.set()
    await until(lambda: site.gateway.shadow.held == 0, "all ended")


@pytest.mark.parametrize("end", ["dead", "breaks", "fails", "huge", "nonsense", "not HTTP"])
async def test_a_candidate_that_is_no_good_costs_clients_nothing(site: Site, end: str) -> None:
    client, _, new = await shadowed(site)
    outcome = {"dead": "unanswered", "breaks": "unanswered", "fails": "failed", "huge": "incomparable"}
    match end:
        case "dead":
            new.kill()
        case "breaks":
            new.breaks = 10_000
        case "fails":
            new.status = 500
        case "huge":
            new.content = b"[" * (4 << 20)
        case "nonsense":
            new.content = b"[" * 100_000
        case _:
            new.status = 99999
            outcome[end] = "unanswered"
    await asked(client, 50)
    await until(lambda: counted(site, outcome.get(end, "differ")) >= 45, end)
    await until(lambda: site.gateway.shadow.held == 0, "all ended")


async def test_an_active_version_that_cannot_be_compared_is_no_fault_of_the_candidate(site: Site) -> None:
    client, old, _ = await shadowed(site)
    old.content = b"y" * 500_000
    await asked(client, 20, old.content)
    old.content = b"no tensors"
    await asked(client, 20, old.content)
    await until(lambda: counted(site, "incomparable") == 40, "all seen")


async def test_no_request_fails_when_the_agent_goes_and_comes(site: Site) -> None:
    client, _, new = await shadowed(site)
    async with Load(client._to["port"], 8) as load:
        load.answers.clear()
        for _ in range(3):
            before = load.total
            await until(lambda before=before: load.total > before + 300, "requests")
            await site.gateway.shadow.stop()
            before = load.total
            await until(lambda before=before: load.total > before + 300, "requests without the agent")
            copies = new.answered
            await site.gateway.shadow.start()
            await until(lambda copies=copies: new.answered > copies, "copies again")
    assert load.wrong == []


@contextlib.contextmanager
def deaf(path: str) -> Iterator[None]:
    """Listen, and never say anything, as a process does that stands still."""
    Path(path).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(512)
        yield
    Path(path).unlink()


async def test_no_request_fails_when_the_agent_hangs(site: Site) -> None:
    client, _, _ = await shadowed(site)
    path = f"{site.settings.state_folder}/shadow.sock"
    async with Load(client._to["port"], 8) as load:
        await until(lambda: load.total > 100, "requests")
        await site.gateway.shadow.stop()
        with deaf(path):
            before = load.total
            began = asyncio.get_running_loop().time()
            await until(lambda: load.total > before + 500, "requests beside the agent", 10)
            assert asyncio.get_running_loop().time() - began < 5
    assert load.wrong == []


async def test_who_may_not_call_is_not_copied_and_who_may_is(site: Site) -> None:
    token = hashlib.sha256(b"letmein").hexdigest()
    site.access(detector={"tokens": [token]})
    old, new = await site.pod(), await site.pod(version=TWO)
    old.content = new.content = RIGHT
    port = site.model(
        candidate=TWO,
        traffic={"shadow": {"percent": 100}},
        access={"bearerTokens": {"secretName": "t"}},
    )
    client = Client(port)

    async def let_in() -> bool:
        with contextlib.suppress(OSError, EOFError):
            return (await client.ask(Authorization="Bearer letmein")).status == 200
        client.close()
        return False

    async with asyncio.timeout(20):
        while not (await let_in() and new.answered):  # noqa: ASYNC110 - asked of another process
            await asyncio.sleep(0.02)
    await until(lambda: site.gateway.shadow.held == 0, "all compared")
    before = (old.answered, new.answered)
    for _ in range(20):
        assert (await client.ask(Authorization="Bearer wrong")).status == 401
    forged = {"X-Edgemodel-Route": "vision.detector", "X-Edgemodel-Part": "candidate"}
    assert (await client.ask(**forged)).status == 401
    assert (old.answered, new.answered) == before
    assert "authorization" not in new.heads[-1]


async def test_a_caller_cannot_choose_the_candidate(site: Site) -> None:
    client, _, new = await shadowed(site)
    new.content = WRONG
    answer = await client.ask(**{"X-Edgemodel-Part": "candidate", "X-Edgemodel-Route": "vision.other"})
    assert answer.body == RIGHT


async def test_copies_end_with_the_candidate_and_with_its_last_ready_pod(site: Site) -> None:
    client, _, new = await shadowed(site)
    new.show(ready=False)
    labels = {"namespace": "vision", "name": "detector", "digest": f"sha256:{TWO}", "outcome": "agree"}

    def known() -> float | None:
        return site.gateway.metrics.registry.get_sample_value(
            "edgemodel_gateway_shadow_requests_total", labels
        )

    await until(lambda: known() is None, "the end of copies")
    before = new.answered
    await asked(client, 50)
    assert new.answered == before
    new.show()
    await until(lambda: known() is not None, "copies again")
    site.model(traffic={"shadow": {"percent": 100}})
    await until(lambda: known() is None, "the candidate's end")
    await asked(client, 50)
    assert site.changes("reload") == 1


async def test_requests_of_one_address_stay_at_one_pod(site: Site) -> None:
    others = [await site.pod() for _ in range(3)]
    client, old, _ = await shadowed(site, 50, traffic={"sticky": True})
    pods = [*others, old]
    for pod in pods:
        pod.content, pod.answered = RIGHT, 0
    await asked(client, 100)
    assert sorted(pod.answered for pod in pods) == [0, 0, 0, 100]


async def test_a_model_without_a_candidate_is_answered_as_ever(site: Site) -> None:
    await site.pod()
    client = await answering(site.model(traffic={"shadow": {"percent": 50}}))
    assert set(await versions(client, 50)) == {ONE}
