"""Durations as users write them."""

import math

import pytest
from pydantic import ValidationError

from edgemodel.api.meta import seconds
from edgemodel.api.v1alpha1 import EdgeModelSpec


def test_every_duration_that_is_accepted_can_be_counted() -> None:
    longest = EdgeModelSpec(image="site.local/detector:1", poll_interval="9" * 63 + "d")
    assert math.isfinite(seconds(longest.poll_interval))


@pytest.mark.parametrize("digits", [64, 400, 5000])
def test_a_duration_that_no_float_can_hold_is_refused_before_anyone_counts(digits: int) -> None:
    with pytest.raises(ValidationError, match="pollInterval"):
        EdgeModelSpec.model_validate({"image": "site.local/detector:1", "pollInterval": "9" * digits + "s"})
