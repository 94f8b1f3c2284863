"""What the ledger costs: admit + settle pairs per second, and the memory of an idle meter.

    python benchmarks/ledger.py

One thread, three meters per call, as with a budget in a budget and a user's own. The meters of a call are taken at
random from a given number of live ones; the speed must not depend on that number. CPU time, so that what else runs on
the machine counts less. Windows are an hour long, and a thousand calls come in a second of the ledger's time.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
import tracemalloc

from shekel.ledgers.base import Grant, Line
from shekel.ledgers.memory import REMEMBERED, MemoryLedger

METERS_PER_CALL = 3
PAIRS = 20_000
RUNS = 9
LIMIT = 10**18
HOUR = 3_600_000_000
BEGIN = 1_800_000_000_000_000
"""Microseconds since the epoch at which the clock of this benchmark begins."""

WINDOWS = {"total": (0, False), "sliding": (HOUR, True), "session": (HOUR, False)}
"""Length in microseconds, and whether it slides."""

Pair = tuple[str, list[Line], dict[object, int], int]


def seconds_of(ledger: MemoryLedger, pairs: list[Pair]) -> float:
    """Admit and settle every call once; the CPU seconds that takes."""
    start = time.thread_time()
    for call, lines, amounts, now in pairs:
        ledger.admit(call, 16, 256, lines, now)
        ledger.settle(call, amounts, now)
    return time.thread_time() - start


def line(n: int, window: int, slides: bool) -> Line:
    """What a call asks of the nth meter."""
    return Line(f"user {n}", LIMIT, 1_000, 10, window, slides)


def live_ledger(meters: int, window: int = 0, slides: bool = False, *, now: int = BEGIN) -> MemoryLedger:
    """A ledger in which so many meters have spent something."""
    ledger = MemoryLedger()
    for n in range(meters):
        ledger.admit(f"seed {n}", 0, 0, [line(n, window, slides)], now)
        ledger.settle(f"seed {n}", {f"user {n}": 1}, now)
    assert len(ledger) == meters
    return ledger


def pairs_over(meters: int, window: int, slides: bool, *, run: int, pairs: int, rng: random.Random) -> list[Pair]:
    """Calls on meters taken at random, a millisecond apart."""
    made = []
    for n in range(pairs):
        lines = [line(k, window, slides) for k in rng.sample(range(meters), min(meters, METERS_PER_CALL))]
        now = BEGIN + 1_000 * (run * pairs + n)
        made.append((f"call {run} {n}", lines, dict.fromkeys([each.meter for each in lines], 900), now))
    return made


def speed(meters: int, window: int = 0, slides: bool = False, *, runs: int = RUNS, pairs: int = PAIRS) -> float:
    """Median of several runs, in pairs per second."""
    ledger = live_ledger(meters, window, slides)
    rng = random.Random(0)
    results = []
    for run in range(runs):
        made = pairs_over(meters, window, slides, run=run, pairs=pairs, rng=rng)
        gc.collect()
        results.append(pairs / seconds_of(ledger, made))
    assert isinstance(ledger.admit("last", 1, 1, [line(0, window, slides)], BEGIN), Grant)
    return statistics.median(results)


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
    names = [[line(n, window, slides)] for n in range(meters)]

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
    print(f"memory ledger, {METERS_PER_CALL} meters per call, one thread, median of {RUNS} runs, pairs per CPU second")
    print(f"{'live meters':>12}" + "".join(f"  {name:>10}" for name in WINDOWS))
    for meters in (1, 10, 1_000, 100_000):
        print(f"{meters:>12,}" + "".join(f"  {speed(meters, *window):>10,.0f}" for window in WINDOWS.values()))
    print("bytes per idle meter:")
    for name, window in WINDOWS.items():
        print(f"{name:>12}  {bytes_per_idle_meter(*window):>10,.0f}")
    for slots in (2, 8, 64):
        print(f"{'sliding':>12}  {bytes_per_idle_meter(HOUR, True, slots=slots):>10,.0f}  charged in {slots} slots")


if __name__ == "__main__":
    main()
