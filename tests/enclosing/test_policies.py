"""Policies per agent, tool and workflow, alone and with a user."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import baggage, context, trace

import shekel
from shekel import BudgetExceededError, ToolBudgetExceededError, per, tool
from shekel.testing import FakeProvider

from .conftest import Spans

Ask = Callable[[], Any]


@pytest.fixture(autouse=True)
def no_policies() -> Iterator[None]:
    yield
    shekel.configure(policies=[])


def test_one_for_each_agent(ask: Ask, agent: Spans, provider: FakeProvider) -> None:
    shekel.configure(policies=[per("gen_ai.agent.name", "2 calls/day")])
    for name in "ab":
        for _ in range(2):
            with agent(name):
                ask()
        with agent(name), pytest.raises(BudgetExceededError) as caught:
            ask()
        assert caught.value.scope == f"gen_ai.agent.name={name}"
    ask()
    assert len(provider.requests) == 5


def test_with_a_user(ask: Ask, agent: Spans) -> None:
    shekel.configure(policies=[per("user.id", "gen_ai.agent.name", "1 call/day")])
    for user in ("ada", "bob"):
        with shekel.scope(user_id=user), agent("a"):
            ask()
            with pytest.raises(BudgetExceededError, match=r"user.id=\w+, gen_ai.agent.name=a"):
                ask()
        with shekel.scope(user_id=user), agent("b"):
            ask()
    with agent("a"):
        ask()


def test_nested_agents_are_charged_each(ask: Ask, agent: Spans) -> None:
    shekel.configure(policies=[per("gen_ai.agent.name", "2 calls/day")])
    with agent("outer"):
        for name in "ab":
            with agent(name):
                ask()
        with agent("c"), pytest.raises(BudgetExceededError, match=r"gen_ai.agent.name=outer"):
            ask()
    with agent("c"):
        ask()


def test_workflows_and_tools(ask: Ask, tracer: trace.Tracer, run: Spans) -> None:
    shekel.configure(policies=[per("gen_ai.workflow.name", "gen_ai.tool.name", "1 call/day")])
    workflow = {"gen_ai.operation.name": "invoke_workflow", "gen_ai.workflow.name": "w"}
    with tracer.start_as_current_span("invoke_workflow w", attributes=workflow):
        with run("t"):
            ask()
            with pytest.raises(BudgetExceededError, match=r"gen_ai.workflow.name=w, gen_ai.tool.name=t"):
                ask()
        ask()


def test_runs_of_each_tool(run: Spans) -> None:
    @tool
    def inner() -> None: ...

    shekel.configure(policies=[per("gen_ai.tool.name", "2 tool calls/day")])
    for _ in range(2):
        with run("outer"):
            inner()
    with pytest.raises(ToolBudgetExceededError, match=r"gen_ai.tool.name=outer"):
        run("outer").__enter__()
    with pytest.raises(ToolBudgetExceededError, match=r"gen_ai.tool.name=inner"):
        inner()


def test_a_name_in_the_baggage_is_nobodys_word(ask: Ask) -> None:
    shekel.configure(policies=[per("gen_ai.agent.name", "1 call/day")])
    token = context.attach(baggage.set_baggage("gen_ai.agent.name", "a"))
    ask()
    ask()
    context.detach(token)


def test_a_name_by_hand_counts_beside_those_of_spans(ask: Ask, agent: Spans) -> None:
    shekel.configure(policies=[per("gen_ai.agent.name", "1 call/day")])
    with shekel.scope(**{"gen_ai.agent.name": "by hand"}), agent("a"):
        ask()
    with shekel.scope(**{"gen_ai.agent.name": "by hand"}), pytest.raises(BudgetExceededError):
        ask()
    with agent("a"), pytest.raises(BudgetExceededError):
        ask()


def test_an_inference_that_names_its_agent_itself(tracer: trace.Tracer) -> None:
    shekel.configure(policies=[per("gen_ai.agent.name", "1 call/day", unpriced="allow")])
    asked = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "mistral_ai",
        "gen_ai.request.model": "mistral-large",
        "gen_ai.agent.name": "a",
    }
    with tracer.start_as_current_span("chat mistral-large", attributes=asked):
        pass
    with pytest.raises(BudgetExceededError, match=r"gen_ai.agent.name=a"):
        tracer.start_span("chat mistral-large", attributes=asked)
