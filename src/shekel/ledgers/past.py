"""What a sliding meter has settled in the slots before its newest: one integer, exact, a few bytes a slot.

Theory of operation. A meter may have been charged in each of 64 slots, and there may be a hundred thousand of them: as
objects of their own, so many amounts would be most of the memory. Packed, from the lowest bit:

    width: 16 bits | sum: width + 6 bits | amount of the slot before the newest: width bits | of the one before it | …

No amount needs more than `width` bits, and their sum thus no more than `width + 6`. A slot has its place by its age, so
that letting time pass is a shift, what slides out is what has come above the 64th place, and a correction is an
addition: each a few operations on one integer, however many slots have been charged. 0 stands for nothing at all.
"""

from __future__ import annotations

SLOTS = 64
"""Parts of a sliding window. What counts is exact to one of them."""

_WIDTH = 16
_WIDTH_MASK = (1 << _WIDTH) - 1
_MORE = 6
"""The bits by which a sum of 64 amounts may be longer than the longest of them."""


def total(past: int) -> int:
    """The sum of what counts."""
    width = past & _WIDTH_MASK
    return past >> _WIDTH & (1 << width + _MORE) - 1


def passed(past: int, settled: int, slots: int) -> tuple[int, int]:
    """Let time pass.

    Args:
        past: the slots before the newest.
        settled: the sum of those and of the newest (at least `total(past)`).
        slots: how many slots later it is (at least 1).

    Returns:
        The slots before what is then the newest, and their sum: what is older than 64 slots has gone.
    """
    if slots > SLOTS:
        return 0, 0
    if not past:
        if not settled:
            return 0, 0
        width = settled.bit_length()
        places = settled
    else:
        width = past & _WIDTH_MASK
        places = past >> _WIDTH
        newest = settled - (places & (1 << width + _MORE) - 1)
        places >>= width + _MORE
        if newest >> width:
            width, places = _wider(width, places, newest)
        places = places << width | newest
        stay = width * (SLOTS + 1 - slots)
        if gone := places >> stay:
            places ^= gone << stay
            mask = (1 << width) - 1
            while gone:
                settled -= gone & mask
                gone >>= width
            if not places:
                return 0, 0
    return (places << width * slots + _MORE | settled) << _WIDTH | width, settled


def corrected(past: int, age: int, more: int) -> int:
    """The same with so much more in the slot that is so many before the newest (1 to 64); `more` may be negative."""
    width, sum_, places = _parts(past)
    at = width * (age - 1)
    amount = (places >> at & (1 << width) - 1) + more
    if amount >> width:
        width, places = _wider(width, places, amount)
        at = width * (age - 1)
    places += more << at
    return (places << width + _MORE | sum_ + more) << _WIDTH | width if places else 0


def amounts(past: int) -> list[tuple[int, int]]:
    """How many slots before the newest, and what was settled there: the oldest first, without those of nothing."""
    width, _, places = _parts(past)
    mask = (1 << width) - 1
    found = []
    age = 1
    while places:
        if places & mask:
            found.append((age, places & mask))
        places >>= width
        age += 1
    return found[::-1]


def _parts(past: int) -> tuple[int, int, int]:
    """The width, the sum and the amounts."""
    width = past & _WIDTH_MASK
    places = past >> _WIDTH
    return width, places & (1 << width + _MORE) - 1, places >> width + _MORE


def _wider(width: int, places: int, amount: int) -> tuple[int, int]:
    """Places wide enough for an amount, and what they hold."""
    wider = amount.bit_length()
    mask = (1 << width) - 1
    moved = at = 0
    while places:
        moved |= (places & mask) << at
        places >>= width
        at += wider
    return wider, moved
