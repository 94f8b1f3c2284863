"""The official Anthropic instrumentation beside our door and the SDK's own tracing: one charge, one refusal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from opentelemetry.instrumentation.genai.anthropic import AnthropicInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shekel import BudgetExceededError, ShekelInstrumentor, budget
from shekel.testing import FakeProvider

ASKED: dict[str, Any] = {
    "model": "claude-opus-4-5",
    "max_tokens": 200,
    "messages": [{"role": "user", "content": "Hello there!"}],
}
SCOPE = "opentelemetry.instrumentation.genai.anthropic"


@pytest.fixture(params=["ours first", "theirs first"])
def both(request: pytest.FixtureRequest, tracer_provider: TracerProvider) -> Iterator[TracerProvider]:
    ours, theirs = ShekelInstrumentor(), AnthropicInstrumentor()
    order = [ours, theirs] if request.param == "ours first" else [theirs, ours]
    for each in order:
        each.instrument(tracer_provider=tracer_provider)
    yield tracer_provider
    for each in reversed(order):
        each.uninstrument()


@pytest.fixture(params=[False, True], ids=["", "traced by the SDK too"])
def claude(
    request: pytest.FixtureRequest, provider: FakeProvider, both: TracerProvider
) -> Iterator[anthropic.Anthropic]:
    native = {"tracer_provider": both, "traces": True} if request.param else False
    with anthropic.Anthropic(
        base_url=provider.anthropic_url,
        api_key="test",
        max_retries=0,
        open_telemetry=native,  # type: ignore[arg-type]
    ) as client:
        yield client


def ask(client: anthropic.Anthropic, way: str) -> None:
    if way == "plain":
        client.messages.create(**ASKED)
    elif way == "stream":
        list(client.messages.create(**ASKED, stream=True))
    else:
        with client.messages.stream(**ASKED) as stream:
            stream.get_final_message()


ways = pytest.mark.parametrize("way", ["plain", "stream", "helper"])


@ways
def test_one_charge_and_one_cost(
    claude: anthropic.Anthropic, provider: FakeProvider, exporter: InMemorySpanExporter, way: str
) -> None:
    with budget("$1 + 5 calls") as b:
        ask(claude, way)
    assert (b.calls_used, b.held) == (1, 0)
    [priced] = [span for span in exporter.get_finished_spans() if "gen_ai.usage.cost.amount" in (span.attributes or {})]
    assert priced.instrumentation_scope is not None
    assert priced.instrumentation_scope.name == SCOPE
    assert (priced.attributes or {})["gen_ai.usage.cost.amount"] == b.spent == pytest.approx(provider.bill.total / 1e9)


@ways
def test_refused_once_by_the_door(
    claude: anthropic.Anthropic, provider: FakeProvider, exporter: InMemorySpanExporter, way: str
) -> None:
    with budget(max_usd=0.000001), pytest.raises(BudgetExceededError):
        ask(claude, way)
    assert provider.requests == []
    [span] = exporter.get_finished_spans()
    assert (span.attributes or {})["shekel.decision"] == "refused"
