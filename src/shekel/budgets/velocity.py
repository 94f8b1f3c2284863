"""Velocities: how fast a budget may spend, written "$0.50/min". A limit of money in a window that slides."""

from __future__ import annotations

import re
from typing import Any

from .limits import Limit, Unit, money
from .windows import Sliding

_VELOCITY = re.compile(
    r"\s*\$\s*(?P<amount>\d+(?:\.\d*)?|\.\d+)\s*/\s*(?P<count>\d+(?:\.\d*)?|\.\d+)?\s*(?P<unit>sec|s|min|m|hr|h)\s*\Z",
    re.IGNORECASE,
)
_SECONDS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "hr": 3600}


def velocity(text: Any, field: str) -> Limit:
    """The limit that a velocity says: an amount per second, minute or hour, or per so many of them.

    Raises:
        ValueError: it is none; the message names the field, the text and what to write.
    """
    match = _VELOCITY.match(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(
            f"{field} must be an amount per time, such as '$0.50/min', '$2/hr' or '$0.10/30s', not {text!r}."
        )
    seconds = float(match["count"] or 1) * _SECONDS[match["unit"].lower()]
    if not seconds:
        raise ValueError(f"{field} must be over a time above 0, such as '$0.50/min', not {text!r}.")
    return Limit(money(match["amount"], field), Unit.USD, Sliding(seconds), text=text.strip())


def velocities(most: Any, warn: Any) -> tuple[Limit | None, Limit | None]:
    """`max_velocity` and `warn_velocity`, checked against each other.

    Raises:
        ValueError: one of them is none, or the warning would come after the limit or never.
    """
    limit = None if most is None else velocity(most, "max_velocity")
    warning = None if warn is None else velocity(warn, "warn_velocity")
    if warning is not None:
        if limit is None:
            raise ValueError(f"warn_velocity={warn!r} requires max_velocity: give both.")
        if _per_second(warning) >= _per_second(limit):
            raise ValueError(f"warn_velocity must be less than max_velocity {most!r}, not {warn!r}.")
    return limit, warning


def _per_second(limit: Limit) -> float:
    assert isinstance(limit.window, Sliding)
    return limit.amount / limit.window.seconds
