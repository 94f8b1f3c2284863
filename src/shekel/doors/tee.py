"""The tees: what takes the place of `stream._iterator`. They hand on every chunk unchanged and count as it passes.

Both are generators, as what they replace is: an exhausted, failed or closed one behaves the same. They are started
before they are handed out ("primed"), because a generator that never began gets no chance to see that it was dropped.
A tee keeps no reference to the stream, so that dropping the stream drops the tee.

The loop is the reader's (`hand_on`), because it asks each chunk what only the reader knows; what happens at a chunk
that needs attention, and at the end, is here.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import suppress
from functools import partial
from types import AsyncGeneratorType, GeneratorType
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, ref

from .. import faults, late
from ..call import Call
from ..providers.base import StreamReader
from ..settlement import Outcome
from . import errors

G = TypeVar("G", Generator[Any, None, None], AsyncGenerator[Any, None])


def sync_tee(
    inner: Iterator[Any], reader: StreamReader, call: Call, response: Any, hide_usage: bool
) -> Generator[Any, None, None]:
    """A primed tee for a sync stream.

    Args:
        inner: the SDK's own iterator.
        reader: counts the chunks.
        call: is extended, cut and finished.
        response: the HTTP response, closed when the stream is cut or dropped.
        hide_usage: whether the extra usage chunk is to be kept back, because we asked for it.
    """
    watch = Watch(inner, reader, call, response, hide_usage)
    tee = primed(reader.hand_on(inner, watch))
    _watches[tee] = ref(watch)
    return tee


def async_tee(
    inner: AsyncIterator[Any], reader: StreamReader, call: Call, response: Any, hide_usage: bool
) -> AsyncGenerator[Any, None]:
    """A primed tee for an async stream; see `sync_tee`."""
    watch = _AsyncWatch(inner, reader, call, response, hide_usage)
    tee = primed(reader.hand_on_async(inner, watch))
    _watches[tee] = ref(watch)
    return tee


def primed(loop: G) -> G:
    """A reader's loop over chunks, begun: it stands before its first chunk."""
    if isinstance(loop, Generator):
        next(loop)
    else:
        with suppress(StopIteration):
            loop.asend(None).send(None)  # runs to the first `yield`, which awaits nothing
    return loop


_watches: WeakKeyDictionary[Any, ref[Watch]] = WeakKeyDictionary()
"""By tee. Its watch is held by it alone: a watch may lead back to the stream and the tee, which could never go."""


def watch_of(iterator: Any) -> Watch | None:
    """What watches the stream, if its iterator is a tee."""
    if type(iterator) not in (GeneratorType, AsyncGeneratorType):
        return None
    found = _watches.get(iterator)
    return None if found is None else found()


class Watch:
    """Looks at the chunks of one stream that need attention, and sees its end; see `Watch` of the readers.

    Attributes:
        inner: the SDK's own iterator.
        reader: counts the chunks.
        over: whether the stream's end was seen.
    """

    __slots__ = ("__weakref__", "_call", "_cut", "_hide_usage", "_response", "inner", "over", "reader")

    def __init__(self, inner: Any, reader: StreamReader, call: Call, response: Any, hide_usage: bool) -> None:
        self.inner = inner
        self.reader = reader
        self._call = call
        self._response = response
        self._hide_usage = hide_usage
        self._cut = False
        self.over = False

    def __enter__(self) -> None:
        pass

    def feed(self, chunk: Any) -> bool:
        reader = self.reader
        try:
            return reader.feed(chunk)
        except Exception as error:
            faults.report("counted a chunk", error)
            return reader.units > reader.limit

    def look(self, chunk: Any) -> bool:
        verdict = self._verdict(chunk)
        if verdict is _CUT:
            for close in (getattr(self.inner, "close", None), self._response.close):
                if close is not None:
                    try:
                        close()
                    except Exception as error:
                        faults.report("closed a cut stream", error)
            if self._call.halted is not None:
                raise _refusal(self._call)  # stopped: this chunk is not handed on
        return verdict is _HIDE

    async def look_async(self, chunk: Any) -> bool:
        verdict = self._verdict(chunk)
        if verdict is _CUT:
            for close in (getattr(self.inner, "aclose", None), self._response.aclose):
                if close is not None:
                    try:
                        await close()
                    except Exception as error:
                        faults.report("closed a cut stream", error)
            if self._call.halted is not None:
                raise _refusal(self._call)  # stopped: this chunk is not handed on
        return verdict is _HIDE

    def _verdict(self, chunk: Any) -> object:
        """What becomes of the stream. The chunk that is too much is handed on: it is paid for.

        Where the budget was stopped, nothing is.
        """
        call, reader = self._call, self.reader
        if self._cut:  # and the iterator went on, although it is closed
            raise _refusal(call)
        try:
            if call.first_chunk is None:
                call.begun()
            if self._hide_usage and reader.is_usage_only(chunk):
                return _HIDE
            if reader.units > reader.limit and not call.more():
                _hang_up(self._response)
                call.finish(Outcome.CUT)
                self._cut = True
                return _CUT
        except Exception as error:
            faults.report("looked at a chunk", error)
        return _KEEP

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        call = self._call
        if kind is GeneratorExit:
            if not self.over:
                late.put(partial(_dropped, call, self._closing()))
        elif self._cut and (error is None or isinstance(error, Exception)):  # a cancelled task stays cancelled
            raise _refusal(call) from None
        else:
            ended(call, error)
            if error is None and call.aftermath is not None:
                raise call.aftermath

    def _closing(self) -> Callable[[], Any]:
        """What closes the connection of a stream that was dropped or closed."""
        close: Callable[[], Any] = self._response.close
        return close


