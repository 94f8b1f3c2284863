"""What is special to the ledger in memory: its bounds, and steps that happen whole or not at all."""

from __future__ import annotations

import dis
import linecache
import sys
import threading

import pytest

from shekel.ledgers import cells, ended, memory, meters
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

    def test_a_meter_at_zero_stays_while_a_call_can_be_corrected_on_it(self):
        ledger = MemoryLedger(remember=3)
        ledger.settle("free", {"user": 0})
        ledger.admit("other", 0, 0, [Line("user", 10, 5)])
        ledger.release("other")
        ledger.settle("free", {"user": 7})
        assert ledger.read("user") == Balance(7)
        ledger.settle("free", {"user": 0})
        assert len(ledger) == 1
        for n in range(3):
            ledger.settle(f"call {n}", {"process": 1})
        assert (ledger.meters(), len(ledger._meters.at_zero)) == (["process"], 0)

    def test_a_meter_at_zero_that_is_in_use_as_its_calls_are_let_go_is_dropped_when_it_ends(self):
        ledger = MemoryLedger(remember=1)
        ledger.admit("open", 0, 0, [Line("user", 10, 5)])
        ledger.settle("free", {"user": 0})
        ledger.settle("other", {"process": 1})
        assert ledger.read("user") == Balance(0, 5, 1)
        ledger.release("open")
        assert ledger.meters() == ["process"]

    def test_a_meter_at_zero_waits_once_however_many_calls_cost_nothing(self):
        ledger = MemoryLedger(remember=100)
        for n in range(50):
            ledger.settle(f"call {n}", {"user": 0})
        assert len(ledger._meters.at_zero) == 1

    def test_no_step_drops_more_than_a_few_of_the_meters_at_zero(self):
        ledger = MemoryLedger(remember=100)
        for n in range(100):
            ledger.settle(f"call {n}", {f"user {n} {k}": 1 for k in range(5)})
        for n in range(100):
            ledger.settle(f"call {n}", {})  # all of them wait for the newest call
        longest = 0
        for n in range(600):
            before = len(ledger)
            ledger.settle(f"other {n}", {"process": 1})
            longest = max(longest, before - len(ledger))
        assert (ledger.meters(), longest) == (["process"], 3)

    def test_a_meter_that_is_reset_and_holds_nothing_is_dropped(self):
        ledger = MemoryLedger()
        ledger.settle("call", {"user": 5})
        ledger.reset("user")
        ledger.settle("call", {"user": 9})
        assert (len(ledger), ledger.read("user")) == (0, Balance())

    def test_the_last_calls_can_be_corrected_and_the_oldest_are_let_go(self):
        ledger = MemoryLedger(remember=10)
        for n in range(11):
            ledger.settle(f"call {n}", {"a": 100})
        ledger.settle("call 1", {"a": 0})
        assert ledger.read("a") == Balance(1_000)
        assert len(ledger._ended.settled) == 10

    def test_what_is_charged_for_good_takes_no_place_of_what_can_be_corrected(self):
        ledger = MemoryLedger(remember=10)
        ledger.settle("call", {"a": 100})
        for n in range(50):
            ledger.settle(f"tool {n}", {"b": 1}, final=True)
        assert ledger.correct("call", {"a": 30}) == {"a": -70}
        assert (ledger.read("b"), len(ledger._ended.final)) == (Balance(50), 10)

    def test_meters_at_zero_are_dropped_also_where_all_is_charged_for_good(self):
        ledger = MemoryLedger(remember=10)
        ledger.settle("free", {"user": 0}, final=True)
        assert len(ledger) == 0
        ledger.settle("call", {"a": 1})
        for n in range(50):
            ledger.settle(f"tool {n}", {f"user {n}": 0}, final=True)
            ledger.forget(f"user {n}")
        assert (ledger.meters(), len(ledger._meters.at_zero)) == (["a"], 0)

    def test_tombstones_are_bounded(self):
        ledger = MemoryLedger(remember=10)
        for n in range(100):
            ledger.release(f"call {n}")
        assert len(ledger._ended.released) == 10
        assert ledger.admit("call 99", 1, 1, [Line("a", 9, 1)]) == Grant(0)

    def test_refused_calls_leave_nothing(self):
        ledger = MemoryLedger()
        for n in range(100):
            ledger.admit(f"call {n}", 0, 0, [Line(f"user {n}", 1, 5)])
        assert (len(ledger), len(ledger._open), len(ledger._ended.released)) == (0, 0, 0)

    def test_a_dropped_meter_that_comes_back_starts_at_zero(self):
        ledger = MemoryLedger()
        ledger.settle("old", {"a": 5})
        ledger.forget("a")
        ledger.settle("new", {"a": 3})
        ledger.settle("old", {"a": 0})
        assert ledger.read("a") == Balance(3)


