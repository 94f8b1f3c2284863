"""The ways to make a budget: `budget(...)` for a block, `@with_budget(...)` for each call of a function."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, ParamSpec, TypeVar, cast

from .budget import Budget

P = ParamSpec("P")
R = TypeVar("R")


def budget(spec: float | str | None = None, *, name: str | None = None, **kwargs: Any) -> Budget:
    """Make a budget: `with budget(max_usd=5): ...`, or `budget("$5/day")`.

    Args:
        spec: the limit as a spec or an amount in USD, instead of `max_usd`.
        name: what messages, spans and metrics call it.
        **kwargs: see `Budget`.

    Raises:
        ValueError: an argument that makes no sense, or both a spec and `max_usd`.
    """
    if spec is not None:
        if "max_usd" in kwargs:
            raise ValueError(f"give the limit once: {spec!r} or max_usd={kwargs['max_usd']!r}.")
        kwargs["max_usd"] = spec
    return Budget(name=name, **kwargs)


def with_budget(max_usd: Any = None, **kwargs: Any) -> Any:
    """Run each call of the decorated function, sync or async, under a fresh budget of its own.

    Args:
        max_usd: the limit of one call, in USD or as a spec.
        **kwargs: see `Budget`.
    """
    if callable(max_usd):
        raise TypeError("write @with_budget(max_usd=…) with its limit in parentheses.")
    Budget(max_usd, **kwargs)  # a bad argument is said where the decorator stands, not at the first call

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if iscoroutinefunction(function):

            @wraps(function)
            async def run_async(*args: P.args, **kw: P.kwargs) -> Any:
                async with Budget(max_usd, **kwargs):
                    return await cast(Callable[P, Awaitable[Any]], function)(*args, **kw)

            return cast(Callable[P, R], run_async)

        @wraps(function)
        def run(*args: P.args, **kw: P.kwargs) -> R:
            with Budget(max_usd, **kwargs):
                return function(*args, **kw)

        return run

    return decorate
