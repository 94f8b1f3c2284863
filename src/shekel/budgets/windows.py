"""Windows: over which time a limit counts, and when it starts anew. No amounts, no meters; the time is passed in.

A calendar period begins at the first second at which the local date is its first day, and ends where the next begins.
So a day on which clocks change has 23 or 25 hours, a midnight that does not exist is the moment that took its place,
and setting a clock back over midnight does not bring yesterday back.
"""

from __future__ import annotations

import math
import re
from calendar import monthrange
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Final, NamedTuple

from ..shown import shown
from .zones import zone_of

DAY: Final = 86_400
KEPT: Final = 2 * DAY
"""Seconds for which the meter of a past calendar period is kept."""

SHORTEST: Final = 0.001
LONGEST: Final = 100 * 366 * DAY
"""Seconds: a window can be this long at most. Its microseconds stay exact in a float."""

IDLE: Final = 1800.0
"""Seconds without a call after which a session ends, where nobody said how many."""

_MICRO = 1_000_000
_DAYS = {"day": 1, "week": 7}
_MONTHS = {"month": 1, "year": 12}
_UNITS = {
    "s": 1, "sec": 1, "secs": 1, "second": 1, "seconds": 1,
    "m": 60, "min": 60, "mins": 60, "minute": 60, "minutes": 60,
    "h": 3600, "hr": 3600, "hrs": 3600, "hour": 3600, "hours": 3600,
    "d": DAY, "day": DAY, "days": DAY,
    "w": 7 * DAY, "week": 7 * DAY, "weeks": 7 * DAY,
}  # fmt: skip

PERIODS: Final = ("hour", "day", "week", "month", "year")


class Span(NamedTuple):
    """Where a moment lies in a window.

    Attributes:
        key: names the period, in its zone and from its anchor; None where the window has no periods.
        ends: the Unix time in seconds at which the next period begins; None where none does.
    """

    key: str | None
    ends: float | None

    @property
    def until(self) -> int:
        """`ends` as a ledger takes it, in microseconds; 0 for None."""
        return 0 if self.ends is None else int(self.ends) * _MICRO


FOREVER: Final = Span(None, None)


