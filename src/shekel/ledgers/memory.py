"""The ledger of one process: meters in memory, one short lock, exact integers.

Theory of operation. A call is in at most one of three tables:

    _open      call → (tokens granted, {meter: held})                it holds
    _settled   call → [(meter, cell, epoch, amount, …)]             it was charged; kept for corrections
    _released  call                                                  it ended without a charge: a tombstone

A step first works out every new value, then writes them all (`_write`). The values are absolute, so a write that is
interrupted half way (Ctrl+C may strike between any two lines) is simply done again: a step happens whole or not at
all. Inside the lock there is arithmetic on a few lines and nothing else; no callback, no I/O, no clock.

There are no leases here: a hold lives as long as its process. The tables of finished calls keep the most recent
ones only; a correction that comes later than that is taken for a new charge.

What a meter stands for (a budget, a user, a window) is not known here.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeAlias

from .base import Balance, Grant, Line, Meter, Refusal

REMEMBERED = 10_000
"""Finished calls that can still be corrected, and tombstones that a late `admit` can still meet."""

_NOTHING = Grant(0)
_ZERO = Balance()


class _Cell:
    """One meter. `epoch` counts its resets; `records` the remembered settlements that name it."""

    __slots__ = ("epoch", "forgotten", "held", "holds", "records", "settled")

    def __init__(self) -> None:
        self.settled = 0
        self.held = 0
        self.holds = 0
        self.records = 0
        self.epoch = 0
        self.forgotten = False


_Row: TypeAlias = tuple[Meter, _Cell, int, int, int, int, int, int]
"""What a step makes of one meter: the meter, its cell and epoch, what the call is charged; then settled, held, holds
and records as they will be. The rows of a settlement are kept as its record: one tuple a meter, not two."""
_Hold: TypeAlias = tuple[int, dict[Meter, int]]


class MemoryLedger:
    """Meters in memory, for one process; safe for any number of threads. See `Ledger` for what each step means.

    Args:
        remember: how many finished calls, and how many tombstones, are kept.
    """

    kind = "memory"

    def __init__(self, *, remember: int = REMEMBERED) -> None:
        self.dropped = 0
        self._lock = threading.Lock()
        self._remember = remember
        self._cells: dict[Meter, _Cell] = {}
        self._open: dict[str, _Hold] = {}
        # Ordered: to find the oldest entry of a plain dict, one steps over everything that was deleted before it.
        self._settled: OrderedDict[str, list[_Row]] = OrderedDict()
        self._released: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        """How many meters are live."""
        return len(self._cells)

    def admit(
        self, call: str, need: int, want: int, lines: Sequence[Line], now: int = 0, *, force: bool = False
    ) -> Grant | Refusal:
        """Take a hold for a call on all its meters, or on none. A `want` below `need` counts as `need`."""
        with self._lock:
            present = self._open.get(call)
            if present is not None:
                return Grant(present[0])
            if call in self._released or call in self._settled:
                return _NOTHING
            return self._take(call, need, want, lines, (0, {}), force)

    def extend(
        self, call: str, need: int, want: int, lines: Sequence[Line], now: int = 0, *, force: bool = False
    ) -> Grant | Refusal:
        """Raise the hold of an open call to the totals named. A refusal's `balance` leaves this call's own hold out."""
        with self._lock:
            present = self._open.get(call)
            if present is None:
                return _NOTHING
            return self._take(call, need, want, lines, present, force)

    def settle(self, call: str, amounts: Mapping[Meter, int], now: int = 0) -> None:
        """End a call with a charge, correct the charge of one that ended, or charge without a hold."""
        with self._lock:
            cells = self._cells
            rows: list[_Row] = []
            named: Collection[Meter] = ()
            former = self._settled.get(call)
            if former is not None:
                named = [row[0] for row in former]
                for meter, cell, epoch, old, _, _, _, _ in former:
                    new = amounts.get(meter, 0)
                    rows.append(
                        (meter, cell, epoch, new, cell.settled + new - old, cell.held, cell.holds, cell.records)
                    )
            elif (present := self._open.get(call)) is not None:
                named = present[1]
                for meter, held in present[1].items():
                    cell = cells[meter]
                    new = amounts.get(meter, 0)
                    rows.append(
                        (
                            meter,
                            cell,
                            cell.epoch,
                            new,
                            cell.settled + new,
                            cell.held - held,
                            cell.holds - 1,
                            cell.records + 1,
                        )
                    )
            for meter, new in amounts.items():
                if meter not in named:
                    cell = cells.get(meter) or _Cell()
                    rows.append(
                        (meter, cell, cell.epoch, new, cell.settled + new, cell.held, cell.holds, cell.records + 1)
                    )
            self._write(call, rows, None)
            self._sweep(rows)
            while len(self._settled) > self._remember:
                for row in self._settled.popitem(last=False)[1]:
                    cell = row[1]
                    cell.records -= 1
                    if not cell.settled:
                        self._drop_if_idle(row[0], cell)

    def release(self, call: str, now: int = 0) -> None:
        """End a call without a charge. One that is already settled stays so."""
        with self._lock:
            if call in self._settled:
                return
            present = self._open.get(call)
            rows: list[_Row] = []
            if present is not None:
                for meter, held in present[1].items():
                    cell = self._cells[meter]
                    rows.append(
                        (meter, cell, cell.epoch, 0, cell.settled, cell.held - held, cell.holds - 1, cell.records)
                    )
            self._write(call, rows, None, released=True)
            self._sweep(rows)
            while len(self._released) > self._remember:
                self._released.popitem(last=False)

    def read(self, meter: Meter, now: int = 0) -> Balance:
        """What a meter shows now. An unknown meter shows zeros."""
        with self._lock:
            cell = self._cells.get(meter)
            return _ZERO if cell is None else Balance(cell.settled, cell.held, cell.holds)

    def reset(self, meter: Meter) -> None:
        """Zero a meter's `settled`, keep its holds, and drop corrections to calls settled before."""
        with self._lock:
            cell = self._cells.get(meter)
            if cell is not None:
                # The epoch first: cut off here, the old charges stand and only their corrections are lost.
                cell.epoch += 1
                cell.settled = 0
                self._drop_if_idle(meter, cell)

    def forked(self) -> None:
        """In a child process: the parent's open calls are the parent's, and so is whoever held the lock."""
        self._lock = threading.Lock()
        self._open.clear()
        for cell in self._cells.values():
            cell.held = cell.holds = 0

    def forget(self, meter: Meter) -> None:
        """Drop a meter; one that holds something goes when its holds end, and what is charged by then goes with it."""
        with self._lock:
            cell = self._cells.get(meter)
            if cell is not None:
                cell.forgotten = True
                self._drop_if_idle(meter, cell)

    def _take(
        self, call: str, need: int, want: int, lines: Sequence[Line], present: _Hold, force: bool
    ) -> Grant | Refusal:
        """Decide, and write the hold; `present` is what the call holds already. Hot: once per call and slice."""
        cells = self._cells
        tokens, own = present
        grant = want if want > need else need
        asked: dict[Meter, tuple[Line, _Cell]] = {}
        for line in lines:
            meter = line.meter
            if meter in asked:
                continue
            cell = cells.get(meter) or _Cell()
            asked[meter] = (line, cell)
            limit = line.limit
            if limit is not None:
                room = limit - cell.settled - cell.held - line.base
                if own:
                    room += own.get(meter, 0)
                rate = line.rate
                if rate:
                    most = room // rate
                    if most < grant:
                        grant = most
                elif room < 0:
                    grant = -1
        if grant < need:
            if not force:
                return _refusal(need, asked.values(), own)
            grant = need
        rows: list[_Row] = []
        held = dict(own)
        for meter, (line, cell) in asked.items():
            before = own.get(meter)
            amount = line.base + grant * line.rate
            if before is None:
                held[meter] = amount
                rows.append(
                    (meter, cell, cell.epoch, 0, cell.settled, cell.held + amount, cell.holds + 1, cell.records)
                )
            elif amount > before:
                held[meter] = amount
                more = cell.held + amount - before
                rows.append((meter, cell, cell.epoch, 0, cell.settled, more, cell.holds, cell.records))
        hold = (grant if grant > tokens else tokens, held)
        self._write(call, rows, hold)
        return Grant(grant)

    def _write(self, call: str, rows: list[_Row], hold: _Hold | None, released: bool = False) -> None:
        """Write what was worked out, all of it, whatever strikes meanwhile."""
        try:
            self._put(call, rows, hold, released)
        except BaseException:
            self._put(call, rows, hold, released)
            raise

    def _put(self, call: str, rows: list[_Row], hold: _Hold | None, released: bool) -> None:
        """Doing it twice is the same as doing it once."""
        cells = self._cells
        for meter, cell, epoch, _, settled, held, holds, records in rows:
            # Another epoch: the meter was reset or forgotten since the call settled, and its charge went with that.
            if cell.epoch == epoch:
                cells[meter] = cell
                cell.settled = settled
                cell.held = held
                cell.holds = holds
                cell.records = records
        if hold is not None:
            self._open[call] = hold
            return
        self._open.pop(call, None)
        if released:
            self._released[call] = None
        else:
            self._settled[call] = rows
            self._released.pop(call, None)

    def _sweep(self, rows: Iterable[_Row]) -> None:
        for meter, cell, _, _, settled, _, _, _ in rows:
            if not settled or cell.forgotten:
                self._drop_if_idle(meter, cell)

    def _drop_if_idle(self, meter: Meter, cell: _Cell) -> None:
        if cell.holds or not (cell.forgotten or (cell.settled == 0 and cell.records == 0)):
            return
        # Only where it still stands: a forgotten cell may have a successor of the same name.
        if self._cells.get(meter) is cell:
            cell.epoch += 1
            del self._cells[meter]


def _refusal(need: int, asked: Iterable[tuple[Line, _Cell]], own: Mapping[Meter, int]) -> Refusal:
    """Name the line that lacks the most room for `need`; the first of those that lack as much."""
    worst: tuple[int, Line, _Cell] | None = None
    for line, cell in asked:
        if line.limit is None:
            continue
        mine = own.get(line.meter, 0)
        lack = cell.settled + cell.held - mine + line.base + need * line.rate - line.limit
        if worst is None or lack > worst[0]:
            worst = (lack, line, cell)
    assert worst is not None
    _, line, cell = worst
    balance = Balance(cell.settled, cell.held - own.get(line.meter, 0), cell.holds - (line.meter in own))
    return Refusal(line, balance, line.base + need * line.rate)
