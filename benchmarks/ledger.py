"""What the ledger costs: admit + settle pairs per second, and the memory of an idle meter.

    python benchmarks/ledger.py

One thread, three meters per call, as with a budget in a budget and a user's own. The meters of a call are taken at
random from a given number of live ones; the speed must not depend on that number.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
import tracemalloc

from shekel.ledgers.base import Grant, Line
from shekel.ledgers.memory import MemoryLedger

METERS_PER_CALL = 3
PAIRS = 20_000
RUNS = 9
LIMIT = 10**18


def pairs_per_second(ledger: MemoryLedger, calls: list[tuple[str, list[Line], dict[object, int]]]) -> float:
    """Admit and settle every call once."""
    start = time.perf_counter()
    for call, lines, amounts in calls:
        ledger.admit(call, 16, 256, lines)
        ledger.settle(call, amounts)
    return len(calls) / (time.perf_counter() - start)


def live_ledger(meters: int) -> MemoryLedger:
    """A ledger in which so many meters have spent something."""
    ledger = MemoryLedger()
    for n in range(meters):
        ledger.settle(f"seed {n}", {f"user {n}": 1})
    assert len(ledger) == meters
    return ledger


def speed(meters: int) -> float:
    """Median of several runs, in pairs per second."""
    ledger = live_ledger(meters)
    rng = random.Random(0)
    results = []
    for run in range(RUNS):
        calls = []
        for n in range(PAIRS):
            names: list[object] = [f"user {k}" for k in rng.sample(range(meters), min(meters, METERS_PER_CALL))]
            lines = [Line(name, LIMIT, 1_000, 10) for name in names]
            calls.append((f"call {run} {n}", lines, dict.fromkeys(names, 900)))
        gc.collect()
        results.append(pairs_per_second(ledger, calls))
    assert isinstance(ledger.admit("last", 1, 1, [Line("user 0", LIMIT, 1)]), Grant)
    return statistics.median(results)


def bytes_per_idle_meter(meters: int = 100_000) -> float:
    """Heap of the ledger per meter that has spent something and holds nothing, the name of the meter left out."""
    names = [f"user {n}" for n in range(meters)]
    gc.collect()
    tracemalloc.start()
    ledger = MemoryLedger()
    for n, name in enumerate(names):
        ledger.settle(f"call {n % 100}", {})  # the few remembered calls do not count as meters
        ledger.settle(f"charge {n}", {name: 123_456_789})
    for n in range(10_001):  # what is remembered of the calls themselves is bounded, and belongs to no meter
        ledger.settle(f"other {n}", {})
    gc.collect()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    remembered = _bytes_remembered()
    assert len(ledger) == meters
    return (used - remembered) / meters


def _bytes_remembered() -> int:
    gc.collect()
    tracemalloc.start()
    ledger = MemoryLedger()
    for n in range(10_001):
        ledger.settle(f"other {n}", {})
    gc.collect()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(ledger) == 0
    return used


def main() -> None:
    """Print the table."""
    print(f"memory ledger, {METERS_PER_CALL} meters per call, one thread, median of {RUNS} runs")
    print(f"{'live meters':>12}  {'pairs/s':>10}")
    for meters in (1, 10, 1_000, 100_000):
        print(f"{meters:>12,}  {speed(meters):>10,.0f}")
    print(f"bytes per idle meter: {bytes_per_idle_meter():.0f}")


if __name__ == "__main__":
    main()
