"""Ends that a finaliser saw, finished later.

A garbage collection can run a finaliser in the middle of anything: while this very thread holds a ledger's, a metric
aggregator's or a connection pool's lock. A finaliser of ours therefore takes no lock at all: it puts the work here
(`SimpleQueue.put` is documented as safe there), and a daemon thread, or whoever next asks a budget a question, does
it. Knows nothing of calls: it runs thunks.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from . import faults

_queue: SimpleQueue[Callable[[], object]] = SimpleQueue()
_working = threading.RLock()
_thread: threading.Thread | None = None
_pid = 0


def put(work: Callable[[], object]) -> None:
    """Have `work` done soon. Safe inside a finaliser: takes no lock that Python code can hold."""
    _queue.put(work)


def start() -> None:
    """Make sure that the thread runs (called where a stream opens, never in a finaliser; survives a fork)."""
    global _thread, _pid
    if _pid == os.getpid() and _thread is not None and _thread.is_alive():
        return
    _pid = os.getpid()
    _thread = threading.Thread(target=_run, name="shekel-late", daemon=True)
    _thread.start()


def flush() -> bool:
    """Do what waits now, in this thread. Returns whether there was anything."""
    if _queue.empty():
        with _working:  # the thread may be in the middle of the last one
            return False
    done = False
    with _working:
        while True:
            try:
                work = _queue.get_nowait()
            except Empty:
                return done
            _do(work)
            done = True


def _after_fork() -> None:
    """In a child, the parent's thread is gone and its lock may have been held."""
    global _working, _thread
    _working = threading.RLock()
    _thread = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _run() -> None:
    while True:
        work = _queue.get()
        with _working:
            _do(work)


def _do(work: Callable[[], object]) -> None:
    try:
        work()
    except BaseException as error:
        faults.report("finished a dropped call", error)
