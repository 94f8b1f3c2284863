"""What is special to the ledger in memory: its bounds, and steps that happen whole or not at all."""

from __future__ import annotations

import linecache
import sys

import pytest

from shekel.ledgers import memory
from shekel.ledgers.base import Balance, Grant, Line
from shekel.ledgers.memory import MemoryLedger


class TestBounds:
    def test_a_meter_that_spent_nothing_and_holds_nothing_is_dropped(self):
        ledger = MemoryLedger()
        for n in range(100):
            ledger.admit(f"call {n}", 0, 0, [Line(f"user {n}", 10, 5)])
            ledger.release(f"call {n}")
        assert len(ledger) == 0

    def test_a_meter_charged_with_nothing_is_dropped_once_its_calls_are_beyond_correction(self):
        ledger = MemoryLedger(remember=3)
        ledger.settle("free", {"user": 0})
        assert len(ledger) == 1
        for n in range(3):
            ledger.settle(f"call {n}", {"process": 1})
        assert (len(ledger), ledger.read("process")) == (1, Balance(3))

    def test_the_last_calls_can_be_corrected_and_the_oldest_are_let_go(self):
        ledger = MemoryLedger(remember=10)
        for n in range(11):
            ledger.settle(f"call {n}", {"a": 100})
        ledger.settle("call 1", {"a": 0})
        assert ledger.read("a") == Balance(1_000)
        assert len(ledger._settled) == 10

    def test_tombstones_are_bounded(self):
        ledger = MemoryLedger(remember=10)
        for n in range(100):
            ledger.release(f"call {n}")
        assert len(ledger._released) == 10
        assert ledger.admit("call 99", 1, 1, [Line("a", 9, 1)]) == Grant(0)

    def test_refused_calls_leave_nothing(self):
        ledger = MemoryLedger()
        for n in range(100):
            ledger.admit(f"call {n}", 0, 0, [Line(f"user {n}", 1, 5)])
        assert (len(ledger), len(ledger._open), len(ledger._released)) == (0, 0, 0)

    def test_a_dropped_meter_that_comes_back_starts_at_zero(self):
        ledger = MemoryLedger()
        ledger.settle("old", {"a": 5})
        ledger.forget("a")
        ledger.settle("new", {"a": 3})
        ledger.settle("old", {"a": 0})
        assert ledger.read("a") == Balance(3)


STEPS = {
    "admit": lambda ledger: ledger.admit("new", 1, 9, [Line("a", 100, 5, 1), Line("b", None, 2), Line("c", 9, 1)]),
    "extend": lambda ledger: ledger.extend("open", 20, 30, [Line("a", 100, 5, 1), Line("b", 200, 7, 2)]),
    "force": lambda ledger: ledger.extend("open", 200, 300, [Line("a", 100, 5, 1)], force=True),
    "settle": lambda ledger: ledger.settle("open", {"a": 11, "b": 12, "c": 13}),
    "correct": lambda ledger: ledger.settle("done", {"a": 1, "c": 4}),
    "release": lambda ledger: ledger.release("open"),
}


def prepared() -> MemoryLedger:
    ledger = MemoryLedger(remember=5)
    ledger.settle("done", {"a": 3, "b": 4})
    ledger.admit("open", 1, 9, [Line("a", 100, 5, 1), Line("b", None, 2)])
    return ledger


def state(ledger: MemoryLedger):
    return (
        {meter: ledger.read(meter) for meter in "abc"},
        set(ledger._open),
        list(ledger._settled),
        list(ledger._released),
    )


class TestInterruption:
    """Ctrl+C may strike before any line. The step is then done or not begun, and the lock is free."""

    @pytest.mark.parametrize("step", STEPS)
    def test_leaves_a_whole_step_or_none(self, step):
        before, after = prepared(), prepared()
        STEPS[step](after)
        possible = [state(before), state(after)]
        seen = []
        line = 0
        while True:
            ledger, line = prepared(), line + 1
            if not interrupted(lambda ledger=ledger: STEPS[step](ledger), at=line):
                break
            assert not ledger._lock.locked(), f"line {line}"
            seen.append(possible.index(state(ledger)))
        assert set(seen) == {0, 1}

    @pytest.mark.parametrize("step", STEPS)
    def test_is_mended_by_the_same_step_again(self, step):
        after = prepared()
        STEPS[step](after)
        line = 0
        while True:
            ledger, line = prepared(), line + 1
            if not interrupted(lambda ledger=ledger: STEPS[step](ledger), at=line):
                break
            STEPS[step](ledger)
            assert state(ledger) == state(after), f"line {line}"


def interrupted(work, *, at: int) -> bool:
    """Run, and raise KeyboardInterrupt before the nth line of the ledger. Returns whether there was such a line."""
    count = 0

    def trace(frame, event, arg):
        nonlocal count
        if frame.f_code.co_filename != memory.__file__:
            return None
        # Between the last line under the lock and its release CPython looks at no signal, but a tracer is called there.
        if event == "line" and "with self._lock" not in linecache.getline(memory.__file__, frame.f_lineno):
            count += 1
            if count == at:
                raise KeyboardInterrupt
        return trace

    former = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(former)
    return False
