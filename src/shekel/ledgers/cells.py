"""One meter of the ledger in memory, and what of it counts at a time. Integers only: no lock, no clock, no calls.

Theory of operation. A cell forgets by its window (see `Line`), whose sign says how:

    0      nothing is ever forgotten: `settled` is what counts. So it is too while no line has named the meter.
    above  it slides: `settled` is what counts in the newest slot that a step has come in, the one that ends at `ends`.
           What of that is from the slots before is in `past`; the rest was settled in the newest itself. Slot n begins
           at n × window / 64; in slot n those from n − 64 on count, so an amount goes after more than the window and
           less than 65/64 of it.
    below  `settled` counts until the meter has been idle for that long, and not before `until`: a session or a period.

Before `ends`, `settled` is what counts: nearly every step compares two numbers and divides nothing. From then on a
sliding cell is let come to the present first (`pass_to`), which no answer from that time on can tell; so a meter in
heavy use adds to one number, and `past` changes once a slot. Looking changes nothing.

A cell is small, as there may be a hundred thousand: what can be worked out from the rest is not kept.
"""

from __future__ import annotations

from functools import lru_cache

from . import past
from .base import Line, Meter
from .past import SLOTS

FOREVER = 1 << 62
"""A time that no clock shows, in microseconds since the epoch."""

GONE = -2
"""The epoch of a cell that is no longer in the table of live meters: no call's record has it."""


class Cell:
    """One meter, which no line has named yet.

    Attributes:
        window: microseconds. Above 0: it slides. Below: what is settled goes once the meter was idle for so long.
        settled: what counts as spent until `ends`.
        held: what open calls hold; `holds`: how many do.
        epoch: counts its resets.
        past: what was settled in the slots before the newest, packed.
        ends: before this time `settled` is what counts: the end of the newest slot; when a session is over, unless a
            call is open by then; for ever. Of a meter that no line has named, minus the time of its last charge.
    """

    __slots__ = ("ends", "epoch", "held", "holds", "meter", "past", "settled", "window")

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.window = self.settled = self.held = self.holds = self.epoch = self.past = self.ends = 0

    @classmethod
    def of(cls, line: Line, now: int) -> Cell:
        """A new cell with the window of a line."""
        cell = cls(line.meter)
        cell.window, cell.ends = _begun(line, now)
        return cell

    def heir(self, now: int) -> Cell:
        """A new cell of the same meter and window, empty; of the same period, if it has one: `ends` is not before."""
        cell = Cell(self.meter)
        cell.window, cell.ends = self.window, self.ends
        if cell.window > 0:
            cell.ends = _slot_at(now, cell.window)[2]
        else:
            cell.ends = cell.reaches(now)
        return cell

    def adopt(self, line: Line) -> None:
        """Take the window of the first line that names the meter. What was charged by then was charged at one time."""
        window, ends = _begun(line, -self.ends)
        try:
            self.window, self.ends = window, ends
        except BaseException:
            self.window, self.ends = window, ends
            raise

    def empty(self) -> None:
        """Zero what is settled, all of it, whatever strikes meanwhile."""
        try:
            self.past = self.settled = 0
        except BaseException:
            self.past = self.settled = 0
            raise

    def settled_at(self, now: int) -> int:
        """What counts as settled at a time."""
        if now < self.ends or self.window == 0:
            return self.settled
        if self.window > 0:
            return past.passed(self.past, self.settled, _slot_at(now, self.window)[1] - self.slot)[1]
        return self.settled if self.holds else 0

    @property
    def slot(self) -> int:
        """The newest slot of a cell that slides."""
        return slot_before(self.ends, self.window)

    def is_over(self, now: int) -> bool:
        """Whether a meter with a window has forgotten everything: nothing of it would be missed."""
        window = self.window
        if now < self.ends or window == 0 or self.holds:
            return False
        return window < 0 or now >= self.ends + window

    def reaches(self, now: int) -> int:
        """`ends`, once a step has come at a time. What slides is let come to that time first."""
        window = self.window
        if window == 0:
            return self.ends if self.ends > 0 else min(self.ends, -now)
        if window > 0:
            if now >= self.ends:
                self.pass_to(now)
            return self.ends
        return max(self.ends, now - window)

    def pass_to(self, now: int) -> None:
        """Let a sliding cell come to a slot after its newest: what slides out goes. All of it, whatever strikes."""
        window = self.window
        _, slot, ends = _slot_at(now, window)
        before, settled = past.passed(self.past, self.settled, slot - slot_before(self.ends, window))
        try:
            self.settled, self.past, self.ends = settled, before, ends
        except BaseException:
            self.settled, self.past, self.ends = settled, before, ends
            raise

    def corrected(self, more: int, slot: int) -> tuple[int, int]:
        """A sliding meter once what was settled in a slot is more by so much: settled and past."""
        age = self.slot - slot
        if age <= 0:
            return self.settled + more, self.past
        if age > SLOTS:
            return self.settled, self.past
        return self.settled + more, past.corrected(self.past, age, more)

    def frees_at(self, lack: int, held: int, now: int) -> int | None:
        """When `lack` of a sliding meter will have slid out, at the earliest: open calls may settle `held` now.

        Returns:
            Microseconds since the epoch; None if that much never will, or the meter does not slide.
        """
        if self.window <= 0:
            return None
        newest = self.slot
        current = newest if now < self.ends else _slot_at(now, self.window)[1]
        slots = [(newest - age, amount) for age, amount in past.amounts(self.past)]
        slots += [(newest, self.settled - past.total(self.past)), (current, held)]
        for slot, amount in slots:
            if slot >= current - SLOTS:
                lack -= amount
                if lack <= 0:
                    # The first microsecond at which that slot no longer counts.
                    return _end(slot + SLOTS, self.window)
        return None


def slot_before(end: int, window: int) -> int:
    """The slot of a sliding window that ends at a time, or in which the microsecond before it lies."""
    return (end - 1) * SLOTS // window


def slides_out(now: int, window: int) -> int:
    """The first microsecond at which what a sliding window settles at a time no longer counts."""
    return _end(now * SLOTS // window + SLOTS, window)


def _begun(line: Line, now: int) -> tuple[int, int]:
    """`window` and `ends` of a meter that a line names at a time."""
    if line.window == 0:
        return 0, FOREVER
    if line.slides:
        return line.window, _slot_at(now, line.window)[2]
    return _below(line.window), max(line.until, now + line.window)


@lru_cache(1_000)
def _below(window: int) -> int:
    """The window of a cell that does not slide: one object for all that are as long."""
    return -window


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


def _end(slot: int, window: int) -> int:
    """The first microsecond after a slot."""
    return -(-(slot + 1) * window // SLOTS)
