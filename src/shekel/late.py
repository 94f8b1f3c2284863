"""Ends that a finaliser saw, finished later.

A garbage collection can run a finaliser in the middle of anything: while this very thread holds a ledger's, a metric
aggregator's or a connection pool's lock. A finaliser of ours therefore takes no lock at all: it puts the work here
(`SimpleQueue.put` is documented as safe there), and a daemon thread, or whoever next asks a budget a question, does
it. Knows nothing of calls: it runs thunks.

Whoever asks waits for what another thread is doing just now, but not for the program's own code: a callback may itself
wait for the one who asks, so it lets go of those who wait (`let_go`). Nor does who asks run it: the question may be
asked under a lock of the program, for which the callback waits; so it is left to the thread (`tell`). Connections are
closed by the thread alone (`close`): nobody who only asks a question has to wait for a socket.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue

from . import faults, locks, threads

_queue: SimpleQueue[Callable[[], object]] = SimpleQueue()
_closings: SimpleQueue[Callable[[], object]] = SimpleQueue()
_telling: SimpleQueue[Callable[[], object]] = SimpleQueue()
_bell: SimpleQueue[None] = SimpleQueue()
_taking = threading.RLock()
_starting = threading.Lock()
_under_way: set[threading.Event] = set()
"""Work that was taken and is not done."""
_being_told: set[threading.Event] = set()
"""Telling that nobody waits for but the end of the program."""
_mine = threading.local()
_MUCH = 64

PATIENCE = 5.0
"""Seconds that the end of the program, or of the telling, waits for what another thread is telling."""

_thread: threading.Thread | None = None
_pid = 0


def put(work: Callable[[], object]) -> None:
    """Have `work` done soon. Safe inside a finaliser: takes no lock that Python code can hold."""
    _queue.put(work)
    if _thread is not None:
        _bell.put(None)


def close(connection: Callable[[], object]) -> None:
    """Have a connection closed by the thread, or now where there is none."""
    if _thread is None:
        connection()
        return
    _closings.put(connection)
    _bell.put(None)


def start() -> None:
    """Make sure that the thread runs (called where a stream opens, never in a finaliser; survives a fork)."""
    global _thread, _pid
    if _pid == os.getpid() and _thread is not None and _thread.is_alive():
        return
    if not _starting.acquire(blocking=False):  # another thread does
        return
    try:
        if _pid != os.getpid() or _thread is None or not _thread.is_alive():
            thread = threads.start("shekel-late", _run)
            _pid, _thread = os.getpid(), thread
            _bell.put(None)
    except RuntimeError:  # Python ends, or there are too many: whoever next asks a budget a question does the work
        return
    finally:
        _starting.release()


def flush() -> bool:
    """Do what waits now, in this thread, and wait for what others are doing. Returns whether there was anything.

    In the middle of a step of ours (a finaliser asks) nothing is done: it may need the lock that is held.
    """
    if locks.busy():
        return False
    before = getattr(_mine, "asks", False)
    _mine.asks = True
    try:
        done = _work_off()
    finally:
        _mine.asks = before
    own = getattr(_mine, "work", None)
    for work in tuple(_under_way):
        if work is not own:
            work.wait()
            done = True
    return done


def finish() -> None:
    """Do all that waits, in this thread: Python ends."""
    if not locks.busy():
        _work_off()
        flush()
        _tell_all()
        for telling in tuple(_being_told):
            telling.wait(PATIENCE)


def told(seconds: float = PATIENCE) -> bool:
    """Do what waits now, and wait until the program has been told of it: nobody is about to listen any more.

    Args:
        seconds: how long to wait at most. What is told may itself wait for a lock that the caller holds.

    Returns:
        Whether all was told.
    """
    flush()
    thread = _thread
    if locks.busy() or thread is None or not thread.is_alive() or getattr(_mine, "telling", False):
        return _telling.empty()
    until = time.monotonic() + seconds
    begun = threading.Event()
    _telling.put(begun.set)
    _bell.put(None)
    return begun.wait(seconds) and all(each.wait(until - time.monotonic()) for each in tuple(_being_told))


def relieve() -> None:
    """Do what waits if it has become much, as where nobody asks anything and no thread was needed yet."""
    if _thread is None and _queue.qsize() > _MUCH:
        flush()


def tell(callback: Callable[[], object]) -> None:
    """Run code of the program: here, or in the thread where this one only asks a question."""
    if _thread is not None and getattr(_mine, "asks", False):
        _telling.put(callback)
        _bell.put(None)
    elif getattr(_mine, "work", None) is None:
        callback()
    else:
        with _telling_now():
            let_go()
            callback()


@contextmanager
def _telling_now() -> Iterator[None]:
    telling = threading.Event()
    before = getattr(_mine, "telling", False)
    _mine.telling = True
    _being_told.add(telling)
    try:
        yield
    finally:
        _mine.telling = before
        _being_told.discard(telling)
        telling.set()


def let_go() -> None:
    """Code of the program is about to run: nobody is to wait for this thread any more."""
    work: threading.Event | None = getattr(_mine, "work", None)
    if work is not None:
        _under_way.discard(work)
        work.set()


def _after_fork() -> None:
    """In a child, the parent's thread is gone, and with it what it was doing."""
    global _taking, _starting, _telling, _thread
    _telling = SimpleQueue()  # the parent tells of what has ended there
    _taking = threading.RLock()
    _starting = threading.Lock()
    _under_way.clear()
    _being_told.clear()
    _thread = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _run() -> None:
    while True:
        _bell.get()
        _work_off()
        _tell_all()
        try:
            close = _closings.get_nowait()
        except Empty:
            continue
        try:
            close()
        except BaseException as error:
            faults.report("closed a dropped connection", error)


def _tell_all() -> None:
    with _telling_now():
        _tell_each()


def _tell_each() -> None:
    while True:
        try:
            callback = _telling.get_nowait()
        except Empty:
            return
        try:
            callback()
        except BaseException as error:
            faults.report("told the program", error)


def _work_off() -> bool:
    done = False
    while True:
        work = threading.Event()
        with _taking:  # taken and known to be under way in one step: who finds the queue empty finds it there
            try:
                thunk = _queue.get_nowait()
            except Empty:
                return done
            _under_way.add(work)
        _do(thunk, work)
        done = True


def _do(thunk: Callable[[], object], work: threading.Event) -> None:
    before = getattr(_mine, "work", None)
    _mine.work = work
    try:
        thunk()
    except BaseException as error:
        faults.report("finished a dropped call", error)
    finally:
        let_go()
        _mine.work = before
