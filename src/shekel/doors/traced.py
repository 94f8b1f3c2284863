"""Traced calls: spans of other instrumentations that stand for calls, from their start to their end.

Theory of operation. When an inference span starts, one of three admits the call behind it:

    an instrumentation of an SDK that has a door    the door does, which sees the same request and all of it
    a provider whose SDK has a door                 the span holds what there is, and the first call that comes through
                                                    the door under it takes that hold over
    anybody else                                    the span holds its expected cost, or is refused

A refused span is marked, ended, and the error raised where the span was to start: so the call is not sent. When a span
ends that no other call has taken over, it is priced by what it says then, settled, and the cost written on it. Spans
inside each other are one call: the innermost. A span that is collected without having ended ends as dropped.

`Mark`: the span itself carries its record, and spans below it carry that of the inference that they are in. So nothing
has to be kept or cleaned up beside the spans.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.context import Context

from .. import context as ctx
from .. import dialects, faults, late, locks
from .. import enclosing as around_spans
from ..budgets.around import patient
from ..budgets.scope import entries
from ..budgets.traced import Way
from ..call import Call
from ..dialects.base import Asked, Dialect, Seen, SpanApi
from ..dialects.ends import failure_of
from ..settlement import Cost, Outcome, assess
from ..telemetry import names
from ..telemetry.spans import stand_for, write_now, write_traced
from . import errors, standing
from .standing import MARK, Standing, enclosing

if TYPE_CHECKING:
    from ..runtime import Runtime

_numbers = itertools.count()

_DOORS_SEE = frozenset({"chat"})
"""Operations that the doors of SDKs know; the others of the same SDK only the span shows."""


def begin(runtime: Runtime, span: Any, here: Context, *, told: bool) -> Exception | None:
    """A span of somebody else starts. Returns why the call behind it may not be sent, once its span is ended."""
    if getattr(span, MARK, None) is not None:  # another processor of ours was here
        return None
    outer = enclosing(here)
    seen = _see(span)
    found = None if seen.scope == names.SCOPE else dialects.find(seen)
    if found is None:
        # What is found out later about a call that a door sees is no news.
        if (
            seen.scope != names.SCOPE
            and dialects.may_become(seen)
            and not runtime.has_door(dialects.sdk_of(seen.scope))
        ):
            TracedSpan(runtime, span, here, outer, told=told)
        elif outer is not None:
            setattr(span, MARK, outer)
        return None
    record = TracedSpan(runtime, span, here, outer, told=told)
    return record.admit(*found)


class TracedSpan(Standing):
    """The record of one span of somebody else.

    Args:
        runtime: the parts that a call needs.
        span: which has just started.
        here: the context that it started in.
        outer: the inference span that it is in.
        told: whether anything is to be written or recorded.
    """

    __slots__ = ("_began", "_call", "_dialect", "_end", "_first", "_here", "_open", "_outer", "_span",
                 "_standing", "_told", "runtime")  # fmt: skip

    def __init__(self, runtime: Runtime, span: Any, here: Context, outer: Standing | None, *, told: bool) -> None:
        self.runtime = runtime
        self._span: Any = span
        self._here = ctx.with_budgets(here)
        self._outer = outer
        self._told = told and not ctx.suppressed(here)
        self._dialect: Dialect | None = None
        self._call: Call | None = None
        self._standing: Call | None = None
        self.number = next(_numbers)
        self._began = time.perf_counter()
        self.scope = _scope_of(span)
        self.sdk: str | None = None
        self._first = [True]
        self._open = [True]
        self._end: Callable[..., None] | None = span.end
        span.end = self._ended
        setattr(span, MARK, self)
        runtime.traced_seen = True

    @property
    def is_open(self) -> bool:
        return bool(self._open)

    @property
    def is_taken(self) -> bool:
        return not self._first

    @property
    def model(self) -> str:
        span = self._span
        found = None if span is None else dialects.find(_see(span))
        return "" if found is None else found[1].request.model

    # The start

    def admit(self, dialect: Dialect, asked: Asked) -> Exception | None:
        """Admit the call behind the span, or leave that to its door."""
        self._dialect = dialect
        call = self._call = self._made(asked)
        way = self._way(asked)
        if self._told and call.scope:
            present = self._span.attributes or {}
            self._span.set_attributes({key: value for key, value in call.scope.items() if key not in present})
        if way is None:
            self._wait_for_door()
            return None
        if self._decide(call, way) and call.refusal is None:
            call.opened()
        return None if call.refusal is None else self._refuse(call, call.refusal)

    def _made(self, asked: Asked) -> Call:
        runtime = self.runtime
        call = Call(
            SpanApi(asked.provider, asked.operation),
            asked.request,
            gate=runtime.gate,
            teller=runtime.teller,
            now=time.perf_counter,
            wall=time.time,
            provider=asked.provider,
            host=asked.host,
            port=asked.port,
        )
        call.traced = dialects.measures(self.scope)
        call.told = self._told
        call.scope = entries(self._here)
        if around_spans.wanted:
            call.inside = around_spans.entries(self._inside())
        return call

    def _inside(self) -> Context:
        """The context with the span itself: an inference may name its agent. It is not kept, as the span keeps this."""
        return trace.set_span_in_context(self._span, self._here) if around_spans.wanted else self._here

    def _way(self, asked: Asked) -> Way | None:
        """Who admits the call; None where a door does."""
        if asked.operation in _DOORS_SEE:
            if self.runtime.has_door(dialects.sdk_of(self.scope)):
                return None
            if self.runtime.has_door(dialects.usual_sdk(asked.provider)):
                return None if patient(self._here) else Way.DOOR
        return Way.ALONE

    def _wait_for_door(self) -> None:
        """The door of the SDK will see the call, in this thread or task."""
        self.sdk = dialects.sdk_of(self.scope)
        standing.wait(self)

    def _decide(self, call: Call, way: Way) -> bool:
        """Ask the gate. The first inference inside another takes its hold over."""
        former = None if self._outer is None else self._outer.take()
        if former is not None:
            call.instead_of = former.id
        gate = self.runtime.gate
        decided = gate.admit_traced(call, self._inside(), way)
        if former is not None and decided:
            gate.release(former)
        return decided

    def _refuse(self, call: Call, refusal: Exception) -> Exception:
        self._open.clear()
        call.adopted = True
        call.span = self._span
        call.finish(Outcome.REFUSED)
        if self._told:
            write_traced(call, self._span, call.cost or Cost(), Outcome.REFUSED)
        call.span = None
        end = self._let_go()
        if end is not None:
            end()
        return refusal

    # While it is open

    def take(self, call: Call | None = None) -> Call | None:
        around = self._outer
        outer = None if around is None else around.take()
        try:
            self._first.pop()
        except IndexError:
            return outer
        span = self._span
        if call is not None and self._dialect is not None and span is not None and span.is_recording():
            call.traced = dialects.measures(self.scope)
            if self._told:
                stand_for(call, span)
                call.leaves_open = dialects.leaves_open(self.scope)
            self._standing = call
        former = self._call
        if former is None or not former.decided or not former.withdraw():
            return outer
        return former

    # The end

    def _ended(self, *args: Any, **kwargs: Any) -> None:
        try:
            self._finish()
        except Exception as error:
            faults.report("charged what a span shows", error)
        end = self._let_go()
        if end is not None:
            end(*args, **kwargs)

    def _finish(self) -> None:
        try:
            self._open.pop()
        except IndexError:
            return
        span = self._span
        try:
            self._first.pop()  # from here on nobody takes it over
        except IndexError:
            standing = self._standing
            if standing is not None and self._told:
                write_now(standing, span, errors.being_handled)
            return
        if not span.is_recording():
            return
        seen = _see(span)
        found = dialects.find(seen)
        if found is not None:
            self._dialect, asked = found
        if self._dialect is None:
            return  # it was no inference after all
        if self._came_to_nothing(seen, self._dialect):
            return
        if self._call is None and self._passed_door(asked):
            return
        call = self._call
        if call is None:
            call = self._call = self._made(asked)
        elif found is not None:
            call.endpoint = SpanApi(asked.provider, asked.operation)
            call.host, call.port = asked.host, asked.port
            self.runtime.gate.revise(call, asked.request, asked.provider, self._here)
        if not call.decided:
            self._decide(call, Way.AFTERWARDS)
        self._settle(call, seen)

    def _came_to_nothing(self, seen: Seen, dialect: Dialect) -> bool:
        """Whether a door was waited for in vain, and nothing was sent.

        Where the SDK sent something by another way, as it does with its WebSockets, the span says what was consumed.
        """
        if self.sdk is None or not self.runtime.has_door(self.sdk):
            return False
        return dialects.starts_aside(self.scope) or dialect.answered(seen).usage is None

    def _passed_door(self, asked: Asked) -> bool:
        """Whether a span says only now that it is a call, and a door has seen that call.

        Who tells of a call by callbacks (OpenInference's langchain) does not make its span current, so the door found
        none to tell on. Other providers' calls may have come through the same SDK: then the model passed meanwhile.
        """
        if asked.operation not in _DOORS_SEE:
            return False
        if self.runtime.has_door(dialects.usual_sdk(asked.provider)):
            return True
        return standing.passed_since(asked.request.model, self._began)

    def _settle(self, call: Call, seen: Seen) -> None:
        assert self._dialect is not None
        span = self._span
        answer = self._dialect.answered(seen)
        failure = failure_of(span, seen)
        outcome = Outcome.COMPLETE if failure is None else Outcome.FAILED
        # An answer that counts nothing says nothing of its length either: what is expected is charged.
        counted = None if answer.usage is None else answer
        if locks.busy():  # a finaliser ended the span in the middle of a step of ours
            cost = assess(call, outcome, counted, failure)
            late.put(partial(call.finish, outcome, answer=counted, failure=failure))
        else:
            call.adopted = True
            call.span = span
            call.finish(outcome, answer=counted, failure=failure)
            call.span = None  # who keeps the call keeps no span
            cost = call.cost or Cost()
        if self._told:
            write_traced(call, span, cost, outcome)

    def _let_go(self) -> Callable[..., None] | None:
        """Hand out what ends the span, once, and let go of it. It holds this record: both go without a collection."""
        span, end = self._span, self._end
        self._span = self._outer = self._end = None
        self._here = ctx.NOWHERE
        if span is not None:
            span.__dict__.pop("end", None)
        return end

    def __del__(self) -> None:
        call = self._call
        if self._open and self._first and call is not None and call.decided and call.is_open:
            late.put(partial(call.finish, Outcome.DROPPED))


def _see(span: Any) -> Seen:
    attributes = span.attributes
    return Seen(_scope_of(span), span.name, {} if attributes is None else attributes)


def _scope_of(span: Any) -> str:
    scope = getattr(span, "instrumentation_scope", None)
    return "" if scope is None else scope.name or ""
