"""Queues: who waits for room on a budget, first in, first out.

Each budget has one. Who comes while others wait stands behind them, also where it would fit. A queue knows neither
calls nor limits: whoever makes room says so, and it wakes whose turn it is, who asks again. What refuses calls whose
turn has not come, too, wakes everybody (`wake_all`): they may stand in the queue of another budget.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from .. import locks

_waiting: set[Ticket] = set()
"""All who stand in a queue of this process."""


class Ticket:
    """A place in a queue. `wake` may be called from any thread, any number of times."""

    __slots__ = ("queue", "wake")

    def __init__(self, queue: Queue, wake: Callable[[], None]) -> None:
        self.queue = queue
        self.wake = wake


class Queue:
    """Those who wait for room on one budget."""

    def __init__(self) -> None:
        self._tickets: deque[Ticket] = deque()

    def __len__(self) -> int:
        return len(self._tickets)

    def join(self, wake: Callable[[], None]) -> Ticket:
        """Stand at the end."""
        ticket = Ticket(self, wake)
        with locks.books:
            self._tickets.append(ticket)
            _waiting.add(ticket)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Go, with room or without; the next one may try."""
        with locks.books:
            if ticket in self._tickets:
                self._tickets.remove(ticket)
                _waiting.discard(ticket)
        self.freed()

    def first(self, ticket: Ticket) -> bool:
        """Whether it is this one's turn."""
        with locks.books:
            return bool(self._tickets) and self._tickets[0] is ticket

    def forked(self) -> None:
        """In a child process: who stood here is a thread of the parent."""
        _waiting.difference_update(self._tickets)
        self._tickets.clear()

    def freed(self) -> None:
        """There may be room: wake whose turn it is."""
        with locks.books:
            head = self._tickets[0] if self._tickets else None
        if head is not None:
            head.wake()


def wake_all() -> None:
    """Everybody who waits looks again at whether there is still something to wait for."""
    with locks.books:
        found = list(_waiting)
    for each in found:
        each.wake()
