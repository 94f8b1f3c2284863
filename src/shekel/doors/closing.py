"""Closing: how a door sees that a program closes a response, beside or instead of its stream."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any
from weakref import ref

from .. import faults, late, locks
from ..call import Call
from ..settlement import Outcome
from .raw import take_off


class CloseHook:
    """Shadows `close` or `aclose` of one HTTP response, because helpers close the response and not the stream.

    While the tee or the SDK's iterator is running, that iterator closes the response at its own end: that is not early.
    It takes itself off at the first close. Until then it and the response hold each other, and it must be so: a garbage
    collection clears weak references first, and then has the SDK's iterator close the response through this hook.
    """

    __slots__ = ("_call", "_end", "_former", "_inner", "_response", "_tee")
    name = ""

    def __init__(self, response: Any, call: Call) -> None:
        self._response = response
        self._call = call
        self._former = response.__dict__.get(self.name)
        self._inner: Any = None
        self._tee: Any = None
        self._end: Callable[[Outcome], object] | None = None
        setattr(response, self.name, self)

    def watch(self, tee: Any, inner: Any) -> None:
        """Know the tee that reads this response, and the SDK's iterator, which a loop may run without the tee."""
        self._tee = ref(tee)
        with suppress(TypeError):  # somebody's own iterator may have no weak references
            self._inner = ref(inner)

    def beside(self, end: Callable[[Outcome], object]) -> None:
        """Know that the bytes are read beside the program: `end` ends the call where it closes before their end."""
        self._end = end

    def _take_off(self) -> tuple[Any, bool]:
        """What to close with, and whether the program closes early."""
        response = self._response
        if response.__dict__.get(self.name) is self:
            if self._former is None:
                delattr(response, self.name)
            else:
                setattr(response, self.name, self._former)
        if self._end is not None:
            take_off(response)
        close = self._former if self._former is not None else getattr(type(response), self.name).__get__(response)
        if self._tee is None:
            return close, True
        tee = self._tee()
        if tee is None:
            # The tee was collected, and has handed the call over to be finished later. This close may come from a
            # finaliser of the SDK's, in the middle of a lock of ours: nothing may be finished here.
            return close, False
        return close, not (_runs(tee) or (self._inner is not None and _runs(self._inner())))

    def _closed(self) -> None:
        if self._end is not None and self._call.reader is None:
            closed(partial(self._end, Outcome.CLOSED))
            return
        whole = self._tee is None and bool(getattr(self._response, "is_stream_consumed", False))
        closed(partial(_finish, self._call, whole))


def _runs(generator: Any) -> bool:
    return bool(getattr(generator, "gi_running", False) or getattr(generator, "ag_running", False))


class SyncCloseHook(CloseHook):
    __slots__ = ()
    name = "close"

    def __call__(self) -> None:
        close, early = self._take_off()
        try:
            close()
        finally:
            if early:
                self._closed()


class AsyncCloseHook(CloseHook):
    __slots__ = ()
    name = "aclose"

    async def __call__(self) -> None:
        close, early = self._take_off()
        try:
            await close()
        finally:
            if early:
                self._closed()


def _finish(call: Call, whole: bool) -> None:
    reader = call.reader
    complete = whole if reader is None else reader.terminal
    call.finish(Outcome.COMPLETE if complete else Outcome.CLOSED)


def closed(end: Callable[[], object]) -> None:
    """The program closed the response before the end was seen, or read its bytes by itself."""
    try:
        # A generator of the program's that is collected leaves its `with stream:` in the middle of anything.
        if locks.busy() or isinstance(sys.exception(), GeneratorExit):
            late.put(end)
        else:
            end()
    except Exception as fault:
        faults.report("finished a closed stream", fault)
