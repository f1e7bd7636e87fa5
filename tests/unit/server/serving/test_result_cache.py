"""Kept answers: what makes two questions equal, how much is kept for how long, and who computes for whom."""

import asyncio
import math
import time

import numpy as np
import pytest

from inference_server.errors import DeadlineExceeded, ExecutionFailed, Overloaded
from inference_server.messages import InferenceRequest
from inference_server.serving.result_cache import ENTRY_BYTES, ResultCache, answer_bytes, request_key
from inference_server.telemetry.metrics import Metrics
from tests.unit.server.conftest import until


def question(value=1.0, *, outputs=("y",), request_id="", **inputs):
    return InferenceRequest(inputs or {"x": np.array([value], np.float32)}, outputs, request_id)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


class Site:
    """A cache with one model that counts how often it computes."""

    def __init__(self, most_bytes=1 << 20, ttl=0.0, digest="sha256:" + "d" * 64):
        self.clock = Clock()
        self.metrics = Metrics()
        self.cache = ResultCache(most_bytes, ttl, self.metrics, self.clock)
        self.results = self.cache.of("m", "1", digest)
        self.computed = 0

    async def compute(self):
        self.computed += 1
        return [np.full(4, self.computed, np.float32)]

    async def ask(self, request, **options):
        return (await self.results.answer(request, self.compute, **options))[1]

    def sample(self, name, **labels):
        return self.metrics.registry.get_sample_value(name, labels)


NAN = np.array([0x7FC00000, 0x7FC00001], np.uint32).view(np.float32)


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("a value", question(1.0), question(2.0)),
        ("the sign of zero", question(0.0), question(-0.0)),
        ("the bits of a NaN", question(x=NAN[:1]), question(x=NAN[1:])),
        ("a type of equal bytes", question(x=np.zeros(1, np.int32)), question(x=np.zeros(1, np.float32))),
        ("a shape", question(x=np.zeros((1, 2), np.int8)), question(x=np.zeros((2, 1), np.int8))),
        ("an input's name", question(x=np.zeros(1)), question(z=np.zeros(1))),
        ("which of two", question(a=np.zeros(1), b=np.ones(1)), question(a=np.ones(1), b=np.zeros(1))),
        ("the outputs", question(outputs=("y",)), question(outputs=("z",))),
        ("their order", question(outputs=("y", "z")), question(outputs=("z", "y"))),
        (
            "where strings end",
            question(x=np.array(["ab", "c"], object)),
            question(x=np.array(["a", "bc"], object)),
        ),
    ],
)
def test_questions_that_differ_in_one_thing_have_different_keys(name, one, other):
    assert request_key(b"m", one) != request_key(b"m", other)


def test_the_model_is_part_of_the_key_and_the_id_is_not():
    assert request_key(b"m", question()) != request_key(b"n", question())
    assert request_key(b"m", question(request_id="1")) == request_key(b"m", question(request_id="2"))


def test_memory_layout_and_the_order_of_inputs_do_not_matter():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert request_key(b"m", question(x=array[:, ::2])) == request_key(b"m", question(x=array[:, ::2].copy()))
    one = question(a=np.zeros(1), b=np.ones(1))
    assert request_key(b"m", one) == request_key(b"m", question(b=np.ones(1), a=np.zeros(1)))


async def test_the_second_equal_question_is_answered_with_the_same_bytes():
    site = Site()
    first, outcome = await site.results.answer(question(), site.compute)
    again, second = await site.results.answer(question(request_id="other"), site.compute)
    assert (outcome, second, site.computed) == ("miss", "hit", 1)
    assert first[0].tobytes() == again[0].tobytes()
    assert site.sample("inference_cache_hits_total", model="m", version="1") == 1
    assert site.sample("inference_cache_misses_total", model="m", version="1") == 1


async def test_a_large_question_is_hashed_beside_the_loop_and_found_again():
    site = Site()
    large = np.zeros(1 << 20, np.uint8)
    assert [await site.ask(question(x=large)), await site.ask(question(x=large))] == ["miss", "hit"]


async def test_two_versions_two_models_and_two_loads_without_a_digest_share_nothing():
    site = Site()
    assert await site.ask(question()) == "miss"
    for name, version, digest in (
        ("m", "2", "sha256:" + "d" * 64),
        ("n", "1", "sha256:" + "d" * 64),
        ("m", "1", "sha256:" + "e" * 64),
        ("m", "1", ""),
        ("m", "1", ""),
    ):
        _, outcome = await site.cache.of(name, version, digest).answer(question(), site.compute)
        assert outcome == "miss"


async def test_an_answer_that_is_too_old_is_computed_again():
    site = Site(ttl=10)
    assert await site.ask(question()) == "miss"
    site.clock.now += 10
    assert await site.ask(question()) == "hit"
    site.clock.now += 0.1  # counted from when it was computed, not from its last use
    assert await site.ask(question()) == "miss"


