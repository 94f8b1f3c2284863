"""Queues: who waits for room on a budget, first in, first out.

Each budget has one. Who comes while others wait stands behind them, also where it would fit: but not behind who waits
for a limit of a model, or of a part of the budget, that it does not count to. A queue knows neither calls nor limits:
whoever makes room says so, and it wakes whose turn it is, who asks again. What refuses calls whose turn has not come,
too, wakes everybody (`wake_all`): they may stand in the queue of another budget.

Who stands first in the task of an event loop that was closed, or that nobody runs any more, would keep all others from
their turn. The one cannot be woken, the other is still there when it should have gone: both are taken out.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable

from .. import locks

OVERDUE = 1.0
"""Seconds after which somebody who should have gone is taken to be there no more."""

_waiting: set[Ticket] = set()
"""All who stand in a queue of this process."""


class Ticket:
    """A place in a queue.

    Attributes:
        queue: which.
        wake: may be called from any thread, a finaliser and a signal's handler too, any number of times. Returns
            False where there is nobody to wake any more.
        until: when whoever stands there goes at the latest, by the monotonic clock, in seconds.
        counts: those limits that it counts to, and not all do.
        lacks: which of these has no room for it, or for who stands before it; None for one to which all count, and
            where that is not known yet.
    """

    __slots__ = ("counts", "lacks", "queue", "until", "wake")

    def __init__(self, queue: Queue, wake: Callable[[], object], until: float, counts: frozenset[Hashable]) -> None:
        self.queue = queue
        self.wake = wake
        self.until = until
        self.counts = counts
        self.lacks: Hashable | None = None

    @property
    def overdue(self) -> float:
        """When it is taken to be there no more."""
        return self.until + OVERDUE

    def before(self, counts: frozenset[Hashable]) -> bool:
        """Whether who counts to those limits stands behind it, where it comes later."""
        return self.lacks is None or self.lacks in counts


class Queue:
    """Those who wait for room on one budget."""

    def __init__(self) -> None:
        self._tickets: deque[Ticket] = deque()

    def __len__(self) -> int:
        return len(self._tickets)

    def join(
        self, wake: Callable[[], object], until: float = math.inf, counts: frozenset[Hashable] = frozenset()
    ) -> Ticket:
        """Stand at the end. Arguments: as of `Ticket`."""
        ticket = Ticket(self, wake, until, counts)
        with locks.books:
            self._tickets.append(ticket)
            _waiting.add(ticket)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Go, with room or without; the next one may try."""
        self._take_out(ticket)
        self.freed()

    def ahead(self, ticket: Ticket, now: float) -> Ticket | None:
        """Behind whom one stands at a time of the monotonic clock; None where it is its turn."""
        overdue: list[Ticket] = []
        found = None
        with locks.books:
            for each in self._tickets:
                if each is ticket:
                    break
                if each.before(ticket.counts):
                    if each.overdue >= now:
                        found = each
                        break
                    overdue.append(each)
            for each in overdue:
                self._take_out(each)
        if found is not None:
            self.lacking(ticket, found.lacks)
        if overdue:
            self.freed()
        return found

    def keeps(self, counts: frozenset[Hashable]) -> bool:
        """Whether who comes now, and counts to those limits, would stand behind somebody."""
        with locks.books:
            return any(each.before(counts) for each in self._tickets)

    def lacking(self, ticket: Ticket, limit: Hashable | None) -> None:
        """What one waits for; see `Ticket.lacks`. Others need not stand behind it for that."""
        if ticket.lacks != limit:
            ticket.lacks = limit
            self.freed()

    def _take_out(self, ticket: Ticket) -> None:
        with locks.books:
            if ticket in self._tickets:
                self._tickets.remove(ticket)
                _waiting.discard(ticket)

    def forked(self) -> None:
        """In a child process: who stood here is a thread of the parent."""
        _waiting.difference_update(self._tickets)
        self._tickets.clear()

    def freed(self) -> None:
        """There may be room: wake whose turn it is."""
        gone = True
        while gone:
            lacked: set[Hashable] = set()
            turn: list[Ticket] = []
            with locks.books:
                for each in self._tickets:
                    if lacked.isdisjoint(each.counts):
                        turn.append(each)
                    if each.lacks is None:
                        break
                    lacked.add(each.lacks)
            gone = False
            for each in turn:
                if each.wake() is False:
                    self._take_out(each)
                    gone = True


def wake_all() -> None:
    """Everybody who waits looks again at whether there is still something to wait for."""
    with locks.books:
        found = list(_waiting)
    for each in found:
        each.wake()
