"""`scoped_client`: a client whose calls carry a scope, whatever context they are made in.

It is a second object of the client's own type, with the same attributes and so the same connection pool, and it makes
resources (`client.chat`) of its own. The SDKs close a pool when their object for it is collected, which both hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache, wraps
from typing import Any, TypeVar

from opentelemetry.context import Context

from .. import context as ctx
from ..budgets.scope import within
from ..scopes.values import as_entries

C = TypeVar("C")

_SCOPE = "_shekel_scope"
_COPIES = ("copy", "with_options")
_CHAIN = "_middleware_chain"


def scoped_client(
    client: C,
    *,
    user_id: str | int | None = None,
    session_id: str | int | None = None,
    tenant_id: str | int | None = None,
    **entries: str | int | None,
) -> C:
    """A client of the same type and connection pool, whose calls carry these scope entries.

        mine = shekel.scoped_client(client, user_id="ada")

    They go before those of the context, are on spans, and are charged by policies; nothing of them is in the baggage.
    `copy` and `with_options` of it give scoped clients too. Closing it closes the pool that both use. It takes
    microseconds, so that one for each request is fine.

    Args:
        client: of `openai` or `anthropic`, sync or async. It stays as it is.
        user_id, session_id, tenant_id, **entries: as for `scope`.

    Raises:
        ValueError: an entry that `scope` would refuse, or none.
        TypeError: something that is no client.
    """
    added = as_entries({"user_id": user_id, "session_id": session_id, "tenant_id": tenant_id, **entries})
    if not added:
        raise ValueError("scoped_client() takes at least one entry, such as user_id='ada'.")
    if isinstance(client, type) or not all(hasattr(client, name) for name in ("request", "_client", "copy")):
        raise TypeError(f"scoped_client() takes a client of openai or anthropic, not a {type(client).__name__}.")
    kind: Any = type(client)
    resources = _resources(kind)
    own = {name: value for name, value in vars(client).items() if name not in resources}
    other = object.__new__(kind)
    vars(other).update(own)
    if own.get(_CHAIN) is not None and hasattr(other, "_build_middleware_chain"):
        setattr(other, _CHAIN, other._build_middleware_chain())  # its links are bound to a client
    made: C = _carrying(other, {**own.get(_SCOPE, {}), **added})
    return made


@lru_cache(maxsize=64)
def _resources(kind: type) -> frozenset[str]:
    """The attributes that a client of that class makes when they are first asked for, and which know it."""
    return frozenset(
        name for base in kind.__mro__ for name, value in vars(base).items() if isinstance(value, cached_property)
    )


def context_of(client: Any) -> Context:
    """The context that a client's call is made in: the current one, with the client's own scope if it has one."""
    here = ctx.current()
    added = getattr(client, _SCOPE, None)
    return here if added is None else within(here, added, propagate=False)


def _carrying(client: Any, entries: Mapping[str, str]) -> Any:
    own = vars(client)
    own[_SCOPE] = entries
    for name in _COPIES:
        if hasattr(type(client), name):
            own[name] = _copying(client, getattr(type(client), name))
    return client


def _copying(client: Any, former: Any) -> Any:
    @wraps(former)
    def copy(*args: Any, **kwargs: Any) -> Any:
        return _carrying(former(client, *args, **kwargs), vars(client)[_SCOPE])

    return copy
