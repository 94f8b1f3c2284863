"""What a caller may give a budget beside its limit: checked when the budget is made, said in one sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any

from ..shown import shown
from .claims import Fallback
from .fallbacks import known_provider
from .limits import MOST, NANO, cost

DEFAULT_FALLBACK_AT = 0.8
"""From which share of the limit a fallback takes over that is given as a plain name."""

LONGEST_WAIT = 24 * 3600.0
"""Seconds that a call may wait at most: who waits longer is better told."""

LEAST_PRICE = 1e-30
"""USD per 1,000 tokens that a price is at least, where it is not 0: what is less is a slip, and no price list's."""


def fallbacks_of(value: Any) -> tuple[Fallback, ...]:
    """A chain of fallbacks from what the caller gave: nothing, a name, one of them, or several with rising shares."""
    if value is None:
        return ()
    chain = tuple(_fallback(each) for each in (value if isinstance(value, (list, tuple)) else (value,)))
    if not chain:
        raise ValueError("fallback is an empty list: leave it out for no fallback.")
    for before, after in pairwise(chain):
        if after.at < before.at:
            raise ValueError(
                f"fallback {shown(after.model)} at {after.at:g} comes after {shown(before.model)} at {before.at:g}: "
                "give them with rising at_pct."
            )
    models = [each.model for each in chain]
    for number, model in enumerate(models):
        if model in models[:number]:
            raise ValueError(f"fallback {shown(model)} is given twice: give each model once.")
    if len(models) > 1:
        _check_providers(models)
    return chain


def _check_providers(models: list[str]) -> None:
    """A call goes to one provider: a chain over two would fail at its first call."""
    first: tuple[str, str] | None = None
    for model in models:
        provider = known_provider(model)
        if provider is None:
            continue
        if first is not None and provider != first[1]:
            raise ValueError(
                f"fallback {shown(first[0])} belongs to {first[1]} and {shown(model)} to {provider}: "
                "give models of one provider, the one that the calls go to."
            )
        first = first or (model, provider)


def _fallback(value: Any) -> Fallback:
    if isinstance(value, str):
        value = {"at_pct": DEFAULT_FALLBACK_AT, "model": value}
    if not isinstance(value, dict) or set(value) != {"at_pct", "model"}:
        raise ValueError(
            f"fallback must be {{'at_pct': 0.8, 'model': 'name'}}, a name, or a list of them, not {shown(value)}."
        )
    model = value["model"]
    if not isinstance(model, str) or not model.strip():
        raise ValueError(f"fallback model must be the name of a model, not {shown(model)}.")
    return Fallback(at=share(value["at_pct"], "fallback at_pct"), model=model)


def shares_of(value: Any) -> tuple[float, ...]:
    """Thresholds from what the caller gave: nothing, one share, or several; in rising order, each once."""
    if value is None:
        return ()
    if isinstance(value, (str, bytes, dict)) or not isinstance(value, Iterable):
        return (share(value, "warn_at"),)
    shares = tuple(sorted({share(each, "warn_at") for each in value}))
    if not shares:
        raise ValueError("warn_at is empty: leave it out for no warning.")
    return shares


def share(value: Any, field: str) -> float:
    """A share of a limit."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise ValueError(
            f"{field} must be a share of the limit above 0 and at most 1, such as 0.8, not {shown(value)}."
        )
    return float(value)


def said_once(options: Mapping[str, Any], given: Mapping[str, Any], where: str) -> None:
    """Check that no argument says otherwise what a spec says, too.

    Args:
        options: of the spec.
        given: the arguments beside it.
        where: what a message calls the spec.

    Raises:
        ValueError: one does; the message names it, and both values.
    """
    for key, value in options.items():
        if key not in given or given[key] == value or (key == "warn_at" and shares_of(given[key]) == value):
            continue
        raise ValueError(f"{key} is said twice: {shown(value)} in {where}, and {shown(given[key])} beside it.")


def seconds_of(value: Any, field: str) -> float:
    """A time in seconds."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= LONGEST_WAIT
    if not good:
        raise ValueError(
            f"{field} must be seconds above 0 and at most {LONGEST_WAIT:g}, such as 60, not {shown(value)}."
        )
    return float(value)


def flag_of(value: Any, field: str) -> bool:
    """A switch."""
    if not isinstance(value, bool):
        raise ValueError(f"{field} must be True or False, not {shown(value)}.")
    return value


def tool_prices_of(value: Any) -> dict[str, int]:
    """What runs of tools cost, in nano-dollars, from what the caller gave in USD."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(tool, str) for tool in value):
        raise ValueError(f"tool_prices must be {{'tool': USD per run}}, not {shown(value)}.")
    return {tool: tool_price(usd, f"tool_prices[{shown(tool)}]") for tool, usd in value.items()}


def tool_price(usd: Any, field: str) -> int:
    """USD of one run of a tool as nano-dollars, rounded up; None is free.

    Raises:
        ValueError: not a number, not finite, below 0 or too large.
    """
    return 0 if usd is None else cost(usd, field, "give USD per run, at least 0, such as 0.005")


def callback_of(value: Any, field: str) -> Callable[..., Any] | None:
    """A function that the caller gave."""
    if value is not None and not callable(value):
        raise ValueError(f"{field} must be a function, not {shown(value)}.")
    return value  # type: ignore[no-any-return]


def price_of(value: Any) -> Callable[[], Any] | None:
    """The price override, checked now and compiled when it is first needed."""
    if value is None:
        return None
    if not isinstance(value, dict) or set(value) != {"input", "output"}:
        raise ValueError(f"price_per_1k_tokens must be {{'input': USD, 'output': USD}}, not {shown(value)}.")
    for side, amount in value.items():
        field = f"price_per_1k_tokens[{side!r}]"
        if isinstance(amount, bool) or not isinstance(amount, (int, float)) or not 0 <= amount < math.inf:
            raise ValueError(f"{field} must be USD per 1,000 tokens, at least 0, not {shown(amount)}.")
        if amount > MOST // NANO:
            raise ValueError(f"{field} is too large with {shown(amount)}: give USD per 1,000 tokens, such as 0.005.")
        if 0 < amount < LEAST_PRICE:
            raise ValueError(f"{field} is too small with {shown(amount)}: give USD per 1,000 tokens, or 0 for free.")
    input, output = value["input"], value["output"]
    made: list[Any] = []

    def price() -> Any:
        if not made:
            from ..pricing import per_1k

            made.append(per_1k(input, output))
        return made[0]

    return price
