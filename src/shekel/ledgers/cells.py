"""One meter of the ledger in memory, and what of it counts at a time. Integers only: no lock, no clock, no calls.

Theory of operation. A cell forgets by its window (see `Line`):

    window = 0             nothing is ever forgotten: `settled` is what counts.
    window > 0, slides     `settled` is what counts in `slot`, the newest that a step has come in: the amounts of
                           `past`, slot by slot, `earlier` in all; the rest was settled in `slot` itself. Slot n begins
                           at n × window / 64; in slot n those from n − 64 on count, so an amount goes after more than
                           `window` and less than 65/64 of it.
    window > 0, no slides  `settled` counts until the meter has been idle for `window`, and not before `until`.
    window < 0             no line has named the meter yet; it forgets nothing until one does.

Before `ends`, `settled` is what counts: nearly every step compares two numbers and divides nothing. From then on a
sliding cell is let come to the present first (`pass_to`), which no answer from that time on can tell; so a meter in
heavy use adds to one number, and `past`, replaced as a whole, changes once a slot. Looking changes nothing.
"""

from __future__ import annotations

from typing import TypeAlias

from .base import Line, Meter

SLOTS = 64
"""Parts of a sliding window. What counts is exact to one of them."""

UNKNOWN = -1
"""The window of a meter that has been charged and never been named by a line."""

FOREVER = 1 << 62
"""A time that no clock shows, in microseconds since the epoch."""

Past: TypeAlias = tuple[int, ...]
"""Slot, amount, slot, amount, …, oldest first: flat, as most meters have few."""


