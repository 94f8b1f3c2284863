"""Standing: a policy in force. It makes the claims of a call, and knows for each of its meters which limit holds now.

The meters of one limit of a policy are a `Row`: one for each value and period, known by the row, the value and the
period. A row belongs to the policy's name, keys, unit, window and model, not to its amount: so another amount, another
plan or a file that is read anew keeps what was spent. Under plans every call counts in the windows of all plans, and
only those of the value's own plan have a limit: whoever changes plan in the middle of a month brings along what he has
spent in it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

from ..budgets.claims import Claim
from ..budgets.limits import Limit
from .policy import Policy
from .warned import Warned

if TYPE_CHECKING:
    from ..call import Call
    from ..ledgers.base import Balance

RowKey = tuple[Any, ...]


def row_key(policy: Policy, limit: Limit) -> RowKey:
    """What makes two limits the same one: everything but the amount."""
    return (policy.name, policy.keys, limit.unit, limit.window, limit.model)


class Row:
    """The meters of one limit of a policy.

    Attributes:
        standing: the policy as it is in force; None once it is no more.
    """

    __slots__ = ("label", "length", "limit", "slides", "standing")

    def __init__(self, policy: Policy, limit: Limit) -> None:
        self.limit = limit  # its unit, window and model; the amount is the standing's to say
        self.label = f"{policy.name} {limit.unit}"
        window = limit.window
        self.length = 0 if window is None else window.length_us
        self.slides = window is not None and window.slides
        self.standing: Standing | None = None

    def __repr__(self) -> str:
        return f"<{self.label}>"

    def limit_of(self, meter: Hashable) -> int | None:
        """The limit of one of its meters as it is now; None where there is none any more. It asks nobody."""
        standing = self.standing
        return None if standing is None else standing.limit_of(self, meter)

    @property
    def warns(self) -> bool:
        """Whether its policy has thresholds of its own."""
        standing = self.standing
        return standing is not None and standing.warned is not None

    def settled(self, call: Call, claim: Claim, balance: Balance, now: int) -> None:
        """A call has ended on one of the meters: warn, if a threshold is passed. Called outside any lock."""
        standing = self.standing
        if standing is not None and standing.warned is not None:
            standing.warned.look(call, claim, self.scope_of(claim), balance.settled, now)

    def scope_of(self, claim: Claim) -> dict[str, str]:
        """Whose meter it is: the scope keys with their values."""
        value: Any = claim.meter[1]  # type: ignore[index]
        standing = self.standing
        keys = () if standing is None else standing.policy.keys
        return dict(zip(keys, value if isinstance(value, tuple) else (value,), strict=False))


class Standing:
    """A policy in force.

    Args:
        policy: what it says.
        rows: for each of its limits, or of those of all its plans, by `row_key`.
        assigned: plans that were assigned by hand, by value; it may change.
        warned: the warnings that were given before; kept while a policy of that name warns at the same shares.
    """

    __slots__ = ("_amounts", "_by_plan", "assigned", "policy", "rows", "warned")

    def __init__(
        self, policy: Policy, rows: Mapping[RowKey, Row], assigned: Mapping[str, str], warned: Warned | None
    ) -> None:
        self.policy = policy
        self.assigned = assigned
        self.warned = warned
        limits = {row_key(policy, limit): limit for limit in policy.every_limit}
        self.rows = tuple(rows[key] for key in limits)
        self._amounts: tuple[int | None, ...] = tuple(limit.amount for limit in limits.values())
        self._by_plan: dict[str, tuple[int | None, ...]] = {}
        if policy.plans is not None:
            for plan, own in policy.plans.limits.items():
                amounts = {row_key(policy, limit): limit.amount for limit in own}
                self._by_plan[plan] = tuple(amounts.get(key) for key in limits)

    def claims(self, scope: Mapping[str, str], now: float) -> list[Claim]:
        """What a call of that scope is charged to at the Unix time `now`: one claim for each limit."""
        policy = self.policy
        keys = policy.keys
        value: Any
        if len(keys) == 1:
            value = scope.get(keys[0])
            if value is None:
                return []
            label = f"{keys[0]}={value}"
        else:
            value = tuple([scope.get(key) for key in keys])
            if None in value:
                return []
            label = ", ".join([f"{key}={each}" for key, each in zip(keys, value, strict=True)])
        amounts = self._amounts if policy.plans is None else self._of_plan(value, ask=True)
        claims = []
        for number, row in enumerate(self.rows):
            limit = row.limit
            span = limit.place(now)
            claims.append(
                Claim(
                    meter=(row, value, span.key),
                    limit=amounts[number],
                    mode=policy.mode,
                    name=policy.name,
                    scope=label,
                    resets_at=span.ends,
                    fallbacks=policy.fallbacks if number == 0 else (),
                    allow_unpriced=policy.allow_unpriced,
                    unit=limit.unit,
                    window=row.length,
                    slides=row.slides,
                    until=span.until,
                    at_limit=policy.at_limit,
                    first=number == 0,
                    model=limit.model,
                    number=number,
                    models=policy.match.models,
                    row=row,
                )
            )
        return claims

    def limit_of(self, row: Row, meter: Any) -> int | None:
        """See `Row`."""
        try:
            number = self.rows.index(row)
        except ValueError:
            return None
        return self._amounts[number] if self.policy.plans is None else self._of_plan(meter[1], ask=False)[number]

    def _of_plan(self, value: Any, *, ask: bool) -> tuple[int | None, ...]:
        plans = self.policy.plans
        assert plans is not None
        by: str = value[plans.by] if isinstance(value, tuple) else value
        return self._by_plan[plans.of(by, self.assigned, ask=ask)]


def row_of(meter: Hashable) -> Row | None:
    """The row that a meter is of, if it is a policy's."""
    row = meter[0] if isinstance(meter, tuple) and meter else None
    return row if isinstance(row, Row) else None
