"""The official OpenAI instrumentation beside our door, in both orders: one charge, one span, one refusal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

import shekel
from shekel import BudgetExceededError, ShekelInstrumentor, budget
from shekel.testing import FakeProvider, Reply

from .stand_in import stand_in

MODEL = "gpt-4o-mini"
ASKED: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hello there!"}], "max_tokens": 200}
SCOPE = "opentelemetry.instrumentation.genai.openai"


@pytest.fixture(params=["ours first", "theirs first"])
def both(
    request: pytest.FixtureRequest, tracer_provider: TracerProvider, reader: InMemoryMetricReader
) -> Iterator[MeterProvider]:
    meters = MeterProvider([reader])
    ours, theirs = ShekelInstrumentor(), OpenAIInstrumentor()
    order = [ours, theirs] if request.param == "ours first" else [theirs, ours]
    for each in order:
        each.instrument(tracer_provider=tracer_provider, meter_provider=meters)
    yield meters
    for each in reversed(order):
        each.uninstrument()


def told(exporter: InMemorySpanExporter) -> list[tuple[str, dict[str, Any], StatusCode]]:
    return [
        (
            str(span.instrumentation_scope and span.instrumentation_scope.name),
            dict(span.attributes or {}),
            span.status.status_code,
        )
        for span in exporter.get_finished_spans()
    ]


def ask(client: openai.OpenAI, *, stream: bool) -> None:
    if stream:
        list(client.chat.completions.create(**ASKED, stream=True, stream_options={"include_usage": True}))
    else:
        client.chat.completions.create(**ASKED)


@pytest.mark.usefixtures("both")
class TestBoth:
    @pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
    def test_one_charge_and_one_span(
        self, client: openai.OpenAI, provider: FakeProvider, exporter: InMemorySpanExporter, stream: bool
    ) -> None:
        with shekel.scope(user_id="ada"), budget("$1 + 5 calls", name="b") as b:
            ask(client, stream=stream)
        [(scope, attributes, _)] = told(exporter)
        assert scope == SCOPE
        assert b.calls_used == 1
        assert b.held == 0
        assert b.spent == attributes["gen_ai.usage.cost.amount"] == pytest.approx(provider.bill.total / 1e9)
        assert attributes["shekel.decision"] == "admitted"
        assert attributes["user.id"] == "ada"

    @pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
    def test_refused_once_by_the_door(
        self,
        client: openai.OpenAI,
        provider: FakeProvider,
        exporter: InMemorySpanExporter,
        reader: InMemoryMetricReader,
        stream: bool,
    ) -> None:
        with budget(max_usd=0.000001, name="b"), pytest.raises(BudgetExceededError):
            ask(client, stream=stream)
        [(scope, attributes, status)] = told(exporter)
        assert (scope, status) == (SCOPE, StatusCode.ERROR)
        assert attributes["shekel.decision"] == "refused"
        assert attributes["shekel.decision.reason"] == "exceeded"
        assert provider.requests == []

    async def test_in_a_task(self, provider: FakeProvider, exporter: InMemorySpanExporter) -> None:
        async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="test", max_retries=0) as client:
            with budget("$1 + 2 calls") as b:
                await client.chat.completions.create(**ASKED)
                stream = await client.chat.completions.create(**ASKED, stream=True)
                async for _ in stream:
                    pass
                with pytest.raises(BudgetExceededError):
                    await client.chat.completions.create(**ASKED)
        assert (b.calls_used, b.held) == (2, 0)
        costs = [attributes.get("gen_ai.usage.cost.amount", 0) for _, attributes, _ in told(exporter)]
        assert len(costs) == 3
        assert sum(costs) == pytest.approx(b.spent)

    def test_responses_and_streams_that_are_left(
        self, client: openai.OpenAI, provider: FakeProvider, exporter: InMemorySpanExporter
    ) -> None:
        with budget("$1 + 5 calls") as b:
            client.responses.create(model=MODEL, input="Hello there!")
            with client.chat.completions.create(**ASKED, stream=True) as stream:
                next(stream)
        provider.wait_idle()
        assert (b.calls_used, b.held) == (2, 0)
        assert [scope for scope, _, _ in told(exporter)] == [SCOPE, SCOPE]
        costs = [attributes["gen_ai.usage.cost.amount"] for _, attributes, _ in told(exporter)]
        assert sum(costs) == pytest.approx(b.spent)

    def test_a_provider_that_fails_costs_nothing_and_the_retry_is_the_same_call(
        self, provider: FakeProvider, exporter: InMemorySpanExporter
    ) -> None:
        provider.reply(Reply(status=429, retry_after=0.01))
        with openai.OpenAI(base_url=provider.openai_url, api_key="test", max_retries=1) as client:
            with budget("$1 + 1 calls") as b:
                client.chat.completions.create(**ASKED)
        [(_, attributes, _)] = told(exporter)
        assert attributes["shekel.attempts"] == 2
        assert b.calls_used == 1

    def test_modes_that_need_the_door_work(self, client: openai.OpenAI, provider: FakeProvider) -> None:
        provider.default = Reply(output_tokens=200)
        with budget(max_usd=0.00005, mode="strict") as b:
            client.chat.completions.create(**ASKED)
        assert 0 < b.spent <= 0.00005
        assert provider.requests[0].body["max_tokens"] < 200

    def test_embeddings_which_only_the_span_shows_are_charged_by_it(self, exporter: InMemorySpanExporter) -> None:
        with stand_in() as server, openai.OpenAI(base_url=server.url, api_key="test", max_retries=0) as client:
            with budget("$1 + 1 calls") as b:
                client.embeddings.create(model="text-embedding-3-small", input="Hello")
                with pytest.raises(BudgetExceededError):
                    client.embeddings.create(model="text-embedding-3-small", input="Hello")
            assert len(server.asked) == 1
        assert b.spent == pytest.approx(1000 * 0.02e-6)
        decided = [attributes["shekel.decision"] for _, attributes, _ in told(exporter)]
        assert decided == ["admitted", "refused"]


def test_tokens_and_times_are_recorded_once(
    both: MeterProvider, client: openai.OpenAI, reader: InMemoryMetricReader
) -> None:
    client.chat.completions.create(**ASKED)
    data = reader.get_metrics_data()
    assert data is not None
    by: dict[str, list[str]] = {}
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                by.setdefault(metric.name, []).append(scope.scope.name)
    assert by["gen_ai.client.token.usage"] == by["gen_ai.client.operation.duration"] == [SCOPE]
    assert by["shekel.cost"] == by["gen_ai.client.operation.cost"] == ["shekel"]
