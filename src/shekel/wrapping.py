"""Explicit wrapping: `shekel.meter(lambda: client.chat.completions.create(…), user_id="ada")`, and its async twin.

The callable runs inside the scope, and its calls are seen, whether or not anything is instrumented. What it returns is
the SDK's own, unchanged; a stream belongs to the scope wherever it is read later.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import isawaitable, iscoroutine
from typing import Any, TypeVar

from .budgets.scope import scope as Scope
from .runtime import the_runtime
from .shown import shown

R = TypeVar("R")


def meter(call: Callable[[], R], scope: Mapping[str, Any] | None = None, /, **who: Any) -> R:
    """Make a call, plain or streamed, in a scope: metered and limited, without `instrument()` and without a block.

        stream = shekel.meter(lambda: client.chat.completions.create(..., stream=True), user_id="ada")

    Inside other scopes and budgets it is one call and one charge, like any other.

    Args:
        call: makes the request and returns what the SDK returns. The helpers that send only when their `with` block is
            entered (`with_streaming_response`, `….stream(…)`) need `shekel.scope` around that block.
        scope: scope entries by key, such as {"user.id": "ada"}.
        **who: the arguments of `shekel.scope`: user_id, session_id, tenant_id, propagate, any key.

    Returns:
        what `call` returns.

    Raises:
        BudgetExceededError: it does not fit; nothing was sent.
        TypeError: `call` returned a coroutine, which `ameter` awaits.
        ValueError: a scope that makes no sense.
    """
    with _metered(call, scope, who):
        result = call()
    if isawaitable(result):
        if iscoroutine(result):
            result.close()
        raise TypeError("the call is async, and would run outside the scope: use `await shekel.ameter(…)`.")
    return result


async def ameter(
    call: Callable[[], Awaitable[R]] | Callable[[], R], scope: Mapping[str, Any] | None = None, /, **who: Any
) -> R:
    """`meter` for async clients: `await shekel.ameter(lambda: client.chat.completions.create(…), user_id="ada")`."""
    with _metered(call, scope, who):
        result: Any = call()
        if isawaitable(result):
            result = await result
    return result  # type: ignore[no-any-return]


@contextmanager
def _metered(call: Any, given: Mapping[str, Any] | None, who: Mapping[str, Any]) -> Iterator[None]:
    if not callable(call):
        raise ValueError(
            f"what is metered must be a function that makes the call, such as a lambda, not {shown(call)}."
        )
    if given is not None and not isinstance(given, Mapping):
        raise ValueError(f"a scope is a mapping such as {{'user.id': 'ada'}}, or user_id='ada', not {shown(given)}.")
    around = Scope(**{**(given or {}), **who})
    runtime = the_runtime()
    runtime.acquire_doors()
    try:
        with around:
            yield
    finally:
        runtime.release_doors()
