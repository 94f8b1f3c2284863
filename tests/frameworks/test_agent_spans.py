"""Caps of agents, nodes and tools with real frameworks, by the spans of their real instrumentations. Nothing of a
framework is patched by us.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, TypedDict

import agents
import openai
import pytest
from langchain_core.tools import tool as langchain_tool
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shekel import (
    AgentBudgetExceededError,
    Budget,
    NodeBudgetExceededError,
    ShekelInstrumentor,
    budget,
    tool,
)
from shekel.testing import FakeProvider, Reply
from shekel.testing.reply import ToolCall

MODEL = "gpt-4o-mini"
PRICE: dict[str, Any] = {"price_per_1k_tokens": {"input": 0.0, "output": 0.625}}
"""A whole answer of 16 tokens costs $0.01."""


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider(output_tokens=16) as provider:
        yield provider


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer_provider(exporter: InMemorySpanExporter) -> Iterator[TracerProvider]:
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    ShekelInstrumentor().instrument(tracer_provider=tracer_provider)
    yield tracer_provider
    ShekelInstrumentor().uninstrument()


def spent(b: Budget) -> dict[str, float]:
    return {part.name: round(b.part_spent(part), 6) for part in b.parts.all()}


class TestOpenAIAgents:
    @pytest.fixture(
        params=[
            "opentelemetry.instrumentation.genai.openai_agents",
            "openinference.instrumentation.openai_agents",
            "opentelemetry.instrumentation.openai_agents",
        ],
        ids=["official", "openinference", "openllmetry"],
        autouse=True,
    )
    def instrumented(self, request: pytest.FixtureRequest, tracer_provider: TracerProvider) -> Iterator[None]:
        instrumentor = import_module(request.param).OpenAIAgentsInstrumentor()
        agents.set_trace_processors([])
        instrumentor.instrument(tracer_provider=tracer_provider)
        yield
        instrumentor.uninstrument()
        agents.set_trace_processors([])

    @pytest.fixture
    def team(self, provider: FakeProvider) -> Callable[[], agents.Agent[Any]]:
        """A researcher with three tools, who may hand over to an expert, who may ask a checker as a fourth tool."""

        def make() -> agents.Agent[Any]:
            client = openai.AsyncOpenAI(base_url=provider.openai_url, api_key="test", max_retries=0)
            common: dict[str, Any] = {
                "model": agents.OpenAIResponsesModel(MODEL, client),
                "model_settings": agents.ModelSettings(max_tokens=64),
                "instructions": "Be brief.",
            }
            checker: agents.Agent[Any] = agents.Agent(name="checker", **common)
            check = checker.as_tool("check", "Check a fact.")
            expert: agents.Agent[Any] = agents.Agent(name="expert", tools=[check], **common)
            tools = [agents.function_tool(each) for each in (self.search, self.fetch)]
            return agents.Agent(name="researcher", tools=[*tools], handoffs=[expert], **common)

        self.ran: list[str] = []
        return make

    def search(self, query: str) -> str:
        """Search."""
        self.ran.append("search")
        return "nothing"

    def fetch(self, page: str) -> str:
        """Fetch, as a tool of ours beneath the framework's."""

        @tool
        def fetch() -> str:
            self.ran.append("fetch")
            return "nothing"

        return fetch()

    def go(self, team: Callable[[], agents.Agent[Any]]) -> Any:
        async def run() -> Any:
            return await agents.Runner.run(team(), "Go.")

        return asyncio.run(run())

    def test_each_agent_is_charged_for_its_own(
        self, team: Callable[[], agents.Agent[Any]], provider: FakeProvider, request: pytest.FixtureRequest
    ) -> None:
        # OpenLLMetry puts the span of an agent that is a tool beside that of the agent which uses it.
        nested = "openllmetry" not in request.node.name
        provider.reply(
            Reply(tool_call=ToolCall("search", {"query": "x"})),
            Reply(tool_call=ToolCall("transfer_to_expert", {})),
            Reply(tool_call=ToolCall("check", {"input": "x"})),
            Reply(),  # the checker
            Reply(),
        )
        b = budget(max_usd=1, **PRICE)
        for name in ("researcher", "expert", "checker"):
            b.agent(name, max_usd=0.5)
        b.tool("check", max_usd=0.5)
        with b:
            self.go(team)
        by_call = [call["cost"] for call in b.summary_data()["calls"]]
        assert len(by_call) == len(provider.requests) == 5
        assert b.spent == pytest.approx(sum(by_call))
        inner, outer = spent(b)["checker"], spent(b)["expert"]
        assert inner == pytest.approx(by_call[3])
        own = by_call[2] + by_call[4]
        if nested:  # the expert pays for whom it asks, too
            own += by_call[3]
        assert outer == pytest.approx(own)
        assert spent(b)["check"] == pytest.approx(inner if nested else 0.0), (
            "what an agent costs as a tool is the tool's"
        )
        assert spent(b)["researcher"] == pytest.approx(sum(by_call[:2]))
        assert b.tool_calls_used == 2

    def test_a_cap_of_one_agent_stops_it_alone(
        self, team: Callable[[], agents.Agent[Any]], provider: FakeProvider, exporter: InMemorySpanExporter
    ) -> None:
        provider.reply(Reply(tool_call=ToolCall("transfer_to_expert", {})))
        with budget(max_usd=1, name="b", **PRICE).agent("expert", max_usd=0.001) as b:
            with pytest.raises(AgentBudgetExceededError, match="Agent 'expert' of budget 'b'"):
                self.go(team)
        assert len(provider.requests) == 1
        assert spent(b) == {"expert": 0.0}
        told = [dict(span.attributes or {}) for span in exporter.get_finished_spans()]
        [refused] = [each for each in told if each.get("shekel.decision") == "refused"]
        assert (refused["shekel.budget.part"], refused["gen_ai.agent.name"]) == ("agent expert", "expert")

    def test_runs_of_tools_are_counted_and_ours_are_refused(
        self,
        team: Callable[[], agents.Agent[Any]],
        provider: FakeProvider,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """The framework goes on where its instrumentation raises at the start of a tool, so `@tool` refuses there."""
        provider.reply(*[Reply(tool_call=ToolCall("fetch", {"page": "x"})) for _ in range(3)], Reply())
        caplog.set_level(logging.CRITICAL)
        with budget(max_usd=1, **PRICE).tool("fetch", max_calls=1) as b:
            self.go(team)
        assert self.ran == ["fetch"]
        assert b.tool_calls_used == 1
        assert len(provider.requests) == 4, "the model is told that the tool failed, and goes on"


class State(TypedDict):
    done: int


class TestLangGraph:
    @pytest.fixture(
        params=[
            ("openinference.instrumentation.langchain", "LangChainInstrumentor"),
            ("opentelemetry.instrumentation.langchain", "LangchainInstrumentor"),
        ],
        ids=["openinference", "openllmetry"],
        autouse=True,
    )
    def instrumented(self, request: pytest.FixtureRequest, tracer_provider: TracerProvider) -> Iterator[None]:
        module, name = request.param
        instrumentor = getattr(import_module(module), name)()
        instrumentor.instrument(tracer_provider=tracer_provider)
        yield
        instrumentor.uninstrument()

    @pytest.fixture
    def model(self, provider: FakeProvider) -> ChatOpenAI:
        return ChatOpenAI(
            model=MODEL, base_url=provider.openai_url, api_key="test", max_retries=0, max_completion_tokens=16
        )

    def graph(self, **nodes: Any) -> Any:
        graph: Any = StateGraph(State)
        for name, node in nodes.items():
            graph.add_node(name, node)
        for before, after in zip([START, *nodes], [*nodes, END], strict=True):
            graph.add_edge(before, after)
        return graph.compile(name="flow")

    def test_a_cap_of_one_node(self, model: ChatOpenAI, provider: FakeProvider) -> None:
        def fetch(state: State) -> State:
            model.invoke("Hello there.")
            return {"done": 1}

        def write(state: State) -> State:
            model.invoke("Hello there.")
            return {"done": 2}

        flow = self.graph(fetch=fetch, write=write)
        with budget(max_usd=1, name="b", **PRICE).node("fetch", 0.02).node("write", 0.5).chain("flow", 0.5) as b:
            flow.invoke({"done": 0})
            flow.invoke({"done": 0})
            with pytest.raises(NodeBudgetExceededError, match="Node 'fetch' of budget 'b'"):
                flow.invoke({"done": 0})
        assert len(provider.requests) == 4
        assert spent(b) == {"fetch": 0.02, "write": 0.02, "flow": 0.04}

    async def test_async_nodes_side_by_side(self, model: ChatOpenAI, provider: FakeProvider) -> None:
        async def work(state: State) -> dict[str, Any]:
            await model.ainvoke("Hello there.")
            return {}

        graph: Any = StateGraph(State)
        for name in ("left", "right"):
            graph.add_node(name, work)
            graph.add_edge(START, name)
            graph.add_edge(name, END)
        with budget(max_usd=1, **PRICE).node("left", 0.5).node("right", 0.5) as b:
            await graph.compile().ainvoke({"done": 0})
        assert spent(b) == {"left": 0.01, "right": 0.01}

    def test_a_tool_inside_a_node(self, model: ChatOpenAI, provider: FakeProvider) -> None:
        ran = []

        @langchain_tool
        @tool
        def search(query: str) -> str:
            """Search."""
            ran.append(query)
            return str(model.invoke("Hello there.").content)

        def fetch(state: State) -> State:
            search.invoke({"query": "x"})
            return {"done": 1}

        flow = self.graph(fetch=fetch)
        with budget(max_usd=1, **PRICE).tool("search", max_usd=0.5, max_calls=2) as b:
            flow.invoke({"done": 0})
            flow.invoke({"done": 0})
            with pytest.raises(Exception, match="2 of 2 tool calls used"):
                flow.invoke({"done": 0})
        assert (ran, spent(b), b.tool_calls_used) == (["x", "x"], {"search": 0.02}, 2)
