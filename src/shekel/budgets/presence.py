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

    __slots__ = ("__weakref__",)


class _Known(weakref.ref[Mark]):
    """A mark that is known of, without keeping it."""

    __slots__ = ("leaving",)

    leaving: bool
    """Whether its block is just being left, which lets go of what nobody needs by itself."""


in_force: set[_Known] = set()
"""The marks that some context has."""


def _gone(known: weakref.ref[Mark]) -> None:
    in_force.discard(known)
    if not known.leaving and late is not None:  # type: ignore[attr-defined]  # Python ends, and modules are empty
        late.put(_let_go)


class Block:
    """One entering of a budget's block, as long as it lasts.

    Args:
        budget: whose.
        here: the context around it.
        parent: the budget around it, if there is one and it is another.
    """

    __slots__ = ("_known", "_mark", "budget", "parent")

    _mark: Mark | None

    def __init__(self, budget: Budget, here: Context, parent: Budget | None) -> None:
        self.budget = budget
        self.parent = parent
        mark = self._mark = Mark()
        late.relieve()
        known = self._known = _Known(mark, _gone)
        known.leaving = False
        in_force.add(known)  # first: who lets go of what nobody needs sees it from here on
        for activate in wiring.activated:
            activate()
        stack: tuple[Budget, ...] = here.get(context.BUDGETS, ())  # type: ignore[assignment]
        around = {**here, context.BUDGETS: (*stack, budget), context.MARKS: (*_marks(here), mark)}
        context.attach(Context(around))

    def leave(self) -> None:
        """Take the budget out of the present context, and nothing else."""
        mark = self._mark
        if mark is None:
            return
        self._mark = None
        if mark in _marks(context.current()):
            context.attach(_without(context.current(), mark))
        self._known.leaving = True
        del mark
        kept = self._known()
        if kept is not None:
            self._known.leaving = False
            late.start()
        _let_go()


def _let_go() -> None:
    """Let go of what makes calls visible, if nobody needs it. It may be done at any time, and again."""
    for deactivate in wiring.deactivated:
        deactivate()


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