WINDOW = 640
NOW = 1_000_000_000


def slide(base=0, limit=100, *, meter="slide") -> Line:
    return Line(meter, limit, base, 0, WINDOW, True)


def idle(base=0, limit=100, *, meter="idle") -> Line:
    return Line(meter, limit, base, 0, WINDOW)


class TestIdleWindows:
    @pytest.mark.parametrize("slides", [True, False])
    def test_are_dropped_although_nobody_asks_for_them_again(self, slides):
        ledger = MemoryLedger()
        for n in range(1_000):
            ledger.admit(f"call {n}", 0, 0, [Line(f"user {n}", 9, 1, 0, WINDOW, slides)], NOW)
            ledger.settle(f"call {n}", {f"user {n}": 1}, NOW)
        assert len(ledger) == 1_000
        for n in range(1_000):
            ledger.admit(f"other {n}", 0, 0, [Line("other", None, 0)], NOW + 2 * WINDOW)
        assert len(ledger) == 1

    def test_are_kept_while_they_count_or_hold(self):
        ledger = MemoryLedger()
        ledger.admit("open", 0, 0, [Line("held", 9, 1, 0, WINDOW, True)], NOW)
        ledger.admit("x", 0, 0, [slide(), idle()], NOW)
        ledger.settle("x", {"slide": 5, "idle": 5}, NOW)
        for n in range(10):
            ledger.admit(f"other {n}", 0, 0, [Line("other", None, 0)], NOW + WINDOW - 1)
        assert len(ledger) == 4
        for n in range(10, 20):
            ledger.admit(f"other {n}", 0, 0, [Line("other", None, 0)], NOW + 2 * WINDOW)
        assert len(ledger) == 2

    def test_do_not_pile_up_where_every_call_has_a_meter_of_its_own(self):
        ledger = MemoryLedger()
        for n in range(20_000):
            ledger.admit(f"call {n}", 0, 0, [Line(f"user {n}", 9, 1, 0, WINDOW, n % 2 == 0)], NOW + 10 * n)
            ledger.settle(f"call {n}", {f"user {n}": 1}, NOW + 10 * n)
            assert len(ledger) < 4 * WINDOW // 10

    def test_leave_nothing_behind_when_their_budgets_are_forgotten(self):
        ledger = MemoryLedger()
        for n in range(20_000):
            ledger.admit(f"call {n}", 0, 0, [Line(n, 9, 1, 0, 10**12, True)], NOW)
            ledger.settle(f"call {n}", {n: 1}, NOW)
            ledger.forget(n)
        assert (len(ledger), len(ledger._meters.ring) < 10) == (0, True)

    def test_no_step_looks_at_more_than_a_few(self):
        ledger = MemoryLedger()
        for n in range(5_000):
            ledger.admit(f"call {n}", 0, 0, [Line(f"user {n}", 9, 1, 0, WINDOW, True)], NOW)
            ledger.settle(f"call {n}", {f"user {n}": 1}, NOW)
        for n in range(1_000):
            before = len(ledger)
            ledger.admit(f"other {n}", 0, 0, [Line("other", None, 0)], NOW + 2 * WINDOW)
            assert before - len(ledger) <= 3


