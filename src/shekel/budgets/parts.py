"""Parts: caps that a budget gives to a node, an agent, a task, a chain or a tool, by name.

A part is a meter of its own. A call is charged to it, once, where a block of that name is entered inside the budget's
own (`with budget(name="fetch")`, or a function under `@with_budget(name="fetch")`), or where it runs inside a span that
says it is that agent, tool or step. No framework is patched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .. import enclosing, locks
from ..roles import AGENT, STEP, TOOL, WORKFLOW, Role
from ..shown import shown
from .limits import MOST, NANO, Unit, money
from .part_errors import (
    AgentBudgetExceededError,
    ChainBudgetExceededError,
    NodeBudgetExceededError,
    PartExceededError,
    TaskBudgetExceededError,
    ToolSpendExceededError,
)

if TYPE_CHECKING:
    from .claims import Claim

ERRORS: dict[str, type[PartExceededError]] = {
    "node": NodeBudgetExceededError,
    "agent": AgentBudgetExceededError,
    "task": TaskBudgetExceededError,
    "chain": ChainBudgetExceededError,
    "tool": ToolSpendExceededError,
}

ROLES = {
    "agent": (AGENT,),
    "tool": (TOOL,),
    # One framework's node is the other's task or chain: which word a span uses does not matter.
    "node": (STEP, WORKFLOW),
    "task": (STEP, WORKFLOW),
    "chain": (STEP, WORKFLOW),
}
"""What the span of each kind of part may say it is."""


class Part:
    """One part and its meter.

    Attributes:
        kind: "node", "agent", "task", "chain" or "tool".
        name: its name.
        nano: its cap, in nano-dollars; None for a tool of which only the runs are limited.
        calls: how often a tool may run; None without such a limit.
        runs: the meter of a tool's runs.
    """

    __slots__ = ("_granted", "calls", "kind", "name", "nano", "roles", "runs")

    def __init__(self, kind: str, name: str) -> None:
        self.kind = kind
        self.name = name
        self.nano: int | None = None
        self._granted = 0
        self.calls: int | None = None
        self.runs = Runs(name)
        self.roles = frozenset(Role(role, name) for role in ROLES[kind])

    @property
    def limit(self) -> int | None:
        """What it may spend, in nano-dollars: its cap, and what was granted beyond it."""
        return None if self.nano is None else self.nano + self._granted

    @property
    def max_usd(self) -> float | None:
        """The same in USD."""
        return None if self.limit is None else self.limit / NANO

    @property
    def label(self) -> str:
        """What questions and errors call it."""
        return f"{self.kind} {self.name}"

    def cap(self, nano: int) -> None:
        """Another cap; what was granted before goes with the old one."""
        self.nano = nano
        self.forget_grants()

    def grant(self, nano: int) -> None:
        """Add to what it may spend, until its budget is reset."""
        with locks.books:
            self._granted += nano

    def forget_grants(self) -> None:
        """Its cap alone holds again."""
        with locks.books:
            self._granted = 0

    def error(self, spent: float, limit: float, **facts: Any) -> PartExceededError:
        """What is raised where it has no room."""
        return ERRORS[self.kind](self.name, spent, limit, **facts)

    def __repr__(self) -> str:
        return f"<meter of {self.kind} {self.name}>"


class Runs:
    """The meter of a tool's runs."""

    __slots__ = ("tool",)

    def __init__(self, tool: str) -> None:
        self.tool = tool

    def __repr__(self) -> str:
        return f"<meter of runs of {self.tool}>"


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
        nano = money(max_usd, f"max_usd of {kind} {shown(name)}")
        self._part(kind, name).cap(nano)

    def cap_tool(self, name: str, max_usd: Any, max_calls: Any) -> None:
        """The same for a tool; a limit that is not given stays as it is.

        Raises:
            ValueError: a name, an amount or a count that is none, or neither limit.
        """
        if max_usd is None and max_calls is None:
            raise ValueError(f"tool({shown(name)}) has no limit: give max_usd, max_calls or both.")
        number = isinstance(max_calls, int) and not isinstance(max_calls, bool)
        if max_calls is not None and not (number and 1 <= max_calls <= MOST):
            raise ValueError(
                f"max_calls of tool {shown(name)} must be a whole number of at least 1, such as 3, "
                f"not {shown(max_calls)}."
            )
        nano = None if max_usd is None else money(max_usd, f"max_usd of tool {shown(name)}")
        part = self._part("tool", name)
        if nano is not None:
            part.cap(nano)
        if max_calls is not None:
            part.calls = max_calls

    def _part(self, kind: str, name: Any) -> Part:
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"the name of a {kind} must be a text that is not empty, not {shown(name)}.")
        enclosing.want()
        return self._parts.setdefault((kind, name), Part(kind, name))

    @property
    def names(self) -> set[str]:
        """The names of all parts."""
        return {name for _, name in self._parts}

    def forget_grants(self) -> None:
        """Forget what was granted beyond the caps: the budget starts anew."""
        for part in self.all():
            part.forget_grants()

    def all(self) -> list[Part]:
        """In the order in which they were given."""
        return list(self._parts.values())

    def meters(self) -> list[Any]:
        """All meters, to reset or forget them."""
        return [meter for part in self.all() for meter in ((part, part.runs) if part.kind == "tool" else (part,))]

    def claims(self, own: Claim, inside: Iterable[str | None], roles: Sequence[Role] = ()) -> list[Claim]:
        """What a call is charged to beside its budget, the innermost part first.

        Args:
            own: the budget's own claim in USD, which says how the parts hold.
            inside: the names of the blocks that are entered inside the budget's, outermost first.
            roles: what the spans around the call say they are, innermost first.
        """
        found = {part: None for role in roles for part in self._parts.values() if role in part.roles}
        blocks = [name for name in inside if name is not None]
        for name in reversed(blocks):
            found |= {part: None for part in self._parts.values() if part.name == name}
        claims: list[Claim] = []
        for part in found:
            plain = own._replace(
                meter=part,
                limit=part.limit,
                kept=0,
                window=0,
                slides=False,
                until=0,
                resets_at=None,
                fallbacks=(),
                first=False,
                number=-1,
                part=part,
            )
            claims.append(plain)  # where only the runs of a tool are limited, its money is counted all the same
            if part.calls is not None:
                claims.append(plain._replace(meter=part.runs, limit=part.calls, unit=Unit.TOOL_CALLS))
        return claims
