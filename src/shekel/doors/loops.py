"""The loop over a stream: `for chunk in stream` runs one generator of the SDK's, and ours takes its place.

So a metered stream that is looped over has as many generators as a plain one. Only where the SDK's `__iter__` or
`__aiter__` is, instruction by instruction, one of the loops written down here; any other is left alone, and loops over
the tee. A loop is what the SDK's is to the program: it may be left, closed and begun again, and the stream goes on.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from types import AsyncGeneratorType, FunctionType, GeneratorType
from typing import Any

from .. import faults
from .seams import Live
from .tee import Watch, primed, watch_of


def loop_of(stream: Any, *, watched: bool) -> Any:
    """A primed loop over a stream that has a tee, in place of the SDK's own; None if the SDK's is needed.

    Args:
        stream: the SDK's.
        watched: whether the SDK's loop also tells an observer of each chunk, if there is one.
    """
    if watched and stream._observer is not None:
        return None
    tee = stream._iterator
    watch = watch_of(tee)
    if watch is None:
        return None
    inner = watch.inner
    if type(inner) is GeneratorType:
        return primed(watch.reader.hand_on(inner, _Loop(stream, tee, watch)))
    if type(inner) is AsyncGeneratorType:
        return primed(watch.reader.hand_on_async(inner, _Loop(stream, tee, watch)))
    return None


class _Loop:
    """What the tee's watch does, for one loop. It keeps the stream, as the SDK's loop does.

    The stream's end is told to the tee's watch. That the program leaves the loop is no end: the tee, which goes when
    the stream goes, sees the rest.
    """

    __slots__ = ("_stream", "_tee", "_watch", "feed", "look", "look_async")

    def __init__(self, stream: Any, tee: Any, watch: Watch) -> None:
        self._stream = stream
        self._tee = tee
        self._watch = watch
        self.feed = watch.feed
        self.look = watch.look
        self.look_async = watch.look_async

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        watch = self._watch
        if kind is GeneratorExit or (error is not None and _goes_on(watch.inner)):
            return
        watch.over = True
        with suppress(Exception):
            _close(self._tee)
        watch.__exit__(kind, error, traceback)


def _goes_on(inner: Any) -> bool:
    """Whether the SDK's iterator has not ended: then what was raised was thrown in by the program."""
    return (inner.gi_frame if type(inner) is GeneratorType else inner.ag_frame) is not None


def _close(tee: Any) -> None:
    """End the tee of a stream that has ended: it would wait for its collection."""
    if type(tee) is GeneratorType:
        tee.close()
    else:
        with suppress(StopIteration):
            tee.aclose().send(None)  # runs to its end: it awaits nothing


class _Known:
    """Loops of the SDKs, to compare with."""

    _iterator: Any
    _observer: Any

    def __iter__(self) -> Iterator[Any]:
        for item in self._iterator:  # noqa: UP028 - it is to be the same instructions
            yield item

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for item in self._iterator:
            yield item

    def observed(self) -> Iterator[Any]:
        for item in self._iterator:
            if (observer := self._observer) is not None:
                observer.item(item)
            yield item

    async def observed_async(self) -> AsyncIterator[Any]:
        async for item in self._iterator:
            if (observer := self._observer) is not None:
                observer.item(item)
            yield item


def _shape(function: Any) -> tuple[Any, ...]:
    code = function.__code__
    return code.co_code, code.co_names, code.co_consts


_PLAIN = tuple(map(_shape, (_Known.__iter__, _Known.__aiter__)))
_WATCHED = tuple(map(_shape, (_Known.observed, _Known.observed_async)))


def is_known(loop: Any) -> bool:
    """Whether an SDK's `__iter__` or `__aiter__` is one of the loops that ours can take the place of."""
    return type(loop) is FunctionType and _shape(loop) in (*_PLAIN, *_WATCHED)


def instead_of(loop: Any, live: Live) -> Any:
    """What takes the place of an `__iter__` or `__aiter__`; None where it is not a known one.

    Args:
        loop: the SDK's, for streams that have no tee.
        live: whether ours still counts.
    """
    if not is_known(loop):
        return None
    watched = _shape(loop) in _WATCHED

    @functools.wraps(loop)
    def ours(stream: Any) -> Any:
        made = None
        if live.on:
            try:
                made = loop_of(stream, watched=watched)
            except Exception as error:
                faults.report("looped over a stream", error)
        return loop(stream) if made is None else made

    return ours