class Cell:
    """One meter.

    Attributes:
        epoch: counts its resets.
        ends: before this time `settled` is what counts: the end of `slot`; when a session is over, unless a call is
            open by then; for ever. Of a meter that no line has named, minus the time of its last charge.
        since: the time that everything charged before its first line counts as settled at.
        standing: whether it is in the table of live meters.
    """

    __slots__ = (
        "earlier",
        "ends",
        "epoch",
        "held",
        "holds",
        "meter",
        "past",
        "settled",
        "since",
        "slides",
        "slot",
        "standing",
        "window",
    )

    def __init__(self, meter: Meter, window: int = UNKNOWN, slides: bool = False, until: int = 0, now: int = 0) -> None:
        self.meter = meter
        self.window = window
        self.slides = slides and window > 0
        self.settled = 0
        self.held = 0
        self.holds = 0
        self.epoch = 0
        self.since = 0
        self.past: Past = ()
        self.slot = 0
        self.earlier = 0
        self.ends = until if window > 0 else 0
        self.standing = False
        if self.slides:
            _, self.slot, self.ends = _slot_at(now, window)
        else:
            self.ends = self.reaches(now)

    def heir(self, now: int) -> Cell:
        """A new cell of the same meter and window, empty; of the same period, if it has one: `ends` is not before."""
        return Cell(self.meter, self.window, self.slides, self.ends, now)

    def adopt(self, line: Line) -> None:
        """Take the window of the first line that names the meter. What was charged by then was charged at one time."""
        since = -self.ends
        like = Cell(self.meter, line.window, line.slides, line.until, since)
        window, slides, slot, ends = like.window, like.slides, like.slot, like.ends
        try:
            self.window, self.slides, self.slot, self.ends, self.since = window, slides, slot, ends, since
        except BaseException:
            self.window, self.slides, self.slot, self.ends, self.since = window, slides, slot, ends, since
            raise

    def empty(self) -> None:
        """Zero what is settled, all of it, whatever strikes meanwhile."""
        try:
            self.past, self.earlier, self.settled = (), 0, 0
        except BaseException:
            self.past, self.earlier, self.settled = (), 0, 0
            raise

    def settled_at(self, now: int) -> int:
        """What counts as settled at a time."""
        if now < self.ends or self.window <= 0:
            return self.settled
        if self.slides:
            past = (*self.past, self.slot, self.settled - self.earlier)
            return _slid(self.settled, past, _slot_at(now, self.window)[1] - SLOTS)[0]
        return self.settled if self.holds else 0

    def is_over(self, now: int) -> bool:
        """Whether a meter with a window has forgotten everything: nothing of it would be missed."""
        if now < self.ends or self.window <= 0 or self.holds:
            return False
        return not self.slides or now >= self.ends + self.window

    def reaches(self, now: int) -> int:
        """`ends`, once a step has come at a time. What slides is let come to that time first."""
        window = self.window
        if window == 0:
            return FOREVER
        if window < 0:
            return min(self.ends, -now)
        if self.slides:
            if now >= self.ends:
                self.pass_to(now)
            return self.ends
        return max(self.ends, now + window)

    def pass_to(self, now: int) -> None:
        """Let a sliding cell come to a slot after its newest: what slides out goes. All of it, whatever strikes."""
        _, slot, ends = _slot_at(now, self.window)
        settled, past = self.settled, self.past
        newest = settled - self.earlier
        if newest:
            past = (*past, self.slot, newest)
        if past and past[0] < slot - SLOTS:
            settled, past = _slid(settled, past, slot - SLOTS)
        try:
            self.settled, self.past, self.earlier, self.slot, self.ends = settled, past, settled, slot, ends
        except BaseException:
            self.settled, self.past, self.earlier, self.slot, self.ends = settled, past, settled, slot, ends
            raise

    def corrected(self, more: int, slot: int) -> tuple[int, Past, int]:
        """A sliding meter once what was settled in a slot is more by so much: settled, past and earlier."""
        settled, past, earlier = self.settled, self.past, self.earlier
        if self.since:
            # A charge from before the first line has no slot of its own.
            slot = max(slot, self.since * SLOTS // self.window)
        if slot >= self.slot:
            return settled + more, past, earlier
        if slot < self.slot - SLOTS:
            return settled, past, earlier
        at = len(past)
        while at and past[at - 2] > slot:
            at -= 2
        if at and past[at - 2] == slot:
            past = (*past[: at - 1], past[at - 1] + more, *past[at:])
        else:
            past = (*past[:at], slot, more, *past[at:])
        return settled + more, past, earlier + more

    def frees_at(self, lack: int, held: int, now: int) -> int | None:
        """When `lack` of a sliding meter will have slid out, at the earliest: open calls may settle `held` now.

        Returns:
            Microseconds since the epoch; None if that much never will, or the meter does not slide.
        """
        if not self.slides:
            return None
        current = self.slot if now < self.ends else _slot_at(now, self.window)[1]
        slots = (*self.past, self.slot, self.settled - self.earlier, current, held)
        for at in range(0, len(slots), 2):
            if slots[at] >= current - SLOTS:
                lack -= slots[at + 1]
                if lack <= 0:
                    # The first microsecond at which that slot no longer counts.
                    return _end(slots[at] + SLOTS, self.window)
        return None


_slots: dict[int, tuple[int, int, int]] = {}
"""By window: when the slot that was last asked for begins, its number, and when it ends."""


def _slot_at(now: int, window: int) -> tuple[int, int, int]:
    """The slot of a window in which a time lies: when it begins, its number, and when it ends.

    Nearly always it is the slot that was last asked for: so thousands of cells share two numbers, and do not divide.
    """
    last = _slots.get(window)
    if last is None or not last[0] <= now < last[2]:
        slot = now * SLOTS // window
        last = _end(slot - 1, window), slot, _end(slot, window)
        if len(_slots) > 1_000:
            _slots.clear()
        _slots[window] = last
    return last


def _slid(settled: int, past: Past, first: int) -> tuple[int, Past]:
    """A sum and its slots, without the slots before the first that counts."""
    gone = 0
    while gone < len(past) and past[gone] < first:
        settled -= past[gone + 1]
        gone += 2
    return settled, past[gone:]


def _end(slot: int, window: int) -> int:
    """The first microsecond after a slot."""
    return -(-(slot + 1) * window // SLOTS)
