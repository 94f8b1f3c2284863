"""Passage: one call on its way through the door: the copy of the SDK's options, the context while it sends, the hooks.

What must not break the program is guarded here: a fault of ours is reported and the call goes on. The only exceptions
that leave are budget errors, and they leave before anything is sent.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from contextvars import Token
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from opentelemetry import trace
from opentelemetry.context import Context

from .. import context as ctx
from .. import enclosing, faults, late, receipts
from ..budgets import scope, waiting
from ..budgets.around import patient
from ..budgets.budget import Budget
from ..call import Call
from ..providers.base import Answer, Endpoint
from ..settlement import Failure, Outcome
from . import errors
from .answers import ResultHook, decoded, is_stream, merged
from .client import by_stream_helper, destination, native_provider, native_tracing, reads_bytes, wants_usage_chunk
from .closing import AsyncCloseHook, CloseHook, SyncCloseHook
from .raw import when_read
from .scoped import context_of
from .tee import Unread, async_tee, drop_unread, sync_tee

if TYPE_CHECKING:
    from ..runtime import Runtime

_ONE_SHOT = ("messages", "tools", "system", "input")


class Passage:
    """One call on its way.

    Args:
        runtime: the parts that a call needs.
        endpoint: the API that is called.
        client: the SDK's client.
        options: the SDK's options, left as they are.
        stream: whether the SDK will stream the answer.
        over: whether another instrumentation's wrapper is called from ours, and may start a span for the call.
    """

    __slots__ = (
        "__weakref__",
        "_answers",
        "_body",
        "_changed",
        "_close_hook",
        "_former",
        "_given_back",
        "_native_provider",
        "_parser_error",
        "_sent",
        "_single",
        "_span_inside",
        "_token",
        "call",
        "client_type",
        "endpoint",
        "here",
        "hide_usage",
        "options",
        "reading",
        "runtime",
        "sending",
    )

    def __init__(
        self, runtime: Runtime, endpoint: Endpoint, client: Any, options: Any, stream: bool, *, over: bool = False
    ) -> None:
        self.runtime = runtime
        self.endpoint = endpoint
        self.options = options
        self.here = context_of(client)
        self.sending: Context | None = None
        self.hide_usage = False
        self.reading = False
        self._answers: dict[str, Answer] = {}
        self._given_back = False
        self._parser_error: BaseException | None = None
        self._close_hook: CloseHook | None = None
        self._sent = False
        self._token: Token[Context] | None = None
        self._changed = False

        body = self._body_of(options)
        request = endpoint.read_request(body)
        if request.stream != stream:
            request = replace(request, stream=stream)
        provider, host, port = destination(client, endpoint.provider)
        retries = options.get_max_retries(client.max_retries)
        self.call = Call(
            endpoint,
            request,
            gate=runtime.gate,
            teller=runtime.teller,
            now=time.perf_counter,
            wall=time.time,
            provider=provider,
            host=host,
            port=port,
            attempts=1 + max(0, retries) if isinstance(retries, int) else 1,
            body=body,
        )
        self.call.told = not ctx.suppressed(self.here)
        self.call.scope = scope.entries(self.here)
        if enclosing.wanted:
            self.call.inside = enclosing.entries(self.here)
        self._body: Mapping[str, Any] | None = body
        native = native_tracing(client, options)
        self._span_inside = native or over
        self._native_provider = native_provider(client) if native else None
        self._single = not getattr(client, "_middleware", ())
        self._former: Call | None = None
        if runtime.traced_seen:
            self._stand_under()
        if stream and request.wants_usage is None and endpoint.name == "chat.completions" and not reads_bytes(options):
            self.hide_usage = wants_usage_chunk(host, port, runtime.usage_hosts)

    def _body_of(self, options: Any) -> Mapping[str, Any]:
        """The request's body as one mapping: `extra_body` over the arguments. One-shot iterators become lists."""
        body: Mapping[str, Any] = options.json_data
        extra = options.extra_json
        if not isinstance(body, Mapping):
            body = {}
        if isinstance(extra, Mapping) and extra:
            body = {**body, **extra}
        for key in _ONE_SHOT:
            value = body.get(key)
            if hasattr(value, "__next__"):
                # Reading it to measure it would use it up: what is sent from here on is the list.
                body = {**body, key: list(cast("Iterator[Any]", value))}
                self._changed = True
        return body

    def _stand_under(self) -> None:
        """If the span of another instrumentation stands for this call, tell on it, and take over what it holds."""
        from .traced import passes, standing_for

        try:
            passes(self.call)
            record = standing_for(self.call, self.here)
            if record is not None:
                self._former = record.take(self.call)
                self.call.leaves_refused = self.call.leaves_open and by_stream_helper(self.options)
                if self._former is not None:
                    self.call.instead_of = self._former.id
        except Exception as error:
            faults.report("looked at the span around a call", error)

    # Admission

    def patient(self) -> list[Budget]:
        """The budgets that may let the call wait, or ask for more, before it is refused."""
        try:
            return patient(self.here)
        except Exception as error:
            faults.report("looked for budgets that wait", error)
            return []

    def wait(self, budgets: list[Budget]) -> None:
        """Admit the call, in this thread, as its patient budgets say. It is done before the span starts."""
        here = Context({**self.here, ctx.CALL: self.call})
        try:
            waiting.wait_sync(self.runtime.gate, self.call, here, budgets)
            self.call.waited()
        except Exception as error:
            faults.report("waited for room", error)

    async def await_room(self, budgets: list[Budget]) -> None:
        """`wait` for a task."""
        here = Context({**self.here, ctx.CALL: self.call})
        try:
            await waiting.wait_async(self.runtime.gate, self.call, here, budgets)
            self.call.waited()
        except Exception as error:
            faults.report("waited for room", error)

    def given_up(self) -> None:
        """The program left while the call waited."""
        if self._former is not None:
            self.runtime.gate.release(self._former)
        self.call.body = self._body = None
        self.call.finish(Outcome.REFUSED)

    def admit(self) -> None:
        """Start the span, admit the call, and write what was decided into a copy of the options.

        Raises:
            BudgetExceededError: the call is refused; its span, if there is one, is ended.
            ValueError: the budget's fallback belongs to another provider.
        """
        call = self.call
        runtime = self.runtime
        try:
            here = Context({**self.here, ctx.CALL: call})
            if runtime.telling() and not call.adopted:
                if self._span_inside:
                    # A span of the SDK's, or of an instrumentation below, will stand for this call, and what its start
                    # raises may be swallowed.
                    runtime.watch_provider(self._native_provider)
                    runtime.gate.admit(call, here)
                    if call.refusal is not None:
                        runtime.teller.start(call, here, scope.entries(here))
                else:
                    runtime.watch_provider()
                    runtime.teller.start(call, here, scope.entries(here))
            elif enclosing.wanted:
                runtime.watch_provider()
            runtime.gate.admit(call, here)  # where no processor's `on_start` ran
            if self._former is not None:
                runtime.gate.release(self._former)
        except Exception as error:
            faults.report("admitted a call", error)
        if call.refusal is not None:
            call.inside = call.inside or enclosing.entries(self.here)
            call.body = self._body = None
            call.finish(Outcome.REFUSED)
            raise call.refusal
        try:
            runtime.teller.admitted(call)
            call.opened()
            self._write()
        except Exception as error:
            faults.report("prepared a request", error)
        if not isinstance(self.options.post_parser, ResultHook):
            self.options = copy.copy(self.options)
            self.options.post_parser = ResultHook(self, self.options.post_parser)

    def _write(self) -> None:
        """A copy of the options with our hook, and with what the admission changed in the body."""
        call = self.call
        options = copy.copy(self.options)
        body: Mapping[str, Any] = call.body or self._body or {}
        changed = self._changed or call.fallback_from is not None
        if call.cap is not None:
            body = self.endpoint.with_cap(body, call.cap)
            changed = True
        if self.hide_usage:
            body = self.endpoint.with_usage(body)
            changed = True
        if changed:
            options.json_data = body
            options.extra_json = None
        options.post_parser = ResultHook(self, options.post_parser)
        self.options = options
        call.body = self._body = None

    def take_over(self, options: Any) -> None:
        """Put what was decided on the options of an attempt that is being built."""
        ours = self.options
        options.json_data = ours.json_data
        options.extra_json = ours.extra_json
        options.post_parser = ours.post_parser
        self.options = None
        self._given_back = True

    # The context while the SDK sends

    def attach(self) -> None:
        """Make the call's span current, and keep the scope's baggage from the provider."""
        call = self.call
        try:
            here = scope.without_scope(self.here, self.runtime.policies.keys)
            if call.span is not None and not call.adopted:
                here = trace.set_span_in_context(call.span, here)
            elif here is self.here and not self._span_inside and not call.adopted:
                return
            self.sending = Context({**here, ctx.CALL: call})
            self._token = ctx.attach(self.sending)
        except Exception as error:
            faults.report("attached the context", error)

    def detach(self) -> None:
        """Undo `attach`. In a coroutine that is closed elsewhere there is nothing to undo."""
        token, self._token = self._token, None
        if token is not None:
            ctx.detach(token)
        self.options = None  # the SDK's copies keep the hook alive from here on

    # What the SDK does

    def building(self) -> None:
        """An attempt was built and is about to be sent."""
        self._sent = True
        call = self.call
        if self._span_inside and call.span is None and self.runtime.telling():
            # Nobody started a span after all (not sampled, or no provider): ours stands for the call.
            try:
                here = self.sending or self.here
                span = self.runtime.teller.start(call, here, scope.entries(self.here))
                if span is not None and self._token is not None:
                    self.runtime.teller.admitted(call)
                    ctx.attach(trace.set_span_in_context(span, here))
            except Exception as error:
                faults.report("started a span", error)

    def retrying(self, failure: Failure) -> None:
        """An attempt failed, another follows."""
        self.call.attempt_failed(failure)
        self.runtime.gate.retrying(self.call)

    def responding(self, response: Any, *, is_async: bool) -> None:
        """A response has come; watch it close where its body is yet to be read."""
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
        """The SDK has made its object. A raw answer whose body is read is counted now, before anybody's span ends."""
        try:
            if self._answers or self.call.reader is not None or response is None:
                return
            if getattr(result, "http_response", None) is not response:
                return
            if getattr(response, "is_closed", False):
                self._count(decoded(response))
                self.parsed()
            elif not self.call.request.stream and self._close_hook is not None:
                when_read(response, self._close_hook, self._read_now)
        except Exception as error:
            faults.report("read a raw answer", error)

    def _read_now(self, response: Any) -> None:
        try:
            self._count(decoded(response))
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
        reader = self.endpoint.reader(call.request, self.runtime.estimator.rates(call.model))
        response = stream.response
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
        """Keep an answer. Several with one id are one charge; with different ids (a middleware's hops) they add up."""
        if parsed is None:
            return
        call = self.call
        receipts.issue(call, parsed)
        answer = self.endpoint.read_answer(parsed)
        self._answers[answer.id or ""] = answer
        call.answer = merged(self._answers)

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
                call.finish(Outcome.COMPLETE)  # an answer that no parser saw: a middleware's own
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
