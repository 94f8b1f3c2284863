"""What the ledger in memory costs, as ratios and bytes, which depend little on the machine."""

from __future__ import annotations

import gc
import random
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from types import FrameType

import pytest

from shekel.ledgers.base import Line
from shekel.ledgers.memory import MemoryLedger

HOUR = 3_600_000_000
NOW = 1_800_000_000_000_000
KINDS = {"total": (0, False), "sliding": (HOUR, True), "session": (HOUR, False)}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def kind(request) -> tuple[int, bool]:
    return request.param


def lines_of(meters: int, kind: tuple[int, bool]) -> list[Line]:
    return [Line(f"user {n}", 10**15, 1_000, 10, *kind) for n in range(meters)]


def charged(lines: list[Line], *, remember: int = 10) -> MemoryLedger:
    """A ledger in which each meter has spent something and holds nothing, and nothing else is remembered."""
    ledger = MemoryLedger(remember=remember)
    for n, line in enumerate(lines):
        ledger.admit(f"seed {n}", 0, 0, [line], NOW)
        ledger.settle(f"seed {n}", {line.meter: 123_456_789}, NOW)
    return ledger


def instructions(step: Callable[[], object]) -> int:
    """How many instructions of Python a step takes, its calls included."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> object:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    former = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # Python 3.12 looks for it when tracing starts
    sys.settrace(trace)
    try:
        step()
    finally:
        sys.settrace(former)
    return count


class TestSpeed:
    @pytest.mark.parametrize("later", [0, HOUR // 50], ids=["in the same slot", "in a later slot"])
    def test_the_same_instructions_for_any_number_of_live_meters(self, kind, later):
        """From ten meters to a hundred thousand: each call of three takes as many instructions."""
        taken = {}
        for meters in (10, 1_000, 100_000):
            lines = lines_of(meters, kind)
            ledger = charged(lines)
            rng = random.Random(0)
            taken[meters] = []
            for n in range(3):
                own = rng.sample(lines, 3)
                amounts = {line.meter: 900 for line in own}

                def pair(call=f"call {n}", own=own, amounts=amounts, ledger=ledger):
                    ledger.admit(call, 16, 256, own, NOW + later)
                    ledger.settle(call, amounts, NOW + later)

                taken[meters].append(instructions(pair))
        assert taken[1_000] == taken[100_000]
        assert taken[10][0] == taken[1_000][0]  # of ten, the second call may meet a meter of the first
        assert min(taken[10]) > 300

    def test_does_not_depend_on_the_number_of_live_meters(self, kind):
        """Two ledgers in turn, a hundred times as many meters in one: what grew with them would be a hundred times."""
        sets = {meters: lines_of(meters, kind) for meters in (300, 30_000)}
        ledgers = {meters: charged(lines) for meters, lines in sets.items()}
        rng = random.Random(0)
        ratios = []
        for turn in range(9):
            seconds = {}
            for meters, ledger in ledgers.items():
                calls = [(f"call {turn} {n}", rng.sample(sets[meters], 3)) for n in range(300)]
                start = time.thread_time()
                for call, lines in calls:
                    ledger.admit(call, 16, 256, lines, NOW)
                    ledger.settle(call, {line.meter: 900 for line in lines}, NOW)
                seconds[meters] = time.thread_time() - start
            ratios.append(seconds[30_000] / seconds[300])
        # The rest is memory that is not in the processor's cache.
        assert statistics.median(ratios) < 8

    def test_does_not_depend_on_how_many_windows_end_at_once(self):
        """The longest step while thirty thousand windows are over at once looks at as many cells as any other."""
        ledger = charged(lines_of(30_000, (HOUR, True)))
        looks = []
        for n in range(500):
            before = len(ledger)
            ledger.admit(f"call {n}", 0, 0, [Line("process", None, 1)], NOW + 2 * HOUR)
            looks.append(before - len(ledger))
        assert max(looks) <= 3


class TestMemory:
    @pytest.mark.parametrize("slots", [1, 4, 64, 65, 200])
    @pytest.mark.parametrize("amount", [123_456_789, 2**31 - 1], ids=["$0.12 a slot", "$2.14 a slot"])
    def test_of_an_idle_meter_is_500_bytes_at_most(self, kind, slots, amount):
        """Charged in any number of slots. At its worst: named as policies do, and the table has just grown."""
        lines = [line._replace(meter=(kind, line.meter, None)) for line in lines_of(700, kind)]
        meters = [line.meter for line in lines]
        now = NOW
        gc.collect()
        tracemalloc.start()
        ledger = charged(lines)
        for slot in range(1, slots):
            now = NOW + slot * (HOUR // 64 + 1)
            ledger.admit(f"call {slot}", 0, 0, lines, now)
            ledger.settle(f"call {slot}", dict.fromkeys(meters, amount), now)
        for n in range(11):  # it remembers ten calls: these, of no meter
            ledger.settle(f"other {n}", {}, now)
        gc.collect()
        snapshot = tracemalloc.take_snapshot()
        tracemalloc.stop()
        # Not what threads of earlier tests allocate meanwhile.
        own = snapshot.filter_traces([tracemalloc.Filter(True, "*/shekel/ledgers/*")])
        used = sum(each.size for each in own.traces)
        assert len(ledger) == len(lines)
        assert 100 < used / len(lines) <= 500

    def test_of_a_settled_call_is_350_bytes_at_most(self, kind):
        """What is remembered of it: thousands of calls must not fill the processor's cache."""
        lines = lines_of(3, kind)
        calls = [f"call {n}" for n in range(2_000)]
        ledger = charged(lines, remember=len(calls))
        amounts = {line.meter: 987_654_321 for line in lines}
        gc.collect()
        tracemalloc.start()
        for call in calls:
            ledger.admit(call, 16, 256, lines, NOW)
            ledger.settle(call, amounts, NOW)
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(ledger._ended.settled) == len(calls)
        assert 100 < used / len(calls) <= 350