def settled(ledger: MemoryLedger, call: str, line: Line, amount: int, now: int) -> None:
    ledger.admit(call, 0, 0, [line], now, force=True)
    ledger.settle(call, {line.meter: amount}, now)


STEPS = {
    "admit": (
        0,
        lambda ledger, _: ledger.admit("new", 1, 9, [Line("a", 100, 5, 1), Line("b", None, 2), Line("c", 9, 1)]),
    ),
    "extend": (0, lambda ledger, _: ledger.extend("open", 20, 30, [Line("a", 100, 5, 1), Line("b", 200, 7, 2)])),
    "force": (0, lambda ledger, _: ledger.extend("open", 200, 300, [Line("a", 100, 5, 1)], force=True)),
    "settle": (0, lambda ledger, _: ledger.settle("open", {"a": 11, "b": 12, "c": 13})),
    "settle for nothing": (0, lambda ledger, _: ledger.settle("open", {"a": 0})),
    "correct to nothing": (0, lambda ledger, _: ledger.settle("done", {})),
    "correct": (0, lambda ledger, _: ledger.settle("done", {"a": 1, "c": 4})),
    "release": (0, lambda ledger, _: ledger.release("open")),
    "reset": (0, lambda ledger, _: ledger.reset("a")),
    "forget": (0, lambda ledger, _: ledger.forget("b")),
    "admit to windows": (
        600,
        lambda ledger, now: ledger.admit("new", 0, 0, [slide(5), idle(5), Line("c", 9, 1)], now),
    ),
    "admit to windows that are over": (
        2_000,
        lambda ledger, now: ledger.admit("new", 0, 0, [slide(5), idle(5)], now),
    ),
    "admit to a shadow": (
        600,
        lambda ledger, now: ledger.admit(
            "new", 0, 0, [slide(5), idle(200)._replace(shadow="s"), Line("c", 9, 1, shadow="t")], now
        ),
    ),
    "settle in the newest slot": (121, lambda ledger, now: ledger.settle("sliding", {"slide": 7, "idle": 8}, now)),
    "settle in a new slot": (350, lambda ledger, now: ledger.settle("sliding", {"slide": 7, "idle": 8}, now)),
    "settle as others slide out": (700, lambda ledger, now: ledger.settle("sliding", {"slide": 7, "idle": 8}, now)),
    "settle as all others are out": (5_000, lambda ledger, now: ledger.settle("sliding", {"slide": 7}, now)),
    "correct in an old slot": (130, lambda ledger, now: ledger.settle("first", {"slide": 1, "c": 4}, now)),
    "correct what has slid out": (700, lambda ledger, now: ledger.settle("first", {"slide": 1, "c": 4}, now)),
    "correct what has started anew": (700, lambda ledger, now: ledger.settle("past", {"old": 1, "c": 4}, now)),
    "charge what is over": (700, lambda ledger, now: ledger.settle("new", {"old": 1, "c": 4}, now)),
    "charge what was released": (700, lambda ledger, now: ledger.settle("gone", {"old": 1, "slide": 4}, now)),
    "release windows": (350, lambda ledger, now: ledger.release("sliding", now)),
    "reset what slides": (120, lambda ledger, _: ledger.reset("slide")),
    "forget what slides": (0, lambda ledger, _: ledger.forget("idle")),
}
"""Microseconds after NOW, and what is done then."""


def do(step: str, ledger: MemoryLedger) -> None:
    after, work = STEPS[step]
    work(ledger, NOW + after)


def prepared() -> MemoryLedger:
    ledger = MemoryLedger(remember=9)
    ledger.settle("done", {"a": 3, "b": 4})
    ledger.settle("bare", {"b": 0, "d": 4}, NOW)
    ledger.admit("open", 1, 9, [Line("a", 100, 5, 1)])
    settled(ledger, "past", Line("old", 9, 1, 0, WINDOW), 9, NOW)
    settled(ledger, "first", slide(), 3, NOW)
    settled(ledger, "second", slide(), 4, NOW + 60)
    settled(ledger, "third", slide(), 5, NOW + 120)
    ledger.admit("gone", 0, 0, [Line("old", 9, 0, 0, WINDOW), slide(2)], NOW)
    ledger.release("gone", NOW)
    ledger.admit("sliding", 0, 0, [slide(20)], NOW)
    settled(ledger, "fourth", idle(), 6, NOW)
    return ledger


