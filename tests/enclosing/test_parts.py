"""Caps of agents, steps and tools hold for calls inside their spans, beside blocks of that name, and never twice."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import shekel
from shekel import (
    AgentBudgetExceededError,
    AgentLoopError,
    BudgetExceededError,
    ShekelInstrumentor,
    ToolBudgetExceededError,
    ToolSpendExceededError,
    budget,
    tool,
)
from shekel.doors.processor import ShekelSpanProcessor
from shekel.testing import FakeProvider, Reply

from .conftest import CENT, HELLO, MODEL, Spans

Ask = Callable[[], Any]


def spent(b: shekel.Budget, kind: str, name: str) -> float:
    [part] = [part for part in b.parts.all() if (part.kind, part.name) == (kind, name)]
    return b.part_spent(part)


class TestAgents:
    def test_a_call_inside_is_charged_and_refused(self, ask: Ask, agent: Spans, provider: FakeProvider) -> None:
        with budget(max_usd=1, name="b", **CENT).agent("a", 0.02) as b:
            for _ in range(2):
                with agent("a"):
                    ask()
            ask()
            with agent("b"):
                ask()
            with agent("a"), pytest.raises(AgentBudgetExceededError, match="Agent 'a' of budget 'b'") as caught:
                ask()
        assert caught.value.agent_name == "a"
        assert (len(provider.requests), b.spent, spent(b, "agent", "a")) == (4, 0.04, 0.02)

    def test_the_refusal_names_the_cap_as_the_part_s_and_not_the_budget_s(self, ask: Ask, agent: Spans) -> None:
        with budget(max_usd=1, **CENT).agent("z", 0.005), agent("z"), pytest.raises(AgentBudgetExceededError) as caught:
            ask()
        assert str(caught.value).startswith("Agent 'z' of the budget has $0.00 of its cap of $0.005 spent: a call")

    def test_the_block_may_be_inside_the_span(self, ask: Ask, agent: Spans) -> None:
        b = budget(max_usd=1, **CENT).agent("a", 0.01)
        with agent("a"):
            with b:
                ask()
            with b, pytest.raises(AgentBudgetExceededError):
                ask()

    def test_a_block_and_a_span_of_one_name_are_one_charge(self, ask: Ask, agent: Spans) -> None:
        with budget(max_usd=1, **CENT).agent("a", 0.5) as b, agent("a"), budget(name="a"), agent("a"):
            ask()
        assert (b.spent, spent(b, "agent", "a")) == (0.01, 0.01)

    def test_nested_ones_are_both_charged_and_the_inner_is_named_first(self, ask: Ask, agent: Spans) -> None:
        with budget(max_usd=1, **CENT).agent("outer", 0.02).agent("inner", 0.02) as b:
            with agent("outer"):
                ask()
                with agent("inner"):
                    ask()
            assert (spent(b, "agent", "outer"), spent(b, "agent", "inner")) == (0.02, 0.01)
            with agent("outer"), agent("inner"), pytest.raises(AgentBudgetExceededError) as caught:
                ask()
            assert caught.value.agent_name == "outer", "the only one that is full"
            with agent("inner"):
                ask()
            with agent("outer"), agent("inner"), pytest.raises(AgentBudgetExceededError) as caught:
                ask()
        assert caught.value.agent_name == "inner"
        assert (caught.value.spent, caught.value.limit) == (0.02, 0.02)

    def test_a_handoff_charges_who_works(self, ask: Ask, agent: Spans) -> None:
        with budget(max_usd=1, **CENT).agent("triage", 0.01).agent("expert", 0.01) as b:
            with agent("triage"):
                ask()
            with agent("expert"):
                ask()
        assert (spent(b, "agent", "triage"), spent(b, "agent", "expert")) == (0.01, 0.01)

    async def test_parallel_tasks(self, aask: Ask, agent: Spans, provider: FakeProvider) -> None:
        async def work(name: str) -> int:
            refused = 0
            with agent(name):
                for _ in range(4):
                    try:
                        await aask()
                    except AgentBudgetExceededError as error:
                        refused += error.agent_name == name
            return refused

        with budget(max_usd=1, **CENT).agent("a", 0.01).agent("b", 0.03) as b:
            assert await asyncio.gather(work("a"), work("b"), work("c")) == [3, 1, 0]
        assert (len(provider.requests), b.spent) == (8, 0.08)

    def test_parallel_threads(self, ask: Ask, agent: Spans, provider: FakeProvider) -> None:
        def work(number: int) -> bool:
            with agent("a"):
                try:
                    ask()
                except AgentBudgetExceededError:
                    return False
            return True

        with budget(max_usd=1, **CENT).agent("a", 0.05) as b, ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(b.bind(work), range(20))) == 5
        assert (len(provider.requests), spent(b, "agent", "a")) == (5, 0.05)

    def test_of_the_budget_of_the_whole_process(self, ask: Ask, agent: Spans) -> None:
        shekel.configure(budget=budget(max_usd=1, **CENT).agent("a", 0.01))
        try:
            with agent("a"):
                ask()
                with pytest.raises(AgentBudgetExceededError):
                    ask()
            ask()
        finally:
            shekel.configure(budget=None)


@pytest.mark.parametrize("kind", ["node", "task", "chain"])
@pytest.mark.parametrize(
    "attributes",
    [
        {"openinference.span.kind": "CHAIN"},
        {"traceloop.span.kind": "task", "traceloop.entity.name": "fetch"},
        {"gen_ai.operation.name": "invoke_workflow", "gen_ai.workflow.name": "fetch"},
    ],
    ids=["openinference", "openllmetry", "conventions"],
)
def test_steps(ask: Ask, tracer: trace.Tracer, kind: str, attributes: dict[str, str]) -> None:
    b = budget(max_usd=1, **CENT)
    getattr(b, kind)("fetch", 0.01)
    with b, tracer.start_as_current_span("fetch", attributes=attributes):
        ask()
        with pytest.raises(BudgetExceededError) as caught:
            ask()
    assert type(caught.value).__name__ == f"{kind.capitalize()}BudgetExceededError"
    assert getattr(caught.value, f"{kind}_name") == "fetch"


class TestToolCaps:
    def test_money_of_calls_inside(self, ask: Ask, run: Spans, provider: FakeProvider) -> None:
        with budget(max_usd=1, name="b", **CENT).tool("search", max_usd=0.01) as b:
            with run("search"):
                ask()
                with pytest.raises(ToolSpendExceededError, match="Tool 'search' of budget 'b'") as caught:
                    ask()
            ask()
        assert isinstance(caught.value, ToolBudgetExceededError)
        assert isinstance(caught.value, BudgetExceededError)
        assert (caught.value.tool_name, caught.value.usd_spent, caught.value.usd_limit) == ("search", 0.01, 0.01)
        again = pickle.loads(pickle.dumps(caught.value))
        assert (type(again), again.tool_name, str(again)) == (ToolSpendExceededError, "search", str(caught.value))
        assert (len(provider.requests), b.spent) == (2, 0.02)

    def test_runs(self, run: Spans) -> None:
        ran: list[str] = []
        with budget(name="b").tool("search", max_calls=2) as b:
            for _ in range(2):
                with run("search"):
                    ran.append("search")
            with pytest.raises(ToolBudgetExceededError) as caught:
                with run("search"):
                    ran.append("search")
            with run("fetch"):
                ran.append("fetch")
        assert (
            str(caught.value)
            == "Tool 'search' of budget 'b' has 2 of 2 tool calls used: the tool 'search' was not run."
        )
        assert (ran, b.tool_calls_used) == (["search", "search", "fetch"], 3)

    def test_by_hand(self, ask: Ask) -> None:
        """`@tool` needs no span and no telemetry."""

        @tool(price=0.005)
        def search() -> None:
            ask()

        with budget(max_usd=1, **CENT).tool("search", max_usd=0.03, max_calls=3) as b:
            search()
            search()
            with pytest.raises(ToolBudgetExceededError, match=r"of the budget has \$0\.03 of its cap of \$0\.03 spent"):
                search()
        assert b.spent == pytest.approx(0.03)

    def test_the_price_of_a_tool_that_runs_inside(self) -> None:
        @tool(price=0.01)
        def fetch() -> None: ...

        @tool
        def search() -> None:
            fetch()

        with budget(max_usd=1).tool("search", max_usd=0.01, max_calls=5) as b:
            search()
            with pytest.raises(ToolBudgetExceededError) as caught:
                search()
        assert caught.value.tool_name == "fetch"
        assert caught.value.part == "tool search"
        assert b.tree().splitlines()[1] == "  [tool] search: $0.0100 / $0.01 (100.0%), 2 of 5 runs"

    def test_reset_forgets_both(self, run: Spans) -> None:
        b = budget().tool("search", max_calls=1)
        for _ in range(2):
            with b, run("search"):
                pass
            b.reset()

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            ({}, "no limit"),
            ({"max_calls": 0}, "at least 1"),
            ({"max_calls": True}, "at least 1"),
            ({"max_calls": 1.5}, "at least 1"),
            ({"max_usd": -1}, "max_usd of tool 'search'"),
        ],
    )
    def test_nonsense(self, arguments: dict[str, Any], problem: str) -> None:
        with pytest.raises(ValueError, match=problem):
            budget().tool("search", **arguments)
        with pytest.raises(ValueError, match="name of a tool"):
            budget().tool(" ", max_calls=1)


class TestForeignRuns:
    def test_are_counted_and_refused_before_the_tool_runs(self, run: Spans, exporter: InMemorySpanExporter) -> None:
        ran = []
        with budget(max_tool_calls=1, name="b") as b:
            with run("search"):
                ran.append(1)
            with pytest.raises(ToolBudgetExceededError):
                with run("fetch"):
                    ran.append(2)
        assert (ran, b.tool_calls_used) == ([1], 1)
        first, refused = exporter.get_finished_spans()
        assert first.status.status_code is trace.StatusCode.UNSET
        assert refused.name == "execute_tool fetch"
        assert refused.status.status_code is trace.StatusCode.ERROR
        told = dict(refused.attributes or {})
        assert told["error.type"] == "shekel.budgets.part_errors.ToolBudgetExceededError"
        assert told["shekel.decision"] == "refused"
        assert (told["shekel.budget.name"], told["shekel.budget.unit"]) == ("b", "tool_calls")

    def test_loops_and_prices(self, run: Spans) -> None:
        with budget(max_usd=1, tool_prices={"search": 0.25}, loop_guard=True, loop_guard_max_calls=2) as b:
            for _ in range(2):
                with run("search"):
                    pass
            with pytest.raises(AgentLoopError):
                run("search").__enter__()
        assert b.spent == 0.5

    @pytest.mark.parametrize(
        "attributes",
        [{"openinference.span.kind": "TOOL"}, {"traceloop.span.kind": "tool", "traceloop.entity.name": "search"}],
        ids=["openinference", "openllmetry"],
    )
    def test_in_other_vocabularies(self, tracer: trace.Tracer, attributes: dict[str, str]) -> None:
        with budget(max_tool_calls=1), tracer.start_as_current_span("search", attributes=attributes):
            with pytest.raises(ToolBudgetExceededError):
                tracer.start_span("search", attributes=attributes)

    def test_a_tool_of_both_kinds_is_counted_once(self, run: Spans) -> None:
        @tool
        def search() -> str:
            with run("search"):  # inside
                return "found"

        with budget(max_tool_calls=4) as b:
            search()
            assert b.tool_calls_used == 1
            with run("search"):  # around
                search()
            assert b.tool_calls_used == 2
            with run("search"):
                search()
                assert b.tool_calls_used == 3
                search()  # this one is another run
            assert b.tool_calls_used == 4
            with pytest.raises(ToolBudgetExceededError):
                search()

    def test_what_only_the_tool_knows_is_still_charged(self, run: Spans) -> None:
        @tool(price=0.01)
        def search() -> None: ...

        with budget(max_usd=1) as b, run("search"):
            search()
        assert (b.tool_calls_used, b.spent) == (1, 0.01)
        with budget(max_usd=1, tool_prices={"search": 0.02}) as b, run("search"):
            search()
        assert (b.tool_calls_used, b.spent) == (1, 0.02)

    def test_two_instrumentations_of_one_run(self, run: Spans, tracer_provider: TracerProvider) -> None:
        other = tracer_provider.get_tracer("another")
        with budget(max_tool_calls=1) as b, run("search"):
            with other.start_as_current_span("search", attributes={"openinference.span.kind": "TOOL"}):
                pass
        assert b.tool_calls_used == 1

    def test_a_tool_that_calls_itself_runs_twice(self, run: Spans) -> None:
        with budget() as b, run("search"), run("search"):
            pass
        assert b.tool_calls_used == 2

    def test_outside_budgets_they_are_nobodys(self, run: Spans) -> None:
        with run("search"):
            pass


@pytest.mark.parametrize("mode", ["sliced", "strict"])
def test_a_stream_inside_a_tool_ends_with_the_tools_money(
    client: openai.OpenAI, run: Spans, provider: FakeProvider, mode: str
) -> None:
    provider.default = Reply(output_tokens=2_000, pace=0.0002)
    caught: list[BudgetExceededError] = []
    with budget(max_usd=100, name="b", mode=mode, **CENT).tool("search", max_usd=0.3) as b, run("search"):
        try:
            for _ in client.chat.completions.create(model=MODEL, messages=HELLO, stream=True, max_tokens=2_000):
                pass
        except BudgetExceededError as error:
            caught.append(error)
    provider.wait_idle()
    [part] = b.parts.all()
    if mode == "strict":  # its output was capped at what the tool had left
        assert caught == []
        assert b.part_spent(part) <= 0.3
    else:
        [cut] = caught
        assert isinstance(cut, ToolSpendExceededError)
        assert (cut.reason, cut.tool_name) == ("cut", "search")
        assert b.part_spent(part) >= 0.2
        assert b.part_spent(part) <= 0.3 + b.peak_exposure
    assert b.held == 0


def test_metrics_name_no_agent_and_no_tool(ask: Ask, agent: Spans, run: Spans, tracer_provider: TracerProvider) -> None:
    reader = InMemoryMetricReader()
    ShekelInstrumentor().instrument(tracer_provider=tracer_provider, meter_provider=MeterProvider([reader]))
    try:
        with budget(max_usd=1, name="b", **CENT).agent("a-name", 0.01).tool("t-name", 0.5):
            with agent("a-name"), run("t-name"):
                ask()
                with pytest.raises(AgentBudgetExceededError):
                    ask()
        told = reader.get_metrics_data()
    finally:
        ShekelInstrumentor().uninstrument()
    assert told is not None
    text = told.to_json()
    assert "shekel.budget.decisions" in text
    assert "a-name" not in text
    assert "t-name" not in text


def test_two_processors_count_once(run: Spans, tracer_provider: TracerProvider) -> None:
    tracer_provider.add_span_processor(ShekelSpanProcessor())
    with budget(max_tool_calls=5) as b, run("search"):
        pass
    assert b.tool_calls_used == 1


def test_the_span_of_a_refused_call_says_where_it_was(
    ask: Ask, agent: Spans, run: Spans, tracer_provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    ShekelInstrumentor().instrument(tracer_provider=tracer_provider)
    try:
        with budget(max_usd=1, name="b", **CENT).agent("a", 0.001), agent("a"), run("search"):
            with pytest.raises(AgentBudgetExceededError):
                ask()
        with budget(max_usd=0.001, name="b", **CENT), agent("a"), pytest.raises(BudgetExceededError):
            ask()
    finally:
        ShekelInstrumentor().uninstrument()
    first, second = [dict(span.attributes or {}) for span in exporter.get_finished_spans() if MODEL in span.name]
    assert (first["gen_ai.agent.name"], first["gen_ai.tool.name"]) == ("a", "search")
    assert first["shekel.budget.part"] == "agent a"
    assert second["gen_ai.agent.name"] == "a"
    assert "shekel.budget.part" not in second
