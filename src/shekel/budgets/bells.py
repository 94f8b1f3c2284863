"""Bells: how a call that waits is woken, by any thread, in a finaliser and in a signal's handler too.

One for each way to wait: a thread, a task of asyncio, and a task of another event loop (trio), which nothing but its
own thread may wake, and which therefore looks every few milliseconds. What is waited for is not known here.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from typing import Protocol

LOOKS = 0.01
"""Seconds after which a task of another loop than asyncio's looks whether it was woken."""


class AsyncBell(Protocol):
    """Rung by anybody, heard by a task."""

    def ring(self) -> bool:
        """Wake the task. Returns False where there is nobody to wake any more."""
        ...

    async def wait(self, seconds: float) -> None:
        """Sleep until it is rung, at most so many seconds. What was rung before counts."""
        ...


class ThreadBell:
    """Heard by a thread. A lock, as an event has one of its own, which a signal's handler in this thread may meet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> bool:
        """See `AsyncBell`."""
        with suppress(RuntimeError):  # it was rung already
            self._lock.release()
        return True

    def wait(self, seconds: float) -> None:
        """See `AsyncBell`."""
        self._lock.acquire(timeout=seconds)


class AsyncioBell:
    """Heard by a task of the loop that runs in this thread.

    Raises:
        RuntimeError: none of asyncio's does.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._rung = asyncio.Event()

    def ring(self) -> bool:
        """See `AsyncBell`."""
        try:
            self._loop.call_soon_threadsafe(self._rung.set)
        except RuntimeError:  # the loop was closed, and the task will never go on
            return False
        return True

    async def wait(self, seconds: float) -> None:
        """See `AsyncBell`."""
        # `wait_for` of Python 3.11 swallows a cancellation that comes as it is woken: the call would be sent.
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        self._rung.clear()


class OtherBell:
    """Heard by a task of whatever loop runs in this thread, which anyio knows: both SDKs build on it."""

    def __init__(self) -> None:
        self._rung = False

    def ring(self) -> bool:
        """See `AsyncBell`."""
        self._rung = True
        return True

    async def wait(self, seconds: float) -> None:
        """See `AsyncBell`."""
        import anyio

        until = time.monotonic() + seconds
        while not self._rung and (left := until - time.monotonic()) > 0:
            await anyio.sleep(min(LOOKS, left))
        self._rung = False


def async_bell() -> AsyncBell:
    """A bell for the task that runs now."""
    try:
        return AsyncioBell()
    except RuntimeError:
        return OtherBell()
