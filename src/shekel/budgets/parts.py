"""Parts: caps that a budget gives to a node, an agent, a task or a chain, by name.

A part is a meter of its own. A call is charged to it where a block of that name is entered inside the budget's own:
`with budget(name="fetch")`, or a function under `@with_budget(name="fetch")`. No framework is patched.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .limits import NANO, money
from .part_errors import (
    AgentBudgetExceededError,
    ChainBudgetExceededError,
    NodeBudgetExceededError,
    PartExceededError,
    TaskBudgetExceededError,
)

if TYPE_CHECKING:
    from .claims import Claim

ERRORS: dict[str, type[PartExceededError]] = {
    "node": NodeBudgetExceededError,
    "agent": AgentBudgetExceededError,
    "task": TaskBudgetExceededError,
    "chain": ChainBudgetExceededError,
}


class Part:
    """One part and its meter.

    Attributes:
        kind: "node", "agent", "task" or "chain".
        name: its name.
        nano: what it may spend, in nano-dollars.
    """

    __slots__ = ("kind", "name", "nano")

    def __init__(self, kind: str, name: str, nano: int) -> None:
        self.kind = kind
        self.name = name
        self.nano = nano

    @property
    def max_usd(self) -> float:
        """What it may spend, in USD."""
        return self.nano / NANO

    def error(self, spent: float, limit: float, **facts: Any) -> PartExceededError:
        """What is raised where it has no room."""
        return ERRORS[self.kind](self.name, spent, limit, **facts)

    def __repr__(self) -> str:
        return f"<meter of {self.kind} {self.name}>"


class Parts:
    """The parts of one budget. Each is its own meter's name: in memory a meter belongs to its object."""

    def __init__(self) -> None:
        self._parts: dict[tuple[str, str], Part] = {}

    def __bool__(self) -> bool:
        return bool(self._parts)

    def cap(self, kind: str, name: str, max_usd: Any) -> None:
        """Give a part its cap; one that it has already is replaced, and what it has spent stays.

        Raises:
            ValueError: a name or an amount that is none.
        """
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"the name of a {kind} must be a text that is not empty, not {name!r}.")
        nano = money(max_usd, f"max_usd of {kind} {name!r}")
        self._parts.setdefault((kind, name), Part(kind, name, nano)).nano = nano

    @property
    def names(self) -> set[str]:
        """The names of all parts."""
        return {name for _, name in self._parts}

    def all(self) -> list[Part]:
        """In the order in which they were given."""
        return list(self._parts.values())

    def claims(self, own: Claim, inside: Iterable[str | None]) -> list[Claim]:
        """What a call is charged to beside its budget.

        Args:
            own: the budget's own claim in USD, which says how the parts hold.
            inside: the names of the blocks that are entered inside the budget's.
        """
        names = set(inside)
        return [
            own._replace(
                meter=part,
                limit=part.nano,
                window=0,
                slides=False,
                until=0,
                resets_at=None,
                fallbacks=(),
                first=False,
                number=-1,
                part=part,
            )
            for part in self._parts.values()
            if part.name in names
        ]
