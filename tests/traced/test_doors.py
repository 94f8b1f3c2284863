"""Spans of frameworks over an SDK that has a door: the first call under a span takes its hold, later ones their own."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import anthropic
import openai
import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode, Tracer

from shekel import BudgetExceededError, budget
from shekel.testing import FakeProvider, Reply

from .test_spans import points

MODEL = "gpt-4o-mini"
ASKED: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hello there!"}], "max_tokens": 50}
SPAN = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": MODEL}


@pytest.fixture
def framework(watched: TracerProvider) -> Tracer:
    return watched.get_tracer("some.framework")


def scopes(exporter: InMemorySpanExporter) -> list[str]:
    return [
        str(span.instrumentation_scope and span.instrumentation_scope.name) for span in exporter.get_finished_spans()
    ]


class TestTakingOver:
    def test_the_first_call_under_a_span_is_that_span(
        self, framework: Tracer, client: openai.OpenAI, provider: FakeProvider, exporter: InMemorySpanExporter
    ) -> None:
        with budget("$1 + 1 calls", name="b") as b:
            with framework.start_as_current_span("chat", attributes=SPAN):
                assert b.held > 0
                client.chat.completions.create(**ASKED)
        assert (b.calls_used, b.held) == (1, 0)
        [span] = exporter.get_finished_spans()
        assert span.attributes is not None
        assert span.attributes["gen_ai.usage.cost.amount"] == b.spent == pytest.approx(provider.bill.total / 1e9)

    def test_later_calls_get_their_own(
        self, framework: Tracer, client: openai.OpenAI, provider: FakeProvider, exporter: InMemorySpanExporter
    ) -> None:
        with budget("$1 + 2 calls") as b:
            with framework.start_as_current_span("chat", attributes=SPAN):
                client.chat.completions.create(**ASKED)
                client.chat.completions.create(**ASKED)
                with pytest.raises(BudgetExceededError):
                    client.chat.completions.create(**ASKED)
        assert (b.calls_used, b.held) == (2, 0)
        assert b.spent == pytest.approx(provider.bill.total / 1e9)
        assert scopes(exporter) == ["shekel", "shekel", "some.framework"]
        costs = [(span.attributes or {}).get("gen_ai.usage.cost.amount", 0) for span in exporter.get_finished_spans()]
        assert sum(costs) == pytest.approx(b.spent)

    def test_the_door_refuses_by_what_it_knows_and_the_span_says_so(
        self, framework: Tracer, client: openai.OpenAI, provider: FakeProvider, exporter: InMemorySpanExporter
    ) -> None:
        with budget(max_usd=0.00001), pytest.raises(BudgetExceededError):
            with framework.start_as_current_span("chat", attributes=SPAN):
                client.chat.completions.create(**ASKED)
        assert provider.requests == []
        [span] = exporter.get_finished_spans()
        assert span.status.status_code is StatusCode.ERROR
        assert (span.attributes or {})["shekel.decision"] == "refused"

    def test_nothing_that_fits_is_refused_at_the_span(self, framework: Tracer, client: openai.OpenAI) -> None:
        """The span does not know the cap of the request: $0.00005 is room for 80 tokens out, not for 1,024."""
        with budget(max_usd=0.00005) as b:
            with framework.start_as_current_span("chat", attributes=SPAN):
                client.chat.completions.create(**ASKED)
        assert b.calls_used == 1

    def test_where_nothing_is_left_the_span_is_refused(self, framework: Tracer, exporter: InMemorySpanExporter) -> None:
        with budget(max_usd=1e-7), pytest.raises(BudgetExceededError):
            framework.start_span("chat", attributes=SPAN)
        assert scopes(exporter) == ["some.framework"]

    def test_a_call_without_a_door_is_charged_by_its_span(self, framework: Tracer) -> None:
        with budget(max_usd=1) as b:
            with framework.start_as_current_span("chat", attributes=SPAN) as span:
                span.set_attributes({"gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 100})
        assert b.spent == pytest.approx(1000 * 0.15e-6 + 100 * 0.6e-6)

    def test_what_an_sdk_does_past_our_door_is_charged_and_counted_as_too_much(
        self, watched: TracerProvider, client: openai.OpenAI, reader: InMemoryMetricReader
    ) -> None:
        """Such as its WebSockets: the instrumentation of the SDK sees them, and the door is waited for in vain."""
        theirs = watched.get_tracer("opentelemetry.instrumentation.genai.openai")
        with budget(max_usd=0.00001, name="b") as b:
            with theirs.start_as_current_span("chat", attributes=SPAN) as span:
                span.set_attributes({"gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 100})
        assert b.spent == pytest.approx(1000 * 0.15e-6 + 100 * 0.6e-6)
        [point] = points(reader)["shekel.budget.overrun"]
        assert point.value == pytest.approx(b.spent - 0.00001)

    def test_a_framework_over_a_framework(self, framework: Tracer, client: openai.OpenAI) -> None:
        with budget("1 calls") as b:
            with framework.start_as_current_span("chat", attributes=SPAN):
                with framework.start_as_current_span("step"):
                    with framework.start_as_current_span("chat", attributes=SPAN):
                        client.chat.completions.create(**ASKED)
        assert (b.calls_used, b.held) == (1, 0)

    def test_a_fallback_and_a_strict_budget_are_left_to_the_door(
        self, framework: Tracer, client: openai.OpenAI, provider: FakeProvider
    ) -> None:
        with budget(max_usd=0.001, mode="strict") as b:
            with framework.start_as_current_span("chat", attributes=SPAN):
                client.chat.completions.create(**{**ASKED, "max_tokens": None})
        assert 0 < b.spent <= 0.001
        body = provider.requests[-1].body
        assert 0 < (body.get("max_tokens") or body["max_completion_tokens"]) < 2000
        with budget(max_usd=0.0001, fallback={"at_pct": 0.01, "model": "gpt-4.1-nano"}):
            with framework.start_as_current_span("chat", attributes=SPAN):
                client.chat.completions.create(**{**ASKED, "model": "gpt-4o"})
        assert provider.requests[-1].body["model"] == "gpt-4.1-nano"

    def test_a_budget_that_waits_waits_at_the_door(
        self, framework: Tracer, client: openai.OpenAI, provider: FakeProvider
    ) -> None:
        provider.default = Reply(delay=0.3)
        with budget("2 calls/1s", at_limit="pause") as b:

            def one() -> None:
                with framework.start_as_current_span("chat", attributes=SPAN):
                    client.chat.completions.create(**ASKED)

            threads = [threading.Thread(target=b.bind(one)) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert b.calls_used == 3


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_anthropics_own_span_under_a_framework_is_no_second_call(
    framework: Tracer, watched: TracerProvider, provider: FakeProvider, exporter: InMemorySpanExporter, stream: bool
) -> None:
    asked: dict[str, Any] = {**ASKED, "model": "claude-opus-4-5"}
    with anthropic.Anthropic(
        base_url=provider.anthropic_url, api_key="t", open_telemetry={"tracer_provider": watched, "traces": True}
    ) as client:
        with budget("$1 + 1 calls") as b:
            attributes = {**SPAN, "gen_ai.provider.name": "anthropic", "gen_ai.request.model": "claude-opus-4-5"}
            with framework.start_as_current_span("chat", attributes=attributes):
                if stream:
                    list(client.messages.create(**asked, stream=True))
                else:
                    client.messages.create(**asked)
    assert b.calls_used == 1
    assert b.spent == pytest.approx(provider.bill.total / 1e9)
    priced = [s for s in exporter.get_finished_spans() if "gen_ai.usage.cost.amount" in (s.attributes or {})]
    assert len(priced) == 1


PROGRAM = """
import sys
from opentelemetry import trace
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
import shekel

tracer = trace.get_tracer("somebody")
if sys.argv[1] == "instrument":
    shekel.ShekelInstrumentor().instrument()
    b = shekel.budget("1 calls").__enter__()
else:
    b = shekel.budget("1 calls").__enter__()
trace.set_tracer_provider(TracerProvider())
asked = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "mistral_ai", "gen_ai.request.model": "mistral-large"}
tracer.start_span("chat", attributes=asked).end()
try:
    tracer.start_span("chat", attributes=asked)
except shekel.BudgetExceededError as error:
    print("refused", b.calls_used, "openai" in sys.modules, "anthropic" in sys.modules)
"""


@pytest.mark.parametrize("how", ["instrument", "budget"])
def test_a_provider_that_is_set_afterwards_is_watched(how: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, timeout=120, check=True)
    assert (done.stdout, done.stderr) == ("refused 1 False False\n", "")
