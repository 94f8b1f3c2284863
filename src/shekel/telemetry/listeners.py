"""Listeners: the program's own functions that are told of usage and limits, sync or async.

They run outside every lock, and outside the budgets and the scope of the call that they are told of; they may call
back into Shekel, and call models on their own account. A plain function runs at once, in the thread in which the
call ends. What an async one returns is delivered to an event loop (`shekel.deliveries`). What a listener raises is
logged once, counted in `shekel.errors`, and goes no further. While nobody listens, a call pays one look at an empty
tuple.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import isawaitable
from types import TracebackType
from typing import Any, Self

from opentelemetry import baggage
from opentelemetry.context import Context

from .. import context, deliveries, faults, late, locks
from ..budgets.thresholds import Thresholds

USAGE, SOFT, HARD = "on_usage", "on_soft_limit", "on_hard_limit"


class Subscription:
    """A listener that is told. `cancel()` ends it; so does leaving it as a context manager.

    Attributes:
        thresholds: for soft limits, what was told of limits that have no threshold of their own.
    """

    def __init__(
        self, kind: str, callback: Callable[[Any], Any], ended: Callable[[], None], thresholds: Thresholds | None = None
    ) -> None:
        self.kind = kind
        self.callback = callback
        self.thresholds = thresholds
        self._ended = [ended]

    def cancel(self) -> None:
        """Tell no more. May be repeated."""
        with locks.books:
            _listening[self.kind] = tuple(each for each in _listening[self.kind] if each is not self)
        try:
            ended = self._ended.pop()
        except IndexError:
            return
        ended()

    __call__ = cancel

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def tell(self, event: Any) -> None:
        """Deliver an event. Never raises what an ordinary failure raises."""
        late.tell(lambda: self._tell(event))

    def _tell(self, event: Any) -> None:
        place = f"called {self.kind}"
        token = context.attach(_outside(context.current()))
        try:
            answer = self.callback(event)
            if isawaitable(answer):
                deliveries.deliver(answer, place)
        except Exception as error:
            faults.report(place, error)
        finally:
            context.detach(token)


def _outside(here: Context) -> Context:
    """A context without the budgets, the scope and the baggage of the call that is told of."""
    return baggage.clear(Context({key: value for key, value in here.items() if key not in context.OURS}))


_listening: dict[str, tuple[Subscription, ...]] = {USAGE: (), SOFT: (), HARD: ()}


def add(subscription: Subscription) -> None:
    """Tell somebody from now on."""
    with locks.books:
        _listening[subscription.kind] = (*_listening[subscription.kind], subscription)


def of(kind: str) -> tuple[Subscription, ...]:
    """Who listens."""
    return _listening[kind]
