"""What a caller may give a budget beside its limit: checked when the budget is made, said in one sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .claims import Fallback


def fallback_of(value: Any) -> Fallback | None:
    if value is None:
        return None
    if not isinstance(value, dict) or set(value) != {"at_pct", "model"}:
        raise ValueError(f"fallback must be {{'at_pct': 0.8, 'model': 'name'}}, not {value!r}.")
    model = value["model"]
    if not isinstance(model, str) or not model.strip():
        raise ValueError(f"fallback model must be the name of a model, not {model!r}.")
    return Fallback(at=share(value["at_pct"], "fallback at_pct"), model=model)


def share(value: Any, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise ValueError(f"{field} must be a share of the limit above 0 and at most 1, such as 0.8, not {value!r}.")
    return float(value)


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
