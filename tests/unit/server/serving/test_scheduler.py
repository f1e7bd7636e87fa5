"""A model's runs on threads and on the loop's own thread, with a model that is a Python function."""

import asyncio
import gc
import threading
import time
import weakref

import numpy as np
import pytest

from inference_server.engine.plan import Plan
from inference_server.errors import (
    DeadlineExceeded,
    ExecutionFailed,
    InvalidRequest,
    NotFound,
    Overloaded,
)
from inference_server.messages import InferenceRequest
from inference_server.serving.inline_scheduler import InlineScheduler
from inference_server.serving.scheduler import Scheduler
from tests.unit.server.conftest import until

COSTS = ((2, 0.001), (16, 0.002))


class Tripler:
    """y = 3x, row by row; waits until it may go on; refuses a batch that holds a negative number."""

    def __init__(self):
        self.go = threading.Event()
        self.go.set()
        self.batches = []
        self.threads = set()
        self.failure = InvalidRequest("negative")

    def run(self, outputs, inputs):
        x = inputs["x"]
        self.batches.append(len(x))
        self.threads.add(threading.get_ident())
        assert self.go.wait(5)
        if (x < 0).any():
            raise self.failure
        return [x * 3 for _ in outputs]


def scheduler_of(run, how, *rest):
    return (InlineScheduler if how.inline else Scheduler)(run, how, *rest)


class Notes:
    """A watcher that writes down."""

    def __init__(self):
        self.rows, self.waits = [], []

    def ran(self, rows, seconds):
        assert seconds >= 0
        self.rows.append(rows)

    def waited(self, seconds):
        assert seconds >= 0
        self.waits.append(seconds)


def request(*values):
    return InferenceRequest({"x": np.array([[value, value] for value in values], np.float32)}, ("y",))


def plan(**changes):
    return Plan(**({"batchable": True, "batch_rows": 8, "costs": COSTS} | changes))


INLINE = plan(inline=True)


@pytest.fixture
def model():
    return Tripler()


async def started(scheduler, *requests, deadline=None):
    """Tasks that ask, in order, all of them queued."""
    tasks = [asyncio.ensure_future(scheduler.compute(each, deadline)) for each in requests]
    await asyncio.sleep(0)
    return tasks


async def held(model, scheduler):
    """A first request that keeps the only session busy."""
    model.go.clear()
    (first,) = await started(scheduler, request(0))
    await until(lambda: model.batches)
    return first


@pytest.mark.parametrize("how", [plan(), plan(sessions=3), INLINE, Plan(), Plan(inline=True)])
async def test_everybody_gets_the_answer_to_what_they_asked(model, how):
    scheduler = scheduler_of(model.run, how, Notes())
    tasks = await started(
        scheduler, *(request(*range(number, number + 1 + number % 3)) for number in range(60))
    )
    for number, (answer,) in enumerate(await asyncio.gather(*tasks)):
        assert answer[:, 0].tolist() == [3 * value for value in range(number, number + 1 + number % 3)]
    await scheduler.close()


async def test_who_waits_is_computed_when_those_who_were_answered_do_not_ask_again(model):
    scheduler = Scheduler(model.run, plan(queue_delay=0.001), Notes())
    first = await held(model, scheduler)
    others = await started(scheduler, request(1), request(2))
    model.go.set()
    await asyncio.gather(first, *others)
    assert model.batches == [1, 2]
    await scheduler.close()


async def test_in_overload_refusals_and_answers_go_on(model):
    scheduler = Scheduler(model.run, plan(costs=((2, 0.01), (16, 0.02))), Notes())
    first = await held(model, scheduler)
    for _ in range(3):
        with pytest.raises(Overloaded):
            await scheduler.compute(request(1), time.monotonic() + 0.001)
        await asyncio.sleep(0)
    waits = asyncio.ensure_future(scheduler.compute(request(2), time.monotonic() + 60))
    await asyncio.sleep(0)
    model.go.set()
    await asyncio.gather(first, waits)
    assert model.batches == [1, 1]
    await scheduler.close()


async def test_who_asks_again_at_once_gets_an_answer_each_time(model):
    scheduler = Scheduler(model.run, plan(queue_delay=0.001), Notes())

    async def client(value):
        for _ in range(50):
            (answer,) = await scheduler.compute(request(value), None)
            assert answer[:, 0].tolist() == [3 * value]

    await asyncio.gather(*(client(value) for value in range(12)))
    assert sum(model.batches) == 12 * 50
    await scheduler.close()


