"""Rehearsal: what the gate would decide about a call, by the same rules, on a ledger that only looks.

Nothing is held, counted or told, so the answer is true at the moment at which it is given: another call may come first.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, cast

from ..ledgers.base import Balance, Grant, Ledger, Line, Refusal
from .gate import Gate

if TYPE_CHECKING:
    from ..call import Call


class _Looking:
    """A ledger of which only the answers are wanted."""

    dropped = 0

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.kind = ledger.kind

    def admit(
        self,
        call: str,
        need: int,
        want: int,
        lines: Sequence[Line],
        now: int = 0,
        *,
        force: bool = False,
        instead_of: str | None = None,
    ) -> Grant | Refusal:
        return self._ledger.look(need, want, lines, now)

    def read(self, meter: Hashable, now: int = 0) -> Balance:
        return self._ledger.read(meter, now)


class Rehearsal(Gate):
    """A gate that decides, and does nothing.

    Args:
        gate: the one that calls pass.
    """

    def __init__(self, gate: Gate) -> None:
        ledger = cast(Ledger, _Looking(gate.ledger))
        super().__init__(ledger, gate.prices, gate.estimator, gate.payers, clock=gate.clock)

    def _open_accounts(self, call: Call) -> None:
        """Nobody is told of a call that is not made."""

    def _tell_shadows(self, call: Call, groups: Iterable[Hashable], decision: str) -> None:
        """Nor shadows."""
