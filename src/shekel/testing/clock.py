"""A clock that only moves when told: for tests of windows, leases and calendar periods.

It knows nothing of budgets; it is a callable that returns seconds, wherever Shekel or your own code takes one.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime


class Clock:
    """A settable clock, monotonic and wall clock in one. Thread-safe.

    Call it for the time in seconds since the Unix epoch (UTC). It starts where you say and stands still until
    `advance` or `set` moves it.

    Args:
        start: the first moment; a naive datetime is taken as UTC. Default: 2030-01-01 00:00 UTC, so that a test
            never depends on the day it runs.
    """

    def __init__(self, start: datetime | None = None) -> None:
        self._lock = threading.Lock()
        self._now = _seconds(start or datetime(2030, 1, 1, tzinfo=UTC))

    def __call__(self) -> float:
        """The time in seconds since the Unix epoch."""
        return self._now

    def now(self) -> datetime:
        """The time as an aware datetime in UTC."""
        return datetime.fromtimestamp(self._now, tz=UTC)

    def advance(self, seconds: float) -> None:
        """Move forward.

        Args:
            seconds: how far, in seconds; at least 0.

        Raises:
            ValueError: if `seconds` is negative: no monotonic clock goes back.
        """
        if not seconds >= 0:
            raise ValueError(f"a clock cannot go back: advance({seconds!r}); use set() to go to another moment")
        with self._lock:
            self._now += seconds

    def set(self, moment: datetime) -> None:
        """Go to a moment, also back in time, as a wall clock may.

        Args:
            moment: where to go; a naive datetime is taken as UTC.
        """
        with self._lock:
            self._now = _seconds(moment)


def _seconds(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
