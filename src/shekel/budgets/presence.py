"""Blocks of budgets in the context: where they are in force, and for how long.

A generator may leave its block while another's is open inside it. To put back the context that was there when a block
was entered would then lose the inner budget, or bring one back that was left long ago. So each block puts a mark beside
its budget, and takes out what bears it.

A task that was started inside a block, and a copy of the context that was taken there, outlive the block; their calls
are charged to its budgets, so they must be seen. What makes calls visible therefore stays until the last context with
the block's mark has gone.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from opentelemetry.context import Context

from .. import context, late
from . import wiring

if TYPE_CHECKING:
    from .budget import Budget


class Mark:
    """The mark of one block: while a context has it, calls are to be seen."""

    __slots__ = ("__weakref__", "gone")

    def __init__(self) -> None:
        self.gone: list[None] | None = None
        """Told that the last context has gone, instead of the thread for late ends."""
        for activate in wiring.activated:
            activate()

    def __del__(self) -> None:
        gone = getattr(self, "gone", None)
        if gone is not None:
            gone.append(None)
        elif late is not None:  # Python ends, and modules are empty
            late.put(_deactivate)


class Block:
    """One entering of a budget's block, as long as it lasts.

    Args:
        budget: whose.
        here: the context around it.
        parent: the budget around it, if there is one and it is another.
    """

    __slots__ = ("_mark", "budget", "parent")

    def __init__(self, budget: Budget, here: Context, parent: Budget | None) -> None:
        self.budget = budget
        self.parent = parent
        self._mark: Mark | None = Mark()
        stack: tuple[Budget, ...] = here.get(context.BUDGETS, ())  # type: ignore[assignment]
        marks = (*_marks(here), self._mark)
        context.attach(Context({**here, context.BUDGETS: (*stack, budget), context.MARKS: marks}))

    def leave(self) -> None:
        """Take the budget out of the present context, and nothing else."""
        mark = self._mark
        if mark is None:
            return
        self._mark = None
        if mark in _marks(context.current()):
            context.attach(_without(context.current(), mark))
        gone = mark.gone = []
        still = weakref.ref(mark)
        del mark
        left = still()
        if left is not None:
            left.gone = None
            late.start()
        if gone:
            _deactivate()


def _deactivate() -> None:
    """What makes calls visible is needed by one block less."""
    for each in wiring.deactivated:
        each()


def _marks(here: Context) -> tuple[Mark, ...]:
    return here.get(context.MARKS, ())  # type: ignore[return-value]


def _without(here: Context, mark: Mark) -> Context:
    """A context without one block."""
    marks = _marks(here)
    at = marks.index(mark)
    stack: tuple[Budget, ...] = here[context.BUDGETS]  # type: ignore[assignment]
    left = {key: value for key, value in here.items() if key not in (context.BUDGETS, context.MARKS)}
    if len(marks) > 1:
        left[context.BUDGETS] = stack[:at] + stack[at + 1 :]
        left[context.MARKS] = marks[:at] + marks[at + 1 :]
    return Context(left)
