"""Grants: what was granted beyond a limit, and for how long it counts. Whole amounts in the unit of the limit.

A grant is for the present window of its meter:

    for ever           it stays.
    a calendar period  it stays with the meter, which is that period's own.
    sliding, a rate    until an amount that was settled at the moment of the grant slides out of the ledger.
    a session          until the session is over: nothing is settled or held any more, `idle` or more after the grant.

Times are microseconds since the epoch. What was granted is replaced as a whole, so that looking needs no lock.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from .. import locks
from ..ledgers.cells import FOREVER, slides_out
from . import wiring
from .limits import NANO, Unit


class Grant(NamedTuple):
    """An amount beyond the limit of a meter, until a time; on a session, until then or until it is over."""

    meter: Any
    amount: int
    until: int


class Grants:
    """What was granted beyond one limit.

    Args:
        window: the length of its window, or the idle time of its session, in microseconds; 0 for any other.
        slides: whether the window slides; else it is a session.
    """

    __slots__ = ("_granted", "_slides", "_window")

    def __init__(self, window: int = 0, *, slides: bool = False) -> None:
        self._window = window
        self._slides = slides
        self._granted: tuple[Grant, ...] = ()

    def add(self, meter: Any, amount: int, now: int) -> None:
        """Grant an amount for the window of a meter at a time."""
        self.let_go(now)
        until = FOREVER
        if self._window:
            until = slides_out(now, self._window) if self._slides else now + self._window
        with locks.books:
            rest = []
            for each in self._granted:
                # One entry for each meter and slot; a session has one, which its newest grant prolongs.
                if each.meter is meter and (each.until == until or not self._slides):
                    amount, until = amount + each.amount, max(until, each.until)
                else:
                    rest.append(each)
            self._granted = (*rest, Grant(meter, amount, until))

    def of(self, meter: Any, now: int) -> int:
        """What counts for a meter at a time. Nothing changes by looking."""
        return sum(each.amount for each in self._granted if each.meter is meter and not self._over(each, now))

    def until(self) -> int:
        """Before this time, all that counts goes on counting."""
        return min((each.until for each in self._granted), default=FOREVER)

    def let_go(self, now: int) -> None:
        """Forget what counts no more, before a further session on the same meter begins."""
        gone = [each for each in self._granted if self._over(each, now)]
        if gone:
            with locks.books:
                self._granted = tuple(each for each in self._granted if each not in gone)

    def keep(self, meters: list[Any]) -> None:
        """Forget what was granted to other meters: their periods are past."""
        with locks.books:
            self._granted = tuple(each for each in self._granted if any(each.meter is meter for meter in meters))

    def clear(self) -> None:
        """Forget all."""
        with locks.books:
            self._granted = ()

    def _over(self, grant: Grant, now: int) -> bool:
        if now < grant.until:
            return False
        if self._slides:
            return True
        balance = wiring.ledger().read(grant.meter, now)
        return not (balance.settled or balance.held)


def counted(amount: float, unit: Unit) -> int:
    """What a granted amount counts: USD as nano-dollars, and counts as the next whole one."""
    # Rounded to the next nano-dollar: what a person is told to be lacking must be enough when it is granted.
    return round(amount * NANO) if unit is Unit.USD else math.ceil(amount)
