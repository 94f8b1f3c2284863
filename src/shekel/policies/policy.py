"""Policies: budgets for each value of some scope keys, such as one per user. What they say; facts and checks only.

A policy has no object per user: only meters in the ledger, which exist while they hold something. `standing.py` puts it
in force, `policies.py` has all that are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..budgets import wiring
from ..budgets.arguments import callback_of, fallbacks_of, said_once, shares_of
from ..budgets.claims import AtLimit, Fallback
from ..budgets.keywords import limits_in
from ..budgets.limits import Limit, Mode, Unit, agree, as_mode
from ..budgets.spec import parse_spec
from ..scopes.values import is_key
from ..shown import shown
from .matching import EVERYTHING, Match, match_of
from .plans import Plans, plans_of

AT_LIMITS = (AtLimit.RAISE, AtLimit.WARN, AtLimit.SHADOW)
"""What a policy can do at a limit. To wait, to ask or to finish is a matter of one block, and so of `budget`."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A budget for each combination of values of some scope keys. Make one with `per`.

    Attributes:
        keys: the scope keys; a call whose scope lacks one of them is not charged.
        limits: how much each may spend, where there are no plans; those in USD first.
        plans: limits by plan, and who has which; None where all have the same.
        mode: how open calls hold.
        name: what messages, spans and metrics call it. A policy of the same name in another list, or in a file that
            was changed, is the same policy: what was spent stays spent.
        allow_unpriced: whether models without a known price pass uncounted.
        at_limit: what happens at a limit: RAISE, WARN or SHADOW.
        match: to which calls it applies.
        warn_at: shares of a limit at which it warns, each once per value and window.
        on_warn: called with (scope, used, limit) then: USD for a limit in USD, counts for others.
        fallbacks: the models that take over when the limit of a value is used up to a share.
    """

    keys: tuple[str, ...]
    limits: tuple[Limit, ...]
    plans: Plans | None = None
    mode: Mode = Mode.SLICED
    name: str = ""
    allow_unpriced: bool = False
    at_limit: AtLimit = AtLimit.RAISE
    match: Match = EVERYTHING
    warn_at: tuple[float, ...] = ()
    on_warn: Callable[[dict[str, str], float, float], object] | None = None
    fallbacks: tuple[Fallback, ...] = ()

    @property
    def every_limit(self) -> tuple[Limit, ...]:
        """Its limits, or those of all its plans."""
        return self.limits if self.plans is None else tuple(self.plans.every_limit)


def per(
    *keys_and_limit: Any,
    mode: str | Mode | None = None,
    name: str | None = None,
    unpriced: str | None = None,
    at_limit: str | AtLimit | None = None,
    match: Mapping[str, Any] | None = None,
    warn_at: float | Iterable[float] | None = None,
    on_warn: Callable[[dict[str, str], float, float], object] | None = None,
    fallback: Any = None,
    plans: Mapping[str, Any] | None = None,
    plan_of: Mapping[str, str] | Callable[[str], str | None] | None = None,
    default_plan: str | None = None,
    plan_by: str | None = None,
    plan_cache: float | None = None,
    plan_timeout: float | None = None,
) -> Policy:
    """A budget for each value of a scope key: `per("user.id", "$5/day + 100 calls/hr")`.

    Args:
        *keys_and_limit: one or more scope keys ("tenant.id", "user.id": one budget for each user of each tenant), then
            the limit: a spec, also of several limits and with options; an amount in USD; a `Limit`; or a list of them.
        mode: as for `budget`.
        name: what messages, spans and metrics call it, and what it is known by when policies change; "per user.id" if
            not given.
        unpriced: "refuse" (default) or "allow".
        at_limit: "raise" (default), "warn" or "shadow".
        match: the calls that it applies to, by patterns that must all match: {"tenant.id": "acme",
            "model": ["gpt-4o*", "o3"], "provider": "openai", "environment": "production"}; any other key is a scope
            key. All calls if not given.
        warn_at: a share of the limit (0 < share ≤ 1) at which to warn, or several; once for each value and window, as
            an event on the call's span.
        on_warn: called with (scope, used, limit) then, too: scope as {"user.id": "ada"}, amounts in USD, or counts.
        fallback: as for `budget`: the model that takes over when the budget of a value is used up to a share.
        plans: instead of a limit: {"free": "$0.10/day", "pro": "$20/month + 1000 calls/hr", "staff": "unlimited"}.
        plan_of: who has which plan: a table {"ada": "pro"}, or a function of the value that returns a plan's name, or
            None for the default. The function runs in a thread of its own.
        default_plan: the plan of values that nobody knows, and of those for which the function fails or is slow.
        plan_by: which of several keys the plan is chosen by.
        plan_cache: for how many seconds an answer of the function counts; 60 if not given.
        plan_timeout: for how many seconds a call waits for the function; 0.25 if not given. Then the plan that the
            value had before counts, else the default, and the answer counts as soon as it comes.

    Raises:
        ValueError: no key, a key that is no text, no limit, or an argument that makes no sense.
    """
    if plans is None:
        for field, value in (("plan_of", plan_of), ("default_plan", default_plan), ("plan_by", plan_by),
                             ("plan_cache", plan_cache), ("plan_timeout", plan_timeout)):  # fmt: skip
            if value is not None:
                raise ValueError(f"{field}={shown(value)} has no plans: give plans={{'free': '$0.10/day', …}}, too.")
        *keys, limit = keys_and_limit or (None,)
        if not keys:
            raise ValueError("per() takes a scope key and a limit: per('user.id', '$5/day').")
        _check_keys(keys)
        limits, options = _limits(limit)
        chosen = None
    else:
        keys, limits, options = list(keys_and_limit), (), {}
        if not keys:
            raise ValueError("per() takes a scope key beside plans: per('user.id', plans={…}, default_plan='free').")
        for key in keys:
            if _is_limit(key):
                raise ValueError(f"{shown(key)} is a limit beside plans: make a policy of its own for it, or a plan.")
        _check_keys(keys)
        chosen = plans_of(
            plans, plan_of, default_plan, keys=tuple(keys), by=plan_by, cache=plan_cache, timeout=plan_timeout
        )
    said = {"mode": mode, "name": name, "at_limit": at_limit, "unpriced": unpriced, "warn_at": warn_at}
    given = {field: value for field, value in said.items() if value is not None}
    said_once(options, given, "the limit")
    arguments = {**options, **given}
    unpriced = arguments.get("unpriced", "refuse")
    if unpriced not in ("refuse", "allow"):
        raise ValueError(f"unpriced must be 'refuse' or 'allow', not {shown(unpriced)}.")
    name = arguments.get("name", f"per {' and '.join(keys)}")
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"name must be a text that is not empty, not {shown(name)}: leave it out for 'per {keys[0]}'.")
    at = _at_limit(arguments.get("at_limit", AtLimit.RAISE))
    shares = shares_of(arguments.get("warn_at"))
    if at is AtLimit.WARN and 1.0 not in shares:
        shares = (*shares, 1.0)
    given_mode = arguments.get("mode")
    policy = Policy(
        tuple(keys),
        limits,
        chosen,
        wiring.default_mode if given_mode is None else as_mode(given_mode),
        name,
        unpriced == "allow",
        at,
        match_of(match),
        shares,
        callback_of(on_warn, "on_warn"),
        fallbacks_of(fallback),
    )
    _check(policy)
    return policy


def _check(policy: Policy) -> None:
    """What only makes sense together."""
    if policy.on_warn is not None and not policy.warn_at:
        raise ValueError("on_warn has no share of the limit to warn at: give warn_at=0.8, too.")
    if policy.match.models and any(limit.unit is Unit.TOOL_CALLS for limit in policy.every_limit):
        raise ValueError("match: tool calls have no model: put their limit into a policy without a model.")


def _check_keys(keys: Iterable[Any]) -> None:
    seen = set()
    for key in keys:
        if not isinstance(key, str) or not is_key(key):
            raise ValueError(
                f"a scope key must be a text such as 'user.id', of ASCII letters, digits and dots, not {shown(key)}."
            )
        if key in seen:
            raise ValueError(f"the scope key {shown(key)} is given twice: give it once.")
        seen.add(key)


def _limits(value: Any) -> tuple[tuple[Limit, ...], dict[str, Any]]:
    """The limits that a caller gave, and the options of their specs."""
    limits: list[Limit] = []
    options: dict[str, Any] = {}
    several = isinstance(value, (list, tuple))
    for each in value if several else (value,):
        if isinstance(each, str) and not _is_number(each):
            spec = parse_spec(each, "the limit")
            limits += spec.limits
            for field, said in spec.options.items():
                if options.setdefault(field, said) != said:
                    raise ValueError(f"{field} is said twice: {shown(options[field])} and {shown(said)}.")
        elif each is None:
            raise ValueError("the limit must be a spec such as '$5/day', or an amount in USD, not None.")
        else:
            limits += limits_in(each, "the limit")
    if not limits:
        raise ValueError("the limit is an empty list: give one, such as '$5/day'.")
    return money_first(agree(limits, "the limit")), options


def money_first(limits: Iterable[Limit]) -> tuple[Limit, ...]:
    """Limits in USD for all models before others: the first speaks for its policy."""
    return tuple(sorted(limits, key=lambda limit: (limit.unit is not Unit.USD, limit.model is not None)))


def _at_limit(value: Any) -> AtLimit:
    if value not in AT_LIMITS:
        raise ValueError(
            f"at_limit of a policy must be 'raise', 'warn' or 'shadow', not {shown(value)}: "
            "what waits or finishes is a budget(...) of a block."
        )
    return AtLimit(value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_limit(text: str) -> bool:
    try:
        parse_spec(text)
    except ValueError:
        return False
    return True
