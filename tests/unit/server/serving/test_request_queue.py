"""The queue in simulated time: order, sums, overload, and who waits for whom."""

import pytest

from inference_server.serving.costs import Costs
from inference_server.serving.request_queue import RequestQueue, Waiting
from tests.unit.server.serving.queue_simulator import ROW, plan, simulate


def steady(rows):
    """Ten milliseconds a run and one more for each row."""
    return 0.010 + 0.001 * rows


def every(gap, seconds, rows=1, within=None, start=0.0):
    return [(start + number * gap, rows, within) for number in range(round(seconds / gap))]


def share(outcomes, kind):
    return sum(outcome.kind == kind for outcome in outcomes)


def percentile(outcomes, part):
    latencies = sorted(outcome.latency for outcome in outcomes if outcome.kind == "answered")
    return latencies[min(len(latencies) - 1, int(len(latencies) * part))]


def test_at_low_load_each_request_is_computed_when_it_comes():
    outcomes, runs = simulate(every(0.1, 2), steady, plan(queue_delay=0.005))
    assert all(outcome.latency == pytest.approx(0.011) for outcome in outcomes)
    assert all(len(pieces) == 1 for _, pieces in runs)


def test_what_comes_while_a_session_computes_shares_the_next_run():
    _, runs = simulate([(0.0, 1, None), (0.001, 1, None), (0.002, 2, None)], steady, plan())
    assert [[rows for _, rows in pieces] for _, pieces in runs] == [[1], [1, 2]]


def test_a_model_without_a_batch_axis_computes_one_by_one():
    _, runs = simulate(every(0.001, 0.02), steady, plan(batchable=False, batch_rows=1))
    assert all(len(pieces) == 1 for _, pieces in runs)


def test_an_idle_session_waits_for_a_partner_that_is_expected_soon():
    def at_once(rows):
        return 0.010 + 0.00001 * rows

    busy = every(0.0005, 1.0)
    _, runs = simulate(busy, at_once, plan(queue_delay=0.002, batch_rows=64))
    _, eager = simulate(busy, at_once, plan(queue_delay=0.0, batch_rows=64))
    assert len(runs) <= len(eager)


def test_overload_is_refused_at_the_door_and_the_rest_is_in_time():
    capacity = 8 / steady(8)
    outcomes, _ = simulate(every(1 / (3 * capacity), 10, within=0.1), steady, plan())
    assert share(outcomes, "answered") >= 0.95 * capacity * 10
    assert percentile(outcomes, 1.0) <= 0.1
    assert share(outcomes, "late") <= 0.01 * len(outcomes)


def test_overload_of_several_sessions_without_batches_is_refused_too():
    outcomes, _ = simulate(
        every(1 / 545, 10, within=0.1), steady, plan(batchable=False, batch_rows=1, sessions=2)
    )
    assert share(outcomes, "answered") >= 0.95 * 2 / steady(1) * 10
    assert percentile(outcomes, 1.0) <= 0.1


def test_after_overload_the_next_request_is_answered_as_if_nothing_had_been():
    capacity = 8 / steady(8)
    outcomes, _ = simulate(
        [*every(1 / (3 * capacity), 5, within=0.1), *every(0.1, 2, within=0.1, start=5.2)], steady, plan()
    )
    after = [outcome for outcome in outcomes if outcome.arrived >= 5.2]
    assert [outcome.kind for outcome in after] == ["answered"] * len(after)
    assert max(outcome.latency for outcome in after) == pytest.approx(0.011)


def test_a_machine_three_times_slower_than_calibrated_still_keeps_deadlines():
    def slow(rows):
        return 3 * steady(rows)

    capacity = 8 / slow(8)
    outcomes, _ = simulate(every(1 / (3 * capacity), 10, within=0.2), slow, plan(), known=steady)
    settled = [outcome for outcome in outcomes if outcome.arrived > 2]
    assert percentile(settled, 0.99) <= 0.2
    assert share(settled, "answered") >= 0.9 * capacity * 8


def test_without_deadlines_the_number_that_waits_is_bounded():
    outcomes, _ = simulate(every(0.0001, 1), steady, plan(), most_waiting=50)
    assert share(outcomes, "refused") > 0
    assert percentile(outcomes, 1.0) <= steady(8) * (50 / 8 + 2)


def test_a_small_request_does_not_wait_for_a_row_of_large_ones():
    large = [(0.0, 8, None)] * 10
    outcomes, _ = simulate([*large, (0.001, 1, None)], steady, plan(batch_rows=8))
    (small,) = [outcome for outcome in outcomes if outcome.rows == 1]
    # The run that is under way, and at most one more.
    assert small.latency <= 2 * steady(8) + steady(1)


def test_a_large_request_is_computed_in_pieces_and_a_small_one_waits_for_one_of_them():
    outcomes, runs = simulate([(0.0, 64, None), (0.001, 1, None)], steady, plan(piece_rows=16))
    large, small = outcomes
    assert [rows for _, pieces in runs for _, rows in pieces] == [16, 1, 16, 16, 16]
    assert small.latency <= steady(16) + steady(1)
    assert large.kind == "answered"


def test_large_requests_get_their_half_however_many_small_ones_come():
    def by_row(rows):
        return 0.001 * rows

    small = every(0.001, 2.0)  # all that one session can do, by themselves
    outcomes, _ = simulate([*small, (0.01, 64, None)], by_row, plan(batch_rows=1, piece_rows=16))
    (large,) = [outcome for outcome in outcomes if outcome.rows == 64]
    assert large.latency <= 3 * by_row(64)


