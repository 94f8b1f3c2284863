"""Enclosing spans: which agents, tools, workflows and steps a call runs inside, by the spans of its context.

Every recording span that starts is given an `Enclosure`, which knows the one above it; the span itself keeps it, so it
lives as long as the span or anything that was started inside it. There is no table of spans to clear: a table by id
holds them weakly, for contexts that carry a span's ids alone. Nothing is done before somebody asks by `want`: a budget
with parts, or a policy per agent.

Names may come after the start of their span, so they are read when a call asks. A span that has ended may still be the
parent of later work; it keeps its roles and lets its attributes go.

Not known here: spans that a sampler dropped, and spans of a provider that has no processor of ours.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from itertools import islice, product
from typing import Any, cast
from weakref import WeakValueDictionary

from opentelemetry import trace
from opentelemetry.context import Context

from . import context as ctx
from . import faults
from .roles import AGENT, KEYS, TOOL, Role, roles_of
from .telemetry import names

DEEPEST = 64
"""Enclosures in a row; beyond, what is above is put together: ended spans may go on starting others for ever."""

KEPT = 64
"""Roles that are kept of what was put together, the innermost."""

MOST_SCOPES = 64
"""Combinations of enclosing agents, tools and workflows that policies see of one call."""

_NAMED = frozenset(KEYS.values())

wanted = False
"""Whether anybody asks: until then no span is looked at."""

_ATTRIBUTE = "_shekel_enclosure"


class Enclosure:
    """One span, as calls inside it see it.

    Args:
        span: an SDK span that is open; None for what is put together from several.
        above: the enclosure of the span that it was started in.
        roles: what is known of it.
    """

    __slots__ = ("__weakref__", "_roles", "_span", "above", "charged", "depth")

    def __init__(self, span: Any, above: Enclosure | None, roles: tuple[Role, ...] | None = None) -> None:
        self._span = span
        self._roles = roles
        self.above = above
        self.depth: int = 1 if above is None else above.depth + 1
        self.charged: Charge | None = None
        """The run of a tool that this span stands for, once it is charged."""

    @property
    def ended(self) -> bool:
        return self._span is None

    @property
    def roles(self) -> tuple[Role, ...]:
        """What it is, read now unless it is sure already."""
        if self._roles is not None:
            return self._roles
        span = self._span
        if span is None:  # it ends this very moment, in another thread
            return self._roles or ()
        roles, sure = roles_of(span.attributes or {}, span.name, scope_of(span))
        if sure:
            self._roles = roles
        return roles

    def end(self, span: Any) -> None:
        """The span has ended: nothing of it changes any more, and nothing more than its roles is kept."""
        self._roles = roles_of(span.attributes or {}, span.name, scope_of(span))[0]
        self._span = None

    @property
    def is_nothing(self) -> bool:
        """Whether it says nothing, and never will."""
        return self._span is None and not self._roles


def scope_of(span: Any) -> str:
    """The name of the instrumentation that a span is of."""
    scope = getattr(span, "instrumentation_scope", None)
    return "" if scope is None else scope.name or ""


class Charge:
    """The run of a tool that is charged. Several spans may stand for it, one of each instrumentation.

    Args:
        tool: the tool's name.
        scope: the instrumentation that it was seen by first.
    """

    __slots__ = ("_seen", "tool")

    def __init__(self, tool: str, scope: str) -> None:
        self.tool = tool
        self._seen: dict[str, object] = {scope: self}

    def seen_by(self, scope: str) -> bool:
        """Whether it is new to an instrumentation; what that sees next is another run."""
        return self._seen.setdefault(scope, mine := object()) is mine  # one step, also for threads


_known: WeakValueDictionary[tuple[int, int], Enclosure] = WeakValueDictionary()


def want(keys: Collection[str] | None = None) -> None:
    """Look at spans from now on; of the keys of policies, if one of them is found there."""
    global wanted
    if keys is None or not _NAMED.isdisjoint(keys):
        wanted = True


def is_known(span: Any) -> bool:
    """Whether the start of a span was seen: several processors may be on one provider."""
    return getattr(span, _ATTRIBUTE, None) is not None


def started(span: Any, here: Context) -> Enclosure:
    """A span has started in a context."""
    return _below(span, of(trace.get_current_span(here)))


def ended(span: Any) -> None:
    """A span has ended. What is given is a copy: only its ids tell which."""
    if not _known:
        return
    own = span.get_span_context()
    enclosure = _known.get((own.trace_id, own.span_id))
    if enclosure is not None:
        enclosure.end(span)


def of(span: Any) -> Enclosure | None:
    """The enclosure of a span of a context; made now where its start was not seen."""
    found = getattr(span, _ATTRIBUTE, None)
    if found is not None:
        return cast("Enclosure", found)
    own = span.get_span_context()
    if not own.is_valid:
        return None
    found = _known.get((own.trace_id, own.span_id))
    if found is not None:
        return found
    if not span.is_recording() or not hasattr(span, "attributes"):
        return None
    parent = getattr(span, "parent", None)
    return _below(span, None if parent is None else _known.get((parent.trace_id, parent.span_id)))


def _below(span: Any, above: Enclosure | None) -> Enclosure:
    while above is not None and above.is_nothing:
        above = above.above
    if above is not None:
        while (higher := above.above) is not None and higher.is_nothing:
            above.above = higher.above  # says nothing to anybody: a chain of tasks must not grow by it
        if above.depth >= DEEPEST:
            above = Enclosure(None, None, tuple(_distinct(above))[:KEPT])
    made = Enclosure(span, above)
    setattr(span, _ATTRIBUTE, made)
    own = span.get_span_context()
    _known[own.trace_id, own.span_id] = made
    return made


def _distinct(enclosure: Enclosure | None) -> dict[Role, None]:
    found: dict[Role, None] = {}
    for each in _upwards(enclosure):
        for role in each.roles:
            found.setdefault(role)
    return found


def _upwards(enclosure: Enclosure | None) -> Iterator[Enclosure]:
    while enclosure is not None:
        yield enclosure
        enclosure = enclosure.above


def roles(here: Context) -> tuple[Role, ...]:
    """Everything that a call made in this context is inside, each once, the innermost first."""
    span = trace.get_current_span(here)
    found = _distinct(None if span is trace.INVALID_SPAN else of(span))
    if (kept := _kept_back()) is not None:
        found = {**_distinct(of(kept)), **found}
    runs = cast("tuple[Charge, ...]", here.get(ctx.TOOLS, ()))
    if not runs:
        return tuple(found)
    # A run without a span among the others is probably the innermost: its span, if any, starts inside.
    without = dict.fromkeys(role for run in reversed(runs) if (role := Role(TOOL, run.tool)) not in found)
    return (*without, *found)


def _kept_back() -> Any:
    """The span that the program is in, of an instrumentation that never makes its spans current, but says which it is.

    OpenInference does so for LangChain and LangGraph.
    """
    module = sys.modules.get(names.OPENINFERENCE_LANGCHAIN)
    current = getattr(module, "get_current_span", None) if wanted else None
    if current is None:
        return None
    try:
        return current()
    except Exception as error:
        faults.report("asked OpenInference for its span", error)
        return None


def entries(here: Context) -> Mapping[str, str]:
    """The innermost agent, tool and workflow of a context, by the attributes that name them."""
    found: dict[str, str] = {}
    for role in roles(here):
        if role.kind in KEYS:
            found.setdefault(KEYS[role.kind], role.name)
    return found


def scopes(own: Mapping[str, str], here: Context, keys: Collection[str]) -> list[Mapping[str, str]]:
    """What policies see of a call: its scope, with an agent, a tool and a workflow that it is inside.

    A call inside several agents is charged for each of them, so there is a scope for each. A run of a tool is a run of
    that tool alone.

    Args:
        own: the scope's entries.
        here: the context of the call.
        keys: those that policies ask for.
    """
    if not wanted or _NAMED.isdisjoint(keys):
        return [own]
    values: dict[str, dict[str, None]] = {}
    for role in roles(here):
        key = KEYS.get(role.kind)
        if key in keys:
            values.setdefault(cast("str", key), {})[role.name] = None
    run = here.get(ctx.RUN)
    if run is not None and names.TOOL_NAME in keys:
        values[names.TOOL_NAME] = {cast("str", run): None}
    if not values:
        return [own]
    for key, found in values.items():
        if key in own:
            found[own[key]] = None
    return [{**own, **dict(zip(values, each, strict=True))} for each in islice(product(*values.values()), MOST_SCOPES)]


def inside_tool(here: Context, tool: str, scope: str) -> Context:
    """The context inside a run of a tool that an instrumentation sees."""
    runs = cast("tuple[Charge, ...]", here.get(ctx.TOOLS, ()))
    return Context({**here, ctx.TOOLS: (*runs, Charge(tool, scope))})


def charged_above(here: Context, tool: str, scope: str) -> Charge | None:
    """The charge of a run that another instrumentation saw, and this one now sees too; None where it is another run."""
    runs = cast("tuple[Charge, ...]", here.get(ctx.TOOLS, ()))
    if runs and runs[-1].tool == tool and runs[-1].seen_by(scope):
        return runs[-1]
    span = trace.get_current_span(here)
    for each in _upwards(None if span is trace.INVALID_SPAN else of(span)):
        charge = each.charged
        if charge is not None:
            return charge if charge.tool == tool and charge.seen_by(scope) else None
        if any(role.kind in (TOOL, AGENT) for role in each.roles):
            return None
    return None
