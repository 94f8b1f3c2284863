"""Limits: what a budget allows, and in which window. Parsing, checking and the calendar; no meters, no calls.

A calendar period has a key (its first day in UTC); a call's hold and its settlement stay in the period in which it was
admitted, because the key is part of the meter's name.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any

NANO = 1_000_000_000
"""Nano-dollars in a dollar."""

_SPEC = re.compile(r"\s*\$\s*(?P<amount>[0-9][0-9_,]*(?:\.[0-9]+)?|\.[0-9]+)\s*(?:(?:/|per\b)\s*(?P<period>\S+))?\s*\Z")
_PERIODS = {
    "day": "day", "d": "day", "daily": "day",
    "week": "week", "w": "week",
    "month": "month", "mo": "month",
}  # fmt: skip


class Mode(StrEnum):
    """How a budget holds money for open calls. `money.md` of the design says what each may overspend.

    SLICED (default): streams take money slice by slice and are cut when there is no more.
    STRICT: the output is capped in the request at what the budget buys; nothing is overspent.
    EXPECTED: holds the expected cost; no cap, no cut.
    """

    SLICED = "sliced"
    STRICT = "strict"
    EXPECTED = "expected"


@dataclass(frozen=True, slots=True)
class Limit:
    """An amount of money, in all or per calendar period.

    Attributes:
        nano: the most that may be spent, in nano-dollars.
        period: "day", "week" (from Monday) or "month", in UTC; None for a limit in all.
    """

    nano: int
    period: str | None = None

    @property
    def usd(self) -> float:
        return self.nano / NANO

    def window(self, now: float) -> tuple[str | None, float | None]:
        """The key of the period that holds the Unix time `now`, and the Unix time at which it ends."""
        period = self.period
        if period is None:
            return None, None
        known = _windows.get(period)
        if known is None or not known[0] <= now < known[2]:
            known = _windows[period] = _window(period, now)
        return known[1], known[2]


_windows: dict[str, tuple[float, str, float]] = {}
"""The last window of each period that was asked for: its start, its key and its end. Every call asks for one."""


def _window(period: str, now: float) -> tuple[float, str, float]:
    start = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        end = start + timedelta(days=1)
    elif period == "week":
        start -= timedelta(days=start.weekday())
        end = start + timedelta(days=7)
    else:
        start = start.replace(day=1)
        end = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    return start.timestamp(), f"{period}:{start:%Y-%m-%d}", end.timestamp()


def parse_limit(spec: str) -> Limit:
    """The limit that a spec such as "$5", "$0.50/day" or "$20/month" says.

    Raises:
        ValueError: the text is no spec; the message names the offending part.
    """
    match = _SPEC.match(spec)
    if match is None:
        raise ValueError(f"{spec!r} is no limit: write an amount and maybe a period, such as '$5' or '$5/day'.")
    period = None
    if (word := match["period"]) is not None:
        period = _PERIODS.get(word.lower())
        if period is None:
            raise ValueError(f"{word!r} in {spec!r} is no period: use day, week or month.")
    return Limit(money(match["amount"].replace(",", "").replace("_", ""), "the amount"), period)


def as_limit(value: Any, field: str) -> Limit:
    """A limit from what a caller gave: a number of USD, or a spec."""
    if isinstance(value, Limit):
        return value
    if isinstance(value, str) and value.strip().startswith("$"):
        return parse_limit(value)
    return Limit(money(value, field))


def money(value: Any, field: str) -> int:
    """USD as nano-dollars, rounded down (a limit never grows by rounding).

    Raises:
        ValueError: not a number, not finite, zero or negative, or below a nano-dollar.
    """
    remedy = "give an amount in USD above 0, such as 5 or 0.25"
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, str)):
        raise ValueError(f"{field} must be an amount in USD, not {value!r}: {remedy}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{field} must be finite, not {value!r}: {remedy}; leave it out for no limit.")
    try:
        amount = Decimal(str(value).strip())
    except InvalidOperation:
        raise ValueError(f"{field} must be an amount in USD, not {value!r}: {remedy}.") from None
    if not amount.is_finite():
        raise ValueError(f"{field} must be finite, not {value!r}: {remedy}; leave it out for no limit.")
    nano = int(amount * NANO)
    if nano <= 0:
        raise ValueError(f"{field} must be above 0, not {value!r}: {remedy}; leave it out for no limit.")
    return nano


def as_mode(value: Any) -> Mode:
    """A mode from its name. Raises ValueError with the names there are."""
    try:
        return Mode(value)
    except ValueError:
        raise ValueError(f"mode must be 'sliced', 'strict' or 'expected', not {value!r}.") from None
