"""ShekelSampler: keeps GenAI spans that the program's sampler drops visible to the span processor, and to nobody else.

A dropped span never starts, so no processor could admit or charge the call behind it. `RECORD_ONLY` is what the
specification has for this: processors see the span, exporters do not.
"""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import DEFAULT_ON, Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from .. import context as ctx
from .. import dialects, enclosing
from ..roles import may_be


class ShekelSampler(Sampler):
    """Samples as another sampler does, but turns DROP into RECORD_ONLY for spans that stand for a model's calls.

    Where anything limits agents, tools or steps, also for their spans and those below them.

        provider = TracerProvider(sampler=ShekelSampler(ParentBased(TraceIdRatioBased(0.01))))

    What is exported stays the same. Spans of our own doors need no processor, and stay dropped.

    Args:
        wrapped: the program's sampler; `parentbased_always_on`, OpenTelemetry's default, if none is given.
    """

    def __init__(self, wrapped: Sampler | None = None) -> None:
        self._wrapped = DEFAULT_ON if wrapped is None else wrapped

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Ask the other sampler; see the class."""
        result = self._wrapped.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)
        if result.decision is not Decision.DROP or not self._stands_for_call(parent_context, name, attributes):
            return result
        return SamplingResult(Decision.RECORD_ONLY, {**(attributes or {}), **result.attributes}, result.trace_state)

    def _stands_for_call(self, parent_context: Context | None, name: str, attributes: Attributes) -> bool:
        here = ctx.current() if parent_context is None else parent_context
        if here.get(ctx.CALL) is not None:
            return False
        seen = dialects.Seen("", name, attributes or {})
        if dialects.find(seen) is not None or dialects.may_become(seen):
            return True
        # Below an agent or a tool, any span that is dropped would hide from calls what they are inside.
        return enclosing.wanted and (may_be(attributes or {}, name) or bool(enclosing.roles(here)))

    def get_description(self) -> str:
        return f"ShekelSampler{{{self._wrapped.get_description()}}}"


def from_environment(argument: str | None) -> ShekelSampler:
    """The sampler for OTEL_TRACES_SAMPLER=shekel.

    Args:
        argument: OTEL_TRACES_SAMPLER_ARG: the share of traces that is sampled, from 0 to 1, as for
            `parentbased_traceidratio`; all, if it is empty.
    """
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

    if not argument or not argument.strip():
        return ShekelSampler()
    return ShekelSampler(ParentBasedTraceIdRatio(float(argument)))