async def test_the_least_recently_used_goes_when_memory_is_full():
    size = answer_bytes([np.zeros(4, np.float32)])
    site = Site(most_bytes=2 * size)
    await site.ask(question(1))
    await site.ask(question(2))
    assert await site.ask(question(1)) == "hit"
    await site.ask(question(3))
    assert site.sample("inference_cache_bytes") == 2 * size
    assert [await site.ask(question(value)) for value in (1, 3, 2)] == ["hit", "hit", "miss"]


async def test_an_answer_larger_than_the_cache_leaves_the_others_alone():
    site = Site(most_bytes=answer_bytes([np.zeros(4, np.float32)]))
    await site.ask(question(1))

    async def much():
        return [np.zeros(1000, np.float32)]

    await site.results.answer(question(2), much)
    assert await site.ask(question(1)) == "hit"


def test_strings_count_as_what_they_take():
    assert answer_bytes([np.array(["x" * 1000], object)]) > ENTRY_BYTES + 4000


async def test_a_slice_of_a_batch_does_not_keep_the_batch_and_nobody_can_alter_what_is_kept():
    site = Site()
    batch = np.zeros((1000, 4), np.float32)

    async def compute():
        return [batch[:1]]

    await site.results.answer(question(), compute)
    kept, outcome = await site.results.answer(question(), compute)
    assert outcome == "hit"
    assert not np.shares_memory(kept[0], batch)
    with pytest.raises(ValueError, match="read-only"):
        kept[0][0] = 1


async def test_a_closed_model_leaves_no_bytes_and_keeps_no_late_answer():
    site = Site()
    await site.ask(question(1))
    go = asyncio.Event()

    async def slow():
        await go.wait()
        return await site.compute()

    late = asyncio.create_task(site.results.answer(question(2), slow))
    await asyncio.sleep(0)
    site.results.close()
    go.set()
    assert (await late)[1] == "miss"
    assert site.sample("inference_cache_bytes") == 0


class Gate:
    """A computation that waits until it is told how to end."""

    def __init__(self):
        self.begun = 0
        self.ends = asyncio.get_running_loop().create_future()

    async def compute(self):
        self.begun += 1
        return await asyncio.shield(self.ends)


async def together(site, gate, count):
    tasks = [asyncio.create_task(site.results.answer(question(), gate.compute)) for _ in range(count)]
    await until(lambda: gate.begun == 1)
    await asyncio.sleep(0)
    return tasks


async def test_equal_questions_at_the_same_time_are_computed_once():
    site, gate = Site(), Gate()
    tasks = await together(site, gate, 5)
    gate.ends.set_result([np.ones(1)])
    answers = await asyncio.gather(*tasks)
    assert [outcome for _, outcome in answers] == ["miss", *["shared"] * 4]
    assert gate.begun == 1
    assert all(arrays[0] == 1 for arrays, _ in answers)


async def test_an_error_reaches_all_who_waited_and_is_not_kept():
    site, gate = Site(), Gate()
    tasks = await together(site, gate, 3)
    gate.ends.set_exception(ExecutionFailed("divided by zero"))
    for answer in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(answer, ExecutionFailed)
        assert str(answer) == "divided by zero"
    assert await site.ask(question()) == "miss"


async def test_when_the_one_that_computes_is_cancelled_another_takes_over():
    site, gate = Site(), Gate()
    first, *others = await together(site, gate, 3)
    first.cancel()
    await until(lambda: gate.begun == 2)
    gate.ends.set_result([np.ones(1)])
    outcomes = [outcome for _, outcome in await asyncio.gather(*others)]
    assert outcomes == ["miss", "shared"]
    await asyncio.wait((first,))
    assert first.cancelled()


@pytest.mark.parametrize("refusal", [DeadlineExceeded("too late"), Overloaded("too many")])
async def test_the_deadline_of_one_is_not_the_failure_of_the_others(refusal):
    site, gate = Site(), Gate()
    first, other = await together(site, gate, 2)
    ends, gate.ends = gate.ends, asyncio.get_running_loop().create_future()
    ends.set_exception(refusal)
    with pytest.raises(type(refusal)):
        await first
    gate.ends.set_result([np.ones(1)])
    assert (await other)[1] == "miss"


async def test_a_waiter_that_is_cancelled_leaves_the_others_alone():
    site, gate = Site(), Gate()
    first, second, third = await together(site, gate, 3)
    second.cancel()
    await asyncio.wait((second,))
    gate.ends.set_result([np.ones(1)])
    assert [outcome for _, outcome in await asyncio.gather(first, third)] == ["miss", "shared"]


async def test_a_waiter_does_not_wait_beyond_its_deadline():
    site, gate = Site(), Gate()
    (first,) = await together(site, gate, 1)
    with pytest.raises(DeadlineExceeded, match="an equal request was being computed"):
        await site.ask(question(), deadline=time.monotonic() - 1)
    gate.ends.set_result([np.ones(1)])
    assert (await first)[1] == "miss"


async def test_a_computation_that_never_suspends_answers_those_who_come_after_it():
    site = Site()
    outcomes = await asyncio.gather(*(site.ask(question(math.pi)) for _ in range(3)))
    assert outcomes == ["miss", "hit", "hit"]