def test_requests_of_one_size_go_by_age():
    outcomes, _ = simulate(every(0.001, 0.1), steady, plan())
    ended = [outcome.ended for outcome in outcomes]
    assert ended == sorted(ended)


def queued(queue, now=0.0, deadline=None, rows=1):
    waiting = Waiting({}, ("y",), "k", rows, rows * ROW, now, deadline, None)
    queue.push(waiting)
    return waiting


def new_queue(**changes):
    return RequestQueue(plan(**changes), Costs(((ROW, 0.01), (8 * ROW, 0.02))), 100)


def test_who_has_left_is_not_computed_and_not_counted():
    queue = new_queue()
    gone, stays = queued(queue), queued(queue)
    queue.forget(gone)
    queue.forget(gone)
    batch, _ = queue.take(0.0)
    assert [piece.request for piece in batch.pieces] == [stays]
    assert queue.take(0.0) == (None, None)


def test_who_cannot_be_answered_in_time_any_more_is_not_computed():
    queue = new_queue()
    late, timely = queued(queue, deadline=0.015), queued(queue, deadline=9.0)
    batch, _ = queue.take(0.01)
    assert [piece.request for piece in batch.pieces] == [timely]
    assert queue.expired == [late]


def test_the_predicted_wait_is_that_of_full_runs_and_what_is_left_of_the_one_under_way():
    queue = new_queue()
    assert queue.predicted_wait(ROW, 0.0) == 0
    queued(queue)
    queue.take(0.0)
    for _ in range(16):
        queued(queue)
    assert queue.predicted_wait(ROW, 0.004) == pytest.approx(0.006 + 2 * 0.02)
    assert new_queue().refuse(1, ROW, 0.005, 0.0) is not None


def test_a_small_newcomer_is_not_told_to_wait_for_all_large_ones():
    queue = new_queue()
    for _ in range(10):
        queued(queue, rows=8)
    queued(queue)
    assert queue.predicted_wait(ROW, 0.0) == pytest.approx(0.01 + 0.02)
    assert queue.predicted_wait(8 * ROW, 0.0) > 0.2


def test_everything_can_be_taken_out():
    queue = new_queue()
    left = [queued(queue), queued(queue)]
    assert queue.clear() == left
    assert queue.take(0.0) == (None, None)


def answered(queue, requests, now=0.1, seconds=0.05):
    """A batch of so many requests that has just been computed; one more came meanwhile."""
    for _ in range(requests):
        queued(queue)
    batch, _ = queue.take(now - seconds)
    queued(queue, now - seconds)
    queue.ended(batch, seconds)
    queue.expect(batch, now, seconds)


def test_a_run_is_held_back_for_those_who_were_just_answered_and_ask_again():
    queue = new_queue(queue_delay=0.001)
    answered(queue, 4)
    assert queue.take(0.1) == (None, pytest.approx(0.05))
    for _ in range(4):
        queued(queue, 0.1)
    assert len(queue.take(0.1)[0].pieces) == 5


def test_a_run_is_not_held_back_for_those_who_stay_away():
    queue = new_queue(queue_delay=0.001)
    answered(queue, 4)
    assert len(queue.take(0.16)[0].pieces) == 1
    queue = new_queue(queue_delay=0.001)
    answered(queue, 4)
    queue.coming = 0
    assert len(queue.take(0.1)[0].pieces) == 1


def test_a_run_with_no_room_is_not_held_back():
    queue = new_queue(queue_delay=0.001)
    for _ in range(8):
        queued(queue)
    batch, _ = queue.take(0.05)
    for _ in range(8):
        queued(queue)
    queue.ended(batch, 0.05)
    queue.expect(batch, 0.1, 0.05)
    assert len(queue.take(0.1)[0].pieces) == 8


@pytest.mark.parametrize(
    "changes", [{"batch_rows": 1}, {"batchable": False}, {"batch_elements": ROW}, {"queue_delay": 0.0}]
)
def test_nobody_is_waited_for_who_cannot_join(changes):
    queue = new_queue(**{"queue_delay": 0.001, **changes})
    answered(queue, 1)
    assert len(queue.take(0.1)[0].pieces) == 1


def test_nobody_is_waited_for_where_runs_together_save_nothing():
    queue = RequestQueue(plan(queue_delay=0.001), Costs(((ROW, 0.01), (8 * ROW, 0.08))), 100)
    answered(queue, 4)
    assert len(queue.take(0.1)[0].pieces) == 1


def test_large_rows_share_runs_up_to_the_elements_that_gain():
    queue = new_queue(batch_elements=4 * ROW)
    for _ in range(3):
        queue.push(Waiting({}, ("y",), "k", 1, 3 * ROW, 0.0, None, None))
    assert queue.predicted_wait(ROW, 0.0) == pytest.approx(3 * queue.costs.seconds(3 * ROW))
    assert [len(queue.take(0.0)[0].pieces) for _ in range(3)] == [1, 1, 1]


def test_what_was_refused_is_let_in_again_when_the_queue_has_moved_and_smaller_ones_meanwhile():
    queue = new_queue(batch_rows=1)
    for _ in range(8):
        queued(queue)
    assert queue.refuse(1, ROW, 0.085, 0.0)
    again = queue.refuse(1, ROW, 0.086, 0.01)
    assert "predicted wait of 0.07 s" in again
    assert queue.refuse(1, ROW, 0.2, 0.01) is None
    batch, _ = queue.take(0.01)
    assert queue.refuse(1, ROW, 0.086, 0.01)
    queue.ended(batch, 0.01)
    assert queue.refuse(1, ROW, 0.091, 0.01) is None
