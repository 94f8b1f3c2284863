"""A representative quarter of many cases runs by default, and all of them with the slow tests."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

import pytest

SEED = 5
"""With this one each value of the table's dimensions meets several of each other dimension."""


def quarter(*dimensions: Iterable[Any]) -> list[Any]:
    """All combinations of some dimensions as parameters of a test, three quarters of them marked slow."""
    cases: list[tuple[Any, ...]] = [()]
    for dimension in dimensions:
        values = list(dimension)
        cases = [(*case, value) for case in cases for value in values]
    drawn = set(Random(SEED).sample(range(len(cases)), -(-len(cases) // 4)))
    return [
        pytest.param(*case, id="-".join(map(_word, case)), marks=[] if number in drawn else [pytest.mark.slow])
        for number, case in enumerate(cases)
    ]


def _word(value: Any) -> str:
    return {True: "stream", False: "plain"}[value] if isinstance(value, bool) else str(value)
