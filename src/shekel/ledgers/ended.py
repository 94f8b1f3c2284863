"""What the ledger in memory remembers of calls that have ended: the most recent ones, and only what it may still need.

Theory of operation. Of a settled call, a correction needs on each meter the cell, its epoch, the amount, and where the
meter slides the end of the slot of the settlement; that is its record, one flat tuple, as there are thousands. Of a
released call, a tombstone tells where it held: a late charge goes there, and not on what has started anew since. Of a
call that was charged for good only the id is kept, so that a repetition finds it.

Here is worked out what a settlement changes that does not simply end a hold; the ledger writes it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from .base import Meter
from .cells import Cell, slot_before
from .meters import Meters

LOST = -1
"""The epoch in a record of what can no longer be corrected: its meter has started anew since."""

Record: TypeAlias = tuple[Any, ...]
"""Cell, epoch, amount, end of the slot (not above 0 if there was none); and again for each meter."""

Row: TypeAlias = tuple[Cell, int, int, int, int]
"""What the end of a call makes of one meter: the cell, then `settled`, `held`, `holds` and `ends` as they will be."""

Slots: TypeAlias = tuple[Cell, int]
"""A sliding cell, then `past` as it will be: apart from the rows, as only corrections change it."""


class Ended:
    """Calls that have ended.

    Args:
        meters: the live meters.
        remember: how many settled calls, how many settled for good, and how many released ones, are kept.
    """

    def __init__(self, meters: Meters, remember: int) -> None:
        self._meters = meters
        self._remember = remember
        # Ordered: to find the oldest entry of a plain dict, one steps over everything that was deleted before it.
        self.settled: OrderedDict[str, Record] = OrderedDict()
        self.final: OrderedDict[str, Record] = OrderedDict()
        self.released: OrderedDict[str, tuple[Cell, ...]] = OrderedDict()

    def let_go(self, added: int) -> None:
        """Forget the oldest, and some of the meters that only they could have charged: more than a step has added."""
        while len(self.settled) > self._remember:
            self.settled.popitem(last=False)
        while len(self.released) > self._remember:
            self.released.popitem(last=False)
        if self._meters.at_zero:
            self._meters.drop_uncorrectable(self.settled, added)

    def let_go_final(self) -> None:
        """Forget the oldest of what was charged for good."""
        while len(self.final) > self._remember:
            self.final.popitem(last=False)

    def correct(
        self,
        former: Record,
        amounts: Mapping[Meter, int],
        now: int,
        rows: list[Row],
        slots: list[Slots],
        record: list[Any],
    ) -> int:
        """Work out the correction of a settled call. Returns how many of its amounts come too late."""
        dropped = 0
        for cell, epoch, old, end in parts(former):
            new = amounts.get(cell.meter, 0)
            if cell.is_over(now):
                if cell.window < 0:
                    dropped += new != old
                    epoch = LOST
            elif cell.epoch == epoch:  # else its charge has gone with the epoch
                settled = cell.settled + new - old
                if cell.window > 0:
                    if now >= cell.ends:
                        cell.pass_to(now)
                    if end <= 0:
                        end = self._meters.adopted[cell] + 1
                    settled, past = cell.corrected(new - old, slot_before(end, cell.window))
                    slots.append((cell, past))
                rows.append((cell, settled, cell.held, cell.holds, cell.ends))
            record += (cell, epoch, new, end)
        return dropped

    def charge(
        self,
        call: str,
        amounts: Mapping[Meter, int],
        now: int,
        rows: list[Row],
        record: list[Any],
        new: list[Cell],
    ) -> int:
        """Work out what a call is charged beside what `record` says, and the cells that stand in no table yet.

        Returns:
            how many of the amounts come too late.
        """
        dropped = 0
        named = {cell.meter for cell, _, _, _ in parts(record)}
        held_once = {cell.meter: cell for cell in self.released.get(call, ())}
        for meter, amount in amounts.items():
            if meter in named:
                continue
            once = held_once.get(meter)
            if once is not None and once.window < 0 and once.is_over(now):
                dropped += amount != 0
                record += (once, LOST, amount, 0)
                continue
            cell = self._meters.cells.get(meter)
            if cell is None or cell.is_over(now):
                cell = Cell(meter) if once is None else once.heir(now)
                new.append(cell)
            ends = cell.reaches(now)
            rows.append((cell, cell.settled + amount, cell.held, cell.holds, ends))
            record += (cell, cell.epoch, amount, ends if cell.window > 0 else 0)
        return dropped


def parts(record: Iterable[Any]) -> Iterator[tuple[Cell, int, int, int]]:
    """What a record says of each meter."""
    entries = iter(record)
    return zip(entries, entries, entries, entries, strict=True)
