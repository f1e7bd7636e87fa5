"""Windows, across zones and summer time."""

from datetime import UTC, datetime

import pytest

from edgemodel.api.edge_node import Window
from edgemodel.api.schedule import open_until, opens_at
from edgemodel.errors import Stalled


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def window(schedule: str, duration: str = "2h", zone: str = "UTC") -> Window:
    return Window(schedule=schedule, duration=duration, time_zone=zone)


@pytest.mark.parametrize(
    ("what", "schedule", "duration", "zone", "now", "closes"),
    [
        ("before it opens", "0 2 * * *", "2h", "UTC", "2026-03-01T01:59:59", None),
        ("in the second it opens", "0 2 * * *", "2h", "UTC", "2026-03-01T02:00:00", "2026-03-01T04:00:00"),
        ("in the middle, microseconds and all", "0 2 * * *", "2h", "UTC", "2026-03-01T03:59:59.999", "2026-03-01T04:00:00"),
        ("in the second it closes", "0 2 * * *", "2h", "UTC", "2026-03-01T04:00:00", None),
        ("over midnight", "0 23 * * *", "3h", "UTC", "2026-03-02T01:00:00", "2026-03-02T02:00:00"),
        ("on a day that is not in it", "0 2 * * 1-5", "2h", "UTC", "2026-03-01T02:30:00", None),  # a Sunday
        ("in another zone", "0 2 * * *", "2h", "Europe/Vienna", "2026-03-01T01:30:00", "2026-03-01T03:00:00"),
        ("in its summer", "0 2 * * *", "2h", "Europe/Vienna", "2026-07-01T00:30:00", "2026-07-01T02:00:00"),
        ("when it never closes", "* * * * *", "1d", "UTC", "2026-03-01T12:00:30", "2026-03-02T12:00:00"),
    ],
)  # fmt: skip
def test_open_until(what, schedule, duration, zone, now, closes):
    found = open_until(window(schedule, duration, zone), at(now))
    assert found == (at(closes) if closes else None), what


@pytest.mark.parametrize(
    ("schedule", "zone", "now", "opens"),
    [
        ("0 2 * * *", "UTC", "2026-03-01T02:00:00", "2026-03-02T02:00:00"),
        ("0 2 * * 1", "UTC", "2026-03-01T00:00:00", "2026-03-02T02:00:00"),
        # 02:30 does not exist on the day the clocks go forward: at once after the gap.
        ("30 2 * * *", "Europe/Vienna", "2026-03-29T00:00:00", "2026-03-29T01:00:00"),
        ("0 0 29 2 *", "UTC", "2026-03-01T00:00:00", "2028-02-29T00:00:00"),
    ],
)
def test_opens_at(schedule, zone, now, opens):
    assert opens_at(window(schedule, zone=zone), at(now)) == at(opens)


@pytest.mark.parametrize(
    ("schedule", "zone", "words"),
    [
        ("0 2 * *", "UTC", "five fields"),
        ("0 0 2 * * *", "UTC", "five fields"),
        ("61 2 * * *", "UTC", "schedule"),
        ("0 2 * * *", "Europe/Atlantis", "time zone"),
        ("0 2 * * *", "../../etc/passwd", "time zone"),
        ("0 2 * * *", "Europe", "time zone"),
    ],
)
def test_what_cannot_be_read_is_named(schedule, zone, words):
    odd = Window.model_construct(schedule=schedule, duration="1h", time_zone=zone)
    with pytest.raises(Stalled, match=words):
        open_until(odd, at("2026-03-01T00:00:00"))