async def test_inline_nobody_waits_for_a_request_that_may_never_come(model):
    # Requests that came close together, and a price that hardly grows: on a thread the next one would be waited for.
    how = plan(inline=True, queue_delay=60.0, costs=((2, 0.5), (16, 0.5)))
    scheduler = InlineScheduler(model.run, how, Notes())
    await asyncio.gather(*await started(scheduler, *(request(number) for number in range(30))))
    assert sum(model.batches) == 30
    await scheduler.close()


async def test_a_tick_of_the_loop_is_one_run_and_on_its_own_thread(model):
    notes = Notes()
    scheduler = scheduler_of(model.run, INLINE, notes)
    await asyncio.gather(*await started(scheduler, *(request(number) for number in range(8))))
    assert model.batches == [8]
    assert model.threads == {threading.get_ident()}
    assert (notes.rows, len(notes.waits)) == ([8], 8)


async def test_who_is_alone_does_not_wait_for_the_end_of_the_tick(model):
    scheduler = scheduler_of(model.run, INLINE, Notes())
    for _ in range(8):
        await scheduler.compute(request(1), None)
    alone = scheduler.compute(request(1), None)
    with pytest.raises(StopIteration):
        alone.send(None)
    # And company is noticed again: one of some requests waits to see whether it has any.
    for _ in range(70):
        await scheduler.compute(request(1), None)
    model.batches.clear()
    for _ in range(20):
        await asyncio.gather(*await started(scheduler, *(request(number) for number in range(8))))
    assert model.batches[-1] == 8


async def test_an_idle_session_takes_all_that_came_meanwhile(model):
    scheduler = Scheduler(model.run, plan(), Notes())
    first = await held(model, scheduler)
    rest = await started(scheduler, *(request(number) for number in range(5)))
    model.go.set()
    await asyncio.gather(first, *rest)
    assert model.batches == [1, 5]
    assert threading.get_ident() not in model.threads
    await scheduler.close()


async def test_one_who_fails_fails_alone(model):
    for how in (plan(), INLINE):
        scheduler = scheduler_of(model.run, how, Notes())
        tasks = await started(scheduler, request(1), request(-1), request(2))
        good, bad, other = await asyncio.gather(*tasks, return_exceptions=True)
        assert (good[0][0, 0], other[0][0, 0]) == (3, 6)
        assert isinstance(bad, InvalidRequest)
        await scheduler.close()


async def test_a_bug_ends_no_session(model, caplog):
    model.failure = ZeroDivisionError()
    scheduler = Scheduler(model.run, plan(), Notes())
    with pytest.raises(ExecutionFailed, match="internal error"):
        await scheduler.compute(request(-1), None)
    assert "ZeroDivisionError" in caplog.text
    assert (await scheduler.compute(request(1), None))[0][0, 0] == 3
    await scheduler.close()


async def test_outputs_that_are_no_rows_after_all_are_computed_one_by_one(caplog):
    def total(outputs, inputs):
        return [np.atleast_1d(inputs["x"].sum())]

    scheduler = scheduler_of(total, INLINE, Notes())
    answers = await asyncio.gather(*await started(scheduler, request(1), request(2)))
    assert [answer[0].tolist() for answer in answers] == [[2], [4]]
    assert "other first axes" in caplog.text


async def test_a_large_request_comes_back_whole_from_its_pieces(model):
    scheduler = Scheduler(model.run, plan(sessions=2, piece_rows=4), Notes())
    (answer,) = await scheduler.compute(request(*range(11)), None)
    assert answer[:, 0].tolist() == [3 * value for value in range(11)]
    assert sorted(model.batches) == [3, 4, 4]
    with pytest.raises(InvalidRequest):
        await scheduler.compute(request(*range(-3, 9)), None)
    await scheduler.close()


async def test_who_leaves_is_not_computed(model):
    scheduler = Scheduler(model.run, plan(), Notes())
    first = await held(model, scheduler)
    leaver, stayer = await started(scheduler, request(1), request(2))
    leaver.cancel()
    await asyncio.wait([leaver])
    assert scheduler.waiting == 1
    model.go.set()
    await asyncio.gather(first, stayer)
    assert model.batches == [1, 1]
    await scheduler.close()