def state(ledger: MemoryLedger, step: str):
    """What can be seen from the time of the step on."""
    begin = STEPS[step][0]
    times = [NOW + after for after in (begin, 640, 650, 710, 760, 770, 990, 1_000, 5_640, 5_650) if after >= begin]
    return (
        {meter: [ledger.read(meter, now) for now in times] for meter in METERS},
        set(ledger._open),
        list(ledger._ended.settled),
        list(ledger._ended.released),
        ledger.dropped,
    )


METERS = ["a", "b", "c", "d", "e", "old", "slide", "idle"]


def is_free(ledger: MemoryLedger) -> bool:
    """Whether another thread can take the lock."""
    taken = []

    def take():
        if ledger._lock.acquire(blocking=False):
            ledger._lock.release()
            taken.append(True)

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return bool(taken)


class TestInterruption:
    """Ctrl+C may strike before any line. The step is then done or not begun, and the lock is free."""

    @pytest.mark.parametrize("step", STEPS)
    def test_leaves_a_whole_step_or_none(self, step):
        before, after = prepared(), prepared()
        do(step, after)
        possible = [state(before, step), state(after, step)]
        seen = []
        line = 0
        while True:
            ledger, line = prepared(), line + 1
            if not interrupted(lambda ledger=ledger: do(step, ledger), at=line):
                break
            assert is_free(ledger), f"line {line}"
            seen.append(possible.index(state(ledger, step)))
        assert set(seen) == {0, 1}

    def test_may_leave_the_first_sight_of_a_window_which_is_a_step_of_its_own(self):
        before, seen, after = prepared(), prepared(), prepared()
        now = NOW + STEPS["admit to windows"][0]
        seen.admit("refused", 0, 0, [slide(200, meter="d")], now)
        after.admit("new", 0, 0, [slide(2, meter="d")], now)
        possible = [state(ledger, "admit to windows") for ledger in (before, seen, after)]
        line = 0
        while True:
            ledger, line = prepared(), line + 1
            if not interrupted(lambda ledger=ledger: ledger.admit("new", 0, 0, [slide(2, meter="d")], now), at=line):
                break
            assert is_free(ledger), f"line {line}"
            assert state(ledger, "admit to windows") in possible, f"line {line}"

    @pytest.mark.parametrize("step", STEPS)
    def test_is_mended_by_the_same_step_again(self, step):
        after = prepared()
        do(step, after)
        line = 0
        while True:
            ledger, line = prepared(), line + 1
            if not interrupted(lambda ledger=ledger: do(step, ledger), at=line):
                break
            assert is_free(ledger), f"line {line}"
            do(step, ledger)
            assert state(ledger, step) == state(after, step), f"line {line}"


FILES = {memory.__file__, meters.__file__, cells.__file__, ended.__file__}


def interrupted(work, *, at: int) -> bool:
    """Run, and raise KeyboardInterrupt before the nth line of the ledger. Returns whether there was such a line."""
    count = 0

    def trace(frame, event, arg):
        nonlocal count
        if frame.f_code.co_filename not in FILES:
            return None
        # Between the last line under the lock and its release CPython looks at no signal, but a tracer is called there.
        # And from 3.12 on, what a tracer raises between two turns of a comprehension passes by `with`; what a signal
        # raises there does not.
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        at_loop = dis.opname[frame.f_code.co_code[frame.f_lasti]].endswith(("FOR_ITER", "JUMP_BACKWARD"))
        turn = at_loop and not line.lstrip().startswith("for ")
        if event == "line" and "with self._lock" not in line and not turn:
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
