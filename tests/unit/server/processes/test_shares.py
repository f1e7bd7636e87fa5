"""How many processes pay, and when one is started again."""

import pytest

from inference_server.processes.shares import processes_that_pay, restart_delay

MB = 1 << 20


@pytest.mark.parametrize(
    ("why", "known", "processes"),
    [
        ("one for each CPU", {}, 4),
        ("a model that is not computed inline uses CPUs by sessions and threads", {"inline": False}, 1),
        ("half of the memory is for requests", {"memory": 300 * MB}, 3),
        ("there is no room for a second", {"memory": 150 * MB}, 1),
        ("there is no room for the first", {"memory": 50 * MB}, 1),
        ("one CPU", {"cpus": 1}, 1),
        ("part of a CPU", {"cpus": 0}, 1),
    ],
)
def test_as_many_as_pay(why, known, processes):
    given = {"inline": True, "cpus": 4, "resident": 50 * MB, "memory": 4096 * MB, **known}
    assert processes_that_pay(**given) == processes, why


def test_who_ends_again_and_again_is_started_ever_more_rarely():
    delays = [restart_delay(ends) for ends in range(1, 2000)]
    assert delays[:3] == [0.25, 0.5, 1.0]
    assert delays == sorted(delays)
    assert delays[-1] == 60.0
