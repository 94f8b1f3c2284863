"""The ways to make a budget: `budget(...)` for a block, `@with_budget(...)` for each call of a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from ..shown import shown
from .arguments import said_once
from .budget import Budget
from .inside import inside
from .keywords import further
from .limits import Limit
from .spec import parse_spec
from .temporal import TemporalBudget, no_shared_ledger

P = ParamSpec("P")
R = TypeVar("R")

LIMITS = (
    "max_usd",
    "max_llm_calls",
    "max_input_tokens",
    "max_output_tokens",
    "max_tokens",
    "max_tool_calls",
    "window_seconds",
    "models",
)
"""Arguments that say a limit, and so contradict a spec."""


def budget(
    spec: float | str | Limit | None = None,
    *,
    name: str | None = None,
    backend: Any = None,
    tenant_id: str | None = None,
    **kwargs: Any,
) -> Budget:
    """Make a budget: `with budget(max_usd=5): ...`, or `budget("$5/day")`.

    Args:
        spec: limits and options as one text, such as "$5/hr + 100 calls/hr" or "$20/month tz=Europe/Berlin
            warn_at=0.8"; or an amount in USD, instead of `max_usd`.
        name: what messages, spans and metrics call it.
        backend: a ledger that processes share: not here yet.
        tenant_id: the tenant whose budget of a shared ledger it is: not here yet.
        **kwargs: see `Budget`.

    Raises:
        ValueError: an argument that makes no sense, or a limit both in the spec and beside it.
        NotHereYetError: a backend.
    """
    no_shared_ledger(backend, tenant_id, name)
    if spec is None:
        if name is not None and kwargs.get("window_seconds") is not None:
            return TemporalBudget(name=name, **kwargs)
        return Budget(name=name, **kwargs)
    for field in LIMITS:
        if kwargs.get(field) is not None:
            raise ValueError(f"give the limits once: {shown(spec)} or {field}={shown(kwargs[field])}.")
    if isinstance(spec, str) and not is_number(spec):
        return from_spec(spec, name=name, **kwargs)
    kwargs.pop("max_usd", None)  # it is None
    return Budget(spec, name=name, **kwargs)


def from_spec(text: str, *, source: str | None = None, name: str | None = None, **kwargs: Any) -> Budget:
    """The budget that a spec says.

    Args:
        text: the spec.
        source: where it stands, for messages.
        name: its name; the spec may say one too.
        **kwargs: see `Budget`; they go before what the spec says.

    Raises:
        ValueError: the text is no spec, or says what an argument says otherwise.
    """
    spec = parse_spec(text, source=source)
    given = {key: value for key, value in {"name": name, **kwargs}.items() if value is not None}
    said_once(spec.options, given, shown(text))
    arguments = {**spec.options, **given}
    limits = (*spec.limits, *further(arguments.pop("limits", None)))
    if arguments.get("name") is not None and any(limit.window is not None for limit in limits):
        return TemporalBudget.of(limits, **arguments)
    return Budget(limits=limits, **arguments)


def is_number(text: str) -> bool:
    """Whether a text is a plain amount, and no spec."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def with_budget(
    max_usd: Any = None,
    warn_at: Any = None,
    on_warn: Callable[[float, float], object] | None = None,
    price_per_1k_tokens: dict[str, float] | None = None,
    fallback: Any = None,
    on_fallback: Callable[[float, float, str], object] | None = None,
    name: str | None = None,
    max_llm_calls: int | None = None,
    **kwargs: Any,
) -> Any:
    """Run each call of the decorated function under a fresh budget of its own: sync, async, and generators of both.

    Args:
        max_usd: the limit of one call, in USD or as a spec.
        warn_at, on_warn, price_per_1k_tokens, fallback, on_fallback, name, max_llm_calls: see `Budget`.
        **kwargs: the others; see `Budget`.

    Returns:
        the decorator; what it decorates keeps its kind and its result.

    Raises:
        ValueError: where it stands, an argument that makes no sense.
        TypeError: where it stands, what is no function.
    """
    if callable(max_usd):
        raise TypeError("write @with_budget(max_usd=…) with its limit in parentheses.")

    def fresh() -> Budget:
        # A spec may say all limits at once; a number is the one in USD, beside others.
        first = {"spec" if isinstance(max_usd, str) else "max_usd": max_usd}
        made = budget(
            **first, warn_at=warn_at, on_warn=on_warn, price_per_1k_tokens=price_per_1k_tokens, fallback=fallback,
            on_fallback=on_fallback, name=name, max_llm_calls=max_llm_calls, **kwargs,
        )  # fmt: skip
        made.made_for_call = True
        return made

    fresh()  # a bad argument is said where the decorator stands, not at the first call

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if isinstance(function, staticmethod):  # it can be called, and what is made of it would take `self`
            return staticmethod(decorate(function.__func__))
        return inside(function, lambda *_args, **_kwargs: fresh())

    return decorate
