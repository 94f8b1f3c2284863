"""`@scoped(user_id="uid")`: a scope for each call of a function, with values from the call's own arguments."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any, ParamSpec, TypeVar

from ..budgets.arguments import flag_of
from ..budgets.inside import inside
from ..budgets.scope import scope
from .values import as_entries

P = ParamSpec("P")
R = TypeVar("R")


def scoped(
    *,
    user_id: str | None = None,
    session_id: str | None = None,
    tenant_id: str | None = None,
    propagate: bool = True,
    **entries: str,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Run each call of the decorated function in a scope that is read from its arguments.

        @scoped(user_id="uid")
        async def answer(uid: str, question: str) -> str: ...

    For sync and async functions and for generators of both; a generator keeps its scope to itself, wherever it is read.

    Args:
        user_id, session_id, tenant_id: the name of the parameter that holds the value.
        propagate: as for `scope`.
        **entries: any other key, and the name of its parameter.

    Raises:
        ValueError: at the decoration, a name that is no parameter of the function, or no name at all; at a call, a
            value that `scope` refuses. An argument that is None leaves its entry as it is.
    """
    given = {"user_id": user_id, "session_id": session_id, "tenant_id": tenant_id, **entries}
    wanted = {key: name for key, name in given.items() if name is not None}
    if not wanted:
        raise ValueError("scoped() takes the parameters to read, such as @scoped(user_id='uid').")
    flag_of(propagate, "propagate")

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if isinstance(function, (classmethod, staticmethod)):
            raise ValueError(f"put @{type(function).__name__} above @scoped.")
        shape = signature(function)
        named = [each.name for each in shape.parameters.values() if each.kind not in _MANY]
        for key, name in wanted.items():
            if name not in named:
                known = ", ".join(named) or "none"
                raise ValueError(
                    f"{key}={name!r} is no parameter of {getattr(function, '__qualname__', function)!s}; it has: "
                    f"{known}. For a value that is the same in every call, write @scope({key}=…)."
                )
        as_entries(dict.fromkeys(wanted, "x"))  # a bad key is said here and now

        def block(*args: Any, **kwargs: Any) -> scope:
            try:
                bound = shape.bind(*args, **kwargs)
            except TypeError:
                return scope()  # the function itself says what is wrong with its arguments
            bound.apply_defaults()
            return scope(propagate=propagate, **{key: bound.arguments[name] for key, name in wanted.items()})

        return inside(function, block)

    return decorate


_MANY = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
