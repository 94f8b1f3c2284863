"""From a web request to its scope: what a resolver is asked, and what holds where it gives no answer.

A resolver says who a request is from. It decides about nothing else: where it raises, is late, or returns what is no
scope, the request goes on, with what the middleware was told for that case or with no entry, and is counted
(`shekel.scope.unresolved`). It never goes on as somebody else's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any

from opentelemetry import trace

from .. import context, faults
from ..budgets.scope import entries, scope
from ..shown import shown
from .counts import Unresolved, give_up

TIMEOUT = 5.0
"""Seconds that a resolver may take."""


class Headers(Mapping[str, str]):
    """A request's headers, by their names in any case. One that came several times is joined by commas."""

    __slots__ = ("_values",)

    def __init__(self, pairs: Iterator[tuple[str, str]]) -> None:
        self._values: dict[str, str] = {}
        for name, value in pairs:
            key = name.lower()
            self._values[key] = f"{self._values[key]}, {value}" if key in self._values else value

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


@dataclass(frozen=True, slots=True)
class Incoming:
    """A web request, as a resolver sees it.

    Attributes:
        headers: by name, in any case.
        method: "GET", …; empty for a websocket.
        path: without the query.
        raw: the ASGI scope or the WSGI environ, with whatever the middleware around has put there.
    """

    headers: Headers
    method: str
    path: str
    raw: MutableMapping[str, Any]


Entries = Mapping[str, str | int | None]
"""As arguments of `scope`: {"user_id": "ada", "team.id": 7}."""

Resolver = Callable[[Incoming], Entries | None]
AsyncResolver = Callable[[Incoming], Entries | Awaitable[Entries | None] | None]


class Resolving:
    """Asks a resolver, and makes a scope of its answer.

    Args:
        resolver: asked once for each request; None: entries come from outside alone.
        otherwise: the entries of a request whose resolver gives no answer.
        timeout: seconds that it may take; an async one is given up then, one that is not is only counted.
        propagate: as for `scope`.

    Raises:
        ValueError: a setting that makes no sense.
    """

    def __init__(self, resolver: Any, otherwise: Entries | None, timeout: float | None, propagate: bool) -> None:
        if resolver is not None and not callable(resolver):
            raise ValueError(f"resolver must be a function of the request, not a {type(resolver).__name__}.")
        if timeout is not None and (isinstance(timeout, bool) or not timeout > 0):
            raise ValueError(f"timeout must be more than 0 seconds, or None, not {shown(timeout)}.")
        if otherwise is not None and not isinstance(otherwise, Mapping):
            raise ValueError(f"otherwise must be entries such as {{'user_id': 'unknown'}}, not {shown(otherwise)}.")
        self._resolver = resolver
        self._timeout = timeout
        self._propagate = propagate
        self._otherwise = scope(propagate=propagate, **(otherwise or {}))

    def scope_of(self, request: Incoming) -> scope:
        """The scope of a request, from a resolver that is not async."""
        if self._resolver is None:
            return scope()
        began = time.monotonic()
        try:
            answer = self._resolver(request)
        except Exception as error:
            return self._failed(Unresolved.ERROR, error)
        if isawaitable(answer):
            getattr(answer, "close", bool)()
            return self._failed(Unresolved.INVALID, TypeError("a coroutine"))
        self._watch(began)
        return self._made(answer)

    async def scope_of_async(self, request: Incoming) -> scope:
        """The scope of a request, from a resolver of either kind."""
        if self._resolver is None:
            return scope()
        began = time.monotonic()
        limit: asyncio.Timeout | None = None
        try:
            answer = self._resolver(request)
            if not isawaitable(answer):
                self._watch(began)
            elif self._timeout is None or not _has_loop():
                answer = await answer
            else:
                async with asyncio.timeout(self._timeout) as limit:
                    answer = await answer
        except Exception as error:
            late = limit is not None and limit.expired()
            return self._failed(Unresolved.TIMEOUT if late else Unresolved.ERROR, error)
        return self._made(answer)

    def _made(self, answer: Any) -> scope:
        try:
            return scope() if answer is None else scope(propagate=self._propagate, **answer)
        except (TypeError, ValueError) as error:
            return self._failed(Unresolved.INVALID, error)

    def _watch(self, began: float) -> None:
        if self._timeout is not None and time.monotonic() - began > self._timeout:
            give_up(Unresolved.SLOW)

    def _failed(self, reason: Unresolved, error: BaseException) -> scope:
        give_up(reason)
        # The type only: a text of an error may quote a header.
        faults.warn_once(
            f"resolver {reason}",
            "A scope resolver gave no answer (%s, %s): the request goes on with the entries of `otherwise`, by default "
            "none. shekel.scope.unresolved counts them; this is said once.",
            reason,
            type(error).__name__,
        )
        return self._otherwise


def show() -> None:
    """Put the scope that holds now on the span around the request."""
    here = context.current()
    span = trace.get_current_span(here)
    if span.is_recording() and (scope := entries(here)):
        span.set_attributes(scope)


def _has_loop() -> bool:
    """Whether this runs on asyncio: a resolver on another loop is not timed."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
