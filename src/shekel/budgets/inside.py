"""Functions that run inside a block: plain and async ones, and generators of both.

A generator is left and entered again at each `yield`, perhaps by another thread or task. Nothing of its block may be
seen by whoever reads it in between, and everything must be there when it goes on; so it runs in a context of its own.
"""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractContextManager
from functools import wraps
from inspect import isasyncgenfunction, iscoroutine, iscoroutinefunction, isgeneratorfunction
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast

from ..shown import shown

P = ParamSpec("P")
R = TypeVar("R")

Block = Callable[..., AbstractContextManager[Any]]


def inside(function: Callable[P, R], block: Block) -> Callable[P, R]:
    """The function, each call of which runs inside a block of its own.

    Args:
        function: any: its result is what it returns without the block, its kind is the same.
        block: makes the block of one call, from the call's arguments.

    Raises:
        TypeError: it is none.
    """
    if not callable(function):
        raise TypeError(f"a block takes a function that runs in it, not {shown(function)}.")
    if iscoroutinefunction(function):

        @wraps(function)
        async def run_async(*args: P.args, **kwargs: P.kwargs) -> Any:
            with block(*args, **kwargs):
                return await cast("Callable[P, Awaitable[Any]]", function)(*args, **kwargs)

        return cast("Callable[P, R]", run_async)

    if isasyncgenfunction(function):

        @wraps(function)
        async def run_async_generator(*args: P.args, **kwargs: P.kwargs) -> Any:
            own = contextvars.copy_context()
            around = block(*args, **kwargs)
            own.run(around.__enter__)
            try:
                generator = function(*args, **kwargs)
                step: Any = generator.__anext__()
                while True:
                    try:
                        item = await _Steps(own, step)
                    except StopAsyncIteration:
                        return
                    try:
                        step = generator.asend((yield item))
                    except GeneratorExit:
                        await _Steps(own, generator.aclose())
                        raise
                    except BaseException as error:
                        step = generator.athrow(error)
            finally:
                own.run(around.__exit__, None, None, None)

        return cast("Callable[P, R]", run_async_generator)

    if isgeneratorfunction(function):

        @wraps(function)
        def run_generator(*args: P.args, **kwargs: P.kwargs) -> Any:
            own = contextvars.copy_context()
            around = block(*args, **kwargs)
            own.run(around.__enter__)
            try:
                return (yield from _Generator(own, cast("Any", function(*args, **kwargs))))
            finally:
                own.run(around.__exit__, None, None, None)

        return cast("Callable[P, R]", run_generator)

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with block(*args, **kwargs):
            result = function(*args, **kwargs)
            if not iscoroutine(result):
                return result
            # A lambda that returns a coroutine, an object whose call is async: the work is yet to come.
            own = contextvars.copy_context()
        return cast("R", _await(own, result))

    return run


async def _await(own: contextvars.Context, inner: Awaitable[Any]) -> Any:
    return await _Steps(own, inner)


class _Generator(Generator[Any, Any, Any]):
    """A generator whose steps all run in one context."""

    __slots__ = ("_inner", "_own")

    def __init__(self, own: contextvars.Context, inner: Generator[Any, Any, Any]) -> None:
        self._own = own
        self._inner = inner

    def send(self, value: Any) -> Any:
        return self._own.run(self._inner.send, value)

    def throw(self, kind: Any, value: Any = None, trace: TracebackType | None = None) -> Any:
        error = kind if value is None else value
        return self._own.run(self._inner.throw, error)

    def close(self) -> None:
        self._own.run(self._inner.close)


class _Steps:
    """An awaitable that runs in one context, inside the task that awaits it."""

    __slots__ = ("_inner", "_own")

    def __init__(self, own: contextvars.Context, inner: Awaitable[Any]) -> None:
        self._own = own
        self._inner = inner

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield from _Generator(self._own, cast("Any", self._inner.__await__())))
