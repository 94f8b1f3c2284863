"""What the ledger in memory costs: admit + settle pairs per second, and the memory of an idle meter.

    python benchmarks/ledger.py

One thread, three meters per call, as with a budget in a budget and a user's own. The meters of a call are taken at
random from a given number of live ones; the speed must not depend on that number. They are named as the program names
them: two of three are a budget's (an object, that the budget keeps), one of three is a policy's (row, value and period,
made anew for each call, so that it is hashed and compared each time). Windows are an hour long, and a thousand calls
come in a second of the ledger's time.

**In the number**: both steps, with the loop around them, the garbage collector as it comes, and the cells, which are in
no cache where there are many. **Not in it**: making the lines and amounts. A call makes them just before the step, so
they are made here for a few calls at a time; thousands that lie ready would be met cold, which no call does. CPU time,
so that what else runs on the machine counts less. The numbers of meters are measured in turn, in many rounds, so that a
slow moment of the machine meets all alike; the ratio is the median of those within a round.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
import tracemalloc

from shekel.budgets.slots import Meter
from shekel.ledgers.base import Grant, Line
from shekel.ledgers.memory import REMEMBERED, MemoryLedger

METERS_PER_CALL = 3
SIZES = (1, 10, 1_000, 100_000)
CALLS = 2_000
AT_ONCE = 50
"""Calls whose lines are made before they are measured."""

ROUNDS = 40
WARM_UP = 8
"""Rounds that do not count: the ledger remembers its last ten thousand calls, and is not full before."""

LIMIT = 10**18
HOUR = 3_600_000_000
BEGIN = 1_800_000_000_000_000
"""Microseconds since the epoch at which the clock of this benchmark begins."""

WINDOWS = {"total": (0, False), "sliding": (HOUR, True), "session": (HOUR, False)}
"""Length in microseconds, and whether it slides."""

ROW = object()
"""What the meters of a policy have in common."""


class Live:
    """A ledger in which so many meters have spent something, and calls on it.

    Args:
        meters: how many.
        window: microseconds, 0 for meters that never forget.
        slides: whether the window slides.
    """

    def __init__(self, meters: int, window: int, slides: bool) -> None:
        self.meters = meters
        self.window = window
        self.slides = slides
        self.budgets = [Meter(f"budget {n}") for n in range(meters)]
        self.ledger = MemoryLedger()
        self.calls = 0
        self.rng = random.Random(0)
        for n in range(meters):
            line = self.line(n)
            self.ledger.admit(f"seed {n}", 0, 0, [line], BEGIN)
            self.ledger.settle(f"seed {n}", {line.meter: 1}, BEGIN)
        assert len(self.ledger) == meters

    def line(self, n: int) -> Line:
        """What a call asks of the nth meter."""
        meter = self.budgets[n] if n % 3 else (ROW, f"user {n}", None)
        return Line(meter, LIMIT, 1_000, 10, self.window, self.slides)

    def made(self, calls: int) -> list[tuple[str, list[Line], dict[object, int], int]]:
        """The arguments of the next calls, a millisecond apart."""
        made = []
        for _ in range(calls):
            self.calls += 1
            lines = [self.line(n) for n in self.rng.sample(range(self.meters), min(self.meters, METERS_PER_CALL))]
            amounts: dict[object, int] = {line.meter: 900 for line in lines}
            made.append((f"call {self.calls}", lines, amounts, BEGIN + 1_000 * self.calls))
        return made

    def seconds(self, calls: int = CALLS) -> float:
        """Admit and settle so many calls; the CPU seconds that takes."""
        ledger, seconds = self.ledger, 0.0
        for _ in range(calls // AT_ONCE):
            made = self.made(AT_ONCE)
            start = time.thread_time()
            for call, lines, amounts, now in made:
                ledger.admit(call, 16, 256, lines, now)
                ledger.settle(call, amounts, now)
            seconds += time.thread_time() - start
        return seconds


def speeds(window: int, slides: bool, *, rounds: int = ROUNDS) -> tuple[dict[int, float], float]:
    """Pairs per second by number of meters, and how fast a hundred thousand are beside a thousand."""
    lives = [Live(meters, window, slides) for meters in SIZES]
    gc.collect()
    for live in lives:
        live.seconds(WARM_UP * CALLS)
    results = [{live.meters: live.seconds() for live in lives} for _ in range(rounds)]
    for live in lives:
        assert isinstance(live.ledger.admit("last", 1, 1, [live.line(0)], BEGIN), Grant)
    pairs = {meters: CALLS / statistics.median([result[meters] for result in results]) for meters in SIZES}
    return pairs, statistics.median([result[1_000] / result[100_000] for result in results])


def bytes_per_idle_meter(window: int = 0, slides: bool = False, *, slots: int = 1, meters: int = 10_000) -> float:
    """Heap of the ledger per meter that has spent something and holds nothing, the name of the meter left out.

    Args:
        window: microseconds, 0 for a meter that never forgets.
        slides: whether the window slides.
        slots: in how many different slots of the window each meter was charged.
        meters: how many meters are made.

    Returns:
        Bytes per meter. What the ledger remembers of finished calls is bounded, and is not counted.
    """
    names = [[Line(f"user {n}", LIMIT, 1_000, 10, window, slides)] for n in range(meters)]

    def used(*, charged: bool) -> int:
        gc.collect()
        tracemalloc.start()
        ledger = MemoryLedger()
        for slot in range(slots if charged else 0):
            now = BEGIN + slot * window // 64
            for n, lines in enumerate(names):
                ledger.admit(f"charge {slot} {n}", 0, 0, lines, now)
                ledger.settle(f"charge {slot} {n}", {lines[0].meter: 123_456_789}, now)
        for n in range(REMEMBERED + 1):
            ledger.settle(f"other {n}", {})
        gc.collect()
        heap, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(ledger) == (meters if charged else 0)
        return heap

    return (used(charged=True) - used(charged=False)) / meters


def main() -> None:
    """Print the tables."""
    print(f"memory ledger, {METERS_PER_CALL} meters per call, one thread, median of {ROUNDS} rounds")
    print("pairs per CPU second" + "".join(f"  {size:>9,}" for size in SIZES) + "  live meters; 100,000 beside 1,000")
    for name, window in WINDOWS.items():
        pairs, ratio = speeds(*window)
        print(f"{name:>20}" + "".join(f"  {pairs[size]:>9,.0f}" for size in SIZES) + f"  {ratio:.2f}", flush=True)
    print("bytes per idle meter:")
    for name, window in WINDOWS.items():
        print(f"{name:>20}  {bytes_per_idle_meter(*window):>9,.0f}")
    for slots in (2, 4, 8, 64):
        print(f"{'sliding':>20}  {bytes_per_idle_meter(HOUR, True, slots=slots):>9,.0f}  charged in {slots} slots")


if __name__ == "__main__":
    main()