async def test_a_deadline_is_kept_though_the_session_hangs(model):
    scheduler = Scheduler(model.run, plan(), Notes())
    first = await held(model, scheduler)
    (late,) = await started(scheduler, request(1), deadline=time.monotonic() + 0.05)
    with pytest.raises(DeadlineExceeded):
        await asyncio.wait_for(late, 2)
    assert scheduler.waiting == 0
    model.go.set()
    await first
    assert model.batches == [1]
    await scheduler.close()


async def test_a_deadline_that_cannot_be_met_is_refused_at_the_door(model):
    for how in (plan(costs=((2, 5.0),)), plan(costs=((2, 5.0),), inline=True)):
        scheduler = scheduler_of(model.run, how, Notes())
        with pytest.raises(Overloaded, match="predicted wait"):
            await scheduler.compute(request(1), time.monotonic() + 1)
        with pytest.raises(DeadlineExceeded):
            scheduler.check_door(time.monotonic() - 1)
        with pytest.raises(Overloaded):
            scheduler.check_door(time.monotonic() + 1)
        scheduler.check_door(time.monotonic() + 60)
    assert model.batches == []


async def test_a_deadline_leaves_time_to_write_the_answer_and_refusals_fade_what_was_learned(model):
    scheduler = scheduler_of(model.run, plan(), Notes())
    scheduler.written(60.0)
    refused = 0
    while True:
        try:
            await scheduler.compute(request(1), time.monotonic() + 10)
            break
        except (Overloaded, DeadlineExceeded):
            refused += 1
    assert 20 < refused < 60
    await scheduler.close()


async def test_the_queue_has_an_end(model):
    scheduler = Scheduler(model.run, plan(), Notes(), most_waiting=3)
    first = await held(model, scheduler)
    tasks = await started(scheduler, *(request(number) for number in range(5)))
    refused = [task for task in tasks if task.done()]
    assert len(refused) == 2
    assert all(isinstance(task.exception(), Overloaded) for task in refused)
    with pytest.raises(Overloaded, match="3 requests wait already"):
        scheduler.check_door(None)
    model.go.set()
    await asyncio.gather(first, *(task for task in tasks if task not in refused))
    await scheduler.close()


async def test_fewer_sessions_can_be_allowed(model):
    scheduler = Scheduler(model.run, plan(sessions=3, batch_rows=1), Notes())
    scheduler.slow_down(1 / 3)
    first = await held(model, scheduler)
    others = await started(scheduler, request(1), request(2))
    assert len(scheduler.running) == 1
    scheduler.slow_down(1)
    await until(lambda: len(model.batches) == 3)
    model.go.set()
    await asyncio.gather(first, *others)
    await scheduler.close()


async def test_closing_answers_what_there_is_and_lets_the_model_go(model):
    scheduler = Scheduler(model.run, plan(sessions=2), Notes())
    first = await held(model, scheduler)
    (second,) = await started(scheduler, request(5))
    closing = asyncio.ensure_future(scheduler.close())
    await asyncio.sleep(0)
    with pytest.raises(NotFound, match="unloaded"):
        await scheduler.compute(request(1), None)
    assert not closing.done()
    model.go.set()
    await closing
    await asyncio.gather(first, second)
    watch = weakref.ref(scheduler)
    del scheduler
    await until(lambda: gc.collect() is not None and watch() is None)


async def test_closing_a_model_that_nobody_asked_is_nothing(model):
    await Scheduler(model.run, plan(), Notes()).close()
    await scheduler_of(model.run, INLINE, Notes()).close()


async def test_abandoning_refuses_what_waits_and_leaves_what_runs(model):
    scheduler = Scheduler(model.run, plan(), Notes())
    first = await held(model, scheduler)
    (second,) = await started(scheduler, request(5))
    scheduler.abandon()
    with pytest.raises(Overloaded):
        await second
    model.go.set()
    await first


@pytest.mark.parametrize("how", [plan(sessions=2), INLINE])
async def test_many_that_come_and_go_leave_nothing_behind(model, how):
    """Arrivals, cancellations and failures in one heap; at the end all sums are zero and everybody was served."""
    scheduler = scheduler_of(model.run, how, Notes())
    served = 0
    for wave in range(20):
        tasks = await started(scheduler, *(request(number - (number == wave)) for number in range(1, 17)))
        for task in tasks[wave % 5 :: 5]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        served += sum(isinstance(result, list) for result in results)
    assert served >= 20 * 10
    assert scheduler.waiting == 0
    await until(lambda: not scheduler.running)
    assert not scheduler._queue._groups
    await scheduler.close()


