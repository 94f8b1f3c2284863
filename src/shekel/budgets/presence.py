"""Blocks of budgets in the context: entered in one order, and left in any other.

A generator may leave its block while another's is open inside it. To put back the context that was there when a block
was entered would then lose the inner budget, or bring one back that was left long ago. So each block puts a mark beside
its budget, and takes out what bears it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.context import Context

from .. import context

if TYPE_CHECKING:
    from .budget import Budget


class Block:
    """One entering of a budget's block, as long as it lasts. It is its own mark.

    Args:
        budget: whose.
        here: the context around it.
        parent: the budget around it, if there is one and it is another.
    """

    __slots__ = ("budget", "parent")

    def __init__(self, budget: Budget, here: Context, parent: Budget | None) -> None:
        self.budget = budget
        self.parent = parent
        stack: tuple[Budget, ...] = here.get(context.BUDGETS, ())  # type: ignore[assignment]
        context.attach(Context({**here, context.BUDGETS: (*stack, budget), context.MARKS: (*_marks(here), self)}))

    def leave(self) -> None:
        """Take the budget out of the present context, and nothing else."""
        now = context.current()
        if self in _marks(now):
            context.attach(_without(now, self))


def _marks(here: Context) -> tuple[Block, ...]:
    return here.get(context.MARKS, ())  # type: ignore[return-value]


def _without(here: Context, block: Block) -> Context:
    """A context without one block."""
    marks = _marks(here)
    at = marks.index(block)
    stack: tuple[Budget, ...] = here[context.BUDGETS]  # type: ignore[assignment]
    left = {key: value for key, value in here.items() if key not in (context.BUDGETS, context.MARKS)}
    if len(marks) > 1:
        left[context.BUDGETS] = stack[:at] + stack[at + 1 :]
        left[context.MARKS] = marks[:at] + marks[at + 1 :]
    return Context(left)