@dataclass(frozen=True, slots=True)
class Sliding:
    """The last so many seconds.

    Attributes:
        seconds: its length, to the microsecond; from 0.001 to 100 years.

    Raises:
        ValueError: a length that is none.
    """

    seconds: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "seconds", _length(self.seconds, "a sliding window"))

    @property
    def length_us(self) -> int:
        return round(self.seconds * _MICRO)

    @property
    def slides(self) -> bool:
        return True

    def at(self, now: float) -> Span:
        return FOREVER

    @property
    def word(self) -> str:
        """How a spec says it, after the slash."""
        return lasting(self.seconds)

    @property
    def options(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class Session:
    """From the first call on, until there was none for a while.

    Attributes:
        idle: the seconds without a call after which it ends.

    Raises:
        ValueError: a length that is none.
    """

    idle: float = IDLE

    def __post_init__(self) -> None:
        object.__setattr__(self, "idle", _length(self.idle, "the idle time of a session"))

    @property
    def length_us(self) -> int:
        return round(self.idle * _MICRO)

    @property
    def slides(self) -> bool:
        return False

    def at(self, now: float) -> Span:
        return FOREVER

    @property
    def word(self) -> str:
        return "session"

    @property
    def options(self) -> str:
        idle = lasting(self.idle)
        return f" idle={idle if idle[0].isdigit() or idle[0] == '.' else '1' + idle}"


@dataclass(frozen=True, slots=True)
class Calendar:
    """A period of the calendar of some place.

    Attributes:
        period: "hour", "day", "week" (from Monday), "month" or "year".
        tz: an IANA time zone.
        anchor: a first day of a period, from which the others are counted, both ways: weeks start on its weekday,
            months on its day of the month, or on their last day where they are too short.

    Raises:
        ValueError: a period, zone or anchor that is none.
    """

    period: str
    tz: str = "UTC"
    anchor: date | None = None
    _zone: tzinfo = field(init=False, repr=False, compare=False)
    _known: tuple[float, float, Span] = field(
        default=(math.inf, -math.inf, FOREVER), init=False, repr=False, compare=False
    )
    """The period that was asked for last: its begin, its end, and the answer. Every call asks."""

    def __post_init__(self) -> None:
        if self.period not in PERIODS:
            raise ValueError(f"{shown(self.period)} is no calendar period: use hour, day, week, month or year.")
        if self.anchor is not None:
            if type(self.anchor) is not date:
                raise ValueError(f"an anchor must be a date such as date(2026, 1, 31), not {shown(self.anchor)}.")
            if self.period == "hour":
                raise ValueError(f"an hour has no first day, such as {self.anchor}: leave the anchor out.")
        zone = zone_of(self.tz)
        object.__setattr__(self, "_zone", zone)
        if zone is UTC:
            object.__setattr__(self, "tz", "UTC")

    @property
    def length_us(self) -> int:
        """How long its meter is kept while nothing happens: 48 hours, but not before `Span.until`, else three quiet
        days would empty the month."""
        return KEPT * _MICRO

    @property
    def slides(self) -> bool:
        return False

    def at(self, now: float) -> Span:
        """The period in which the Unix time `now` lies."""
        begins, ends, span = self._known
        if begins <= now < ends:
            return span
        known = self._hour(math.floor(now)) if self.period == "hour" else self._days(math.floor(now))
        object.__setattr__(self, "_known", known)  # one step: whoever reads meanwhile has the old or the new
        return known[2]

    @property
    def word(self) -> str:
        return self.period

    @property
    def options(self) -> str:
        zone = f" tz={self.tz}" if self.tz != "UTC" or self.period == "hour" else ""
        return zone if self.anchor is None else f"{zone} from={self.anchor}"

    def _days(self, now: int) -> tuple[float, float, Span]:
        zone = self._zone
        index = self._index(datetime.fromtimestamp(now, zone).date())
        ends = _begin(self._first_day(index + 1), zone)
        while ends <= now:  # the clock was set back over the edge, and shows the old date again
            index += 1
            ends = _begin(self._first_day(index + 1), zone)
        day = self._first_day(index)
        return _begin(day, zone), ends, Span(self._key(day.isoformat()), float(ends))

    def _hour(self, now: int) -> tuple[float, float, Span]:
        """A whole hour of the local clock, or the part of one that setting the clock leaves."""
        zone = self._zone
        local = datetime.fromtimestamp(now, zone)
        begins = now - local.minute * 60 - local.second
        ends = begins + 3600
        offset = local.utcoffset()
        if _offset(begins, zone) != offset:
            begins = _bisect(begins, now, lambda at: _offset(at, zone) == offset)
        if _offset(ends - 1, zone) != offset:
            ends = _bisect(now, ends, lambda at: _offset(at, zone) != offset)
        began = datetime.fromtimestamp(begins, UTC)
        return begins, ends, Span(self._key(f"{began:%Y-%m-%dT%H:%MZ}"), float(ends))

    def _key(self, begin: str) -> str:
        zone = "" if self.tz == "UTC" else f"@{self.tz}"
        anchor = "" if self.anchor is None else f" from {self.anchor}"
        return f"{self.period}:{begin}{zone}{anchor}"

    def _origin(self) -> date:
        return self.anchor or date(1970, 1, 5 if self.period == "week" else 1)  # the 5th was a Monday

    def _first_day(self, index: int) -> date:
        """The first day of the period with that number, counted from the origin and not from its neighbour: so a
        month that is too short does not shorten those after it."""
        origin = self._origin()
        if self.period in _DAYS:
            return origin + timedelta(days=index * _DAYS[self.period])
        year, month = divmod(origin.year * 12 + origin.month - 1 + index * _MONTHS[self.period], 12)
        return date(year, month + 1, min(origin.day, monthrange(year, month + 1)[1]))

    def _index(self, day: date) -> int:
        origin = self._origin()
        if self.period in _DAYS:
            return (day - origin).days // _DAYS[self.period]
        index = ((day.year - origin.year) * 12 + day.month - origin.month) // _MONTHS[self.period]
        return index if self._first_day(index) <= day else index - 1


Window = Sliding | Calendar | Session


def duration(count: str, unit: str) -> float | None:
    """The seconds that a number and a unit last, such as "5" and "min"; None where they say no length of time."""
    length = _UNITS.get(unit.lower())
    if length is None or not re.fullmatch(r"[0-9]+(\.[0-9]*)?|\.[0-9]+", count):
        return None
    return float(Decimal(count[:40]) * length)


def lasting(seconds: float) -> str:
    """A length of time as a spec says it after the slash: "hr", "30s", "24h"."""
    micro = round(seconds * _MICRO)
    for length, unit, one in ((DAY, "d", ""), (3600, "h", "hr"), (60, "min", "min")):
        count, rest = divmod(micro, length * _MICRO)
        if not rest and count and (count > 1 or one):
            return one if count == 1 else f"{count}{unit}"
    whole, rest = divmod(micro, _MICRO)
    if not rest:
        return "s" if whole == 1 else f"{whole}s"
    return f"{whole}.{rest:06d}".rstrip("0") + "s"


def _length(seconds: float, what: str) -> float:
    good = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not good or not SHORTEST <= seconds <= LONGEST:
        raise ValueError(f"{what} must last from {SHORTEST} seconds to 100 years, not {shown(seconds)} seconds.")
    return round(seconds * _MICRO) / _MICRO


def _begin(day: date, zone: tzinfo) -> int:
    """The first second, in Unix time, at which the local date is that day or later."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    first = int(midnight.timestamp())
    second = int(midnight.replace(fold=1).timestamp())
    if second >= first:  # there is one midnight, or two, of which the first counts
        return first
    # There is none: read with the offset after the jump it lies before the jump, with that before it lies after.
    return _bisect(second, first, lambda at: datetime.fromtimestamp(at, zone).date() >= day)


def _offset(at: int, zone: tzinfo) -> timedelta | None:
    return datetime.fromtimestamp(at, zone).utcoffset()


def _bisect(before: int, after: int, holds: Callable[[int], bool]) -> int:
    """The first second at which something holds that does not hold at `before` and does at `after`."""
    while after - before > 1:
        middle = (before + after) // 2
        if holds(middle):
            after = middle
        else:
            before = middle
    return after
