"""Comparing answers and adding up what was found, for whatever numbers and bytes there may be."""

import json
import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edgemodel.gateway.shadow_answers import Answer, Tensor, Unreadable, read_answer, read_outputs
from edgemodel.gateway.shadow_comparison import ABSOLUTE, OUTCOMES, RELATIVE, agree, compare
from edgemodel.rollout.shadow import Copies, Reading, ShadowLedger, Trial, read_copies

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
TRIAL = Trial("vision", "detector", "sha256:aa")


def row(values: list[float], shape: tuple[int, ...] | None = None) -> Tensor:
    return Tensor("FP32", shape or (len(values),), tuple(values))


@given(st.lists(st.floats(), min_size=1, max_size=20))
def test_whatever_is_the_same_agrees(values: list[float]) -> None:
    assert agree(row(values), row(values))
    assert agree(row(values, (len(values), 1)), row(values, (len(values), 1)))


@given(st.lists(FLOATS, min_size=1, max_size=10), st.lists(FLOATS, min_size=1, max_size=10))
def test_alone_a_value_agrees_exactly_within_tolerance(mine: list[float], theirs: list[float]) -> None:
    size = min(len(mine), len(theirs))
    mine, theirs = mine[:size], theirs[:size]
    near = all(
        abs(one - other) <= ABSOLUTE + RELATIVE * abs(one) for one, other in zip(mine, theirs, strict=True)
    )
    assert agree(row(mine, (size, 1)), row(theirs, (size, 1))) == near


@given(st.lists(FLOATS, min_size=2, max_size=10, unique=True), st.randoms())
def test_in_a_row_the_place_of_the_largest_is_enough(values: list[float], random: Any) -> None:
    others = [-abs(random.random()) for _ in values]
    others[values.index(max(values))] = 1.0
    assert agree(row(values), row(others))


@given(st.lists(FLOATS, min_size=1, max_size=10), st.integers(0, 9))
def test_a_number_that_is_none_agrees_with_none_other(values: list[float], at: int) -> None:
    spoilt = list(values)
    spoilt[at % len(values)] = math.nan
    assert not agree(row(values), row(spoilt))
    assert not agree(row(spoilt), row(values))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)
OUTPUT = st.fixed_dictionaries(
    {},
    optional={
        "name": JSON,
        "datatype": st.sampled_from(["FP32", "INT64", "BYTES", "BOOL", "BF16"]) | JSON,
        "shape": st.lists(st.integers(-1, 3), max_size=3) | JSON,
        "data": JSON,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 9)}) | JSON,
    },
)


@given(st.lists(OUTPUT, max_size=3) | JSON, st.binary(max_size=20), st.none() | st.integers(-2, 300))
def test_any_answer_has_an_outcome(outputs: Any, tail: bytes, length: int | None) -> None:
    body = json.dumps({"outputs": outputs}).encode() + tail
    headers = {} if length is None else {"inference-header-content-length": str(length)}
    found = Answer(200, headers, body)
    outcome = compare(found, found)
    assert outcome in OUTCOMES
    try:
        tensors = read_outputs(found)
    except Unreadable:
        assert outcome == "incomparable"
    else:
        assert outcome == "agree"
        assert all(len(one.data) == math.prod(one.shape) for one in tensors.values())


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda it: b"HTTP/1.1 200 OK\r\n" + it))
def test_any_bytes_are_an_answer_or_unreadable(raw: bytes) -> None:
    try:
        found = read_answer(raw)
    except Unreadable:
        return
    assert 200 <= found.status < 600


@given(st.text())
def test_any_text_is_a_reading(text: str) -> None:
    assert isinstance(read_copies(text), Reading)


@given(
    st.lists(
        st.tuples(
            st.sampled_from("ab"),
            st.sampled_from(["count", "count", "count", "restart", "silence", "gone"]),
            st.integers(0, 50),
            st.integers(0, 50),
        ),
        max_size=300,
    )
)
def test_nothing_is_counted_twice_and_only_ends_lose_something(
    events: list[tuple[str, str, int, int]],
) -> None:
    ledger = ShadowLedger(TRIAL)
    ledger.begin(1)
    pods = {"a": [0, 0, 0], "b": [0, 0, 0]}
    there = {"a", "b"}
    happened = lost = 0

    def readings(silent: str = "") -> dict[str, Reading | None]:
        return {
            uid: None
            if uid == silent
            else Reading({TRIAL: Copies(agree=pods[uid][0], differ=pods[uid][1])}, str(pods[uid][2]))
            for uid in sorted(there)
        }

    ledger.add(readings(), 1.0)
    known = dict.fromkeys(pods, 0)
    for uid, what, agreed, differed in events:
        if uid not in there:
            there.add(uid)
            pods[uid] = [0, 0, pods[uid][2] + 1]
            known[uid] = 0
            ledger.add(readings(), 1.0)
        if what == "restart":
            lost += sum(pods[uid][:2]) - known[uid]
            pods[uid] = [0, 0, pods[uid][2] + 1]
            known[uid] = 0
        if what == "gone":
            lost += sum(pods[uid][:2]) - known[uid]
            there.remove(uid)
        else:
            pods[uid][0] += agreed
            pods[uid][1] += differed
            happened += agreed + differed
        ledger.add(readings(uid if what == "silence" else ""), 1.0)
        for one in there:
            if not (what == "silence" and one == uid):
                known[one] = sum(pods[one][:2])
    unread = sum(sum(pods[uid][:2]) - known[uid] for uid in there)
    assert ledger.seen().total.compared == happened - lost - unread
    assert sum(one.compared for one in ledger.seen().rounds) == ledger.seen().total.compared
    assert len(ledger.seen().rounds) <= 256
