"""Leader election: takeover, skewed clocks, fencing, release."""

import asyncio

import pytest

from edgemodel.cluster.client import ApiServer
from edgemodel.cluster.lease import LeaseElection, LeaseTimes
from edgemodel.errors import Transient
from tests.simulators.apiserver import ApiServerSimulator, Fault

PATH = "/apis/coordination.k8s.io/v1/namespaces/system/leases/edgemodel-operator"


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self, start: float = 0.0) -> None:
        self.now = start

    def __call__(self) -> float:
        return self.now


def candidate(api: ApiServer, identity: str, clock: Clock, times: LeaseTimes | None = None) -> LeaseElection:
    return LeaseElection(
        api, namespace="system", name="edgemodel-operator", identity=identity, times=times, clock=clock
    )


async def test_the_first_gets_the_lease_and_the_second_stands_by(
    api: ApiServer, server: ApiServerSimulator
) -> None:
    first, second = candidate(api, "one", Clock()), candidate(api, "two", Clock(1e6))
    assert await first.attempt()
    assert not await second.attempt()
    assert first.leading()
    assert not second.leading()
    assert server.objects[PATH]["spec"]["holderIdentity"] == "one"
    assert server.objects[PATH]["spec"]["leaseTransitions"] == 0


async def test_a_standby_takes_over_only_after_it_has_itself_watched_silence_for_the_whole_duration(
    api: ApiServer, server: ApiServerSimulator
) -> None:
    first, clock = candidate(api, "one", Clock()), Clock(5000.0)
    second = candidate(api, "two", clock)
    assert await first.attempt()
    # The time the holder wrote lies far in the past by anybody's clock: that alone must not count.
    server.objects[PATH]["spec"]["renewTime"] = "2001-01-01T00:00:00.000000Z"
    assert not await second.attempt()
    clock.now += 14
    assert not await second.attempt()
    clock.now += 2
    assert await second.attempt()
    assert server.objects[PATH]["spec"]["holderIdentity"] == "two"
    assert server.objects[PATH]["spec"]["leaseTransitions"] == 1


async def test_each_renewal_starts_the_standbys_wait_anew(api: ApiServer) -> None:
    first, clock = candidate(api, "one", Clock()), Clock()
    second = candidate(api, "two", clock)
    assert await first.attempt()
    for _ in range(10):
        assert not await second.attempt()
        clock.now += 10
        assert await first.attempt()
    assert not second.leading()


async def test_a_leader_that_cannot_renew_stops_acting_at_the_deadline_by_itself(
    api: ApiServer, server: ApiServerSimulator
) -> None:
    clock = Clock()
    leader = candidate(api, "one", clock)
    assert await leader.attempt()
    server.faults.append(Fault(lambda *_: True, status=500))
    clock.now += 9.9
    with pytest.raises(Transient):
        await leader.attempt()
    assert leader.leading()
    clock.now += 0.2
    assert not leader.leading()


async def test_leading_counts_from_before_the_renewal_was_sent(
    api: ApiServer, server: ApiServerSimulator
) -> None:
    """A renewal whose answer took long must not stretch the time the leader believes it has."""
    clock = Clock()
    leader = candidate(api, "one", clock)

    def slow(method: str, _: str) -> bool:
        clock.now += 4.0 if method == "POST" else 0.0
        return False

    server.faults.append(Fault(slow))
    assert await leader.attempt()
    clock.now = 10.1
    assert not leader.leading()


async def test_two_that_race_for_a_silent_lease_do_not_both_win(
    api: ApiServer, server: ApiServerSimulator
) -> None:
    gone, clock = candidate(api, "gone", Clock()), Clock()
    await gone.attempt()
    racers = [candidate(api, name, clock) for name in ("a", "b", "c")]
    assert not any([await racer.attempt() for racer in racers])
    clock.now += 16
    await asyncio.gather(*(racer.attempt() for racer in racers))
    winners = [racer for racer in racers if racer.leading()]
    assert len(winners) == 1


async def test_a_renewal_whose_answer_was_lost_does_not_unseat_the_leader(
    api: ApiServer, server: ApiServerSimulator
) -> None:
    clock = Clock()
    leader = candidate(api, "one", clock)
    assert await leader.attempt()
    server.faults.append(Fault(lambda method, _: method == "PUT", status=500, times=1, lost=True))
    clock.now += 2
    with pytest.raises(Transient):
        await leader.attempt()
    clock.now += 2
    assert await leader.attempt()


async def test_a_leader_that_finds_another_holder_stops_at_once(
    api: ApiServer, server: ApiServerSimulator
) -> None:
    leader = candidate(api, "one", Clock())
    assert await leader.attempt()
    live = server.objects[PATH]
    server.put(PATH, {**live, "spec": {**live["spec"], "holderIdentity": "two"}})
    assert not await leader.attempt()
    assert not leader.leading()


async def test_a_released_lease_is_taken_without_waiting(api: ApiServer, server: ApiServerSimulator) -> None:
    first, second = candidate(api, "one", Clock()), candidate(api, "two", Clock())
    assert await first.attempt()
    assert not await second.attempt()
    await first.release()
    assert not first.leading()
    assert server.objects[PATH]["spec"]["holderIdentity"] == ""
    assert await second.attempt()


async def test_releasing_does_not_take_the_lease_from_its_new_holder(
    api: ApiServer, server: ApiServerSimulator
) -> None:
    first = candidate(api, "one", Clock())
    assert await first.attempt()
    live = server.objects[PATH]
    server.put(PATH, {**live, "spec": {**live["spec"], "holderIdentity": "two"}})
    await first.release()
    assert server.objects[PATH]["spec"]["holderIdentity"] == "two"


async def test_hold_returns_when_another_takes_the_lease(api: ApiServer, server: ApiServerSimulator) -> None:
    loop = asyncio.get_running_loop()
    times = LeaseTimes(duration=1.5, renew_deadline=1.0, retry=0.02)
    leader = LeaseElection(
        api, namespace="system", name="edgemodel-operator", identity="one", times=times, clock=loop.time
    )
    await leader.acquire()
    holding = asyncio.create_task(leader.hold())
    live = server.objects[PATH]
    # The standby's write may meet a renewal; it wins in the end, as a standby with a fresh look would.
    server.put(PATH, {**live, "spec": {**live["spec"], "holderIdentity": "two"}})
    await asyncio.wait_for(holding, 1.0)
    assert not leader.leading()


async def test_hold_returns_at_the_deadline_when_the_api_server_never_answers(
    api: ApiServer, server: ApiServerSimulator
) -> None:
    loop = asyncio.get_running_loop()
    times = LeaseTimes(duration=0.5, renew_deadline=0.2, retry=0.02)
    leader = LeaseElection(
        api, namespace="system", name="edgemodel-operator", identity="one", times=times, clock=loop.time
    )
    await leader.acquire()
    server.faults.append(Fault(lambda *_: True, hang=True))
    began = loop.time()
    await asyncio.wait_for(leader.hold(), 1.5)
    assert loop.time() - began < 1.0
    assert not leader.leading()


@pytest.mark.parametrize("times", [(10, 15, 2), (15, 10, 10), (15, 10, 0)])
def test_times_that_would_let_two_lead_are_refused(times: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="duration > renew deadline > retry"):
        LeaseTimes(*times)
