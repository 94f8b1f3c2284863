"""Scopes: who pays. Entries of the OpenTelemetry baggage that this process has set itself.

`scope(user_id="alice")` writes the baggage, so that traces and other services see it, and keeps the same entries under
a private key of the context: baggage does not say where an entry came from, and what came from outside charges nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ContextDecorator
from contextvars import ContextVar, Token
from functools import wraps
from inspect import iscoroutinefunction
from types import TracebackType
from typing import Any, Self, cast

from opentelemetry import baggage
from opentelemetry.context import Context

from .. import context
from ..telemetry import names

_KEYS = {"user_id": names.USER_ID, "session_id": names.SESSION_ID, "tenant_id": names.TENANT_ID}

_entered: ContextVar[tuple[tuple[scope, Token[Context]], ...]] = ContextVar("shekel-scopes", default=())


class scope(ContextDecorator):
    """Name who pays for the calls of a block: `with shekel.scope(user_id="alice"): ...`.

    Works as a sync and async context manager and as a decorator of sync and async functions. Scopes nest; the inner
    one adds to and overrides the outer.

    Args:
        user_id: the semantic convention's `user.id`. None leaves it as it is.
        session_id: `session.id`.
        tenant_id: `tenant.id`.
        **entries: any other key, taken as it is; or as a mapping by `**{"my.key": "value"}`.

    Raises:
        ValueError: an empty value, or one that is neither text nor a whole number.
    """

    def __init__(
        self,
        *,
        user_id: str | int | None = None,
        session_id: str | int | None = None,
        tenant_id: str | int | None = None,
        **entries: str | int | None,
    ) -> None:
        given = {"user_id": user_id, "session_id": session_id, "tenant_id": tenant_id, **entries}
        self._entries = {_KEYS.get(key, key): _value(key, value) for key, value in given.items() if value is not None}

    def __call__(self, function: Any) -> Any:
        if iscoroutinefunction(function):

            @wraps(function)
            async def run(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return await function(*args, **kwargs)

            return run
        return super().__call__(function)

    def __enter__(self) -> Self:
        here = context.current()
        now = here
        for key, value in self._entries.items():
            now = baggage.set_baggage(key, value, now)
        outer = cast(Mapping[str, str], here.get(context.SCOPE, {}))
        token = context.attach(Context({**now, context.SCOPE: {**outer, **self._entries}}))
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


def entries(here: Context) -> Mapping[str, str]:
    """The scope of a context: only what this process has set itself."""
    return cast(Mapping[str, str], here.get(context.SCOPE, {}))


def without_scope(here: Context, keys: frozenset[str]) -> Context:
    """The context without the baggage entries that name who pays: they are nobody's business at the provider."""
    present = baggage.get_all(here)
    if not present:
        return here
    for key in present:
        if key in keys or key in entries(here):
            here = baggage.remove_baggage(key, here)
    return here


def _value(key: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value):
        raise ValueError(f"{key} must be a text that is not empty, or a whole number, not {value!r}.")
    return str(value)