class _AsyncWatch(Watch):
    """`Watch` for an async stream; made where the stream is, because it needs that loop."""

    __slots__ = ("_loop",)

    def __init__(self, inner: Any, reader: StreamReader, call: Call, response: Any, hide_usage: bool) -> None:
        super().__init__(inner, reader, call, response, hide_usage)
        self._loop = _running_loop()

    def _closing(self) -> Callable[[], Any]:
        # An iterator that has begun closes the response itself when it goes, in a task of the loop; twice is once too
        # many there. One that never began closes nothing.
        if self._call.first_chunk is not None:
            return _leave
        return partial(_close_in_loop, self._loop, self._response)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:  # another event loop than asyncio's: then a dropped connection is left to the SDK
        return None


class Unread:
    """Takes the place of `__stream__` on a stream whose iterator is made when it is first read (anthropic).

    A copy of an unread stream gets an iterator of its own there, and so it must here. Being held by the stream, this
    is also what sees that a stream was dropped unread.

    Args:
        template: a copy of the stream, for its iterators; not the stream, which would be a cycle.
        make: makes a primed tee around an iterator of the SDK's.
        drop: ends the call; run later if nothing was ever read.
    """

    __slots__ = ("_drop", "_make", "_read", "_template")

    def __init__(self, template: Any, make: Callable[[Any], Any], drop: Callable[[], Any]) -> None:
        self._template = template
        self._make = make
        self._drop = drop
        self._read = False

    def __call__(self) -> Any:
        self._read = True
        return self._make(type(self._template).__stream__(self._template))

    def __del__(self) -> None:
        if not self._read:
            late.put(self._drop)


def drop_unread(call: Call, response: Any, is_async: bool) -> Callable[[], None]:
    """What ends a call whose stream was dropped unread; made where the stream is, because it needs that loop."""
    close = partial(_close_in_loop, _running_loop(), response) if is_async else response.close
    return partial(_dropped, call, close)


_KEEP, _HIDE, _CUT = object(), object(), object()


def _hang_up(response: Any) -> None:
    """Let the provider see at once that nobody reads on: it generates, and bills, until then.

    Closing takes several turns of a loop, or locks, while many other streams are being cut; this is one system call.
    Only where the connection carries nothing else. What is left of it is closed in the ordinary way afterwards.
    """
    with suppress(Exception):
        if response.http_version == "HTTP/1.1":
            response.extensions["network_stream"].get_extra_info("socket").shutdown(socket.SHUT_RDWR)


def _refusal(call: Call) -> BaseException:
    assert call.cut is not None
    return call.cut


def ended(call: Call, error: BaseException | None) -> None:
    """The stream came to its end, or raised."""
    try:
        if error is None:
            reader = call.reader
            call.finish(Outcome.COMPLETE if reader is None or reader.terminal else Outcome.INCOMPLETE)
        elif error is not call.cut:
            outcome, failure = errors.of(error, sent=True)
            call.finish(outcome, failure=failure)
    except Exception as fault:
        faults.report("finished a stream", fault)


def _dropped(call: Call, close: Callable[[], Any]) -> None:
    """Finish a stream whose tee was collected or closed, and close its connection (never in a finaliser itself)."""
    reader = call.reader
    call.finish(Outcome.COMPLETE if reader is not None and reader.terminal else Outcome.DROPPED)

    def closing() -> None:
        # The connection may be gone, or its loop closed: there is nothing left to close then.
        with suppress(Exception):
            close()

    late.close(closing)


def _leave() -> None:
    """What the SDK closes."""


_closing: set[asyncio.Task[None]] = set()


def _close_in_loop(loop: asyncio.AbstractEventLoop | None, response: Any) -> None:
    if loop is None or loop.is_closed() or response.is_closed:
        return

    def spawn() -> None:
        task = loop.create_task(_quietly(response))
        _closing.add(task)
        task.add_done_callback(_closing.discard)

    loop.call_soon_threadsafe(spawn)


async def _quietly(response: Any) -> None:
    try:
        await response.aclose()
    except Exception:  # nobody is left to be told
        return
