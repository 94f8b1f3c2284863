"""The ledger of one process: meters in memory, one short lock, exact integers.

Theory of operation. A call is in at most one of three tables:

    _open      call → (tokens granted, {meter: held}, left out)     it holds
    _settled   call → [(meter, cell, epoch, amount, …)]             it was charged; kept for corrections
    _released  call → the cells with a window that it held          it ended without a charge: a tombstone

A step first works out every new value, then writes them all (`_write`). The values are absolute, so a write that is
interrupted half way (Ctrl+C may strike between any two lines) is simply done again: a step happens whole or not at
all. Inside the lock there is arithmetic on a few lines and nothing else; no callback, no I/O, no clock.

There are no leases here: a hold lives as long as its process. The tables of finished calls keep the most recent
ones only; a correction that comes later than that is taken for a new charge.

What a meter stands for (a budget, a user, a session) is not known here. What of a meter counts at a time, `cells.py`
knows; how it leaves, `meters.py`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from .base import Balance, Grant, Line, Meter, Refusal
from .cells import Cell
from .meters import LOST, Meters, Row, Slots

REMEMBERED = 10_000
"""Finished calls that can still be corrected, and tombstones that a late `admit` can still meet."""

_NOTHING = Grant(0)
_ZERO = Balance()
_Hold: TypeAlias = tuple[int, dict[Meter, int], tuple[object, ...]]
_Asked: TypeAlias = dict[Meter, tuple[Line, Cell, int]]
"""The lines of a step, each with its cell and what counts as settled there."""

_NO_HOLD: _Hold = (0, {}, ())


class MemoryLedger:
    """Meters in memory, for one process; safe for any number of threads. See `Ledger` for what each step means.

    Args:
        remember: how many finished calls, and how many tombstones, are kept.

    Attributes:
        dropped: corrections that came after their meter had started anew, and changed nothing.
    """

    kind = "memory"

    def __init__(self, *, remember: int = REMEMBERED) -> None:
        self.dropped = 0
        # A finaliser may read in the middle of a step of its own thread: it sees what stands so far.
        self._lock = threading.RLock()
        self._remember = remember
        self._meters = Meters()
        self._open: dict[str, _Hold] = {}
        # Ordered: to find the oldest entry of a plain dict, one steps over everything that was deleted before it.
        self._settled: OrderedDict[str, list[Row]] = OrderedDict()
        self._released: OrderedDict[str, tuple[Cell, ...]] = OrderedDict()

    def inside(self) -> bool:
        """Whether this thread is in the middle of a step: it is in a finaliser, and may look and not touch."""
        owned: bool = self._lock._is_owned()  # type: ignore[attr-defined]
        return owned

    def __len__(self) -> int:
        """How many meters are live."""
        return len(self._meters.cells)

    def admit(
        self,
        call: str,
        need: int,
        want: int,
        lines: Sequence[Line],
        now: int = 0,
        *,
        force: bool = False,
        instead_of: str | None = None,
    ) -> Grant | Refusal:
        """Take a hold for a call on all its meters, or on none. A `want` below `need` counts as `need`."""
        with self._lock:
            if instead_of is not None:
                self.release(instead_of, now)
            present = self._open.get(call)
            if present is not None:
                return Grant(present[0], present[2])
            if call in self._released or call in self._settled:
                return _NOTHING
            return self._take(call, need, want, lines, now, _NO_HOLD, force)

    def look(self, need: int, want: int, lines: Sequence[Line], now: int = 0) -> Grant | Refusal:
        """What `admit` would answer to a new call now."""
        with self._lock:
            grant = want if want > need else need
            asked: _Asked = {}
            for line in lines:
                if line.meter in asked:
                    continue
                cell = self._meters.cells.get(line.meter)
                if cell is None or cell.is_over(now):
                    cell = Cell(line.meter, line.window, line.slides, line.until)
                settled = cell.settled_at(now)
                asked[line.meter] = (line, cell, settled)
                if line.limit is not None and line.shadow is None:
                    room = line.limit - settled - cell.held - line.base
                    if line.rate:
                        grant = min(grant, room // line.rate)
                    elif room < 0:
                        grant = -1
            if grant < need:
                return _refusal(need, asked.values(), {}, now)
            return Grant(grant, _left_out(grant, asked, {}, False, True))

    def extend(
        self, call: str, need: int, want: int, lines: Sequence[Line], now: int = 0, *, force: bool = False
    ) -> Grant | Refusal:
        """Raise the hold of an open call to the totals named. A refusal's `balance` leaves this call's own hold out."""
        with self._lock:
            present = self._open.get(call)
            if present is None:
                return _NOTHING
            return self._take(call, need, want, lines, now, present, force)

    def settle(self, call: str, amounts: Mapping[Meter, int], now: int = 0) -> None:
        """End a call with a charge, correct the charge of one that ended, or charge without a hold."""
        with self._lock:
            cells = self._meters.cells
            rows: list[Row] = []
            slots: list[Slots] = []
            named: Collection[Meter] = ()
            dropped = self.dropped
            former = self._settled.get(call)
            if former is not None:
                named = [row[0] for row in former]
                dropped += self._correct(former, amounts, now, rows, slots)
            elif (present := self._open.get(call)) is not None:
                named = held_on = present[1]
                for meter, held in held_on.items():
                    cell = cells[meter]
                    new = amounts.get(meter, 0)
                    stamp = now
                    settled = cell.settled + new
                    if cell.window:
                        if stamp < cell.last:
                            stamp = cell.last
                        if cell.slides:
                            settled, past, slot, amount = cell.charged(new, stamp, stamp)
                            slots.append((cell, cell.epoch, past, slot, amount))
                    rows.append(
                        (
                            meter,
                            cell,
                            cell.epoch,
                            new,
                            settled,
                            cell.held - held,
                            cell.holds - 1,
                            cell.records + 1,
                            stamp,
                        )
                    )
            for meter in amounts:
                if meter not in named:
                    others = {other: new for other, new in amounts.items() if other not in named}
                    dropped += self._charge(call, others, now, rows, slots)
                    break
            self._write(call, rows, slots, None, None, dropped)
            self._sweep(rows)
            while len(self._settled) > self._remember:
                for row in self._settled.popitem(last=False)[1]:
                    cell = row[1]
                    cell.records -= 1
                    if not cell.settled:
                        self._meters.drop_if_idle(cell)

    def release(self, call: str, now: int = 0) -> None:
        """End a call without a charge. One that is already settled stays so."""
        with self._lock:
            if call in self._settled:
                return
            present = self._open.get(call)
            rows: list[Row] = []
            # Released twice: the tombstone stays the first one's.
            windowed = self._released.get(call, ())
            if present is not None:
                for meter, held in present[1].items():
                    cell = self._meters.cells[meter]
                    rows.append(
                        (meter, cell, cell.epoch, 0, cell.settled, cell.held - held, cell.holds - 1, cell.records, now)
                    )
                windowed = tuple([row[1] for row in rows if row[1].window > 0])
            self._write(call, rows, (), None, windowed, self.dropped)
            self._sweep(rows)
            while len(self._released) > self._remember:
                self._released.popitem(last=False)

    def read(self, meter: Meter, now: int = 0) -> Balance:
        """What a meter shows at a time, or as of its last step if that was later. An unknown meter shows zeros."""
        with self._lock:
            cell = self._meters.cells.get(meter)
            return _ZERO if cell is None else Balance(cell.settled_at(now), cell.held, cell.holds)

    def reset(self, meter: Meter) -> None:
        """Zero a meter's `settled`, keep its holds, and drop corrections to calls settled before."""
        with self._lock:
            cell = self._meters.cells.get(meter)
            if cell is not None:
                # The epoch first: cut off here, the old charges stand and only their corrections are lost.
                cell.epoch += 1
                cell.empty()
                self._meters.drop_if_idle(cell)

    def meters(self) -> list[Meter]:
        """The live meters."""
        with self._lock:
            return list(self._meters.cells)

    @property
    def lock(self) -> Any:
        """What must not be held while the process forks."""
        return self._lock

    def forked(self) -> None:
        """In a child process: the parent's open calls are the parent's."""
        self._open.clear()
        for cell in self._meters.cells.values():
            cell.held = cell.holds = 0

    def forget(self, meter: Meter) -> None:
        """Drop a meter; one that holds something goes when its holds end, and what is charged by then goes with it."""
        with self._lock:
            cell = self._meters.cells.get(meter)
            if cell is not None:
                cell.forgotten = True
                self._meters.drop_if_idle(cell)

    def _take(
        self, call: str, need: int, want: int, lines: Sequence[Line], now: int, present: _Hold, force: bool
    ) -> Grant | Refusal:
        """Decide, and write the hold; `present` is what the call holds already. Hot: once per call and slice."""
        cells = self._meters.cells
        tokens, own, _ = present
        grant = want if want > need else need
        asked: _Asked = {}
        added = 0
        shadows = False
        for line in lines:
            meter, limit, base, rate, window, slides, shadow, until = line
            if meter in asked:
                continue
            cell = cells.get(meter)
            # What is over has been idle for its window at least; what nobody has named yet has a window below zero.
            if cell is not None and (length := cell.window) and (length < 0 or now - cell.last >= length):
                cell = self._meters.in_use(cell, line, now)
            if cell is None:
                cell = Cell(meter, window, slides, until)
                settled = 0
                added += 1
            else:
                settled = cell.settled_at(now) if cell.slides else cell.settled
            asked[meter] = (line, cell, settled)
            if shadow is not None:
                shadows = True
            elif limit is not None:
                room = limit - settled - cell.held - base
                if own:
                    room += own.get(meter, 0)
                if rate:
                    most = room // rate
                    if most < grant:
                        grant = most
                elif room < 0:
                    grant = -1
        if self._meters.ring:
            self._meters.look_around(now, added)
        if grant < need:
            if not force:
                return _refusal(need, asked.values(), own, now)
            grant = need
        left_out = _left_out(grant, asked, own, force, present is _NO_HOLD) if shadows else ()
        rows: list[Row] = []
        held = dict(own)
        for meter, (line, cell, _) in asked.items():
            if left_out and line.shadow in left_out:
                continue
            before = own.get(meter)
            amount = line.base + grant * line.rate
            if before is None:
                held[meter] = amount
                rows.append(
                    (meter, cell, cell.epoch, 0, cell.settled, cell.held + amount, cell.holds + 1, cell.records, now)
                )
            elif amount > before:
                held[meter] = amount
                more = cell.held + amount - before
                rows.append((meter, cell, cell.epoch, 0, cell.settled, more, cell.holds, cell.records, now))
        hold = (grant if grant > tokens else tokens, held, left_out)
        self._write(call, rows, (), hold, None, self.dropped)
        return Grant(grant, left_out)

    def _correct(
        self, former: list[Row], amounts: Mapping[Meter, int], now: int, rows: list[Row], slots: list[Slots]
    ) -> int:
        """Work out the rows of a correction. Returns how many of its amounts come too late."""
        dropped = 0
        for meter, cell, epoch, old, _, _, _, _, stamp in former:
            new = amounts.get(meter, 0)
            settled = cell.settled + new - old
            if cell.window > 0:
                if cell.slides:
                    at = stamp if stamp > cell.since else cell.since
                    settled, past, slot, amount = cell.charged(new - old, at, now)
                    slots.append((cell, epoch, past, slot, amount))
                elif cell.is_over(now):
                    dropped += new != old
                    epoch = LOST
            rows.append((meter, cell, epoch, new, settled, cell.held, cell.holds, cell.records, stamp))
        return dropped

    def _charge(self, call: str, amounts: Mapping[Meter, int], now: int, rows: list[Row], slots: list[Slots]) -> int:
        """Work out the rows of a charge without a hold. Returns how many of its amounts come too late.

        A released call is charged where it held: not on what has started anew since.
        """
        dropped = 0
        held_once = {cell.meter: cell for cell in self._released.get(call, ())}
        for meter, new in amounts.items():
            once = held_once.get(meter)
            if once is not None and not once.slides and once.is_over(now):
                dropped += new != 0
                rows.append((meter, once, LOST, new, 0, 0, 0, 0, now))
                continue
            cell = self._meters.cells.get(meter)
            if cell is None or cell.is_over(now):
                cell = Cell(meter) if once is None else once.heir()
            stamp = now if now > cell.last else cell.last
            settled = cell.settled + new
            if cell.slides:
                settled, past, slot, amount = cell.charged(new, stamp, stamp)
                slots.append((cell, cell.epoch, past, slot, amount))
            rows.append((meter, cell, cell.epoch, new, settled, cell.held, cell.holds, cell.records + 1, stamp))
        return dropped

    def _write(
        self,
        call: str,
        rows: list[Row],
        slots: Iterable[Slots],
        hold: _Hold | None,
        tombstone: tuple[Cell, ...] | None,
        dropped: int,
    ) -> None:
        """Write what was worked out, all of it, whatever strikes meanwhile."""
        try:
            self._put(call, rows, slots, hold, tombstone, dropped)
        except BaseException:
            self._put(call, rows, slots, hold, tombstone, dropped)
            raise

    def _put(
        self,
        call: str,
        rows: list[Row],
        slots: Iterable[Slots],
        hold: _Hold | None,
        tombstone: tuple[Cell, ...] | None,
        dropped: int,
    ) -> None:
        """Doing it twice is the same as doing it once."""
        self._meters.put(rows, slots)
        self.dropped = dropped
        if hold is not None:
            self._open[call] = hold
            return
        self._open.pop(call, None)
        if tombstone is not None:
            self._released[call] = tombstone
        else:
            self._settled[call] = rows
            self._released.pop(call, None)

    def _sweep(self, rows: Iterable[Row]) -> None:
        for row in rows:
            cell = row[1]
            if not cell.settled or cell.forgotten:
                self._meters.drop_if_idle(cell)


