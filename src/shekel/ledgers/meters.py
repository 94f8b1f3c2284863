"""The live meters of the ledger in memory: their table, and how they leave it.

Theory of operation. Rows that a step has worked out are written by `put`, and doing it twice is the same as doing it
once. A meter without a window goes as soon as nobody would miss it. Meters with a window stand in a ring: each
admission looks at the next few of it, more than it adds, and drops those that have forgotten everything. So an idle
window goes although nobody asks for it again, and no step is long. Whether it has gone yet makes no difference to any
answer: what is over counts as gone.

The lock is the ledger's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TypeAlias

from .base import Line, Meter
from .cells import Cell, Past

LOOKS = 2
"""Cells of the ring that an admission looks at for each that it adds, beside the one that it looks at anyway."""

LOST = -1
"""The epoch of a row that is kept and never written: its meter has started anew since."""

Row: TypeAlias = tuple[Meter, Cell, int, int, int, int, int, int, int]
"""What a step makes of one meter: the meter, its cell and epoch, what the call is charged; then settled, held, holds
and records as they will be, and the time. The rows of a settlement are kept as its record: one tuple a meter, not two.
"""

Slots: TypeAlias = tuple[Cell, int, Past, int, int]
"""A sliding cell and its epoch, then past, newest slot and its amount as they will be; apart from the rows, as no
record needs them."""


class Meters:
    """The table of live meters."""

    def __init__(self) -> None:
        self.cells: dict[Meter, Cell] = {}
        self.ring: deque[Cell] = deque()

    def in_use(self, cell: Cell, line: Line, now: int) -> Cell | None:
        """A cell with a window, or one whose window nobody has named yet, as a line finds it. None: it is over."""
        if cell.window < 0:
            if line.window:
                self.ring.append(cell)
            cell.adopt(line)
        return None if cell.is_over(now) else cell

    def put(self, rows: Iterable[Row], slots: Iterable[Slots]) -> None:
        """Write what a step has worked out."""
        for meter, cell, epoch, _, settled, held, holds, records, stamp in rows:
            # Another epoch: the meter was reset or forgotten since the call settled, and its charge went with that.
            if cell.epoch == epoch:
                if not cell.standing:
                    former = self.cells.get(meter)
                    if former is not None and former is not cell:
                        self.drop(former)  # it was over
                    if cell.window > 0:
                        self.ring.append(cell)
                    self.cells[meter] = cell
                    cell.standing = True
                cell.settled = settled
                cell.held = held
                cell.holds = holds
                cell.records = records
                if cell.window and stamp > cell.last:
                    cell.last = stamp
        for cell, epoch, past, slot, amount in slots:
            if cell.epoch == epoch:
                cell.past = past
                cell.slot = slot
                cell.amount = amount

    def look_around(self, now: int, added: int) -> None:
        """Look at the next few cells of the ring, more than are added to it, and drop those that are over."""
        ring = self.ring
        looks = 1 + LOOKS * added
        while looks and ring:
            looks -= 1
            cell = ring[0]
            if cell.standing and (now - cell.last < cell.window or not cell.is_over(now)):
                ring.rotate(-1)
                continue
            # Dropped before it leaves the ring: cut off in between, it is met there again.
            self.drop(cell)
            ring.popleft()

    def drop_if_idle(self, cell: Cell) -> None:
        """Drop a cell that nobody would miss; one with a window waits for the ring to come round to it."""
        if not cell.holds and (cell.forgotten or (cell.window <= 0 and cell.settled == 0 and cell.records == 0)):
            self.drop(cell)

    def drop(self, cell: Cell) -> None:
        """Take a cell out of the table. What is charged to it already can no longer be corrected."""
        # Only where it still stands: a forgotten cell may have a successor of the same name.
        if self.cells.get(cell.meter) is cell:
            cell.epoch += 1
            del self.cells[cell.meter]
        cell.standing = False
