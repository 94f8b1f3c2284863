"""Velocities: how fast a budget may spend, and from where on it warns. Two rates, checked against each other."""

from __future__ import annotations

from typing import Any

from ..shown import shown
from .limits import Limit
from .spec import parse_velocity
from .windows import Sliding


def velocities(most: Any, warn: Any) -> tuple[Limit | None, Limit | None]:
    """`max_velocity` and `warn_velocity`.

    Raises:
        ValueError: one of them is none, or the warning would come after the limit or never.
    """
    limit = None if most is None else parse_velocity(most, "max_velocity")
    warning = None if warn is None else parse_velocity(warn, "warn_velocity")
    if warning is not None:
        if limit is None:
            raise ValueError(f"warn_velocity={shown(warn)} requires max_velocity: give both.")
        if not warns_before(warning, limit):
            raise ValueError(f"warn_velocity must be less than max_velocity {shown(most)}, not {shown(warn)}.")
    return limit, warning


def warns_before(warning: Limit, limit: Limit) -> bool:
    """Whether the rate that warns is below the rate that refuses, whatever their windows."""
    return _per_second(warning) < _per_second(limit)


def _per_second(limit: Limit) -> float:
    assert isinstance(limit.window, Sliding)
    return limit.amount / limit.window.seconds
