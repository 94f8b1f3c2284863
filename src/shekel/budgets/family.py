"""Families: which budget was entered inside which. For those who read budgets; the money knows the context alone.

A budget's parent is the budget around the block that entered it last; that parent knows it as a child from then on.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .budget import Budget

KEPT_CHILDREN = 100
"""How many children that were left a parent keeps, for `children` and `tree()`. Their spending stays in its sums."""


class Family:
    """The relatives of one budget."""

    def __init__(self) -> None:
        self.parent: Budget | None = None
        self.number = 0
        """Which child of its parent it is, from 1 on."""
        self.born = 0
        self.left_out = 0
        """How many children are not kept any more."""
        self._children: dict[int, Budget] = {}
        self._active: list[Budget] = []
        self._lock = threading.RLock()  # a signal may enter a block in the middle of this

    @property
    def children(self) -> list[Budget]:
        """In the order in which they were first entered."""
        return list(self._children.values())

    def above(self, own: object) -> list[Budget]:
        """The parent, its parent, and so on; each once, also where budgets were entered inside each other."""
        found: list[Budget] = []
        seen = {id(own)}
        parent = self.parent
        while parent is not None and id(parent) not in seen:
            seen.add(id(parent))
            found.append(parent)
            parent = parent.family.parent
        return found

    def around(self, own: Budget) -> list[Budget]:
        """Those of them that share in what new calls may spend: whose block is open, or was left before that of the
        child inside it."""
        above = self.above(own)
        inner = [own, *above]
        return [
            parent
            for parent, child in zip(above, inner, strict=False)
            if parent.entered or any(each is child for each in parent.family.active)
        ]

    @property
    def active(self) -> list[Budget]:
        """Children whose blocks are entered now; one that is entered twice stands there twice."""
        return list(self._active)

    def adopt(self, parent: Budget, child: Budget) -> None:
        """A child enters its block inside the block of this budget.

        Args:
            parent: the budget whose family this is.
            child: the one that enters.

        Raises:
            ValueError: another child has its name.
        """
        with self._lock:
            if id(child) not in self._children:
                if child.name is not None and not child.made_for_call and not self._is_part(parent, child.name):
                    for other in self._children.values():
                        if other.name == child.name and not other.made_for_call:
                            raise ValueError(
                                f"budget {parent.label!r} already has a child budget named {child.name!r}: "
                                "enter that one again, or give this one another name."
                            )
                self._children[id(child)] = child
                self.born += 1
                child.family.number = self.born
                self._drop_oldest()
            self._active.append(child)

    def _is_part(self, parent: Budget, name: str) -> bool:
        """Whether the name is that of a part, whose blocks come again and again."""
        return any(name in each.parts.names for each in (parent, *self.above(parent)))

    def forked(self) -> None:
        """In a child process: whoever held the lock is not here."""
        self._lock = threading.RLock()

    def leave(self, child: Budget) -> None:
        """The child has left its block."""
        with self._lock:
            for index in range(len(self._active) - 1, -1, -1):
                if self._active[index] is child:
                    del self._active[index]
                    return

    def _drop_oldest(self) -> None:
        if len(self._children) <= KEPT_CHILDREN + len(self._active):
            return
        active = {id(each) for each in self._active}
        for key in list(self._children):
            if key not in active:
                del self._children[key]
                self.left_out += 1
                return
