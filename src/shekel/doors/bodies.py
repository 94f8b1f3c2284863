"""Bodies whose bytes the program reads: what is in them is read beside it, as they pass. They pass unchanged.

A plain answer is gathered and read once it is whole. A stream is read event by event, and counted, extended and cut as
one whose chunks the SDK makes (see `tee`): the piece that is too much is handed on, and the next raises.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from .. import faults, late
from ..call import Call
from ..providers import base
from ..settlement import Outcome
from . import errors
from .tee import Watch

MOST = 32 * 1024 * 1024
"""Bytes of one answer, or of one event, that are gathered at most: beyond, its cost is an estimate."""


def hand_on(pieces: Iterator[bytes], body: base.Watch) -> Generator[bytes, None, None]:
    """Hand on every piece, read."""
    with body:
        for piece in pieces:
            if body.feed(piece):
                body.look(piece)
            yield piece


async def hand_on_async(pieces: AsyncIterator[bytes], body: base.Watch) -> AsyncGenerator[bytes, None]:
    """`hand_on` for an async body. httpx closes the iterator that it was given, and so is its own closed."""
    try:
        with body:
            async for piece in pieces:
                if body.feed(piece):
                    await body.look_async(piece)
                yield piece
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()


class PlainBody:
    """The body of a plain answer.

    Args:
        response: of which the body is; asked for its headers, and not kept.
        call: ends with the body.
        read: given the JSON of the whole body, once; ends the call.
    """

    __slots__ = ("_call", "_headers", "_kind", "_parts", "_read", "_size")

    def __init__(self, response: Any, call: Call, read: Callable[[Any], None]) -> None:
        self._call = call
        self._read = read
        self._kind = type(response)
        self._headers = response.headers
        self._parts: list[bytes] = []
        self._size = 0

    def __enter__(self) -> None:
        pass

    def feed(self, piece: bytes) -> bool:
        self._size += len(piece)
        if self._size <= MOST:
            self._parts.append(piece)
        else:
            self._parts.clear()
        return False

    def look(self, chunk: Any) -> bool:
        return False

    async def look_async(self, chunk: Any) -> bool:
        return False

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is GeneratorExit:
            return  # the response closes now, and ends the call
        try:
            if error is None:
                self.end(Outcome.COMPLETE)
            else:
                outcome, failure = errors.of(error, sent=True)
                self._call.finish(outcome, failure=failure)
        except Exception as fault:
            faults.report("read a raw answer", fault)

    def end(self, otherwise: Outcome) -> None:
        """End the call: by the answer if its body is here, `otherwise` if not."""
        parts, self._parts = self._parts, []
        found = None
        if parts:
            with suppress(Exception):  # it was left in the middle, or is no JSON
                found = json.loads(self._kind(200, headers=self._headers, content=b"".join(parts)).content)
        if found is not None:
            self._read(found)
        self._call.finish(otherwise)  # nothing, if the answer has ended it


class EventBody(Watch):
    """The body of a stream.

    Args:
        pieces: the connection's own iterator.
        reader: counts the events; the call has it from here on, because the SDK may make the chunks until then.
        call: is extended, cut and finished.
        response: closed where the stream is cut.
    """

    __slots__ = ("_events",)

    def __init__(self, pieces: Any, reader: base.StreamReader, call: Call, response: Any) -> None:
        super().__init__(pieces, reader, call, response, False)
        self._events = Events(response)

    def __enter__(self) -> None:
        try:
            self._call.streaming(self.reader)
            late.start()
        except Exception as error:
            faults.report("read a stream", error)

    def feed(self, piece: Any) -> bool:
        reader = self.reader
        try:
            for event in self._events.feed(piece):
                reader.feed(event)
        except Exception as error:
            faults.report("counted a piece of a stream", error)
        return reader.units > reader.limit

    def _verdict(self, chunk: Any) -> object:
        """See `Watch`. What has come to its end is paid for, and only its usage may be yet to come: let it."""
        if self.reader.terminal and not self._cut:
            if self._call.first_chunk is None:
                self._call.begun()
            return None
        return super()._verdict(chunk)

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is GeneratorExit:  # the response is closed by the iterator around this one
            if not self.over:
                outcome = Outcome.COMPLETE if self.reader.terminal else Outcome.CLOSED
                late.put(partial(self._call.finish, outcome))
            return
        super().__exit__(kind, error, traceback)


class Events:
    """The events of a stream, from its bytes as they come.

    Args:
        response: asked how its body is compressed, and not kept; None where that is undone.
    """

    __slots__ = ("_data", "_decoder", "_line", "_size")

    def __init__(self, response: Any) -> None:
        self._decoder = _decoder(response)
        self._line: list[bytes] = []
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> Iterator[dict[str, Any]]:
        """What has become whole with this piece. Events that are no JSON objects are left out."""
        if self._decoder is not None:
            piece = self._decoder(piece)
        for line in piece.splitlines(keepends=True):
            if not line.endswith((b"\n", b"\r")):
                self._size += len(line)
                if self._size <= MOST:
                    self._line.append(line)
                continue
            if self._line:
                self._line.append(line)
                line = b"".join(self._line)
                self._line.clear()
            whole, self._size = self._size <= MOST, 0
            line = line.rstrip(b"\r\n")
            if line:
                name, _, value = line.partition(b":")
                if name == b"data" and whole:
                    self._data.append(value.removeprefix(b" "))
            elif self._data:
                event = self._event()
                if event is not None:
                    yield event

    def _event(self) -> dict[str, Any] | None:
        data = b"\n".join(self._data)
        self._data.clear()
        with suppress(ValueError):
            event = json.loads(data)
            return event if isinstance(event, dict) else None
        return None


def _decoder(response: Any) -> Callable[[bytes], bytes] | None:
    """What undoes the compression of a body; None if it has none. The response's own is its own."""
    if response is None or response.headers.get("content-encoding", "identity") == "identity":
        return None
    twin = object.__new__(type(response))
    twin.headers = response.headers
    decoder = twin._get_content_decoder()

    def decode(piece: bytes) -> bytes:
        found = decoder.decode(piece)  # bytes of httpx, an iterable of them of httpx2
        return found if isinstance(found, bytes) else b"".join(found)

    return decode
