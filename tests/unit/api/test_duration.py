"""Durations as users write them."""

import math

import pytest
from pydantic import ValidationError

from edgemodel.api.meta import seconds
from edgemodel.api.v1alpha1 import EdgeModelSpec, ServerSpec


def test_every_duration_that_is_accepted_can_be_counted() -> None:
    longest = EdgeModelSpec(image="site.local/detector:1", poll_interval="9" * 63 + "d")
    assert math.isfinite(seconds(longest.poll_interval))


@pytest.mark.parametrize("digits", [64, 400, 5000])
def test_a_duration_that_no_float_can_hold_is_refused_before_anyone_counts(digits: int) -> None:
    with pytest.raises(ValidationError, match="pollInterval"):
        EdgeModelSpec.model_validate({"image": "site.local/detector:1", "pollInterval": "9" * digits + "s"})


@pytest.mark.parametrize(
    "text", ["0", "-1us", "200", "0.2ms", "200ns", "10000000us", "10000ms", "10s", "1s1us", ""]
)
def test_a_busy_poll_that_the_server_would_not_take_is_refused_by_the_name_of_its_field(text: str) -> None:
    with pytest.raises(ValidationError, match="busyPoll"):
        ServerSpec.model_validate({"busyPoll": text})


def test_microseconds_are_no_unit_of_longer_durations() -> None:
    with pytest.raises(ValidationError, match="pollInterval"):
        EdgeModelSpec.model_validate({"image": "site.local/detector:1", "pollInterval": "300us"})
