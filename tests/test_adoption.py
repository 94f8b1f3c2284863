"""Anthropic's own tracing: its span stands for our call; one span, one charge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode

from shekel import BudgetExceededError, ShekelInstrumentor, budget
from shekel.testing import FakeProvider, Reply

MODEL = "claude-opus-4-5"
ASKED: dict[str, Any] = {
    "model": MODEL,
    "max_tokens": 4000,
    "messages": [{"role": "user", "content": "Hello there, how are you today?"}],
}
THEIRS, OURS = "com.anthropic.sdk.python", "shekel"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture(params=[None], ids=["sampled"])
def tracer_provider(request: pytest.FixtureRequest, exporter: InMemorySpanExporter) -> Iterator[TracerProvider]:
    tracer_provider = TracerProvider(sampler=request.param)
    tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    ShekelInstrumentor().instrument(tracer_provider=tracer_provider)
    yield tracer_provider
    ShekelInstrumentor().uninstrument()


@pytest.fixture
def claude(provider: FakeProvider, tracer_provider: TracerProvider) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        base_url=provider.anthropic_url,
        api_key="test",
        max_retries=0,
        open_telemetry={"tracer_provider": tracer_provider, "traces": True},
    ) as client:
        yield client


def told(exporter: InMemorySpanExporter) -> list[tuple[str, dict[str, Any], StatusCode]]:
    spans = exporter.get_finished_spans()
    scopes = [str(span.instrumentation_scope and span.instrumentation_scope.name) for span in spans]
    return [
        (scope, dict(span.attributes or {}), span.status.status_code) for scope, span in zip(scopes, spans, strict=True)
    ]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_its_span_carries_our_cost(
    claude: anthropic.Anthropic, provider: FakeProvider, exporter: InMemorySpanExporter, stream: bool
) -> None:
    with budget(max_usd=5, name="b") as b:
        if stream:
            list(claude.messages.create(**ASKED, stream=True))
        else:
            claude.messages.create(**ASKED)
    [(scope, attributes, _)] = told(exporter)
    assert scope == THEIRS
    assert attributes["gen_ai.usage.cost.amount"] == b.spent == pytest.approx(provider.bill.total / 1e9)
    assert attributes["shekel.outcome"] == "complete"
    assert attributes["shekel.budget.spent_usd"] == b.spent
    assert b.calls_used == 1


def test_a_refused_call_has_a_span_of_ours(
    claude: anthropic.Anthropic, provider: FakeProvider, exporter: InMemorySpanExporter
) -> None:
    with budget(max_usd=0.0001, name="b"), pytest.raises(BudgetExceededError):
        claude.messages.create(**ASKED)
    [(scope, attributes, status)] = told(exporter)
    assert (scope, status) == (OURS, StatusCode.ERROR)
    assert attributes["shekel.decision"] == "refused"
    assert provider.requests == []


def test_a_cut_stream_says_so_on_its_span(
    claude: anthropic.Anthropic, provider: FakeProvider, exporter: InMemorySpanExporter
) -> None:
    provider.default = Reply(output_tokens=4000, pace=0.0005)
    with budget(max_usd=0.01, name="b") as b, pytest.raises(BudgetExceededError):
        with claude.messages.stream(**ASKED) as stream:
            stream.get_final_message()
    provider.wait_idle()
    [(scope, attributes, status)] = told(exporter)
    assert (scope, status) == (THEIRS, StatusCode.ERROR)
    assert attributes["shekel.decision"] == attributes["shekel.outcome"] == "cut"
    assert b.held == 0
    assert 0.005 < provider.bill.total / 1e9 <= 0.01 + b.peak_exposure


@pytest.mark.parametrize("tracer_provider", [ALWAYS_OFF], indirect=True, ids=["unsampled"])
def test_without_its_span_the_money_is_the_same(
    claude: anthropic.Anthropic, provider: FakeProvider, exporter: InMemorySpanExporter
) -> None:
    with budget(max_usd=5) as b:
        claude.messages.create(**ASKED)
    assert told(exporter) == []
    assert b.spent == pytest.approx(provider.bill.total / 1e9)


def test_a_client_that_traces_elsewhere_is_told_there(
    provider: FakeProvider, tracer_provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    elsewhere = TracerProvider()
    other = InMemorySpanExporter()
    elsewhere.add_span_processor(SimpleSpanProcessor(other))
    with anthropic.Anthropic(
        base_url=provider.anthropic_url, api_key="t", open_telemetry={"tracer_provider": elsewhere, "traces": True}
    ) as client:
        client.messages.create(**ASKED)
    assert told(exporter) == []
    [(scope, attributes, _)] = told(other)
    assert scope == THEIRS
    assert attributes["gen_ai.usage.cost.amount"] == pytest.approx(provider.bill.total / 1e9)