def _left_out(grant: int, asked: _Asked, own: Mapping[Meter, int], force: bool, admission: bool) -> tuple[object, ...]:
    """The shadow groups that do not fit at a grant, in the order of the lines."""
    fits: dict[object, bool] = {}
    holds: set[object] = set()
    for meter, (line, cell, settled) in asked.items():
        group = line.shadow
        if group is None:
            continue
        if meter in own:
            holds.add(group)
        room = 0
        if line.limit is not None:
            room = line.limit - settled - cell.held + own.get(meter, 0) - line.base - grant * line.rate
        fits[group] = fits.get(group, True) and room >= 0
    return tuple([g for g, fit in fits.items() if not fit and not (force and (admission or g in holds))])


def _refusal(need: int, asked: Iterable[tuple[Line, Cell, int]], own: Mapping[Meter, int], now: int) -> Refusal:
    """Name the line that lacks the most room for `need`; the first of those that lack as much."""
    worst: tuple[int, Line, Cell, int] | None = None
    for line, cell, settled in asked:
        if line.limit is None or line.shadow is not None:
            continue
        mine = own.get(line.meter, 0)
        lack = settled + cell.held - mine + line.base + need * line.rate - line.limit
        if worst is None or lack > worst[0]:
            worst = (lack, line, cell, settled)
    assert worst is not None
    lack, line, cell, settled = worst
    balance = Balance(settled, cell.held - own.get(line.meter, 0), cell.holds - (line.meter in own))
    return Refusal(line, balance, line.base + need * line.rate, cell.frees_at(lack, balance.held, now))
