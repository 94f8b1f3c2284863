"""How fast a budget may spend, and from where on it warns: what may be written, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

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
