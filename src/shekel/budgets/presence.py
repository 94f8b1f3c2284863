"""Where the blocks of budgets are in force: in the contexts that have them, for as long as there is such a context.

A task that was started inside a block, and a copy of the context that was taken there, outlive the block; their calls
are charged to its budgets, so they must be seen. Each block therefore puts a mark into the context beside its budget,
and what makes calls visible stays until the last context with that mark has gone.
"""

from __future__ import annotations

import weakref
from contextvars import Token
from typing import TYPE_CHECKING

from opentelemetry.context import Context

from .. import context, late
from . import wiring

if TYPE_CHECKING:
    from .budget import Budget


class Mark:
    """The mark of one block."""

    __slots__ = ("__weakref__", "gone")

    def __init__(self) -> None:
        self.gone: list[None] | None = None
        """Told, instead of the thread for late ends, that the last context has gone."""
        for activate in wiring.activated:
            activate()

    def __del__(self) -> None:
        gone = getattr(self, "gone", None)
        if gone is not None:
            gone.append(None)
        elif late is not None:  # Python ends, and modules are empty
            late.put(deactivate)


class Block:
    """One entering of a budget's block, as long as it lasts.

    Args:
        budget: whose.
        here: the context around it.
        parent: the budget around it, if there is one and it is another.
    """

    __slots__ = ("_inside", "_mark", "_token", "budget", "parent")

    def __init__(self, budget: Budget, here: Context, parent: Budget | None) -> None:
        self.budget = budget
        self.parent = parent
        self._mark: Mark | None = Mark()
        self._inside = Context(
            {
                **here,
                context.BUDGETS: (*here.get(context.BUDGETS, ()), budget),  # type: ignore[misc]
                context.MARKS: (*_marks(here), self._mark),
            }
        )
        self._token: Token[Context] = context.attach(self._inside)

    def leave(self) -> None:
        """Take the budget out of the present context, and nothing else: blocks may be left in any order."""
        mark = self._mark
        if mark is None:
            return
        if context.current() is self._inside:
            context.detach(self._token)
        now = context.current()
        if mark in _marks(now):  # another block was entered since, or this is a copy of that context
            context.attach(_without(now, mark))
        del now
        self._mark = None
        self._inside = Context()
        gone = mark.gone = []
        still = weakref.ref(mark)
        del mark
        left = still()
        if left is not None:
            left.gone = None
            late.start()
        if gone:
            deactivate()


def deactivate() -> None:
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
