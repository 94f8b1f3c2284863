"""Unreported: what calls that ended without usage can have cost beyond their charge, while a limit counts them.

Theory of operation. Such a call counts as long as its charge does: where a budget has several limits in USD, until the
last of them has forgotten it; a meter without a limit keeps it only where no other counts it. So it stands in a part
with all that go at the same time: a moment that is known when it ends (its calendar period, or the slot of its sliding
window), or the end of the session, which moves. There are 65 parts at most for each window that slides. One part too
many would be a bound that is too high; none goes too early.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..ledgers.cells import FOREVER, slides_out
from .claims import Claim
from .limits import Unit


class Part:
    """What goes at the same time.

    Attributes:
        until: microseconds since the epoch.
        idle: microseconds without a call after which the session is over; 0 where there is none.
        nano: nano-dollars.
        unbounded: calls that nothing bounds.
    """

    __slots__ = ("idle", "nano", "unbounded", "until")

    def __init__(self, until: int, idle: int) -> None:
        self.until = until
        self.idle = idle
        self.nano = self.unbounded = 0

    def add(self, share: float) -> None:
        """Add a share, or take it away again: then the part may have gone."""
        if math.isinf(share):
            self.unbounded += 1 if share > 0 else -1
        else:
            self.nano += int(share)


class Unreported:
    """The parts of one budget. Times are in microseconds since the epoch; what ends earlier than others came, as where
    the clock was set back, ends when those did: so it is in a ledger."""

    __slots__ = ("_last", "_next", "_parts")

    def __init__(self) -> None:
        self._parts: dict[tuple[int, int], Part] = {}
        self._last = 0
        self._next = FOREVER  # no part goes before

    def __bool__(self) -> bool:
        return bool(self._parts)

    def add(self, share: float, claims: Iterable[Claim], now: int) -> Part:
        """A call has ended, and can have cost so much more than it is charged.

        Args:
            share: nano-dollars, above 0; `inf` where nothing bounds it.
            claims: what it was charged to in its budget.
            now: when it ended.

        Returns:
            where it stands, for a correction.
        """
        now = self._last = max(self._last, now)
        key = until, idle = _lasts(claims, now)
        part = self._parts.get(key)
        if part is None:
            part = self._parts[key] = Part(until, idle)
            self._next = min(self._next, 0 if idle else until)
        part.add(share)
        return part

    def at(self, now: int, *, busy: bool) -> float:
        """Nano-dollars at a time; `inf` where nothing bounds them.

        Args:
            now: the time.
            busy: whether calls are open: a session does not end meanwhile.
        """
        parts = list(self._parts.values())
        if now >= self._next:
            parts = [part for part in parts if not self._is_over(part, now, busy)]
        return math.inf if any(part.unbounded for part in parts) else sum(part.nano for part in parts)

    def came(self, now: int, *, busy: bool) -> None:
        """Something was admitted, or has ended: what was over by then goes, and a session goes on.

        Args:
            now: the time.
            busy: whether calls were open before.
        """
        if now >= self._next:
            for key, part in list(self._parts.items()):
                if self._is_over(part, now, busy):
                    del self._parts[key]
            self._next = min((0 if part.idle else part.until for part in self._parts.values()), default=FOREVER)
        self._last = max(self._last, now)

    def _is_over(self, part: Part, now: int, busy: bool) -> bool:
        if now < part.until:
            return False
        return not part.idle or (not busy and now >= self._last + part.idle)


def _lasts(claims: Iterable[Claim], now: int) -> tuple[int, int]:
    """How long limits in USD count what ends at a time: until when, and the idle time of a session."""
    until = idle = 0
    limits = [claim for claim in claims if claim.unit is Unit.USD and claim.limit is not None]
    if not limits:
        return FOREVER, 0
    for claim in limits:
        if not claim.window:
            return FOREVER, 0
        if claim.slides:
            until = max(until, slides_out(now, claim.window))
        elif claim.until:
            until = max(until, claim.until)
        else:
            idle = max(idle, claim.window)
    return until, idle
