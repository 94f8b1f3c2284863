"""The clock moves when told, and only then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from shekel.testing import Clock


def test_stands_still_until_it_is_advanced() -> None:
    clock = Clock()
    before = clock()
    assert clock() == before
    clock.advance(90.5)
    assert clock() == before + 90.5


def test_goes_to_a_moment_in_any_time_zone_and_back_in_time() -> None:
    clock = Clock(datetime(2031, 5, 1, 12, tzinfo=timezone(timedelta(hours=2))))
    assert clock.now() == datetime(2031, 5, 1, 10, tzinfo=UTC)
    clock.set(datetime(2030, 1, 1))
    assert clock.now() == datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_refuses_to_be_advanced_backwards(seconds: float) -> None:
    with pytest.raises(ValueError, match="cannot go back"):
        Clock().advance(seconds)
