"""Resolver: asks the program's function for the plan of a value, and never lets a call wait for it for long.

The function runs in one of a few daemon threads, so that one that hangs holds up nobody for longer than the time that
was stated. What a call gets then is what the same value had before, else the default; the answer counts as soon as it
comes. A function that raises, hangs, or names a plan that is not there is counted and said once.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection
from queue import Empty, SimpleQueue
from typing import Any

from .. import faults, threads
from ..shown import shown

CACHE, TIMEOUT = 60.0, 0.25
"""Seconds for which an answer counts, and for which a call waits for one, where nobody said how many."""

AGAIN = 5.0
"""Seconds after which a function that failed for a value is asked anew, if answers do not count for less."""

KEPT = 100_000
"""Values whose plans are remembered; beyond that the ones asked for longest ago are asked for anew."""

THREADS = 8
"""Questions that are asked at once; what hangs in all of them leaves the others without an answer."""

IDLE = 10.0
"""Seconds after which a thread without a question ends."""


class _Question:
    """One question under way; whoever wants the same value waits for the same one, and for the same time."""

    __slots__ = ("done", "until", "value")

    def __init__(self, value: str, until: float) -> None:
        self.value = value
        self.until = until
        self.done = threading.Event()


_made: weakref.WeakSet[Resolver] = weakref.WeakSet()


class Resolver:
    """The program's function, with what it has answered.

    Args:
        function: takes a value, returns a plan's name, or None where it knows none.
        plans: the plans there are.
        cache: seconds for which an answer counts.
        timeout: seconds for which a call waits.

    Raises:
        ValueError: seconds that are none.
    """

    def __init__(
        self, function: Callable[[str], Any], plans: Collection[str], cache: Any = None, timeout: Any = None
    ) -> None:
        self._function = function
        self._plans = frozenset(plans)
        self._cache = _seconds(cache, CACHE, "plan_cache")
        self._timeout = _seconds(timeout, TIMEOUT, "plan_timeout")
        self._known: OrderedDict[str, tuple[float, str | None]] = OrderedDict()
        self.begin()
        _made.add(self)

    def begin(self) -> None:
        """Nothing is asked yet; also in a forked child, which has none of its parent's threads."""
        self._lock = threading.RLock()  # a finaliser may make a call in the middle of a question of its own thread
        self._asking: dict[str, _Question] = {}
        self._queue: SimpleQueue[_Question] = SimpleQueue()
        self._waiting = self._threads = self._idle = 0

    def plan(self, value: str) -> str | None:
        """The plan of a value; None where the function knows none, or has not said yet."""
        known = self._known.get(value)
        if known is not None and time.monotonic() < known[0]:
            return known[1]
        question = self._ask(value)
        if not question.done.wait(max(0.0, question.until - time.monotonic())):
            faults.report("waited for a plan", TimeoutError())
        return self.known(value)

    def known(self, value: str) -> str | None:
        """What was answered last, however long ago."""
        known = self._known.get(value)
        return None if known is None else known[1]

    def forget(self, value: str) -> None:
        """Ask anew at the next call."""
        self._known.pop(value, None)

    def _ask(self, value: str) -> _Question:
        with self._lock:
            question = self._asking.get(value)
            if question is None:
                question = self._asking[value] = _Question(value, time.monotonic() + self._timeout)
                self._waiting += 1
                self._queue.put(question)
                if self._waiting > self._idle and self._threads < THREADS:
                    self._threads += 1
                    self._idle += 1
                    threads.start("shekel-plans", self._work)
        return question

    def _work(self) -> None:
        """Answer questions until there was none for a while. A thread counts as idle until it has taken one."""
        while True:
            try:
                question = self._queue.get(timeout=IDLE)
            except Empty:
                with self._lock:
                    if not self._waiting:
                        self._idle -= 1
                        self._threads -= 1
                        return
                continue
            with self._lock:
                self._waiting -= 1
                self._idle -= 1
            self._keep(question)
            with self._lock:
                self._idle += 1

    def _keep(self, question: _Question) -> None:
        value = question.value
        counts = self._cache
        try:
            plan = self._function(value)
            if plan is not None and plan not in self._plans:
                faults.warn_once(
                    f"plan {shown(plan)}",
                    "plan_of has named a plan that is not there: what the value had before counts, or the default. "
                    "There are: %s.",
                    ", ".join(sorted(self._plans)),
                )
                raise LookupError
        except BaseException as error:
            faults.report("asked for a plan", error)
            plan, counts = self.known(value), min(AGAIN, counts)
        with self._lock:
            self._known[value] = (time.monotonic() + counts, plan)
            self._known.move_to_end(value)
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
            self._asking.pop(value, None)
        question.done.set()


def _seconds(value: Any, otherwise: float, field: str) -> float:
    if value is None:
        return otherwise
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 86_400:
        raise ValueError(
            f"{field} must be seconds above 0 and at most a day, such as {otherwise:g}, not {shown(value)}."
        )
    return float(value)


def _after_fork() -> None:
    for resolver in list(_made):
        resolver.begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
