"""The live meters of the ledger in memory: their table, and how they leave it.

Theory of operation. A meter without a window goes as soon as nobody would miss it: nothing is settled or held there,
and no call that is remembered could be corrected on it. That is known without counting such calls: a settlement that
leaves a meter at zero puts it in a queue with the newest call, and by the time that this call is let go, so are all
that could be corrected. Meters with a window stand in a ring: each admission looks at the next few of it, more than it
adds, and drops those that have forgotten everything. So an idle window goes although nobody asks for it again, and no
step is long. Whether it has gone yet makes no difference to any answer: what is over counts as gone.

The lock is the ledger's.
"""

from __future__ import annotations

import copy
from collections import OrderedDict, deque
from collections.abc import Container, Iterable
from typing import Any

from .base import Line, Meter
from .cells import GONE, Cell

LOOKS = 2
"""Cells that a step looks at, in the ring or in the queue, for each that it adds, beside the one it looks at anyway."""


class Meters:
    """The table of live meters.

    Attributes:
        forgotten: those that go when their holds end.
        at_zero: those without a window where nothing is settled, each with the newest call of then.
        adopted: those that slide and were charged before a line named them, with the time at which all of that counts
            as settled.
    """

    def __init__(self) -> None:
        self.cells: dict[Meter, Cell] = {}
        self.ring: deque[Cell] = deque()
        self.forgotten: set[Cell] = set()
        self.at_zero: OrderedDict[Cell, str] = OrderedDict()
        self.adopted: dict[Cell, int] = {}

    def find(self, cell: Cell | None, line: Line, now: int, new: dict[Meter, Cell], looking: bool) -> Cell:
        """The cell of a line, come to the present; a new one if there is none or if it is over.

        Args:
            cell: what stands in the table; with many meters, most that slide are met in another slot than before.
            line: what is asked of the meter.
            now: microseconds since the epoch.
            new: cells that are not in the table, by meter; what is made here is added.
            looking: whether nothing may change: then what would is a copy, in `new`.
        """
        if cell is not None and cell.window > 0 and not looking and now < cell.ends + cell.window:
            cell.pass_to(now)
            return cell
        known = new.get(line.meter)
        if known is not None:
            return known
        if cell is not None:
            if looking:
                cell = new[line.meter] = copy.copy(cell)
            if cell.window == 0:  # no line has named it: what never forgets does not end
                if line.window and not looking:
                    self.ring.append(cell)
                    if line.slides:
                        self.adopted[cell] = -cell.ends
                cell.adopt(line)
            if not cell.is_over(now):
                if cell.window > 0:
                    cell.reaches(now)
                return cell
        cell = new[line.meter] = Cell.of(line, now)
        return cell

    def stand(self, cell: Cell) -> None:
        """Put a new cell in the table. Doing it twice is the same as doing it once."""
        former = self.cells.get(cell.meter)
        if former is cell:
            return
        if former is not None:
            self.drop(former)  # it was over
        if cell.window:
            self.ring.append(cell)
        self.cells[cell.meter] = cell

    def look_around(self, now: int, added: int) -> None:
        """Look at the next few cells of the ring, more than are added to it, and drop those that are over."""
        ring = self.ring
        looks = 1 + LOOKS * added
        while looks and ring:
            looks -= 1
            cell = ring[0]
            if cell.epoch != GONE and (now < cell.ends or not cell.is_over(now)):
                ring.rotate(-1)
                continue
            # Dropped before it leaves the ring: cut off in between, it is met there again.
            self.drop(cell)
            ring.popleft()

    def sweep(self, cells: Iterable[Cell], settled: OrderedDict[str, Any]) -> None:
        """Let go of cells that a settlement has left idle, once no call of those settled could be corrected on them."""
        newest = next(reversed(settled), None)
        for cell in cells:
            if cell.window == 0 and not cell.settled and newest is not None:
                self.at_zero[cell] = newest
                self.at_zero.move_to_end(cell)
            self.drop_if_idle(cell)

    def drop_uncorrectable(self, remembered: Container[str], added: int) -> None:
        """Drop what is still at zero, and was so before the oldest call that is remembered: the next few."""
        at_zero = self.at_zero
        looks = 1 + LOOKS * added
        while looks and at_zero:
            looks -= 1
            cell = next(iter(at_zero))
            if at_zero[cell] in remembered:
                break
            # Dropped before it leaves the queue: cut off in between, it is met there again.
            if not cell.holds and not cell.settled:
                self.drop(cell)
            at_zero.pop(cell, None)

    def drop_if_idle(self, cell: Cell) -> None:
        """Drop a cell that nobody would miss; one with a window waits for the ring to come round to it."""
        if cell.holds:
            return
        if cell in self.forgotten or (cell.window == 0 and not cell.settled and cell not in self.at_zero):
            self.drop(cell)

    def drop(self, cell: Cell) -> None:
        """Take a cell out of the table. What is charged to it already can no longer be corrected."""
        # Only where it still stands: a forgotten cell may have a successor of the same name.
        if self.cells.get(cell.meter) is cell:
            del self.cells[cell.meter]
        # After that, as what is gone is taken out of the ring whatever it holds.
        cell.epoch = GONE
        self.forgotten.discard(cell)
        self.adopted.pop(cell, None)
        self.at_zero.pop(cell, None)
