"""The ledger of one process: meters in memory, one short lock, exact integers.

Theory of operation. A call is in at most one of four tables:

    _open       call → (what was granted, what it took)    it holds
    _settled    call → (cell, epoch, amount, slot, …)      it was charged; kept for corrections
    _final      call → nothing                             it was charged for good: a tombstone
    _released   call → the cells with a window it held     it ended without a charge: a tombstone

A step first works out every new value, then writes them all (`_write_…`). The values are absolute, so a write that is
interrupted half way (Ctrl+C may strike between any two lines) is simply done again: a step happens whole or not at
all. Inside the lock there is arithmetic on a few lines and nothing else; no callback, no I/O, no clock.

There are no leases here: a hold lives as long as its process. The tables of finished calls keep the most recent
ones only, each table for itself: however much is charged for good, nothing that can be corrected goes for it. A
`settle` that comes later than that is taken for a new charge; a `correct` finds nothing.

What a meter stands for (a budget, a user, a session) is not known here. What of a meter counts at a time, `cells.py`
knows; how it leaves, `meters.py`; what is answered where it does not fit, `asked.py`; what is charged where nothing is
held, `ended.py`. With many meters the time of a step goes into memory that is in no cache: so a step touches each cell
and its name as seldom as it can.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any, TypeAlias

from .asked import Asked, refusal, shadows
from .base import Balance, Grant, Line, Meter, Refusal
from .cells import Cell
from .ended import Ended, Record, Row, Slots
from .meters import Meters

REMEMBERED = 10_000
"""Finished calls that can still be corrected, and tombstones that a late `admit` can still meet."""

_NOTHING = Grant(0)
_new = tuple.__new__  # what makes a Grant, without the two calls in between
_ZERO = Balance()
_NOTHING_HELD: dict[Cell, int] = {}

_Taken: TypeAlias = tuple[Cell, int, int, int, int, Meter]
"""What a call takes on one meter: the cell, what it holds there, `held`, `holds` and `ends` as they will be, and the
meter as it was named: the settlement will name it by the same object, and that is found without comparing."""

_Hold: TypeAlias = tuple[Grant, list[_Taken]]


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
        self._meters = Meters()
        self._open: dict[str, _Hold] = {}
        self._ended = Ended(self._meters, remember)
        self._settled = self._ended.settled
        self._final = self._ended.final
        self._released = self._ended.released

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
                return present[0]
            if call in self._released or call in self._settled or call in self._final:
                return _NOTHING
            return self._take(call, need, want, lines, now, None, force)

    def look(self, need: int, want: int, lines: Sequence[Line], now: int = 0) -> Grant | Refusal:
        """What `admit` would answer to a new call now."""
        with self._lock:
            return self._take(None, need, want, lines, now, None, False)

    def extend(
        self, call: str, need: int, want: int, lines: Sequence[Line], now: int = 0, *, force: bool = False
    ) -> Grant | Refusal:
        """Raise the hold of an open call to the totals named. A refusal's `balance` leaves this call's own hold out."""
        with self._lock:
            present = self._open.get(call)
            if present is None:
                return _NOTHING
            return self._take(call, need, want, lines, now, present, force)

    def settle(self, call: str, amounts: Mapping[Meter, int], now: int = 0, *, final: bool = False) -> None:
        """End a call with a charge, correct the charge of one that ended, or charge without a hold."""
        with self._lock:
            rows: list[Row] = []
            record: list[Any] = []
            slots: list[Slots] = []
            new: list[Cell] = []
            dropped = self.dropped
            present = self._open.get(call)
            if present is not None:
                placed, at_zero = self._end(present, amounts, now, rows, record)
            else:
                placed, at_zero = 0, True
                former = self._settled.get(call)
                if former is not None:
                    final = False
                    dropped += self._ended.correct(former, amounts, now, rows, slots, record)
                elif call in self._final:
                    return
            if placed < len(amounts):
                dropped += self._ended.charge(call, amounts, now, rows, record, new)
            if final:
                self._write_end(call, rows, slots, self._final, (), dropped, new)
                self._ended.let_go_final()
            else:
                self._write_end(call, rows, slots, self._settled, tuple(record), dropped, new)
            if at_zero or self._meters.forgotten:
                self._meters.sweep([row[0] for row in rows], self._settled)
            self._ended.let_go(len(rows))

    def correct(self, call: str, amounts: Mapping[Meter, int], now: int = 0) -> dict[Meter, int] | None:
        """Replace what a settled call was charged on its meters."""
        with self._lock:
            former = self._settled.get(call)
            if former is None:
                return None
            rows, record, slots = list[Row](), list[Any](), list[Slots]()
            dropped = self.dropped + self._ended.correct(former, amounts, now, rows, slots, record)
            moved = {cell.meter: settled - cell.settled for cell, settled, *_ in rows if settled != cell.settled}
            self._write_end(call, rows, slots, self._settled, tuple(record), dropped)
            self._meters.sweep([row[0] for row in rows], self._settled)
            return moved

    def release(self, call: str, now: int = 0) -> None:
        """End a call without a charge. One that is already settled stays so."""
        with self._lock:
            if call in self._settled or call in self._final:
                return
            present = self._open.get(call)
            rows: list[Row] = []
            # Released twice: the tombstone stays the first one's.
            windowed = self._released.get(call, ())
            if present is not None:
                self._end(present, {}, now, rows, [])
                windowed = tuple([row[0] for row in rows if row[0].window])
            self._write_end(call, rows, (), self._released, windowed, self.dropped)
            for row in rows:
                self._meters.drop_if_idle(row[0])
            self._ended.let_go(len(rows))

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
                self._meters.at_zero.pop(cell, None)
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
                self._meters.forgotten.add(cell)
                self._meters.drop_if_idle(cell)

    def _take(
        self,
        call: str | None,
        need: int,
        want: int,
        lines: Sequence[Line],
        now: int,
        present: _Hold | None,
        force: bool,
    ) -> Grant | Refusal:
        """Decide, and write the hold; `present` is what the call holds already. Without a call, only look. Hot."""
        meters = self._meters
        cells = meters.cells
        own = {cell: held for cell, held, *_ in present[1]} if present is not None else _NOTHING_HELD
        asked: Asked = {}
        new: dict[Meter, Cell] = {}
        grant = want if want > need else need
        shadowed = False
        for line in lines:
            meter, limit, base, rate, _, _, shadow, _ = line
            cell = cells.get(meter)
            if cell is None or now >= cell.ends:
                cell = meters.find(cell, line, now, new, call is None)
            if cell in asked:
                continue
            ends = cell.ends
            if cell.window < 0 and (later := now - cell.window) > ends:
                ends = later
            asked[cell] = (line, meter, base, rate, ends)
            if shadow is not None:
                shadowed = True
            elif limit is not None:
                room = limit - cell.settled - cell.held - base
                if own:
                    room += own.get(cell, 0)
                if grant * rate > room:
                    grant = room // rate if rate else -1
        if meters.ring and call is not None:
            meters.look_around(now, len(new))
        if grant < need:
            if not force:
                return refusal(need, asked, own, now)
            grant = need
        left_out: tuple[Hashable, ...] = ()
        short: tuple[tuple[Hashable, int], ...] = ()
        if shadowed:
            taken = shadows(need, grant, asked, own, force, present is None)
            left_out = tuple([group for group, tokens in taken.items() if tokens < 0])
            short = tuple([each for each in taken.items() if 0 <= each[1] < grant])
        answer: Grant = _new(Grant, (grant, left_out, short))
        if call is None:
            return answer
        rows: list[_Taken] = []
        for cell, (line, meter, base, rate, ends) in asked.items():
            held = base + grant * rate
            if shadowed and line.shadow is not None:
                if taken[line.shadow] < 0:
                    continue
                held = base + taken[line.shadow] * rate
            if own and (before := own.pop(cell, None)) is not None:
                if held <= before:
                    rows.append((cell, before, cell.held, cell.holds, cell.ends, meter))
                else:
                    rows.append((cell, held, cell.held + held - before, cell.holds, ends, meter))
            else:
                rows.append((cell, held, cell.held + held, cell.holds + 1, ends, meter))
        if own:  # of what was not asked for, and of shadows that are left out
            rows += [(cell, held, cell.held, cell.holds, cell.ends, cell.meter) for cell, held in own.items()]
        granted = answer
        if present is not None and present[0].tokens > grant:
            granted = Grant(present[0].tokens, left_out, short)
        self._write_hold(call, rows, new, (granted, rows))
        return answer

    def _end(
        self, present: _Hold, amounts: Mapping[Meter, int], now: int, rows: list[Row], record: list[Any]
    ) -> tuple[int, bool]:
        """Work out the end of a hold. Returns how many of the amounts have met their meter, and whether one is at 0."""
        placed = 0
        at_zero = False
        for cell, held, _, _, _, meter in present[1]:
            new = amounts.get(meter)
            if new is None:
                new = 0
            else:
                placed += 1
            ends = cell.ends
            window = cell.window
            slot = 0
            if window > 0:
                if now >= ends:
                    ends = cell.reaches(now)
                slot = ends
            elif window and (later := now - window) > ends:
                ends = later
            settled = cell.settled + new
            if not settled:
                at_zero = True
            rows.append((cell, settled, cell.held - held, cell.holds - 1, ends))
            record += (cell, cell.epoch, new, slot)
        return placed, at_zero

    def _write_hold(self, call: str, rows: list[_Taken], new: Mapping[Meter, Cell], hold: _Hold) -> None:
        """Write an admission or an extension, all of it: doing it twice is the same as once."""
        try:
            for cell, _, held, holds, ends, meter in rows:
                if new and new.get(meter) is cell:
                    self._meters.stand(cell)
                cell.held = held
                cell.holds = holds
                cell.ends = ends
            self._open[call] = hold
        except BaseException:
            self._write_hold(call, rows, new, hold)
            raise

    def _write_end(
        self,
        call: str,
        rows: list[Row],
        slots: Collection[Slots],
        table: OrderedDict[str, Record],
        entry: Record,
        dropped: int,
        new: Collection[Cell] = (),
    ) -> None:
        """Write the end of a call, a correction or a charge, all of it: doing it twice is the same as once."""
        try:
            for cell in new:
                self._meters.stand(cell)
            for cell, settled, held, holds, ends in rows:
                cell.settled = settled
                cell.held = held
                cell.holds = holds
                cell.ends = ends
            for cell, past in slots:
                cell.past = past
            self.dropped = dropped
            self._open.pop(call, None)
            table[call] = entry
            if self._released and table is not self._released:
                self._released.pop(call, None)
        except BaseException:
            self._write_end(call, rows, slots, table, entry, dropped, new)
            raise
