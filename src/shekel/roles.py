"""Roles: what a span says it is, in the words of whoever instrumented it: an agent, a tool, a workflow, a step.

Three vocabularies are read: the semantic conventions for generative AI, OpenInference and OpenLLMetry. A span may have
several roles at once. It is pure reading: no span is kept, changed or asked for more than its name and attributes.

What frameworks call a node, a task or a chain is one role here, a *step*: the same node of a graph is a CHAIN in one
vocabulary and a task in another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from .telemetry import names

AGENT: Final = "agent"
TOOL: Final = "tool"
WORKFLOW: Final = "workflow"
STEP: Final = "step"

KEYS: Final = {AGENT: names.AGENT_NAME, TOOL: names.TOOL_NAME, WORKFLOW: names.WORKFLOW_NAME}
"""By which scope key a policy finds a role."""

LONGEST = 256
"""Characters of a name that count: it becomes part of a meter's name."""

_Words: TypeAlias = Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]
"""A vocabulary: what a word makes of a span, and the attributes that may name it, the best first."""

_OPERATIONS: _Words = {
    names.INVOKE_AGENT: ((AGENT,), (names.AGENT_NAME,)),
    names.EXECUTE_TOOL: ((TOOL,), (names.TOOL_NAME,)),
    names.INVOKE_WORKFLOW: ((WORKFLOW, STEP), (names.WORKFLOW_NAME,)),
    names.EXECUTE_TASK: ((STEP,), (names.TRACELOOP_ENTITY,)),
}
_OPENINFERENCE: _Words = {
    "AGENT": ((AGENT,), (names.AGENT_NAME, names.OPENINFERENCE_AGENT, names.GRAPH_NODE)),
    "TOOL": ((TOOL,), (names.TOOL_NAME, names.OPENINFERENCE_TOOL)),
    "CHAIN": ((STEP,), (names.GRAPH_NODE,)),
}
_TRACELOOP: _Words = {
    "agent": ((AGENT,), (names.AGENT_NAME, names.TRACELOOP_ENTITY)),
    "tool": ((TOOL,), (names.TOOL_NAME, names.TRACELOOP_ENTITY)),
    "workflow": ((WORKFLOW, STEP), (names.TRACELOOP_ENTITY, names.TRACELOOP_WORKFLOW)),
    "task": ((STEP,), (names.TRACELOOP_ENTITY,)),
}


_TOOL_NAME = f"{names.EXECUTE_TOOL} "
_STARTS = tuple(f"{operation} " for operation in _OPERATIONS)
_ENDS = tuple(f".{kind}" for kind in _TRACELOOP)
"""Names that OpenLLMetry gives its spans, whose attributes it sets only afterwards."""


class Role(NamedTuple):
    """What a span is, and its name."""

    kind: str
    name: str


def roles_of(attributes: Mapping[str, Any], span_name: str, scope: str = "") -> tuple[tuple[Role, ...], bool]:
    """What a span says it is.

    Args:
        attributes: of the span, as they are now.
        span_name: its name, which some instrumentations make do with.
        scope: the name of the instrumentation that it is of.

    Returns:
        its roles, each once, and whether all of them are named by attributes: what is not may be named later.
    """
    if not attributes and scope != names.OPENINFERENCE_LANGCHAIN:
        return (), False
    found: dict[Role, None] = {}
    sure = True
    operation = attributes.get(names.OPERATION_NAME)
    inference = attributes.get(names.OPENINFERENCE_KIND)
    entity = attributes.get(names.TRACELOOP_KIND)
    if inference is None and scope == names.OPENINFERENCE_LANGCHAIN:  # it says so only when the span ends
        sure = False
        if name := _name(span_name):
            found |= {Role(STEP, name): None} | ({Role(AGENT, name): None} if "agent" in name.lower() else {})
    if operation is not None and (known := _OPERATIONS.get(operation)) is not None:
        # "{operation} {name}" is the name that the conventions give such a span; what follows is no name in others.
        word, _, rest = span_name.partition(" ")
        sure &= _add(found, attributes, known, rest if word == operation else "")
    if inference is not None and (known := _OPENINFERENCE.get(str(inference).upper())) is not None:
        sure &= _add(found, attributes, known, span_name)
    if entity is not None and (known := _TRACELOOP.get(str(entity).lower())) is not None:
        sure &= _add(found, attributes, known, span_name.removesuffix(f".{entity}"))
    for kind, key in KEYS.items():
        # The conventions put these on spans of other operations too, such as an inference of an agent.
        if name := _name(attributes.get(key)):
            found.setdefault(Role(kind, name))
    return tuple(found), sure and bool(found)


def tool_of(attributes: Mapping[str, Any], span_name: str, scope: str = "") -> str | None:
    """The tool whose run a span that has just started stands for; None where it stands for none."""
    operation = attributes.get(names.OPERATION_NAME)
    if operation is None and span_name.startswith(_TOOL_NAME):  # OpenLLMetry sets the rest afterwards
        return _name(span_name[len(_TOOL_NAME) :]) or None
    inference = attributes.get(names.OPENINFERENCE_KIND)
    if operation != names.EXECUTE_TOOL and inference != "TOOL" and attributes.get(names.TRACELOOP_KIND) != "tool":
        return None
    if scope == names.OPENINFERENCE_AGENTS and (span_name == "handoff" or span_name.startswith("handoff to ")):
        return None  # one agent gives over to another: no tool runs
    return next((role.name for role in roles_of(attributes, span_name, scope)[0] if role.kind == TOOL), None)


def may_be(attributes: Mapping[str, Any], span_name: str) -> bool:
    """Whether a span that starts is, by what is known then, one that calls run inside."""
    if roles_of(attributes, span_name)[0]:
        return True
    return span_name.startswith(_STARTS) or span_name.endswith(_ENDS)


def _add(
    found: dict[Role, None],
    attributes: Mapping[str, Any],
    known: tuple[tuple[str, ...], tuple[str, ...]],
    otherwise: str,
) -> bool:
    kinds, keys = known
    for key in keys:
        if name := _name(attributes.get(key)):
            for kind in kinds:
                found.setdefault(Role(kind, name))
            return True
    if name := _name(otherwise):
        for kind in kinds:
            found.setdefault(Role(kind, name))
    return False


def _name(value: Any) -> str:
    return value.strip()[:LONGEST] if isinstance(value, str) else ""
