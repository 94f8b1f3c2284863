"""`Budget.tree()`: a budget, the budgets that were entered inside it, and what each has spent, as indented lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .errors import money

if TYPE_CHECKING:
    from .budget import Budget


def tree_of(budget: Budget) -> str:
    """The lines of a budget and of all below it."""
    return "\n".join(_lines(budget, "", frozenset(), active=False))


def _lines(budget: Budget, indent: str, above: frozenset[int], *, active: bool) -> Iterator[str]:
    limit = "track-only" if budget.limit is None else money(budget.limit)
    mark = " [ACTIVE]" if active else ""
    yield (f"{indent}{budget.label}{mark}: ${budget.spent:.4f} / {limit} (direct: ${budget.spent_direct:.4f})")
    indent += "  "
    for part in budget.parts.all():
        spent = budget.part_spent(part)
        line = f"{indent}[{part.kind}] {part.name}: ${spent:.4f}"
        if part.max_usd is not None:
            line += f" / {money(part.max_usd)} ({spent / part.max_usd:.1%})"
        yield line if part.calls is None else f"{line}, {budget.part_runs(part)} of {part.calls} runs"
    above |= {id(budget)}
    entered = {id(each) for each in budget.family.active}
    for child in budget.children:
        if id(child) in above:  # entered inside one of those that were entered inside it
            yield f"{indent}{child.label} (see above)"
        else:
            yield from _lines(child, indent, above, active=id(child) in entered)
    if budget.family.left_out:
        yield f"{indent}and {budget.family.left_out} more"
