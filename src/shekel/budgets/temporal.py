"""`TemporalBudget`: a budget whose limits count within windows that slide, and the arguments of one with a ledger that
processes share, which is not here yet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from ..shown import shown
from ..vocabulary import LEDGER, TENANTS, refuse
from .budget import Budget
from .keywords import further
from .limits import Limit, Unit, agree, count, money
from .windows import Sliding

_COUNTERS = {
    "usd": Unit.USD,
    "llm_calls": Unit.CALLS,
    "tool_calls": Unit.TOOL_CALLS,
    "tokens": Unit.TOKENS,
    "input_tokens": Unit.INPUT,
    "output_tokens": Unit.OUTPUT,
}
_BESIDE = ("max_llm_calls", "max_tool_calls", "max_tokens", "max_input_tokens", "max_output_tokens", "models")


class TemporalBudget(Budget):
    """A budget with limits in windows that slide. `budget("$5/hr + 100 calls/hr", name="api")` makes one too.

    Args:
        max_usd: the limit in USD within the window.
        window_seconds: the window's length, in seconds.
        name: what messages, spans and metrics call it; it must have one.
        backend: a ledger that processes share: not here yet.
        caps: instead of `max_usd` and `window_seconds`: (counter, limit, seconds) for each limit, where counter is
            "usd", "llm_calls", "tool_calls", "tokens", "input_tokens" or "output_tokens". A limit of None only counts.
        tenant_id: the tenant whose budget of a shared ledger it is: not here yet.
        **kwargs: see `Budget`.

    Raises:
        ValueError: an argument that makes no sense; the message names it, the value and the remedy.
        NotHereYetError: a backend.
    """

    def __init__(
        self,
        max_usd: float | None = None,
        window_seconds: float | None = None,
        *,
        name: str,
        backend: Any = None,
        caps: Iterable[tuple[str, float | None, float]] | None = None,
        tenant_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        if not name:
            raise ValueError(f"name must be a text that is not empty, not {shown(name)}: a TemporalBudget has a name.")
        no_shared_ledger(backend, tenant_id, name)
        if caps is None:
            if window_seconds is None:
                raise ValueError("window_seconds is missing: give the length of the window, such as 3600, or caps.")
            super().__init__(max_usd, window_seconds=window_seconds, name=name, **kwargs)
            return
        given = {"max_usd": max_usd, "window_seconds": window_seconds, **kwargs}
        for field in ("max_usd", "window_seconds", *_BESIDE):
            if given.get(field) is not None:
                raise ValueError(f"caps and {field}={shown(given[field])} say limits twice: leave one of them out.")
        limits = (*_limits_of(caps), *further(kwargs.pop("limits", None)))
        super().__init__(limits=limits, name=name, **kwargs)

    @classmethod
    def of(cls, limits: Iterable[Limit], *, name: str, **kwargs: Any) -> Self:
        """One with limits that are made already."""
        made = cls.__new__(cls)
        Budget.__init__(made, limits=limits, name=name, **kwargs)
        return made


def no_shared_ledger(backend: Any, tenant_id: Any, name: str | None) -> None:
    """Say what to use where a ledger that processes share is asked for.

    Raises:
        ValueError: a tenant, or a backend, without what it needs.
        NotHereYetError: a backend.
    """
    if tenant_id is None and backend is None:
        return
    if tenant_id is not None:
        if not isinstance(tenant_id, str) or not tenant_id:
            raise ValueError(f"tenant_id must be a text that is not empty, not {shown(tenant_id)}.")
        if backend is None:
            raise ValueError(f"tenant_id={shown(tenant_id)} needs a backend, which is not here yet: {TENANTS}.")
    if not name:
        what = "tenant_id" if tenant_id is not None else "backend"
        raise ValueError(f"{what} needs a name: give name=, by which the processes know the budget.")
    refuse("backend=", LEDGER if tenant_id is None else f"{LEDGER}; {TENANTS}")


def _limits_of(caps: Any) -> tuple[Limit, ...]:
    limits: list[Limit] = []
    remedy = "caps must be a list of (counter, limit, seconds), such as [('usd', 5.0, 3600)]"
    caps = list(caps) if isinstance(caps, Iterable) and not isinstance(caps, (str, bytes)) else []
    if not caps:
        raise ValueError(f"{remedy}; there is none.")
    for cap in caps:
        if not isinstance(cap, (tuple, list)) or len(cap) != 3:
            raise ValueError(f"{remedy}, not {shown(cap)} in it.")
        counter, most, seconds = cap
        unit = _COUNTERS.get(counter) if isinstance(counter, str) else None
        if unit is None:
            raise ValueError(f"{shown(counter)} in caps counts nothing: use {', '.join(_COUNTERS)}.")
        try:
            window = Sliding(seconds)
        except ValueError as error:
            raise ValueError(f"caps: {counter}: {error}") from None
        if most is not None:
            field = f"caps: {counter}"
            limits.append(Limit(money(most, field) if unit is Unit.USD else count(most, field, unit), unit, window))
    return agree(limits, "caps")
