"""Queues: who waits for room on a budget, first in, first out.

Each budget has one. Who comes while others wait stands behind them, also where it would fit. A queue knows neither
calls nor limits: whoever makes room says so, and it wakes whose turn it is, who asks again. What refuses calls whose
turn has not come, too, wakes everybody (`wake_all`): they may stand in the queue of another budget.

Who stands first in the task of an event loop that was closed, or that nobody runs any more, would keep all others from
their turn. The one cannot be woken, the other is still there when it should have gone: both are taken out.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

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
    """

    __slots__ = ("queue", "until", "wake")

    def __init__(self, queue: Queue, wake: Callable[[], object], until: float) -> None:
        self.queue = queue
        self.wake = wake
        self.until = until


class Queue:
    """Those who wait for room on one budget."""

    def __init__(self) -> None:
        self._tickets: deque[Ticket] = deque()

    def __len__(self) -> int:
        return len(self._tickets)

    def join(self, wake: Callable[[], object], until: float = math.inf) -> Ticket:
        """Stand at the end. Arguments: as of `Ticket`."""
        ticket = Ticket(self, wake, until)
        with locks.books:
            self._tickets.append(ticket)
            _waiting.add(ticket)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Go, with room or without; the next one may try."""
        self._take_out(ticket)
        self.freed()

    def first(self, ticket: Ticket, now: float) -> bool:
        """Whether it is this one's turn at a time of the monotonic clock."""
        gone = False
        with locks.books:
            while self._tickets and self._tickets[0].until + OVERDUE < now:
                self._take_out(self._tickets[0])
                gone = True
            mine = bool(self._tickets) and self._tickets[0] is ticket
        if gone and not mine:
            self.freed()
        return mine

    def turn(self, now: float) -> float:
        """Seconds after which it is somebody else's turn, if nobody says so before."""
        with locks.books:
            return max(0.0, self._tickets[0].until + OVERDUE - now) if self._tickets else 0.0

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
        while True:
            with locks.books:
                head = self._tickets[0] if self._tickets else None
            if head is None or head.wake() is not False:
                return
            self._take_out(head)


def wake_all() -> None:
    """Everybody who waits looks again at whether there is still something to wait for."""
    with locks.books:
        found = list(_waiting)
    for each in found:
        each.wake()
