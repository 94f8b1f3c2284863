"""Arrival: what comes back of a call: its response, its stream, its answers, or an error; and so its end.

A part of `Passage`, kept apart so that the other, what goes out, can be read alone.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any
from weakref import ref

from .. import faults, late, receipts
from ..call import Call
from ..providers.base import Answer, Endpoint, StreamReader
from ..settlement import Outcome
from . import errors
from .answers import decoded, is_stream, merged
from .bodies import EventBody, Events, PlainBody, hand_on, hand_on_async
from .closing import AsyncCloseHook, CloseHook, SyncCloseHook
from .raw import read_beside, take_off
from .tee import Unread, async_tee, drop_unread, sync_tee

if TYPE_CHECKING:
    from ..runtime import Runtime


class Arrival:
    """See `Passage`."""

    __slots__ = (
        "_answers",
        "_close_hook",
        "_given_back",
        "_parser_error",
        "_sent",
        "_single",
        "call",
        "endpoint",
        "hide_usage",
        "response",
        "runtime",
    )

    call: Call
    _single: bool
    """Whether no middleware of the client may send another request for the call."""

    def __init__(self, runtime: Runtime, endpoint: Endpoint) -> None:
        self.runtime = runtime
        self.endpoint = endpoint
        self.hide_usage = False
        self._answers: dict[str, Answer] = {}
        self._close_hook: CloseHook | None = None
        self._given_back = False
        self._parser_error: BaseException | None = None
        self._sent = False
        self.response: Any = None
        """The response that the SDK is processing, so that it is seen once where several wrappers are on its way."""

    def responding(self, response: Any, *, is_async: bool) -> None:
        """A response has come; watch it close where its body is yet to be read."""
        self.response = response
        try:
            if response is None:
                return
            receipts.issue(self.call, response)
            if response.is_closed:
                return
            self._close_hook = (AsyncCloseHook if is_async else SyncCloseHook)(response, self.call)
        except Exception as error:
            faults.report("watched a response", error)

    def responded(self, response: Any, result: Any) -> None:
        """The SDK has made its object. What it did not parse is read from the body, before anybody's span ends."""
        try:
            if self._answers or self.call.reader is not None or response is None:
                return
            if getattr(response, "is_closed", False):
                self._count_whole(response)
                self.parsed()
            elif self._close_hook is not None and (
                result is response or getattr(result, "http_response", None) is response
            ):
                self._read_beside(response, self._close_hook)
        except Exception as error:
            faults.report("read a raw answer", error)

    def _count_whole(self, response: Any) -> None:
        """Keep the answer of a body that is here."""
        if "event-stream" not in response.headers.get("content-type", ""):
            self._count(decoded(response))
        else:  # the program asked for a stream without telling the SDK, or it comes from a cache
            reader = self._reader()
            for event in Events(None).feed(response.content):
                reader.feed(event)
            self._keep(reader.answer())

    def _read_beside(self, response: Any, hook: CloseHook) -> None:
        """The bytes come later, and the program may read them itself."""
        call, me = self.call, ref(response)  # not the response itself: that would be a cycle, and it would close late
        is_async = isinstance(hook, AsyncCloseHook)
        hand = hand_on_async if is_async else hand_on
        plain = None if call.request.stream else PlainBody(response, call, self._read_now)

        def reading(pieces: Any) -> Any:
            try:
                response = me()
                take_off(response)
                if not call.is_open or call.reader is not None:
                    return pieces
                return hand(pieces, plain or EventBody(pieces, self._reader(), call, response))
            except Exception as error:
                faults.report("read a raw answer", error)
                return pieces

        if read_beside(response, reading, is_async=is_async):
            hook.beside(call.finish if plain is None else plain.end)

    def _read_now(self, found: Any) -> None:
        try:
            self._count(found)
            self._end()
        except Exception as error:
            faults.report("read a raw answer", error)

    def seen(self, parsed: Any) -> None:
        """The SDK has parsed a result: an answer, or a stream."""
        if is_stream(parsed):
            self._tee(parsed)
        else:
            self._count(parsed)

    def _tee(self, stream: Any) -> None:
        call = self.call
        if not call.is_open or call.reader is not None:
            return
        reader = self._reader()
        response = stream.response
        take_off(response)
        is_async = hasattr(stream, "__anext__")
        receipts.issue(call, response)
        hook, hide = self._close_hook, self.hide_usage
        late.start()
        call.streaming(reader)

        def make(inner: Any) -> Any:
            tee = (async_tee if is_async else sync_tee)(inner, reader, call, response, hide)
            if hook is not None:
                hook.watch(tee, inner)
            return tee

        if "_iterator" in stream.__dict__:
            stream._iterator = make(stream._iterator)
        else:
            stream.__stream__ = Unread(copy.copy(stream), make, drop_unread(call, response, is_async))

    def _count(self, parsed: Any) -> None:
        """Keep an answer. What is made of its text or its bytes (`cast_to=str`) says nothing: the body does."""
        if parsed is None:
            return
        receipts.issue(self.call, parsed)
        if not _is_body(parsed):
            self._keep(self.endpoint.read_answer(parsed))

    def _keep(self, answer: Answer) -> None:
        """Several with one id are one charge; with different ids (a middleware's hops) they add up."""
        self._answers[answer.id or ""] = answer
        self.call.answer = merged(self._answers)

    def _reader(self) -> StreamReader:
        call = self.call
        return self.endpoint.reader(call.request, self.runtime.estimator.rates(call.model))

    def made(self, result: Any) -> None:
        """The caller's parser has made something of an answer: that is what the program gets."""
        try:
            receipts.issue(self.call, result)
        except Exception as error:
            faults.report("knew an answer again", error)

    def parser_failed(self, error: BaseException) -> None:
        """The caller's parser raised on a paid answer."""
        self._parser_error = error
        if self._given_back or self._single:
            self._end()

    def parsed(self) -> None:
        """A result is handed out: the answer is complete, unless a middleware may send another request for the call."""
        if (self._given_back or self._single) and self._answers:
            self._end()

    # The end

    def returned(self, result: Any) -> None:
        """`request` returned to the program."""
        self._given_back = True
        try:
            call = self.call
            if call.reader is not None or not call.is_open:
                return
            if self._answers:
                self._end()
            elif not hasattr(result, "http_response") and not hasattr(result, "is_closed"):
                if not self._sent:  # a middleware's own, as from a cache, or a mock's: it has cost nothing
                    call.expected = call.upper = 0
                call.finish(Outcome.COMPLETE)
            elif getattr(getattr(result, "http_response", result), "is_closed", False):
                call.finish(Outcome.COMPLETE)
        except Exception as error:
            faults.report("finished a call", error)

    def failed(self, error: BaseException) -> None:
        """`request` raised. A paid answer that could not be parsed is charged all the same."""
        self._given_back = True
        try:
            if self._answers:
                self._parser_error = error
                self._end()
                return
            outcome, failure = errors.of(error, sent=self._sent)
            self.call.finish(outcome, failure=failure)
        except Exception as fault:
            faults.report("finished a failed call", fault)

    def _end(self) -> None:
        call = self.call
        if not call.is_open or call.reader is not None:
            return
        failure = None
        if self._parser_error is not None:
            failure = errors.of(self._parser_error, sent=self._sent)[1]
        call.finish(Outcome.COMPLETE, answer=call.answer, failure=failure)


def _is_body(parsed: Any) -> bool:
    """Whether it is the body, or the HTTP response, or something around that: no answer that could be read."""
    own = getattr(parsed, "__dict__", ())
    return "is_closed" in own or "response" in own or isinstance(parsed, str | bytes | int | float)
