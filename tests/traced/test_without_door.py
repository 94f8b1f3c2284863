"""Bedrock and Mistral, which have no door, as OpenInference and OpenLLMetry trace them: priced, counted, and refused
where what a span's start raises reaches the program."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import openai
import pytest
from mistralai.client import Mistral
from openinference.instrumentation.mistralai import MistralAIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from shekel import BudgetExceededError, budget
from shekel.testing import FakeProvider, Reply

from .bedrock import CLAUDE_COST, NOVA_COST, client, converse, invoke
from .stand_in import StandIn, stand_in


@pytest.fixture
def server() -> Iterator[StandIn]:
    with stand_in() as server:
        yield server


@pytest.fixture(params=["openinference.instrumentation.bedrock", "opentelemetry.instrumentation.bedrock"])
def bedrock(request: pytest.FixtureRequest, server: StandIn, watched: TracerProvider) -> Iterator[Any]:
    with client(server, import_module(request.param).BedrockInstrumentor(), watched) as bedrock:
        yield bedrock


class TestBedrock:
    @pytest.mark.parametrize(("ask", "cost"), [(converse, NOVA_COST), (invoke, CLAUDE_COST)])
    def test_it_is_priced_and_charged(
        self, bedrock: Any, exporter: InMemorySpanExporter, ask: Any, cost: float
    ) -> None:
        with budget(max_usd=5) as b:
            ask(bedrock)
        assert (b.calls_used, b.held) == (1, 0)
        assert b.spent == pytest.approx(cost)
        [span] = exporter.get_finished_spans()
        assert (span.attributes or {})["gen_ai.usage.cost.amount"] == b.spent

    @pytest.mark.parametrize("ask", [converse, invoke])
    def test_it_is_refused_where_its_span_starts(
        self, bedrock: Any, server: StandIn, exporter: InMemorySpanExporter, ask: Any
    ) -> None:
        with budget("$1 + 1 calls", name="b") as b:
            ask(bedrock)
            with pytest.raises(BudgetExceededError):
                ask(bedrock)
        assert len(server.asked) == b.calls_used == 1
        refused = exporter.get_finished_spans()[-1]
        assert refused.status.status_code is StatusCode.ERROR
        assert (refused.attributes or {})["shekel.decision"] == "refused"

    @pytest.mark.parametrize("ask", [converse, invoke])
    def test_with_nothing_left_it_is_refused_although_its_model_is_not_named_yet(
        self, bedrock: Any, server: StandIn, ask: Any
    ) -> None:
        with budget(max_usd=NOVA_COST / 2):
            with pytest.raises(BudgetExceededError):
                for _ in range(2):
                    ask(bedrock)
        assert len(server.asked) <= 1


def test_mistral_swallows_a_refusal_and_is_charged_all_the_same(
    watched: TracerProvider, provider: FakeProvider, exporter: InMemorySpanExporter
) -> None:
    """OpenInference's instrumentation logs what a span's start raises, and sends the call."""
    provider.default = Reply(output_tokens=100, input_tokens=1000)
    MistralAIInstrumentor().instrument(tracer_provider=watched)
    try:
        client = Mistral(api_key="test", server_url=f"http://{provider.host}")
        asked: dict[str, Any] = {"model": "mistral-small-latest", "messages": [{"role": "user", "content": "Hello"}]}
        with budget("$1 + 1 calls") as b:
            client.chat.complete(**asked)
            spent = b.spent
            client.chat.complete(**asked)
    finally:
        MistralAIInstrumentor().uninstrument()
    assert spent > 0
    assert len(provider.requests) == 2
    first = exporter.get_finished_spans()[0]
    assert (first.attributes or {})["gen_ai.usage.cost.amount"] == pytest.approx(spent)


def test_another_provider_through_an_sdk_with_a_door_is_charged_once(
    watched: TracerProvider, provider: FakeProvider, client: openai.OpenAI
) -> None:
    """A framework that tells by callbacks: its span is not current, and says what it was when it ends."""
    tracer = watched.get_tracer("openinference.instrumentation.langchain")
    told = {"openinference.span.kind": "LLM", "llm.provider": "deepseek", "llm.model_name": "deepseek-chat"}
    counts = {"llm.token_count.prompt": 1000, "llm.token_count.completion": 100}
    said: Any = [{"role": "user", "content": "Hello"}]
    with budget("5 calls") as b:
        span = tracer.start_span("ChatDeepSeek")
        client.chat.completions.create(model="deepseek-chat", messages=said)
        span.set_attributes({**told, **counts})
        span.end()
    assert b.calls_used == 1
    with budget("5 calls") as b:
        span = tracer.start_span("ChatDeepSeek")
        span.set_attributes({**told, **counts})
        span.end()
    assert b.calls_used == 1, "what passed no door is charged by its span"
