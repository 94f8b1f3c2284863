"""How fast a budget may spend, and from where on it warns: what may be written, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from shekel import budget
from shekel.budgets.velocity import velocities


@pytest.mark.parametrize("text", ["", "$1", "1/min", "$1/", "$1/day", "$0/min", "$-1/min", "$1/min x", 5])
def test_what_is_none_is_said_in_one_sentence(text: Any) -> None:
    for given in ((text, None), ("$5/min", text)):
        with pytest.raises(ValueError, match=r"(max|warn)_velocity") as caught:
            velocities(*given)
        assert "\n" not in str(caught.value)


def test_the_warning_needs_a_limit_to_come_before() -> None:
    with pytest.raises(ValueError, match=r"warn_velocity='\$1/min' requires max_velocity"):
        velocities(None, "$1/min")


@pytest.mark.parametrize("warn", ["$1/min", "$1.01/min", "$61/hr", "$0.02/s"])
def test_it_must_come_before_the_limit_also_in_another_unit_of_time(warn: str) -> None:
    with pytest.raises(ValueError, match=r"must be less than max_velocity '\$1/min'"):
        velocities("$1/min", warn)


@pytest.mark.parametrize("warn", ["$0.99/min", "$59/hr", "$0.1/30s", None])
def test_below_is_good(warn: str | None) -> None:
    limit, warning = velocities("$1/min", warn)
    assert limit is not None
    assert limit.usd == 1
    assert (warning is None) == (warn is None)


def test_neither_is_none() -> None:
    assert velocities(None, None) == (None, None)


@pytest.mark.parametrize(("limit", "rate"), [("$1/min", "$2/min"), ("$2/min + 5 calls", "$1/60s"), ("$1/min", "$1/m")])
def test_a_limit_in_the_same_window_is_another_limit_of_the_same(limit: str, rate: str) -> None:
    with pytest.raises(ValueError, match="limit the same: keep one of them"):
        budget(limit, max_velocity=rate)


@pytest.mark.parametrize("limit", ["$1/hr", "$1", "5 calls/min", "$1/min on gpt-4o"])
def test_one_of_another_kind_goes_beside_it(limit: str) -> None:
    b = budget(limit, max_velocity="$2/min", warn_velocity="$0.5/min")
    b.set_limit("$3/min")
    assert [each.text for each in b.limits() if each.limit == 3] == ["$3/min"]


@pytest.mark.parametrize(("new", "warn"), [("$0.5/min", "$0.5/min"), ("$0.2/min", "$0.5/min"), ("$60/min", "$1/s")])
def test_a_limit_that_is_changed_stays_above_the_warning(new: str, warn: str) -> None:
    b = budget(max_velocity="$61/min", warn_velocity=warn)
    before = b.limits()
    with pytest.raises(ValueError, match=r"limit would put warn_velocity .* at or above max_velocity") as caught:
        b.set_limit(new)
    assert "\n" not in str(caught.value)
    assert b.limits() == before
    b.set_limit("$60.5/min")


def test_both_may_be_changed_at_once() -> None:
    b = budget(max_velocity="$60/min", warn_velocity="$0.5/s")
    b.set_limit("$6/min + $0.05/s")
    with pytest.raises(ValueError, match="at or above max_velocity"):
        b.set_limit("$2.9/min")
    b.set_limit("$3.1/min")
