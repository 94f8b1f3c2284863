"""Policies that are in force: the payer for scopes. All that apply to a call must admit it, in one step of the ledger.

What is in force is replaced in one assignment: a call has the policies of before or those of after, and its holds and
its charge stay on the meters that it was admitted to. A policy that goes and comes back by its name, in another list or
in a file that was edited, finds what was spent; an empty list ends all of them and what they know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from opentelemetry.context import Context

from .. import enclosing
from ..budgets.claims import Claim
from ..budgets.scope import entries
from ..scopes.values import as_value
from ..shown import shown
from .policy import Policy
from .standing import Row, RowKey, Standing, row_key
from .unset import UnsetKeys
from .warned import Warned

KEPT_ROWS = 1_000
"""Limits that were in force once, whose meters are still known."""


class Policies:
    """The payer for scopes: the policies that are in force.

    Args:
        environment: says the deployment environment, None where nobody does; asked only if a policy depends on it.

    Attributes:
        keys: the scope keys that policies use.
    """

    def __init__(self, environment: Callable[[], str | None] = lambda: None) -> None:
        self._environment = environment
        self._standing: tuple[Standing, ...] = ()
        self._rows: dict[RowKey, Row] = {}
        self._assigned: dict[str, dict[str, str]] = {}
        self._unset: UnsetKeys | None = None
        self._asks_environment = False
        self.keys: frozenset[str] = frozenset()
        self.before_calls: Callable[[], object] | None = None
        """Run before the next call, which takes it away: what a forked child has to begin again."""

    @property
    def in_force(self) -> tuple[Policy, ...]:
        """The policies, in their order."""
        return tuple(standing.policy for standing in self._standing)

    def set(self, given: Iterable[Policy]) -> None:
        """Put policies in force, in place of those before. One of the same name, keys and window keeps its meters.

        Raises:
            ValueError: something that is no policy, or two of one name; nothing is changed.
        """
        policies = checked(given)
        if not policies:
            for row in self._rows.values():
                row.standing = None
            self._standing, self._rows, self._assigned = (), {}, {}
            self.keys, self._unset = frozenset(), None
            return
        before = {standing.policy.name: standing for standing in self._standing}
        standings = tuple(self._stand(policy, before.get(policy.name)) for policy in policies)
        now_in_force = {id(row) for standing in standings for row in standing.rows}
        for row in self._rows.values():
            if id(row) not in now_in_force:
                row.standing = None
        for standing in standings:
            for row in standing.rows:
                row.standing = standing
        keys = frozenset(key for policy in policies for key in (*policy.keys, *policy.match.keys))
        enclosing.want(keys)
        self._asks_environment = any(policy.match.environment is not None for policy in policies)
        known = frozenset() if self._unset is None else self.keys - self._unset.keys.keys()
        self._unset = UnsetKeys({key: policy.name for policy in policies for key in policy.keys if key not in known})
        self.keys = keys
        self._standing = standings
        while len(self._rows) > KEPT_ROWS:
            oldest = next((key for key, row in self._rows.items() if row.standing is None), None)
            if oldest is None:
                break
            del self._rows[oldest]

    def _stand(self, policy: Policy, before: Standing | None) -> Standing:
        for limit in policy.every_limit:
            key = row_key(policy, limit)
            if key not in self._rows:
                self._rows[key] = Row(policy, limit)
        warned = None
        if policy.warn_at:
            warned = None if before is None else before.warned
            if warned is None or warned.shares != policy.warn_at:
                warned = Warned(policy.warn_at, policy.on_warn)
            warned.on_warn = policy.on_warn
        return Standing(policy, self._rows, self._assigned.setdefault(policy.name, {}), warned)

    def assign(self, value: str | int, plan: str | None, name: str | None) -> None:
        """Give a value a plan of a policy, from the next call on; None leaves it to the table, function or default.

        Raises:
            LookupError: there is no such policy with plans, or several and none is named.
            ValueError: the plan is not there, or the value can be none.
        """
        value = as_value("value", value)
        planned = [standing for standing in self._standing if standing.policy.plans is not None]
        found = [standing for standing in planned if name is None or standing.policy.name == name]
        if not planned:
            raise LookupError(
                "no policy has plans: put one in force with shekel.configure(policies=[per('user.id', plans={…}, …)])."
            )
        if len(found) != 1:
            known = ", ".join(repr(standing.policy.name) for standing in planned)
            which = "of several" if name is None else shown(name)
            raise LookupError(f"policy {which} has no plans to assign: give policy=…; those with plans: {known}.")
        [standing] = found
        plans = standing.policy.plans
        assert plans is not None
        if plan is None:
            self._assigned[standing.policy.name].pop(value, None)
        elif not isinstance(plan, str) or plan not in plans.limits:
            raise ValueError(
                f"{shown(plan)} is no plan of {shown(standing.policy.name)}: give {', '.join(plans.limits)}."
            )
        else:
            self._assigned[standing.policy.name][value] = plan
        if plans.resolver is not None:
            plans.resolver.forget(value)

    # What calls ask

    def claims(self, here: Context, now: float, *, provider: str | None = None) -> Iterable[Claim]:
        """What a call made in this context, to that provider, is charged to."""
        if not self._standing:
            return ()
        if self.before_calls is not None:
            self.before_calls()
        scopes = enclosing.scopes(entries(here), here, self.keys)
        unset = self._unset
        if unset is not None and unset.keys and not unset.seen(scopes[0], here):
            self._unset = None
        if len(scopes) == 1:
            return self.claims_of(scopes[0], now, provider=provider)
        return [claim for scope in scopes for claim in self.claims_of(scope, now, provider=provider)]

    def claims_of(self, scope: Mapping[str, str], now: float, *, provider: str | None = None) -> list[Claim]:
        """What a call of that scope is charged to.

        Args:
            scope: the entries of the scope.
            now: Unix time in seconds.
            provider: `gen_ai.provider.name` of the call; without one, policies for some providers only do not apply.
        """
        if not scope:
            return []
        environment = self._environment() if self._asks_environment else None
        claims: list[Claim] = []
        for standing in self._standing:
            match = standing.policy.match
            if match.given and not match.holds(scope, provider, environment):
                continue
            claims += standing.claims(scope, now)
        return claims


def checked(policies: Iterable[Any]) -> tuple[Policy, ...]:
    """Policies that may be in force together.

    Raises:
        ValueError: something that is no policy, or two of one name.
    """
    made: dict[str, Policy] = {}
    for policy in policies:
        if not isinstance(policy, Policy):
            raise ValueError(f"policies must be made with per(...), not {shown(policy)}.")
        if policy.name in made:
            raise ValueError(
                f"two policies are named {shown(policy.name)}: give each a name=… of its own, or put the limits into "
                "one, such as per('user.id', '$5/day + 100 calls/hr')."
            )
        made[policy.name] = policy
    return tuple(made.values())
