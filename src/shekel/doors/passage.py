"""Passage: one call on its way through the door: the copy of the SDK's options, the context while it sends, the hooks.

What must not break the program is guarded here: a fault of ours is reported and the call goes on. The only exceptions
that leave are budget errors, and they leave before anything is sent.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from contextvars import Token
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.context import Context

from .. import context as ctx
from .. import enclosing, faults
from ..budgets import scope, waiting
from ..budgets.around import patient
from ..budgets.budget import Budget
from ..call import Call
from ..providers.base import Endpoint
from ..settlement import Failure, Outcome
from . import request_body
from .answers import ResultHook
from .arrival import Arrival
from .client import by_stream_helper, destination, native_provider, native_tracing, reads_bytes, wants_usage_chunk
from .scoped import context_of
from .standing import passes, standing_for

if TYPE_CHECKING:
    from ..runtime import Runtime


class Passage(Arrival):
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
        "_around",
        "_body",
        "_changed",
        "_fixed",
        "_former",
        "_native_provider",
        "_span_inside",
        "_token",
        "_trying",
        "here",
        "options",
        "sending",
    )

    def __init__(
        self, runtime: Runtime, endpoint: Endpoint, client: Any, options: Any, stream: bool, *, over: bool = False
    ) -> None:
        super().__init__(runtime, endpoint)
        self.options = options
        self.here = context_of(client)
        self.sending: Context | None = None
        self._token: Token[Context] | None = None
        self._trying = False
        self._around: tuple[Any, Any] | None = None

        body, self._changed, self._fixed = request_body.read(options)
        request = endpoint.read_request(body)
        if self._fixed:
            request = request_body.as_it_is(request)
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
            self.hide_usage = not self._fixed and wants_usage_chunk(host, port, runtime.usage_hosts)

    def _stand_under(self) -> None:
        """If the span of another instrumentation stands for this call, tell on it, and take over what it holds."""
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
        """The program left before anything was sent, as while the call waited."""
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
        except BaseException:  # a callback ends the program, or a signal does: nothing is sent
            self.given_up()
            raise
        if call.refusal is not None:
            call.inside = call.inside or enclosing.entries(self.here)
            call.body = self._body = None
            call.finish(Outcome.REFUSED)
            here = self.here = ctx.NOWHERE  # the error keeps this frame
            raise call.refusal
        try:
            self.hide_usage = self.hide_usage and runtime.asked_for(call)
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
        if call.cap is not None and not self._fixed:
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

    def take_over(self, options: Any, hook: ResultHook | None = None) -> None:
        """Put what was decided on options of a call that came around `request`.

        Args:
            options: of the attempt that is being built, or those that the next attempts will be copies of.
            hook: for the latter, what the former's have.
        """
        ours, self.options = self.options, None
        if ours is not None:
            self._around = ours.json_data, ours.extra_json
            self._given_back = True
            hook = ours.post_parser
        if self._around is not None:
            options.json_data, options.extra_json = self._around
            options.post_parser = hook

    @property
    def came_around(self) -> bool:
        """Whether it came around `request`, which would have seen how it ends."""
        return self._around is not None

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
        self.here = self.sending = ctx.NOWHERE

    # What the SDK does

    def building(self) -> None:
        """An attempt was built and is about to be sent."""
        self._sent = self._trying = True
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
        """An attempt failed, another follows. It is told by each wrapper that is on the way, and counts once."""
        if not self._trying:
            return
        self._trying = False
        self.call.attempt_failed(failure)
        self.runtime.gate.retrying(self.call)