async def test_what_is_too_large_for_a_tick_goes_to_a_thread(model):
    scheduler = InlineScheduler(model.run, INLINE, Notes())
    (large,) = await started(scheduler, request(*range(500)))
    await scheduler.compute(request(1), None)
    await large
    assert len(model.threads) == 2
    await scheduler.close()


@pytest.mark.parametrize(("seconds", "runs"), [(0.02, 5), (0.3, 2)])
async def test_a_model_that_is_slower_than_calibrated_leaves_the_loops_thread(caplog, seconds, runs):
    threads = []

    def slow(outputs, inputs):
        threads.append(threading.get_ident())
        until = time.thread_time() + seconds
        while time.thread_time() < until:
            pass
        return [inputs["x"]]

    scheduler = InlineScheduler(slow, INLINE, Notes())
    for _ in range(runs):
        await scheduler.compute(request(1), None)
    assert threads[0] == threading.get_ident()
    assert threads[-1] != threading.get_ident()
    assert caplog.text.count("longer than calibrated") == 1
    await scheduler.close()


async def test_a_busy_neighbour_is_not_taken_for_a_slow_model(model, caplog):
    def preempted(outputs, inputs):
        threading.Event().wait(0.02)
        return [inputs["x"]]

    scheduler = InlineScheduler(preempted, INLINE, Notes())
    for _ in range(6):
        await scheduler.compute(request(1), None)
    assert "longer than calibrated" not in caplog.text
    await scheduler.close()


PROMPT = plan(inline=True, costs=((2, 0.00001), (16, 0.00002)))


async def test_who_gains_nothing_by_company_is_computed_at_once(model):
    notes = Notes()
    scheduler = InlineScheduler(model.run, PROMPT, notes)
    assert scheduler.prompt
    (array,) = scheduler.at_once(request(1, 2))
    assert array.tolist() == [[3, 3], [6, 6]]
    assert (notes.rows, notes.waits) == ([2], [0.0])
    alone = scheduler.compute(request(1), None)
    with pytest.raises(StopIteration):
        alone.send(None)
    with pytest.raises(InvalidRequest, match="negative"):
        scheduler.at_once(request(-1))


@pytest.mark.parametrize(
    "costs",
    [
        ((2, 0.0002), (16, 0.0002)),  # long
        ((2, 0.00006), (16, 0.00006)),  # in company a row costs an eighth
    ],
)
async def test_who_gains_by_company_waits_for_it(model, costs):
    scheduler = InlineScheduler(model.run, plan(inline=True, costs=costs), Notes())
    assert not scheduler.prompt
    assert scheduler.at_once(request(1)) is None
    await asyncio.gather(*await started(scheduler, *(request(number) for number in range(8))))
    assert model.batches == [8]


async def test_who_has_no_company_anyway_is_computed_at_once(model):
    costs = ((2, 0.00006), (16, 0.00006))
    scheduler = InlineScheduler(model.run, Plan(inline=True, costs=costs), Notes())
    assert scheduler.at_once(request(1)) is not None


async def test_what_is_large_hot_or_closed_is_not_computed_at_once(model):
    scheduler = InlineScheduler(model.run, PROMPT, Notes())
    assert scheduler.at_once(request(*range(4000))) is None
    assert InlineScheduler(model.run, plan(inline=True, costs=()), Notes()).at_once(request(1)) is None
    scheduler.slow_down(0.5)
    assert not scheduler.prompt
    scheduler.slow_down(1)
    await scheduler.close()
    assert not scheduler.prompt


async def test_a_model_that_turns_out_slow_is_no_longer_computed_at_once(caplog):
    def slow(outputs, inputs):
        until = time.thread_time() + 0.3
        while time.thread_time() < until:
            pass
        return [inputs["x"]]

    scheduler = InlineScheduler(slow, PROMPT, Notes())
    for _ in range(2):
        scheduler.at_once(request(1))
    assert "longer than calibrated" in caplog.text
    assert not scheduler.prompt
    await scheduler.close()
