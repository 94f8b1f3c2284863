"""`@tool`: functions that an agent calls, counted and charged before they run.

A wrapped function stays what it was: sync, async, a generator, an object that can be called. Each call of it is
charged to the budgets around it at that moment, or refused before a line of it runs; it is counted also where it fails.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from functools import partial, wraps
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction, isroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

import wrapt
from opentelemetry.context import Context
from opentelemetry.trace import Span, set_span_in_context

from .. import context, enclosing, late
from ..shown import shown
from ..telemetry import names
from ..telemetry.tools import end_tool
from .arguments import tool_price

if TYPE_CHECKING:
    from .budget import Budget

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


def _not_put_together(*args: Any) -> Any:
    raise RuntimeError("no gate: the parts were not put together")


charge: Callable[[str, Callable[[Budget | None], int], Context, bool], None] = _not_put_together
"""Charges a run in the context inside it, and counts it if told so, or raises; set where the parts are put together."""

tell: Callable[[str, Context], Span | None] = _not_put_together
"""Starts the span of a run, where spans are wanted."""


@overload
def tool(fn: F, *, price: float | None = None) -> F: ...
@overload
def tool(fn: None = None, *, price: float | None = None) -> Callable[[F], F]: ...
def tool(fn: Any = None, *, price: float | None = None) -> Any:
    """Count and charge each call of a function, or of an object that can be called, on the budgets around it.

    Use it as `@tool`, `@tool(price=0.005)`, or `search = tool(SearchTool(), price=0.005)`. Outside any budget a call
    passes. A generator is charged when it is called, a coroutine when it starts.

    Args:
        fn: the function or object.
        price: USD of one call, at least 0; None and 0 are free. A budget's `tool_prices` goes before it.

    Raises:
        ValueError: a price that makes no sense.
        TypeError: something that cannot be called.

    A run never waits, and nobody is asked for more: also under at_limit="pause" or `on_exceed` it is refused at once.
    A wrapped call raises `ToolBudgetExceededError` or `AgentLoopError` where a budget has no room for it.
    """
    nano = tool_price(price, "price")

    def decorate(function: Any) -> Any:
        if isinstance(function, staticmethod):  # it can be called, and what is made of it would take `self`
            return staticmethod(decorate(function.__func__))
        if not callable(function):
            raise TypeError(
                f"tool() takes a function or an object that can be called, not {shown(function)}"
                + (": put @classmethod above @tool." if isinstance(function, classmethod) else ".")
            )
        if isroutine(function):
            return _wrapped(function, _name_of(function), nano)
        return _ToolObject(function, nano)

    return decorate if fn is None else decorate(fn)


def _name_of(function: Any) -> str:
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__name__", None) or type(function).__name__)


class _ToolObject(wrapt.ObjectProxy):  # type: ignore[type-arg]
    """An object that is a tool when it is called, and itself in all else."""

    def __init__(self, wrapped: Any, nano: int) -> None:
        super().__init__(wrapped)
        self._self_nano = nano
        # What runs is the class's `__call__`, and it says whether the call is async.
        inner = wrapped if isinstance(wrapped, (type, partial)) else wrapped.__call__
        self._self_run = _wrapped(inner, _name_of(wrapped), nano)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._self_run(*args, **kwargs)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _ToolObject, (self.__wrapped__, self._self_nano)


def _wrapped(function: Any, name: str, nano: int) -> Any:
    def price(budget: Budget | None) -> int:
        own = None if budget is None else budget.tool_price(name)
        return nano if own is None else own

    if iscoroutinefunction(function):

        @wraps(function)
        async def run_async(*args: Any, **kwargs: Any) -> Any:
            with _Run(name, price):
                return await function(*args, **kwargs)

        return run_async

    if isgeneratorfunction(function) or isasyncgenfunction(function):
        through = _told if isgeneratorfunction(function) else _told_async

        @wraps(function)
        def run_generator(*args: Any, **kwargs: Any) -> Any:
            here = context.current()
            try:
                charge_run(name, price, here)
            except Exception as refusal:
                span = tell(name, here)
                if span is not None:
                    end_tool(span, refusal)
                raise
            return through(function(*args, **kwargs), name, here)

        return run_generator

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with _Run(name, price):
            return function(*args, **kwargs)

    return run


def charge_run(name: str, price: Callable[[Budget | None], int], here: Context) -> Context:
    """Count and charge a run, or raise; where a span of somebody else's stood for it, only what that left out.

    Returns:
        the context for what runs inside.
    """
    inside = enclosing.inside_tool(here, name, names.SCOPE)
    known = enclosing.charged_above(here, name, names.SCOPE)
    if known is not None:
        # Its span knew nothing of the price that `@tool` names.
        price = partial(_beyond, price, name)
    charge(name, price, inside, known is None)
    return inside


def _beyond(price: Callable[[Budget | None], int], name: str, budget: Budget | None) -> int:
    return price(budget) if budget is None or budget.tool_price(name) is None else 0


class _Run:
    """One run of a tool: its span is around the charge and the body, so that a refusal is seen too."""

    __slots__ = ("_name", "_price", "_span", "_token")

    def __init__(self, name: str, price: Callable[[Budget | None], int]) -> None:
        self._name = name
        self._price = price

    def __enter__(self) -> None:
        here = context.current()
        self._span = tell(self._name, here)
        try:
            inside = charge_run(self._name, self._price, here)
        except BaseException as refusal:
            if self._span is not None:
                end_tool(self._span, refusal)
            raise
        self._token = context.attach(inside if self._span is None else set_span_in_context(self._span, inside))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        context.detach(self._token)
        if self._span is not None:
            end_tool(self._span, error)


def _told(inner: Generator[Any, Any, Any], name: str, here: Context) -> Generator[Any, Any, Any]:
    """A generator with a span from its first step to its end. Nothing is attached across a `yield`."""
    span = tell(name, here)
    try:
        result = yield from inner
    except BaseException as error:
        _end(span, error)
        raise
    _end(span, None)
    return result


async def _told_async(inner: AsyncGenerator[Any, Any], name: str, here: Context) -> AsyncGenerator[Any, Any]:
    span = tell(name, here)
    try:
        value = await anext(inner)
        while True:
            try:
                sent = yield value
            except GeneratorExit:
                await inner.aclose()
                raise
            except BaseException as error:
                value = await inner.athrow(error)
            else:
                value = await inner.asend(sent)
    except StopAsyncIteration:
        _end(span, None)
    except BaseException as error:
        _end(span, error)
        raise


def _end(span: Span | None, error: BaseException | None) -> None:
    if span is None:
        return
    if isinstance(error, GeneratorExit):  # closed, which is no error; maybe by a garbage collection, which may not lock
        late.put(lambda: end_tool(span, None))
        late.start()
    else:
        end_tool(span, error)
