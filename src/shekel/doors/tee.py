"""The tees: what takes the place of `stream._iterator`. They hand on every chunk unchanged and count as it passes.

Both are generators, as what they replace is: an exhausted, failed or closed one behaves the same. They are started
before they are handed out ("primed"), because a generator that never began gets no chance to see that it was dropped.
A tee keeps no reference to the stream, so that dropping the stream drops the tee.

The loop over `inner` is the hot path: one call per chunk (`feed`), no allocation; `benchmarks/` measures it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from .. import faults, late
from ..call import Call
from ..providers.base import StreamReader
from ..settlement import Outcome
from . import errors


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
    tee = _sync(inner, reader, call, response, hide_usage)
    next(tee)
    return tee


def _sync(
    inner: Iterator[Any], reader: StreamReader, call: Call, response: Any, hide_usage: bool
) -> Generator[Any, None, None]:
    feed = reader.feed
    look = partial(_look, reader, call, response, hide_usage)
    try:
        yield None
        for chunk in inner:
            call.first_chunk = call.now()
            if _feed(feed, chunk):
                verdict = look(chunk)
                if verdict is _HIDE:
                    break
                if verdict is _CUT:
                    _close(inner, response)
                    yield chunk
                    raise _refusal(call)
            yield chunk
            break
        for chunk in inner:  # the hot path
            try:
                attention = feed(chunk)
            except Exception as error:
                faults.report("counted a chunk", error)
                attention = False
            if attention:
                verdict = look(chunk)
                if verdict is _HIDE:
                    continue
                if verdict is _CUT:
                    _close(inner, response)
                    yield chunk
                    raise _refusal(call)
            yield chunk
    except GeneratorExit:
        late.put(partial(_dropped, call, response.close))
        raise
    except BaseException as error:
        ended(call, error)
        raise
    ended(call, None)
    if call.aftermath is not None:
        raise call.aftermath


def async_tee(
    inner: AsyncIterator[Any], reader: StreamReader, call: Call, response: Any, hide_usage: bool
) -> AsyncGenerator[Any, None]:
    """A primed tee for an async stream; see `sync_tee`."""
    tee = _async(inner, reader, call, response, hide_usage, _running_loop())
    with suppress(StopIteration):
        tee.asend(None).send(None)  # runs to the first `yield`, which awaits nothing
    return tee


async def _async(
    inner: AsyncIterator[Any],
    reader: StreamReader,
    call: Call,
    response: Any,
    hide_usage: bool,
    loop: asyncio.AbstractEventLoop | None,
) -> AsyncGenerator[Any, None]:
    feed = reader.feed
    look = partial(_look, reader, call, response, hide_usage)
    try:
        yield None
        async for chunk in inner:
            call.first_chunk = call.now()
            if _feed(feed, chunk):
                verdict = look(chunk)
                if verdict is _HIDE:
                    break
                if verdict is _CUT:
                    await _aclose(inner, response)
                    yield chunk
                    raise _refusal(call)
            yield chunk
            break
        async for chunk in inner:  # the hot path
            try:
                attention = feed(chunk)
            except Exception as error:
                faults.report("counted a chunk", error)
                attention = False
            if attention:
                verdict = look(chunk)
                if verdict is _HIDE:
                    continue
                if verdict is _CUT:
                    await _aclose(inner, response)
                    yield chunk
                    raise _refusal(call)
            yield chunk
    except GeneratorExit:
        # An iterator that has begun closes the response itself when it goes, in a task of the loop; twice is once too
        # many there. One that never began closes nothing.
        unread = call.first_chunk is None
        late.put(partial(_dropped, call, partial(_close_in_loop, loop, response) if unread else _leave))
        raise
    except BaseException as error:
        ended(call, error)
        raise
    ended(call, None)
    if call.aftermath is not None:
        raise call.aftermath


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


def _feed(feed: Callable[[Any], bool], chunk: Any) -> bool:
    try:
        return feed(chunk)
    except Exception as error:
        faults.report("counted a chunk", error)
        return False


def _look(reader: StreamReader, call: Call, response: Any, hide_usage: bool, chunk: Any) -> object:
    """A chunk that needs attention: the usage chunk we asked for, or output beyond what is held."""
    try:
        if hide_usage and reader.is_usage_only(chunk):
            return _HIDE
        if reader.units > reader.limit and not call.more():
            _hang_up(response)
            call.finish(Outcome.CUT)
            return _CUT
    except Exception as error:
        faults.report("looked at a chunk", error)
    return _KEEP


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


def _close(inner: Any, response: Any) -> None:
    for close in (getattr(inner, "close", None), response.close):
        if close is not None:
            try:
                close()
            except Exception as error:
                faults.report("closed a cut stream", error)


async def _aclose(inner: Any, response: Any) -> None:
    for close in (getattr(inner, "aclose", None), response.aclose):
        if close is not None:
            try:
                await close()
            except Exception as error:
                faults.report("closed a cut stream", error)


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
