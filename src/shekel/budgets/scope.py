"""Scopes: who pays. Entries that this process has set itself, and those from outside that it trusts.

`scope(user_id="alice")` writes the OpenTelemetry baggage, so that traces and other services see it, and keeps the same
entries under a private key of the context: baggage does not say where an entry came from. What is only in the baggage
counts as `shekel.configure(trust=…)` says, by default for nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ContextDecorator
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Self

from opentelemetry import baggage
from opentelemetry.context import Context

from .. import context
from ..scopes.outside import outside
from ..scopes.values import as_entries
from .arguments import flag_of
from .inside import inside

_entered: ContextVar[tuple[tuple[scope, Token[Context]], ...]] = ContextVar("shekel-scopes", default=())


class scope(ContextDecorator):
    """Name who pays for the calls of a block: `with shekel.scope(user_id="alice"): ...`.

    Works as a sync and async context manager and as a decorator of sync and async functions and of generators of both.
    Scopes nest; the inner one adds to and overrides the outer.

    Args:
        user_id: the semantic convention's `user.id`. None leaves it as it is.
        session_id: `session.id`.
        tenant_id: `tenant.id`.
        propagate: False keeps these entries to this process: they count here and are on its spans, and no other
            service sees them. Instrumented HTTP clients send baggage to everybody they call.
        **entries: any other key, taken as it is; or as a mapping by `**{"my.key": "value"}`.

    Raises:
        ValueError: a value that is neither text nor a whole number, is empty, has more than 256 characters, white space
            around it, or characters that cannot be printed; a key that baggage cannot carry; one entry by two names,
            with two values; a `propagate` that is neither True nor False.
    """

    def __init__(
        self,
        *,
        user_id: str | int | None = None,
        session_id: str | int | None = None,
        tenant_id: str | int | None = None,
        propagate: bool = True,
        **entries: str | int | None,
    ) -> None:
        self._entries = as_entries({"user_id": user_id, "session_id": session_id, "tenant_id": tenant_id, **entries})
        self._propagate = flag_of(propagate, "propagate")

    def __call__(self, function: Callable[..., Any]) -> Any:
        return inside(function, lambda *_args, **_kwargs: self)

    def __enter__(self) -> Self:
        token = context.attach(within(context.current(), self._entries, propagate=self._propagate))
        _entered.set((*_entered.get(), (self, token)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        entries = _entered.get()
        for index in range(len(entries) - 1, -1, -1):
            if entries[index][0] is self:
                context.detach(entries[index][1])
                _entered.set(entries[:index] + entries[index + 1 :])
                break

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


def within(here: Context, added: Mapping[str, str], *, propagate: bool) -> Context:
    """The context with further scope entries.

    Args:
        here: where they are added.
        added: entries by their keys in the baggage.
        propagate: whether the baggage carries them too. Where it does not, it carries no other value of theirs either:
            that would be sent on as who pays.
    """
    own = {**_own(here), **added}
    own = {**outside.adopted(here, own), **own}
    now = here
    for key, value in added.items():
        now = baggage.set_baggage(key, value, now) if propagate else _without(key, now)
    return Context({**outside.sealed(now, own, here), context.SCOPE: own})


def entries(here: Context) -> Mapping[str, str]:
    """Which scope entries count for a call in this context: those of this process, before trusted ones from outside."""
    own: Mapping[str, str] = here.get(context.SCOPE, _NONE)  # type: ignore[assignment]
    carried = here.get(context.BAGGAGE)
    if not carried or carried is here.get(context.LOOKED):
        return own
    others = outside.entries(here, own)
    return {**others, **own} if others else own


def without_scope(here: Context, keys: frozenset[str]) -> Context:
    """The context without the baggage entries that name who pays: they are nobody's business at the provider.

    The scope itself stays, under its private key.

    Args:
        here: any context.
        keys: what policies ask for. Entries of the scope, the conventional ones, those that a signature names and the
            signature itself go too, whether they are trusted or not.
    """
    carried = baggage.get_all(here)
    if not carried:
        return here
    scope = entries(here)
    named = outside.named(here)
    others = {key: value for key, value in carried.items() if not (key in keys or key in scope or key in named)}
    if len(others) == len(carried):
        return here
    now = baggage.clear(here)
    for key, value in others.items():
        now = baggage.set_baggage(key, value, now)
    return now if scope is here.get(context.SCOPE) else Context({**now, context.SCOPE: scope})


def _own(here: Context) -> Mapping[str, str]:
    return here.get(context.SCOPE, _NONE)  # type: ignore[return-value]


def _without(key: str, here: Context) -> Context:
    return baggage.remove_baggage(key, here) if key in baggage.get_all(here) else here


_NONE: Mapping[str, str] = {}
