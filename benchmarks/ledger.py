"""What the ledger in memory costs: admit + settle pairs per second, and the memory of an idle meter.

    python -m benchmarks.ledger

One thread, three meters per call, as with a budget in a budget and a user's own, taken from a given number of live
ones. They are named as the program names them: a budget's by an object that the budget keeps, a policy's by row, value
and period, made anew for each call, so that it is hashed and compared each time. Windows are an hour long, and a
thousand calls come in a second of the ledger's time. Which meters a call has:

    the same     three, whatever else is live: the program of one user, in a service of many.
    as in use    one budget around all calls; one of every hundred meters, as a customer's; one of all others, as a
                 user's. The last two are a policy's.
    at random    three of all, two of three a budget's. No program does that; it is the worst for the processor.

**In the number**: both steps, with the loop around them, the garbage collector as it comes, and the cells, which are in
no cache where there are many. **Not in it**: making the lines and amounts. A call makes them just before the step, so
they are made here for a few calls at a time; thousands that lie ready would be met cold, which no call does. CPU time,
so that what else runs on the machine counts less. The numbers of meters are measured in turn, in many rounds, so that a
slow moment of the machine meets all alike; what a hundred thousand take more than a thousand is the median of the
differences within a round.

The same **at full speed** is what a pair takes while nobody else slows the machine down; see `speed.py`.

**What memory alone takes** is measured beside it: the same names looked up in a dict of plain objects, with two numbers
read and two written for each. No ledger can be flatter than that. It takes no instruction more for more meters: those
are counted in tests/ledgers/test_cost.py.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import TypeAlias

from shekel.budgets.slots import Meter
from shekel.ledgers.base import Grant, Line
from shekel.ledgers.memory import REMEMBERED, MemoryLedger
from shekel.quotes import NANO

from .speed import Speed

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

SAME, IN_USE, AT_RANDOM = SHAPES = ("the same", "as in use", "at random")

WINDOWS = {"total": (0, False), "sliding": (HOUR, True), "session": (HOUR, False)}
"""Length in microseconds, and whether it slides."""

Pair: TypeAlias = tuple[str, list[Line], dict[object, int], int]
"""The arguments of one call: its id, its lines, its amounts, and the time."""

ROW = object()
"""What the meters of a policy have in common."""


class Plain:
    """As many attributes as a cell has, and nothing else."""

    __slots__ = ("a", "b", "c", "d", "e", "f", "g", "h", "held", "holds", "limit", "name", "settled")

    def __init__(self, name: object) -> None:
        self.name = name
        self.settled, self.held, self.holds, self.limit = 1, 0, 0, LIMIT


class Live:
    """A ledger in which so many meters have spent something, and calls on it.

    Args:
        meters: how many.
        window: microseconds, 0 for meters that never forget.
        slides: whether the window slides.
        shape: which meters a call has.
    """

    def __init__(self, meters: int, window: int, slides: bool, shape: str = AT_RANDOM) -> None:
        self.meters = meters
        self.window = window
        self.slides = slides
        self.shape = shape
        self.customers = max(1, meters // 100)
        self.budgets = [Meter(f"budget {n}") for n in range(meters)]
        self.ledger = MemoryLedger()
        self.plain = {meter: Plain(meter) for meter in (self.line(n).meter for n in range(meters))}
        self.calls = 0
        self.rng = random.Random(0)
        for n in range(meters):
            line = self.line(n)
            self.ledger.admit(f"seed {n}", 0, 0, [line], BEGIN)
            self.ledger.settle(f"seed {n}", {line.meter: 1}, BEGIN)
        assert len(self.ledger) == meters

    def line(self, n: int) -> Line:
        """What a call asks of the nth meter."""
        policys = n % 3 == 0 if self.shape == AT_RANDOM else n > 0
        meter = (ROW, f"user {n}", None) if policys else self.budgets[n]
        return Line(meter, LIMIT, 1_000, 10, self.window, self.slides)

    def numbers(self) -> list[int]:
        """Which meters the next call has."""
        meters, below = self.meters, self.rng.randrange
        if meters < METERS_PER_CALL or self.shape == SAME:
            return list(range(min(meters, METERS_PER_CALL)))
        if self.shape == AT_RANDOM:
            return self.rng.sample(range(meters), METERS_PER_CALL)
        first = 1 + self.customers
        return [0, 1 + below(self.customers), first + below(meters - first)]

    def made(self, calls: int) -> list[Pair]:
        """The arguments of the next calls, a millisecond apart."""
        made = []
        for _ in range(calls):
            self.calls += 1
            lines = [self.line(n) for n in self.numbers()]
            amounts: dict[object, int] = {line.meter: 900 for line in lines}
            made.append((f"call {self.calls}", lines, amounts, BEGIN + 1_000 * self.calls))
        return made

    def pairs(self, made: list[Pair]) -> None:
        """Admit and settle."""
        ledger = self.ledger
        for call, lines, amounts, now in made:
            ledger.admit(call, 16, 256, lines, now)
            ledger.settle(call, amounts, now)

    def alone(self, made: list[Pair]) -> None:
        """Look up the same names, and count on plain objects."""
        plain = self.plain
        for _, lines, amounts, _ in made:
            found = []
            for line in lines:
                each = plain[line.meter]
                if each.settled + each.held < each.limit:
                    each.held += 3_560
                    each.holds += 1
                found.append(each)
            for each in found:
                each.settled += amounts[each.name]
                each.held -= 3_560
                each.holds -= 1

    def seconds(self, step: Callable[[list[Pair]], None], calls: int = CALLS) -> float:
        """The CPU seconds that so many calls take."""
        seconds = 0.0
        for _ in range(calls // AT_ONCE):
            made = self.made(AT_ONCE)
            start = time.thread_time()
            step(made)
            seconds += time.thread_time() - start
        return seconds


def speeds(
    window: int, slides: bool, shape: str, speed: Speed, *, rounds: int = ROUNDS
) -> dict[str, tuple[dict[int, float], float]]:
    """Pairs per second by number of meters, and the µs that a pair takes more with 100,000 than with 1,000.

    Of the ledger as measured and at full speed, and of memory alone, at full speed as well.
    """
    lives = [Live(meters, window, slides, shape) for meters in SIZES]
    gc.collect()
    for live in lives:
        live.seconds(live.pairs, WARM_UP * CALLS)
    told = {}
    measured, full, alone = "as measured", "at full speed", "memory alone"
    results: dict[str, list[dict[int, float]]] = {measured: [], full: [], alone: []}
    for _ in range(rounds):
        for each in results.values():
            each.append({})
        for live in lives:
            share = speed.share()
            pairs, memory = live.seconds(live.pairs), live.seconds(live.alone)
            share = (share + speed.share()) / 2
            results[measured][-1][live.meters] = pairs
            results[full][-1][live.meters] = pairs * share
            results[alone][-1][live.meters] = memory * share
    for live in lives:
        assert isinstance(live.ledger.admit("last", 1, 1, [live.line(0)], BEGIN), Grant)
    for what, each in results.items():
        by_size = {meters: CALLS / statistics.median([result[meters] for result in each]) for meters in SIZES}
        more = statistics.median([result[100_000] - result[1_000] for result in each])
        told[what] = (by_size, more / CALLS * 1e6)
    return told


def bytes_per_idle_meter(
    window: int = 0, slides: bool = False, *, slots: int = 1, amount: int = 123_456_789, meters: int = 11_000
) -> float:
    """Heap of the ledger per meter that has spent something and holds nothing, the name of the meter left out.

    Args:
        window: microseconds, 0 for a meter that never forgets.
        slides: whether the window slides.
        slots: in how many different slots of the window each meter was charged.
        amount: nano-dollars that it was charged in each.
        meters: how many meters are made; a table of eleven thousand has just grown, and is at its largest per meter.

    Returns:
        Bytes per meter. What the ledger remembers of finished calls is bounded, and is not counted.
    """
    names = [[Line((ROW, f"user {n}", None), LIMIT, 1_000, 10, window, slides)] for n in range(meters)]

    def used(*, charged: bool) -> int:
        gc.collect()
        tracemalloc.start()
        ledger = MemoryLedger()
        for slot in range(slots):
            now = BEGIN + slot * window // 64
            for n, lines in enumerate(names):
                call = f"charge {slot} {n}"
                ledger.admit(call, 0, 0, lines if charged else [], now)
                ledger.settle(call, {lines[0].meter: amount} if charged else {}, now)
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
    print("pairs per CPU second" + "".join(f"  {size:>9,}" for size in SIZES) + "  live meters; µs more from 1,000 on")
    speed = Speed()
    for shape in SHAPES:
        for name, window in WINDOWS.items():
            print(f"{name}, meters {shape}")
            for what, (pairs, more) in speeds(*window, shape, speed).items():
                print(
                    f"{what:>20}" + "".join(f"  {pairs[size]:>9,.0f}" for size in SIZES) + f"  {more:.2f}", flush=True
                )
    print("bytes per idle meter:")
    for name, window in WINDOWS.items():
        print(f"{name:>20}  {bytes_per_idle_meter(*window):>9,.0f}")
    for slots, amount in ((8, 123_456_789), (65, 123_456_789), (65, 2 * NANO), (65, 1_000 * NANO)):
        used = bytes_per_idle_meter(HOUR, True, slots=slots, amount=amount)
        print(f"{'sliding':>20}  {used:>9,.0f}  charged ${amount / NANO:,.2f} in each of {slots} slots")


if __name__ == "__main__":
    main()
