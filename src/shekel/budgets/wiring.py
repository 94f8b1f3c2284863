"""Wiring: what budgets need of the process, set where the parts are put together (`shekel.runtime`).

Budgets import none of those parts. These are plain names, so that a test can put others in their place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..ledgers.base import Ledger
from .limits import Mode

if TYPE_CHECKING:
    from ..call import Call
    from .budget import Budget
    from .claims import Claim

activated: list[Callable[[], None]] = []
"""Run when a block is entered: what makes calls visible is put in place (the doors know it; budgets do not)."""

deactivated: list[Callable[[], None]] = []
"""Run when a block was left, or a context with one has gone: what nobody needs any more is taken off."""


def _no_ledger() -> Ledger:
    raise RuntimeError("no ledger: the parts were not put together")


ledger: Callable[[], Ledger] = _no_ledger
"""The ledger of this process; set where the parts are put together."""

forget: Callable[[list[Any]], None] = lambda meters: None  # noqa: E731
"""Called with the meters of a budget that is gone."""

overran: Callable[[Claim, int, str], None] = lambda claim, nano, cause: None  # noqa: E731
"""Called when a limit that was lowered is exceeded already."""

warned: Callable[[Claim, int, float, Call | None], None] = lambda claim, used, share, call: None  # noqa: E731
"""Called when a threshold of a budget is crossed: what is used, the share, and the call (None: a tool) that did it."""

relimited: Callable[[Claim], None] = lambda claim: None  # noqa: E731
"""Called when a limit was changed: gauges show it."""

watch: Callable[[], None] = lambda: None  # noqa: E731
"""Called where limits depend on spans: they must be seen from now on."""

default_mode = Mode.SLICED
"""The mode of budgets that name none; `shekel.configure(mode=…)` sets it."""

everywhere: Budget | None = None
"""The budget of the whole process, if there is one: `shekel.configure(budget=…)`, SHEKEL_BUDGET."""
