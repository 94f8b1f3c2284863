"""What a step of the ledger in memory asks of each meter, and what is answered where it does not all fit."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeAlias

from .base import Balance, Line, Meter, Refusal
from .cells import Cell

Asked: TypeAlias = dict[Cell, tuple[Line, Meter, int, int, int]]
"""The lines of a step by cell, as a name may be slow to hash: line, meter, base, rate, and `ends` as it will be."""


def shadows(
    need: int, grant: int, asked: Asked, own: Mapping[Cell, int], force: bool, admission: bool
) -> dict[Hashable, int]:
    """What each shadow group takes of a grant, in tokens, in the order of the lines; -1 where not even `need` fits."""
    fits: dict[Hashable, int] = {}
    holds: set[Hashable] = set()
    for cell, (line, _, base, rate, _) in asked.items():
        group = line.shadow
        if group is None:
            continue
        if cell in own:
            holds.add(group)
        most = fits.get(group, grant)
        if line.limit is not None:
            room = line.limit - cell.settled - cell.held + own.get(cell, 0) - base
            if most * rate > room:
                most = room // rate if rate else -1
        fits[group] = most
    for group, most in fits.items():
        if most < need:
            fits[group] = need if force and (admission or group in holds) else -1
    return fits


def refusal(need: int, asked: Asked, own: Mapping[Cell, int], now: int) -> Refusal:
    """Name the line that lacks the largest share of its limit for `need`; the first of those that lack as much."""
    worst: tuple[int, Line, Cell] | None = None
    for cell, (line, _, base, rate, _) in asked.items():
        if line.limit is None or line.shadow is not None:
            continue
        lack = cell.settled + cell.held - own.get(cell, 0) + base + need * rate - line.limit
        # Lines count in different units, so only shares can be compared. Of a limit of 0 all is lacking.
        if lack > 0 and (worst is None or lack * max(0, worst[1].limit or 0) > worst[0] * max(0, line.limit)):
            worst = (lack, line, cell)
    assert worst is not None
    lack, line, cell = worst
    balance = Balance(cell.settled, cell.held - own.get(cell, 0), cell.holds - (cell in own))
    return Refusal(line, balance, line.base + need * line.rate, cell.frees_at(lack, balance.held, now))
