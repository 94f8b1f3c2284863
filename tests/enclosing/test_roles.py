"""What a span says it is, in each vocabulary, as its instrumentation writes it."""

from __future__ import annotations

from typing import Any

import pytest

from shekel.roles import LONGEST, roles_of, tool_of

CASES: list[tuple[str, dict[str, Any], set[tuple[str, str]]]] = [
    # The conventions
    ("invoke_agent a", {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "a"}, {("agent", "a")}),
    ("invoke_agent a", {"gen_ai.operation.name": "invoke_agent"}, {("agent", "a")}),
    ("execute_tool t", {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "t"}, {("tool", "t")}),
    (
        "invoke_workflow w x",
        {"gen_ai.operation.name": "invoke_workflow"},
        {("workflow", "w x"), ("step", "w x")},
    ),
    ("chat gpt-4o", {"gen_ai.operation.name": "chat", "gen_ai.agent.name": "a"}, {("agent", "a")}),
    (
        "execute_tool t",
        {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "t", "gen_ai.agent.name": "a"},
        {("tool", "t"), ("agent", "a")},
    ),
    # OpenInference: openai-agents, CrewAI, LangChain
    ("researcher", {"openinference.span.kind": "AGENT"}, {("agent", "researcher")}),
    ("Writer._execute", {"openinference.span.kind": "AGENT", "graph.node.id": "Writer"}, {("agent", "Writer")}),
    ("search", {"openinference.span.kind": "TOOL"}, {("tool", "search")}),
    ("fetch", {"openinference.span.kind": "CHAIN"}, {("step", "fetch")}),
    # OpenLLMetry: LangGraph, CrewAI
    (
        "flow.workflow",
        {
            "traceloop.span.kind": "workflow",
            "traceloop.entity.name": "flow",
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": "flow",
        },
        {("agent", "flow"), ("workflow", "flow"), ("step", "flow")},
    ),
    (
        "execute_task fetch",
        {"traceloop.span.kind": "task", "traceloop.entity.name": "fetch", "gen_ai.operation.name": "execute_task"},
        {("step", "fetch")},
    ),
    (
        "Find rivers.task",  # names itself an agent, and is a task
        {"traceloop.span.kind": "task", "gen_ai.operation.name": "invoke_agent"},
        {("step", "Find rivers")},
    ),
    ("search.tool", {"traceloop.span.kind": "tool", "traceloop.entity.name": "search"}, {("tool", "search")}),
    # Nothing of all that
    ("GET /", {"http.request.method": "GET"}, set()),
    ("x", {"openinference.span.kind": "LLM"}, set()),
    ("x", {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": 7}, set()),
    ("  ", {"openinference.span.kind": "AGENT"}, set()),
]


@pytest.mark.parametrize(("name", "attributes", "roles"), CASES, ids=lambda case: str(case)[:40])
def test_each_vocabulary(name: str, attributes: dict[str, Any], roles: set[tuple[str, str]]) -> None:
    assert set(roles_of(attributes, name)[0]) == roles
    assert tool_of(attributes, name) == next((name for kind, name in roles if kind == "tool"), None)


def test_a_tools_name_on_another_span_is_no_run() -> None:
    assert tool_of({"gen_ai.operation.name": "chat", "gen_ai.tool.name": "t"}, "chat") is None


def test_what_only_its_name_says_may_be_said_better_later() -> None:
    assert roles_of({"openinference.span.kind": "AGENT"}, "a")[1] is False
    assert roles_of({"openinference.span.kind": "AGENT", "agent.name": "a"}, "x")[1] is True
    assert roles_of({}, "a")[1] is False


def test_a_name_is_bounded() -> None:
    [role] = roles_of({"gen_ai.agent.name": "a" * 10_000}, "x")[0]
    assert role.name == "a" * LONGEST
