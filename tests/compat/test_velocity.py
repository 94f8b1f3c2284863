"""How fast a budget may spend: what may be written, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from shekel.budgets.limits import NANO, Unit
from shekel.budgets.velocity import velocities, velocity
from shekel.budgets.windows import Sliding


@pytest.mark.parametrize(
    ("text", "usd", "seconds"),
    [
        ("$0.50/min", 0.5, 60),
        ("$0.50/m", 0.5, 60),
        ("$2/hr", 2, 3600),
        ("$5/h", 5, 3600),
        ("$0.10/30s", 0.1, 30),
        ("$1/1.5min", 1, 90),
        ("$1/2.5hr", 1, 9000),
        ("$0.25/sec", 0.25, 1),
        ("  $.5 / 10 SEC ", 0.5, 10),
        ("$1/MIN", 1, 60),
    ],
)
def test_an_amount_per_time_is_a_limit_in_a_window_that_slides(text: str, usd: float, seconds: float) -> None:
    limit = velocity(text, "max_velocity")
    assert (limit.amount, limit.unit, limit.window) == (round(usd * NANO), Unit.USD, Sliding(seconds))
    assert limit.text == text.strip()


@pytest.mark.parametrize(
    "text",
    ["", "$1", "1/min", "$1 min", "$1/", "$1/day", "$0/min", "$-1/min", "$1/0s", "$nan/min", "$1/min x", 5, True],
)
def test_what_is_none_is_named_with_what_to_write(text: Any) -> None:
    with pytest.raises(ValueError, match=r"^max_velocity .+\.$") as caught:
        velocity(text, "max_velocity")
    assert "\n" not in str(caught.value)


class TestTheWarning:
    def test_it_needs_a_limit_to_come_before(self) -> None:
        with pytest.raises(ValueError, match="warn_velocity='\\$1/min' requires max_velocity"):
            velocities(None, "$1/min")

    @pytest.mark.parametrize("warn", ["$1/min", "$1.01/min", "$61/hr", "$0.02/s"])
    def test_it_must_come_before_the_limit_also_in_another_unit_of_time(self, warn: str) -> None:
        with pytest.raises(ValueError, match="must be less than max_velocity '\\$1/min'"):
            velocities("$1/min", warn)

    @pytest.mark.parametrize("warn", ["$0.99/min", "$59/hr", None])
    def test_below_is_good(self, warn: str | None) -> None:
        limit, warning = velocities("$1/min", warn)
        assert limit is not None
        assert (warning is None) == (warn is None)

    def test_neither_is_none(self) -> None:
        assert velocities(None, None) == (None, None)
