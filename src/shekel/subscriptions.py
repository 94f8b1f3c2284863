"""What a program may listen to: usage, thresholds, refusals. Each returns a handle that ends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .budgets.thresholds import Thresholds
from .runtime import the_runtime
from .shown import shown
from .telemetry import listeners
from .telemetry.events import LimitEvent, UsageEvent
from .telemetry.listeners import HARD, SOFT, USAGE, Subscription

TOLD = 10_000
"""Limits without a threshold of their own of which `on_soft_limit` remembers that it has told; beyond, the oldest is
forgotten, and may be told again in the same period."""


def on_usage(callback: Callable[[UsageEvent], Any]) -> Subscription:
    """Be told what each call has cost, once, when it has ended, however it ends, streamed or not.

        shekel.on_usage(lambda event: bill(event.user_id, event.cost_total))

    A call that was refused has cost nothing and gives no event; `on_hard_limit` tells of it. Works without
    `instrument()`: while somebody listens, calls are seen.

    Args:
        callback: called with a `UsageEvent`, in the thread in which the call ends; or an async function, run by that
            thread's event loop, else by one of Shekel's own. What it raises is logged once and goes no further.

    Returns:
        a handle: `cancel()` ends it, and so does leaving it as a context manager.

    Raises:
        ValueError: it cannot be called.
    """
    return _subscribe(USAGE, callback)


def on_soft_limit(callback: Callable[[LimitEvent], Any], *, at: float = 0.8) -> Subscription:
    """Be told when a threshold of a limit is crossed: once per threshold and window, at most once in five seconds.

    Args:
        callback: called with a `LimitEvent`; as for `on_usage`.
        at: the share of a limit (above 0, at most 1) at which to tell, for budgets and policies that have no `warn_at`
            of their own.

    Returns:
        a handle, as of `on_usage`.

    Raises:
        ValueError: it cannot be called, or `at` is no share.
    """
    if isinstance(at, bool) or not isinstance(at, (int, float)) or not 0 < at <= 1:
        raise ValueError(f"at must be a share of the limit above 0 and at most 1, such as 0.8, not {shown(at)}.")
    return _subscribe(SOFT, callback, Thresholds((float(at),), None, kept=TOLD))


def on_hard_limit(callback: Callable[[LimitEvent], Any]) -> Subscription:
    """Be told when a call or a tool is refused, or a stream cut: once per condition (budget, scope, user, reason) in
    five seconds.

    Args:
        callback: called with a `LimitEvent`; as for `on_usage`.

    Returns:
        a handle, as of `on_usage`.

    Raises:
        ValueError: it cannot be called.
    """
    return _subscribe(HARD, callback)


def _subscribe(kind: str, callback: Any, thresholds: Thresholds | None = None) -> Subscription:
    if not callable(callback):
        raise ValueError(f"{kind} takes a function of one event, not {shown(callback)}.")
    runtime = the_runtime()
    subscription = Subscription(kind, callback, runtime.unlistened, thresholds)
    listeners.add(subscription)
    runtime.listened()
    return subscription
