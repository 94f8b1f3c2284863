"""What a caller may give a budget beside its limit: checked when the budget is made, said in one sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from decimal import ROUND_CEILING, Decimal
from itertools import pairwise
from typing import Any

from .claims import Fallback
from .limits import NANO

DEFAULT_FALLBACK_AT = 0.8
"""From which share of the limit a fallback takes over that is given as a plain name."""

LONGEST_WAIT = 24 * 3600.0
"""Seconds that a call may wait at most: who waits longer is better told."""


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
                f"fallback {after.model!r} at {after.at:g} comes after {before.model!r} at {before.at:g}: "
                "give them with rising at_pct."
            )
        if after.model == before.model:
            raise ValueError(f"fallback {after.model!r} is given twice: give each model once.")
    return chain


def _fallback(value: Any) -> Fallback:
    if isinstance(value, str):
        value = {"at_pct": DEFAULT_FALLBACK_AT, "model": value}
    if not isinstance(value, dict) or set(value) != {"at_pct", "model"}:
        raise ValueError(
            f"fallback must be {{'at_pct': 0.8, 'model': 'name'}}, a name, or a list of them, not {value!r}."
        )
    model = value["model"]
    if not isinstance(model, str) or not model.strip():
        raise ValueError(f"fallback model must be the name of a model, not {model!r}.")
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
        raise ValueError(f"{field} must be a share of the limit above 0 and at most 1, such as 0.8, not {value!r}.")
    return float(value)


def seconds_of(value: Any, field: str) -> float:
    """A time in seconds."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= LONGEST_WAIT
    if not good:
        raise ValueError(f"{field} must be seconds above 0 and at most {LONGEST_WAIT:g}, such as 60, not {value!r}.")
    return float(value)


def flag_of(value: Any, field: str) -> bool:
    """A switch."""
    if not isinstance(value, bool):
        raise ValueError(f"{field} must be True or False, not {value!r}.")
    return value


def tool_prices_of(value: Any) -> dict[str, int]:
    """What runs of tools cost, in nano-dollars, from what the caller gave in USD."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(tool, str) for tool in value):
        raise ValueError(f"tool_prices must be {{'tool': USD per run}}, not {value!r}.")
    return {tool: tool_price(usd, f"tool_prices[{tool!r}]") for tool, usd in value.items()}


def tool_price(usd: Any, field: str) -> int:
    """USD of one run of a tool as nano-dollars, rounded up; None is free.

    Raises:
        ValueError: not a number, not finite, or below 0.
    """
    if usd is None:
        return 0
    if isinstance(usd, bool) or not isinstance(usd, (int, float, Decimal)) or not math.isfinite(usd) or usd < 0:
        raise ValueError(f"{field} must be USD per run, at least 0, such as 0.005, not {usd!r}.")
    return int((Decimal(str(usd)) * NANO).to_integral_value(ROUND_CEILING))


def callback_of(value: Any, field: str) -> Callable[..., Any] | None:
    """A function that the caller gave."""
    if value is not None and not callable(value):
        raise ValueError(f"{field} must be a function, not {value!r}.")
    return value  # type: ignore[no-any-return]


def price_of(value: Any) -> Callable[[], Any] | None:
    """The price override, checked now and compiled when it is first needed."""
    if value is None:
        return None
    if not isinstance(value, dict) or set(value) != {"input", "output"}:
        raise ValueError(f"price_per_1k_tokens must be {{'input': USD, 'output': USD}}, not {value!r}.")
    for side, amount in value.items():
        good = isinstance(amount, (int, float)) and not isinstance(amount, bool)
        if not good or not math.isfinite(amount) or amount < 0:
            raise ValueError(f"price_per_1k_tokens[{side!r}] must be USD per 1,000 tokens, at least 0, not {amount!r}.")
    made: list[Any] = []

    def price() -> Any:
        if not made:
            from ..pricing import per_1k

            made.append(per_1k(value["input"], value["output"]))
        return made[0]

    return price
