"""A look says what an admission would answer, and changes nothing."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from shekel.ledgers.base import Grant, Line
from shekel.ledgers.memory import MemoryLedger

METERS = ("a", "b", "c")
WINDOWS = {"a": (0, False, 0), "b": (1_000, True, 0), "c": (700, False, 2_500)}
"""Window, whether it slides, until: one of each kind."""


def line(meter: str, limit: int | None, base: int, rate: int, shadow: str | None) -> Line:
    window, slides, until = WINDOWS[meter]
    return Line(meter, limit, base, rate, window, slides, shadow, until)


LINES = st.lists(
    st.builds(
        line,
        st.sampled_from(METERS),
        st.one_of(st.none(), st.integers(0, 60)),
        st.integers(0, 20),
        st.integers(0, 2),
        st.sampled_from([None, None, "s", "t"]),
    ),
    max_size=4,
)
STEP = st.tuples(LINES, st.integers(0, 5), st.integers(0, 9), st.integers(0, 900), st.integers(0, 30))
STEPS = st.lists(STEP, max_size=8)


def shown(ledger: MemoryLedger, now: int) -> Any:
    cells = ledger._meters.cells.values()
    inside = [tuple(getattr(cell, slot) for slot in cell.__slots__) for cell in cells]
    return [ledger.read(meter, now) for meter in METERS], inside, len(ledger._meters.ring), len(ledger._open)


@settings(max_examples=300, deadline=None)
@given(STEPS, LINES, st.integers(0, 5), st.integers(0, 9))
def test_it_agrees_with_the_admission_that_follows(steps: Any, lines: Any, need: int, want: int) -> None:
    ledger, now = MemoryLedger(), 0
    for number, (asked, least, most, passed, amount) in enumerate(steps):
        now += passed
        before = shown(ledger, now)
        looked = ledger.look(least, most, asked, now)
        assert shown(ledger, now) == before
        answer = ledger.admit(str(number), least, most, asked, now)
        assert looked == answer
        if isinstance(answer, Grant) and number % 3:
            held = {each.meter: each for each in reversed(asked)}.values()  # of two lines of a meter the first counts
            charged = {each.meter: amount for each in held if each.shadow not in answer.left_out}
            ledger.settle(str(number), charged, now + passed)
    assert ledger.look(need, want, lines, now) == ledger.admit("last", need, want, lines, now)
