"""One meter of the ledger in memory, and what of it counts at a time. Integers only: no lock, no clock, no calls.

Theory of operation. A cell forgets by its window (see `Line`):

    window = 0             nothing is ever forgotten: `settled` is what counts.
    window > 0, slides     `settled` is the sum of what was settled in `slot`, the newest, and in the slots of `past`.
                           Slot n begins at n × window / 64; in slot n those from n − 64 on count, so an amount goes
                           after more than `window` and less than 65/64 of it. What no longer counts is still in the sum
                           until the next settlement takes it out.
    window > 0, no slides  `settled` counts until the meter has been idle for `window`, and not before `until`.
    window < 0             no line has named the meter yet; it forgets nothing until one does.

A look at a cell never changes it. `past` is replaced as a whole, by a step that has worked out the new one before; it
changes once a slot, so that a meter in heavy use adds to one number.
"""

from __future__ import annotations

from typing import TypeAlias

from .base import Line, Meter

SLOTS = 64
"""Parts of a sliding window. What counts is exact to one of them."""

UNKNOWN = -1
"""The window of a meter that has been charged and never been named by a line."""

Past: TypeAlias = tuple[int, ...]
"""Slot, amount, slot, amount, …, oldest first: flat, as most meters have few."""


class Cell:
    """One meter.

    Attributes:
        epoch: counts its resets.
        records: the remembered settlements that name it.
        last: the time of its last admission or end, in microseconds; kept where it has a window.
        since: the time that everything charged before its first line counts as settled at.
        standing: whether it is in the table of live meters.
    """

    __slots__ = (
        "amount",
        "epoch",
        "forgotten",
        "held",
        "holds",
        "last",
        "meter",
        "past",
        "records",
        "settled",
        "since",
        "slides",
        "slot",
        "standing",
        "until",
        "window",
    )

    def __init__(self, meter: Meter, window: int = UNKNOWN, slides: bool = False, until: int = 0) -> None:
        self.meter = meter
        self.window = window
        self.slides = slides
        self.until = until
        self.settled = 0
        self.held = 0
        self.holds = 0
        self.records = 0
        self.epoch = 0
        self.last = 0
        self.since = 0
        self.past: Past = ()
        self.slot = 0
        self.amount = 0
        self.standing = False
        self.forgotten = False

    def heir(self) -> Cell:
        """A new cell of the same meter and window, empty."""
        return Cell(self.meter, self.window, self.slides, self.until)

    def adopt(self, line: Line) -> None:
        """Take the window of the first line that names the meter. What was charged by then was charged at `last`."""
        if line.slides and line.window:
            self.since = self.last
            self.slot = self.last * SLOTS // line.window
            self.amount = self.settled
            self.slides = True
        self.until = line.until
        self.window = line.window  # last: cut off before this, the next line does it all again

    def empty(self) -> None:
        """Zero what is settled, all of it, whatever strikes meanwhile."""
        try:
            self.past, self.amount, self.settled = (), 0, 0
        except BaseException:
            self.past, self.amount, self.settled = (), 0, 0
            raise

    def settled_at(self, now: int) -> int:
        """What counts as settled at a time."""
        window = self.window
        if window <= 0:
            return self.settled
        if not self.slides:
            return 0 if self.is_over(now) else self.settled
        first = (now if now > self.last else self.last) * SLOTS // window - SLOTS
        past = self.past
        settled = self.settled
        if (past[0] if past else self.slot) >= first:
            return settled
        for at in range(0, len(past), 2):
            if past[at] >= first:
                return settled
            settled -= past[at + 1]
        return settled if self.slot >= first else 0

    def is_over(self, now: int) -> bool:
        """Whether a meter with a window has forgotten everything: nothing of it would be missed."""
        window = self.window
        if self.holds or window <= 0:
            return False
        if self.slides:
            return now * SLOTS // window - self.last * SLOTS // window > SLOTS
        return now - self.last >= window and now >= self.until

    def charged(self, amount: int, stamp: int, now: int) -> tuple[int, Past, int, int]:
        """A sliding meter once `amount` is added to what was settled at `stamp`: settled, past, slot and its amount."""
        window = self.window
        slot = stamp * SLOTS // window
        if now < self.last:
            now = self.last
        first = (slot if stamp == now else now * SLOTS // window) - SLOTS
        settled, past, newest, top = self.settled, self.past, self.slot, self.amount
        if (past[0] if past else newest) < first:
            settled = self.settled_at(now)
            if newest < first:
                past, newest, top = (), first, 0
            while past and past[0] < first:
                past = past[2:]
        if slot < first:
            return settled, past, newest, top
        settled += amount
        if slot == newest:
            return settled, past, slot, top + amount
        if slot > newest:
            return settled, (*past, newest, top) if top else past, slot, amount
        at = len(past)
        while at and past[at - 2] > slot:
            at -= 2
        if at and past[at - 2] == slot:
            return settled, (*past[: at - 1], past[at - 1] + amount, *past[at:]), newest, top
        return settled, (*past[:at], slot, amount, *past[at:]), newest, top

    def frees_at(self, lack: int, held: int, now: int) -> int | None:
        """When `lack` of a sliding meter will have slid out, at the earliest: open calls may settle `held` now.

        Returns:
            Microseconds since the epoch; None if that much never will, or the meter does not slide.
        """
        if self.window <= 0 or not self.slides:
            return None
        current = (now if now > self.last else self.last) * SLOTS // self.window
        slots = (*self.past, self.slot, self.amount, current, held)
        for at in range(0, len(slots), 2):
            if slots[at] >= current - SLOTS:
                lack -= slots[at + 1]
                if lack <= 0:
                    # The first microsecond at which that slot no longer counts.
                    return -(-(slots[at] + SLOTS + 1) * self.window // SLOTS)
        return None
