"""Locks, and whether this very thread is inside one: then it is in a finaliser, or in a signal's handler.

A garbage collection, or a signal, can run code of the program in the middle of anything: also while this thread holds
a lock of ours, for the microseconds that it is held. That code may read a budget, or close a stream. So these locks
may be entered again by their thread, a reading changes nothing, and whatever does change something asks `inside` or
`busy` first, and puts itself off (see `late`). Nothing else is ever done under one of them: no I/O, no callback, no
`await`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

books = threading.RLock()
"""For the bookkeeping of all budgets: additions to totals, queues, thresholds, what may be corrected."""

correcting = threading.RLock()
"""For corrections of calls that have ended: the ledger and the totals take them in one order. Entered before `books`,
and left before anybody is told."""

watched: list[Callable[[], bool]] = [books._is_owned]  # type: ignore[attr-defined]
"""Each says whether this thread is inside; a ledger in memory adds its own."""

_telling: set[int] = set()


def inside() -> bool:
    """Whether this thread has entered one of the locks."""
    for each in watched:  # noqa: SIM110 - asked with each call and each slice: `any` takes four times as long
        if each():
            return True
    return False


def busy() -> bool:
    """Whether it has, or is telling OpenTelemetry, which has locks of its own: no call may be ended here."""
    return inside() or threading.get_ident() in _telling


class Telling:
    """While OpenTelemetry is told of something. It holds nothing: any number of threads may tell at once."""

    __slots__ = ("_mine",)

    def __enter__(self) -> None:
        me = threading.get_ident()
        self._mine = me not in _telling
        _telling.add(me)

    def __exit__(self, *error: object) -> None:
        if self._mine:
            _telling.discard(threading.get_ident())


at_fork: list[Any] = [correcting, books]
"""Locks that this thread takes before the process forks, outermost first: so no other thread is in the middle of
something that nobody would end in the child."""

_taken: list[Any] = []


def _before_fork() -> None:
    _taken[:] = at_fork
    for lock in _taken:
        lock.acquire()


def _after_in_parent() -> None:
    for lock in reversed(_taken):
        lock.release()


def _after_in_child() -> None:
    for lock in _taken:
        lock._at_fork_reinit()
    _telling.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
