"""Plans: limits by the name of a plan, and which plan a value of a scope key has.

A plan is chosen by what was assigned by hand, then a table, then a function of the program (`resolver.py`), then the
default. Nothing here can give a value another value's plan: each is looked up, cached and asked for by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..budgets.keywords import limits_in
from ..budgets.limits import Limit, Unit, agree
from ..shown import shown
from .resolver import Resolver

UNLIMITED = "unlimited"
"""What stands for a plan without a limit."""


@dataclass(frozen=True, slots=True)
class Plans:
    """Limits by plan, and who has which. Make them with `per(..., plans=...)`.

    Attributes:
        limits: by the plan's name; none for a plan that is unlimited.
        default: the plan of values that nobody knows.
        table: plans by value.
        resolver: asked for values that are not in the table.
        by: which of the policy's keys the plan is chosen by, by its place.
    """

    limits: Mapping[str, tuple[Limit, ...]]
    default: str
    table: Mapping[str, str]
    resolver: Resolver | None
    by: int = 0

    @property
    def every_limit(self) -> Iterable[Limit]:
        return [limit for limits in self.limits.values() for limit in limits]

    def of(self, value: str, assigned: Mapping[str, str], *, ask: bool = True) -> str:
        """The plan of a value.

        Args:
            value: of the scope key that plans are chosen by.
            assigned: what was assigned by hand.
            ask: whether to ask the program's function, if it has not been asked; else what is known counts.
        """
        for known in (assigned, self.table):
            plan = known.get(value)
            if plan is not None and plan in self.limits:
                return plan
        if self.resolver is not None:
            plan = self.resolver.plan(value) if ask else self.resolver.known(value)
            if plan is not None:
                return plan
        return self.default


def plans_of(
    plans: Any,
    plan_of: Any,
    default: Any,
    *,
    keys: tuple[str, ...],
    by: Any = None,
    cache: Any = None,
    timeout: Any = None,
) -> Plans:
    """The plans that a caller gave; see `per`.

    Raises:
        ValueError: no plan, one that is none, no default, or a table that names a plan which is not there.
    """
    if not isinstance(plans, Mapping) or not plans:
        raise ValueError(f"plans must be limits by plan, such as {{'free': '$0.10/day'}}, not {shown(plans)}.")
    limits = {_name(plan): _limits(plan, value) for plan, value in plans.items()}
    known = ", ".join(limits)
    if default is None:
        raise ValueError(
            f"plans have no default_plan for values that nobody knows: give one of {known}, or add an "
            "'unlimited' one and name that."
        )
    if not isinstance(default, str) or default not in limits:
        raise ValueError(f"default_plan={shown(default)} is no plan: give one of {known}.")
    table: Mapping[str, str] = {}
    resolver = None
    if callable(plan_of):
        resolver = Resolver(plan_of, limits, cache, timeout)
    elif isinstance(plan_of, Mapping):
        for value, plan in plan_of.items():
            if not isinstance(value, str) or not value:
                raise ValueError(f"plan_of: {shown(value)} is no value of {shown(keys[0])}: give a text.")
            if not isinstance(plan, str) or plan not in limits:
                raise ValueError(
                    f"plan_of: {shown(value)} has the plan {shown(plan)}, which is not there: give {known}."
                )
        table = dict(plan_of)
    elif plan_of is not None:
        raise ValueError(f"plan_of must be a table {{'ada': 'pro'}} or a function, not {shown(plan_of)}.")
    if resolver is None:
        for field, value in (("plan_cache", cache), ("plan_timeout", timeout)):
            if value is not None:
                raise ValueError(f"{field} is for a plan_of that is a function: leave it out.")
    if by is None and len(keys) > 1:
        raise ValueError(f"plan_by must say by which key the plan is chosen: {' or '.join(map(repr, keys))}.")
    if by is not None and by not in keys:
        raise ValueError(f"plan_by={shown(by)} is none of the policy's keys: give {' or '.join(map(repr, keys))}.")
    return Plans(limits, default, table, resolver, 0 if by is None else keys.index(by))


def _name(plan: Any) -> str:
    if not isinstance(plan, str) or not plan.strip():
        raise ValueError(f"plans: {shown(plan)} is no name of a plan: give a text such as 'free'.")
    return plan


def _limits(plan: str, value: Any) -> tuple[Limit, ...]:
    field = f"plans[{shown(plan)}]"
    if value is None or value == UNLIMITED:
        return ()
    if isinstance(value, (list, tuple)):
        limits = tuple(limit for each in value for limit in limits_in(each, field))
    else:
        limits = limits_in(value, field)
    if not limits:
        raise ValueError(f"{field} is empty: give a limit such as '$5/day', or 'unlimited'.")
    return tuple(sorted(agree(limits, field), key=lambda limit: (limit.unit is not Unit.USD, limit.model is not None)))
