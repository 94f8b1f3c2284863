"""The slots before the newest, packed into one integer, against a dict of amounts by age."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from shekel.ledgers import past

AMOUNTS = st.integers(0, 9) | st.integers(0, 2**32) | st.sampled_from([0, 1, 2**27, 2**32 - 1, 2**70])
LATER = st.integers(1, 3) | st.sampled_from([1, 1, 1, 62, 63, 64, 65, 66, 10**12])
PASS = st.tuples(st.just("pass"), AMOUNTS, LATER)
CORRECT = st.tuples(st.just("correct"), AMOUNTS, st.integers(1, 64))


def told(slots: dict[int, int]) -> list[tuple[int, int]]:
    return sorted(((age, amount) for age, amount in slots.items() if amount), reverse=True)


class TestPast:
    @given(st.lists(PASS | CORRECT, max_size=150))
    def test_is_what_was_settled_slot_by_slot(self, steps):
        """Any amounts, any pauses, any corrections up and down: each slot, and the sum, to the unit."""
        packed, slots = 0, {}
        for step, amount, by in steps:
            if step == "pass":
                slots = {age + by: each for age, each in {0: amount, **slots}.items() if age + by <= 64}
                packed, total = past.passed(packed, past.total(packed) + amount, by)
                assert total == sum(slots.values())
            else:
                packed = past.corrected(packed, by, amount - slots.get(by, 0))
                slots[by] = amount
            assert past.amounts(packed) == told(slots)
            assert past.total(packed) == sum(slots.values())
            assert bool(packed) == bool(told(slots))

    @given(st.lists(AMOUNTS, min_size=64, max_size=64))
    def test_takes_as_many_bits_a_slot_as_the_greatest_amount(self, amounts):
        packed = settled = 0
        for amount in amounts:
            packed, settled = past.passed(packed, settled + amount, 1)
        bits = max(amounts).bit_length()
        # An integer of Python has 30 bits in four bytes.
        assert sys.getsizeof(packed) <= 28 + (64 * bits + bits + 22) / 30 * 4
