"""The work queue: coalescing, one worker a key, delays, backoff."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from edgemodel.controller.workqueue import Backoff, WorkQueue
from edgemodel.errors import Transient


class Passes:
    """Counts passes by key and lets a test hold them open."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.running: dict[str, int] = {}
        self.most: dict[str, int] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.answer: Callable[[str], float | None] = lambda _: None
        self._changed = asyncio.Condition()

    async def __call__(self, key: str) -> float | None:
        self.running[key] = self.running.get(key, 0) + 1
        self.most[key] = max(self.most.get(key, 0), self.running[key])
        self.made.append(key)
        async with self._changed:
            self._changed.notify_all()
        await self.gate.wait()
        self.running[key] -= 1
        return self.answer(key)

    async def reached(self, count: int) -> None:
        async with asyncio.timeout(1.5), self._changed:
            await self._changed.wait_for(lambda: len(self.made) >= count)


@pytest.fixture
def passes() -> Passes:
    return Passes()


async def working(
    queue: WorkQueue[str], work: Callable[[str], Awaitable[float | None]], workers: int = 4
) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(queue.run(work)) for _ in range(workers)]


async def end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def quick() -> WorkQueue[str]:
    return WorkQueue(backoff=Backoff(first=0.01, longest=0.05), spread=lambda: 0.0)


async def test_a_key_told_many_times_before_a_worker_is_free_is_done_once(passes: Passes) -> None:
    queue = quick()
    for _ in range(50):
        queue.add("a")
    assert len(queue) == 1
    tasks = await working(queue, passes)
    await passes.reached(1)
    assert await queue.stop(1.0)
    assert passes.made == ["a"]
    await end(tasks)


async def test_news_during_a_pass_makes_exactly_one_more_pass_and_never_two_at_once(passes: Passes) -> None:
    queue = quick()
    passes.gate.clear()
    tasks = await working(queue, passes)
    queue.add("a")
    await passes.reached(1)
    for _ in range(10):
        queue.add("a")
    passes.gate.set()
    await passes.reached(2)
    queue.add("b")
    await passes.reached(3)
    assert passes.made == ["a", "a", "b"]
    assert passes.most == {"a": 1, "b": 1}
    await end(tasks)


async def test_different_keys_run_side_by_side_up_to_the_number_of_workers(passes: Passes) -> None:
    queue = quick()
    passes.gate.clear()
    tasks = await working(queue, passes, workers=2)
    for key in "abc":
        queue.add(key)
    await passes.reached(2)
    assert queue.working == 2
    assert len(queue) == 1
    passes.gate.set()
    await passes.reached(3)
    await end(tasks)


async def test_a_pass_that_asks_for_a_later_look_gets_it(passes: Passes) -> None:
    queue = quick()
    passes.answer = lambda _: 0.01 if len(passes.made) < 3 else None
    tasks = await working(queue, passes)
    queue.add("a")
    await passes.reached(3)
    await end(tasks)


async def test_of_two_planned_looks_the_earlier_one_stays(passes: Passes) -> None:
    queue = quick()
    tasks = await working(queue, passes)
    queue.add_after("a", 0.01)
    queue.add_after("a", 60)
    await passes.reached(1)
    queue.add_after("b", 60)
    queue.add_after("b", 0.01)
    await passes.reached(2)
    assert passes.made == ["a", "b"]
    await end(tasks)


async def test_news_brings_a_planned_look_forward_and_replaces_it(passes: Passes) -> None:
    queue = quick()
    tasks = await working(queue, passes)
    queue.add_after("a", 60)
    queue.add("a")
    await passes.reached(1)
    queue.add_after("b", 0.01)
    await passes.reached(2)
    assert passes.made == ["a", "b"]
    await end(tasks)


async def test_a_failed_pass_comes_back_and_success_forgets_the_failures(passes: Passes) -> None:
    queue = quick()
    failures = 3

    def answer(_: str) -> float | None:
        nonlocal failures
        if failures:
            failures -= 1
            raise RuntimeError("no")
        return None

    passes.answer = answer
    tasks = await working(queue, passes)
    queue.add("a")
    await passes.reached(4)
    await end(tasks)


async def test_the_other_sides_own_wish_is_a_lower_bound_of_the_wait() -> None:
    queue: WorkQueue[str] = WorkQueue(backoff=Backoff(first=0.01, longest=0.2), spread=lambda: 0.0)
    loop = asyncio.get_running_loop()
    times: list[float] = []
    done = asyncio.Event()

    async def work(_: str) -> float | None:
        times.append(loop.time())
        if len(times) == 1:
            raise Transient("RegistryUnreachable", "slow down", retry_after=0.1)
        done.set()
        return None

    tasks = await working(queue, work, workers=1)
    queue.add("a")
    async with asyncio.timeout(1.5):
        await done.wait()
    assert times[1] - times[0] >= 0.09
    await end(tasks)


async def test_a_forgotten_key_has_no_planned_look_left(passes: Passes) -> None:
    queue = quick()
    tasks = await working(queue, passes)
    queue.add_after("a", 0.02)
    queue.forget("a")
    queue.add_after("b", 0.04)
    await passes.reached(1)
    assert passes.made == ["b"]
    await end(tasks)


async def test_stop_waits_for_running_passes_and_takes_no_new_ones(passes: Passes) -> None:
    queue = quick()
    passes.gate.clear()
    tasks = await working(queue, passes)
    queue.add("a")
    await passes.reached(1)
    assert not await queue.stop(0.02)
    queue.add("b")
    passes.gate.set()
    assert await queue.stop(1.0)
    assert passes.made == ["a"]
    await end(tasks)


@pytest.mark.parametrize(
    ("failures", "spread", "seconds"),
    [
        (1, 0.0, 0.5),
        (2, 0.0, 1.0),
        (5, 0.0, 8.0),
        (11, 0.0, 300.0),
        (10_000, 0.0, 300.0),
        (1, 1.0, 0.6),
        (1, -1.0, 0.4),
    ],
)
def test_backoff_doubles_up_to_its_longest_and_is_spread(
    failures: int, spread: float, seconds: float
) -> None:
    assert Backoff().delay(failures, spread) == pytest.approx(seconds)
