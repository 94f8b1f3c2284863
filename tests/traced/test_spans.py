"""Spans that anybody starts by the semantic conventions: admitted at their start, priced and settled at their end."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from opentelemetry import context as otel
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer

import shekel
from shekel import (
    BudgetExceededError,
    ShekelInstrumentor,
    ShekelSpanProcessor,
    UnboundedCallError,
    UnpricedModelError,
    budget,
    configure,
    faults,
    locks,
    per,
)

MISTRAL = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "mistral_ai",
    "gen_ai.request.model": "mistral-large-latest",
}
IN, OUT = 2e-6, 6e-6
"""USD per token of that model, by the price list."""
CAPPED = {**MISTRAL, "gen_ai.request.max_tokens": 100}


@pytest.fixture
def tracer(watched: TracerProvider) -> Tracer:
    return watched.get_tracer("somebody.else")


def call(tracer: Tracer, attributes: dict[str, Any], tokens: tuple[int, int] | None = (1000, 100)) -> None:
    """What an instrumentation does around a call."""
    with tracer.start_as_current_span("chat", kind=SpanKind.CLIENT, attributes=attributes) as span:
        if tokens is not None:
            span.set_attribute("gen_ai.usage.input_tokens", tokens[0])
            span.set_attribute("gen_ai.usage.output_tokens", tokens[1])


def only(exporter: InMemorySpanExporter) -> ReadableSpan:
    [span] = exporter.get_finished_spans()
    return span


def points(reader: InMemoryMetricReader) -> dict[str, list[Any]]:
    told = reader.get_metrics_data()
    return {
        metric.name: list(metric.data.data_points)
        for resource in (told.resource_metrics if told else [])
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


class TestPrice:
    def test_the_cost_is_on_the_span_and_in_the_budget(self, tracer: Tracer, exporter: InMemorySpanExporter) -> None:
        with budget(max_usd=1, name="b") as b:
            call(tracer, MISTRAL)
        attributes = only(exporter).attributes
        assert attributes is not None
        assert b.spent == attributes["gen_ai.usage.cost.amount"] == pytest.approx(1000 * IN + 100 * OUT)
        assert attributes["gen_ai.usage.cost.currency"] == "USD"
        assert attributes["shekel.decision"] == "admitted"
        assert attributes["shekel.outcome"] == "complete"
        assert attributes["shekel.budget.spent_usd"] == b.spent
        assert b.held == 0
        assert b.calls_used == 1

    @pytest.mark.parametrize(
        ("usage", "cost"),
        [
            ({"gen_ai.usage.prompt_tokens": 1000, "gen_ai.usage.completion_tokens": 100}, 1000 * 3e-6 + 100 * 15e-6),
            (
                {
                    "gen_ai.usage.input_tokens": 1000,
                    "gen_ai.usage.output_tokens": 100,
                    "gen_ai.usage.cache_read.input_tokens": 600,
                },
                400 * 3e-6 + 600 * 0.3e-6 + 100 * 15e-6,
            ),
            (  # more was read than sent: this instrumentation leaves the cache out of the input
                {
                    "gen_ai.usage.input_tokens": 400,
                    "gen_ai.usage.output_tokens": 100,
                    "gen_ai.usage.cache_read.input_tokens": 600,
                    "gen_ai.usage.cache_creation.input_tokens": 200,
                },
                400 * 3e-6 + 600 * 0.3e-6 + 200 * 3.75e-6 + 100 * 15e-6,
            ),
            ({"gen_ai.usage.input_tokens": "1000", "gen_ai.usage.output_tokens": 100.0}, 1000 * 3e-6 + 100 * 15e-6),
        ],
        ids=["older names", "inclusive", "exclusive", "odd types"],
    )
    def test_usage_is_read_in_every_form(
        self, tracer: Tracer, exporter: InMemorySpanExporter, usage: dict[str, Any], cost: float
    ) -> None:
        asked = {
            "gen_ai.operation.name": "chat",
            "gen_ai.system": "anthropic",
            "gen_ai.request.model": "claude-sonnet-4-5",
        }
        with tracer.start_as_current_span("chat", attributes=asked) as span:
            span.set_attributes(usage)
        attributes = only(exporter).attributes
        assert attributes is not None
        assert attributes["gen_ai.usage.cost.amount"] == pytest.approx(cost)

    def test_embeddings_cost_their_input(self, tracer: Tracer, exporter: InMemorySpanExporter) -> None:
        asked = {
            "gen_ai.operation.name": "embeddings",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "text-embedding-3-small",
        }
        with budget(max_usd=0.0001) as b:
            with tracer.start_as_current_span("embeddings", attributes=asked) as span:
                span.set_attribute("gen_ai.usage.input_tokens", 1000)
        assert b.spent == pytest.approx(1000 * 0.02e-6)

    def test_the_model_that_comes_late_is_the_one_that_is_priced(self, tracer: Tracer) -> None:
        with budget("$1") as b:
            with tracer.start_as_current_span("chat x", attributes={"gen_ai.operation.name": "chat"}) as span:
                span.set_attributes({**MISTRAL, "gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 10})
        assert b.spent == pytest.approx(10 * IN + 10 * OUT)

    def test_a_span_that_says_late_that_it_is_an_inference_is_charged(self, tracer: Tracer) -> None:
        with budget(max_usd=1) as b:
            with tracer.start_as_current_span("chat mistral-large-latest") as span:
                span.set_attributes({**MISTRAL, "gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 10})
        assert b.spent == pytest.approx(10 * IN + 10 * OUT)

    def test_limits_of_the_model_that_comes_late_count_it_too(self, tracer: Tracer) -> None:
        configure(policies=[per("user.id", "5 calls/hr", match={"model": "mistral-large*", "provider": "mistral_ai"})])
        try:
            with shekel.scope(user_id="ada"):
                for _ in range(2):
                    with tracer.start_as_current_span("chat", attributes={"gen_ai.operation.name": "chat"}) as span:
                        span.set_attributes(
                            {**MISTRAL, "gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 10}
                        )
                for _ in range(3):
                    call(tracer, MISTRAL)
                with pytest.raises(BudgetExceededError):
                    call(tracer, MISTRAL)
        finally:
            configure(policies=[])

    def test_without_usage_what_is_expected_is_charged(self, tracer: Tracer, exporter: InMemorySpanExporter) -> None:
        with budget(max_usd=1) as b:
            call(tracer, CAPPED, None)
        assert b.spent == pytest.approx(100 * OUT)
        attributes = only(exporter).attributes
        assert attributes is not None
        assert attributes["shekel.cost.estimated"] is True

    @pytest.mark.parametrize("operation", ["invoke_agent", "execute_tool", "invoke_workflow", "create_agent"])
    def test_sums_are_not_priced(self, tracer: Tracer, exporter: InMemorySpanExporter, operation: str) -> None:
        with budget(max_usd=1) as b:
            call(tracer, {**MISTRAL, "gen_ai.operation.name": operation})
        assert b.spent == 0
        assert "gen_ai.usage.cost.amount" not in (only(exporter).attributes or {})


class TestRefusal:
    def test_the_span_is_marked_ended_and_exported_and_the_error_raised(
        self, tracer: Tracer, exporter: InMemorySpanExporter
    ) -> None:
        sent = False
        with budget(max_usd=0.0001, name="b"), pytest.raises(BudgetExceededError) as caught:
            with tracer.start_as_current_span("chat", attributes=MISTRAL):
                sent = True
        assert not sent
        span = only(exporter)
        assert span.attributes is not None
        assert span.status.status_code is StatusCode.ERROR
        assert span.attributes["shekel.decision"] == "refused"
        assert span.attributes["shekel.decision.reason"] == caught.value.reason == "exceeded"
        assert span.attributes["error.type"] == "BudgetExceededError"
        assert span.attributes["shekel.budget.name"] == "b"
        assert [event.name for event in span.events] == ["shekel.budget.refusal"]
        assert span.end_time is not None

    def test_calls_are_counted(self, tracer: Tracer) -> None:
        with budget("2 calls") as b:
            call(tracer, MISTRAL)
            call(tracer, MISTRAL)
            with pytest.raises(BudgetExceededError):
                call(tracer, MISTRAL)
        assert b.calls_used == 2

    def test_each_user_has_the_policy(self, tracer: Tracer) -> None:
        configure(policies=[per("user.id", "1 calls")])
        try:
            for user in ("alice", "bob"):
                with shekel.scope(user_id=user):
                    call(tracer, MISTRAL)
                    with pytest.raises(BudgetExceededError):
                        call(tracer, MISTRAL)
        finally:
            configure(policies=[])

    def test_a_model_without_a_price_is_refused_under_a_money_limit_and_passes_without(self, tracer: Tracer) -> None:
        unknown = {**MISTRAL, "gen_ai.request.model": "nobody-knows-this"}
        with budget(max_usd=1), pytest.raises(UnpricedModelError):
            call(tracer, unknown)
        with budget("5 calls") as b:
            call(tracer, unknown)
        assert b.calls_used == 1

    def test_strict_refuses_what_nothing_bounds_unless_told_otherwise(self, tracer: Tracer) -> None:
        with budget(max_usd=1, mode="strict"), pytest.raises(UnboundedCallError) as caught:
            call(tracer, MISTRAL)
        assert "traced_in_strict" in str(caught.value)
        configure(traced_in_strict="expect")
        try:
            with budget(max_usd=1, mode="strict") as b:
                call(tracer, MISTRAL)
        finally:
            configure(traced_in_strict="refuse")
        assert b.spent == pytest.approx(1000 * IN + 100 * OUT)

    def test_a_wrong_switch_is_named(self) -> None:
        with pytest.raises(ValueError, match="traced_in_strict must be 'refuse' or 'expect', not 'maybe'"):
            configure(traced_in_strict="maybe")

    def test_a_span_without_a_model_is_refused_once_nothing_is_left(self, tracer: Tracer) -> None:
        with budget(max_usd=1000 * IN + 100 * OUT, mode="expected") as b:
            call(tracer, CAPPED)
            assert b.remaining == 0
            with pytest.raises(BudgetExceededError):
                call(tracer, {"gen_ai.operation.name": "chat"})


class TestErrors:
    @pytest.mark.parametrize(
        ("attributes", "charged"),
        [
            ({"error.type": "429"}, False),
            ({"error.type": "ThrottlingException"}, False),
            ({"error.type": "botocore.exceptions.EndpointConnectionError"}, False),
            ({"error.type": "500"}, False),
            ({"error.type": "ClientError", "http.status_code": 400}, False),
            ({"error.type": "ReadTimeout"}, True),
            ({"error.type": "_OTHER"}, True),
            ({}, True),
        ],
    )
    def test_an_error_without_usage_costs_what_its_kind_may_have_cost(
        self, tracer: Tracer, attributes: dict[str, Any], charged: bool
    ) -> None:
        with budget(max_usd=1) as b:
            span = tracer.start_span("chat", attributes=CAPPED)
            span.set_status(Status(StatusCode.ERROR))
            span.set_attributes(attributes)
            span.end()
        assert b.spent == (pytest.approx(100 * OUT) if charged else 0)
        assert b.held == 0

    def test_the_recorded_exception_tells_where_nothing_else_does(self, tracer: Tracer) -> None:
        class RateLimitError(Exception):
            pass

        with budget(max_usd=1) as b:
            with pytest.raises(RateLimitError), tracer.start_as_current_span("chat", attributes=CAPPED):
                raise RateLimitError
        assert b.spent == 0

    def test_usage_goes_before_the_error(self, tracer: Tracer) -> None:
        with budget(max_usd=1) as b:
            with pytest.raises(KeyError):
                with tracer.start_as_current_span("chat", attributes=CAPPED) as span:
                    span.set_attributes({"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 1})
                    raise KeyError
        assert b.spent == pytest.approx(10 * IN + 1 * OUT)

    def test_a_span_that_nobody_ends_is_charged_what_is_expected_and_holds_nothing(self, tracer: Tracer) -> None:
        with budget(max_usd=1) as b:
            span = tracer.start_span("chat", attributes=CAPPED)
            assert b.held == pytest.approx(100 * OUT)
            del span
            gc.collect()
            assert b.spent == pytest.approx(100 * OUT)
            assert b.held == 0

    def test_an_ended_span_goes_without_a_collection(self, tracer: Tracer) -> None:
        gc.disable()
        try:
            span = tracer.start_span("chat", attributes=CAPPED)
            gone = weakref.ref(span)
            span.end()
            del span
            assert gone() is None
        finally:
            gc.enable()

    def test_a_span_that_ends_in_the_middle_of_a_step_of_ours_is_settled_afterwards(
        self, tracer: Tracer, exporter: InMemorySpanExporter
    ) -> None:
        """As where a garbage collection ends it."""
        with budget(max_usd=1) as b:
            span = tracer.start_span("chat", attributes=CAPPED)
            span.set_attributes({"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 1})
            with locks.books:
                span.end()
                assert (only(exporter).attributes or {})["gen_ai.usage.cost.amount"] == pytest.approx(10 * IN + OUT)
            assert b.spent == pytest.approx(10 * IN + OUT)
            assert b.held == 0

    def test_a_fault_of_ours_is_reported_and_the_call_goes_on(
        self, tracer: Tracer, monkeypatch: pytest.MonkeyPatch, exporter: InMemorySpanExporter
    ) -> None:
        def broken(*args: object, **kwargs: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr("shekel.dialects.find", broken)
        before = faults.counted["looked at a span that started"]
        call(tracer, MISTRAL)
        assert faults.counted["looked at a span that started"] == before + 1
        assert only(exporter).name == "chat"


class TestNested:
    def test_only_the_innermost_is_priced(self, tracer: Tracer, exporter: InMemorySpanExporter) -> None:
        with budget("$1 + 1 calls") as b:
            with tracer.start_as_current_span("chat", attributes=MISTRAL) as outer:
                with tracer.start_as_current_span("POST"):
                    call(tracer, MISTRAL)
                outer.set_attributes({"gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 100})
        assert b.calls_used == 1
        assert b.spent == pytest.approx(1000 * IN + 100 * OUT)
        priced = [s.name for s in exporter.get_finished_spans() if "gen_ai.usage.cost.amount" in (s.attributes or {})]
        assert len(priced) == 1

    def test_later_calls_under_one_span_are_calls_of_their_own(self, tracer: Tracer) -> None:
        with budget(max_usd=1) as b:
            with tracer.start_as_current_span("chat", attributes=MISTRAL):
                call(tracer, MISTRAL)
                call(tracer, MISTRAL)
        assert b.calls_used == 2
        assert b.held == 0

    def test_calls_of_an_agent_are_all_priced(self, tracer: Tracer) -> None:
        with budget(max_usd=1) as b:
            with tracer.start_as_current_span("invoke_agent", attributes={"gen_ai.operation.name": "invoke_agent"}):
                call(tracer, MISTRAL)
                call(tracer, MISTRAL)
        assert b.calls_used == 2


class TestContexts:
    def test_the_scope_of_the_parent_context_pays(self, tracer: Tracer, exporter: InMemorySpanExporter) -> None:
        with shekel.scope(user_id="alice"):
            alice = otel.get_current()
        configure(policies=[per("user.id", "1 calls")])
        try:
            with shekel.scope(user_id="bob"):
                tracer.start_span("chat", context=alice, attributes=MISTRAL).end()
                with pytest.raises(BudgetExceededError) as caught:
                    tracer.start_span("chat", context=alice, attributes=MISTRAL)
                tracer.start_span("chat", attributes=MISTRAL).end()
        finally:
            configure(policies=[])
        assert caught.value.scope == "user.id=alice"
        users = [(span.attributes or {}).get("user.id") for span in exporter.get_finished_spans()]
        assert users == ["alice", "alice", "bob"]

    def test_the_budget_of_the_block_counts_also_where_the_span_starts_a_trace_of_its_own(self, tracer: Tracer) -> None:
        with budget(max_usd=1) as b:
            tracer.start_span("chat", context=otel.Context(), attributes=CAPPED).end()
        assert b.calls_used == 1

    def test_several_processors_charge_once(self, watched: TracerProvider, tracer: Tracer) -> None:
        watched.add_span_processor(ShekelSpanProcessor())
        watched.add_span_processor(ShekelSpanProcessor())
        with budget(max_usd=1) as b:
            call(tracer, MISTRAL)
        assert b.calls_used == 1

    def test_a_shut_down_processor_goes_on_enforcing(self, watched: TracerProvider, tracer: Tracer) -> None:
        watched.shutdown()
        with budget("1 calls"):
            call(tracer, MISTRAL)
            with pytest.raises(BudgetExceededError):
                call(tracer, MISTRAL)

    def test_suppressed_spans_are_charged_and_not_told(
        self, tracer: Tracer, exporter: InMemorySpanExporter, reader: InMemoryMetricReader
    ) -> None:
        token = otel.attach(otel.set_value("suppress_language_model_instrumentation", True))
        try:
            with budget(max_usd=1) as b:
                call(tracer, MISTRAL)
        finally:
            otel.detach(token)
        assert b.calls_used == 1
        assert "gen_ai.usage.cost.amount" not in (only(exporter).attributes or {})
        assert "shekel.calls" not in points(reader)

    def test_after_uninstrument_only_budgets_of_the_code_count(
        self, tracer: Tracer, exporter: InMemorySpanExporter
    ) -> None:
        ShekelInstrumentor().uninstrument()
        call(tracer, MISTRAL)
        with budget("1 calls") as b:
            call(tracer, MISTRAL)
            with pytest.raises(BudgetExceededError):
                call(tracer, MISTRAL)
        assert b.calls_used == 1
        assert all("shekel.outcome" not in (span.attributes or {}) for span in exporter.get_finished_spans())

    def test_a_processor_that_was_added_by_hand_needs_no_instrument(
        self, tracer_provider: TracerProvider, exporter: InMemorySpanExporter
    ) -> None:
        tracer_provider.add_span_processor(ShekelSpanProcessor())
        call(tracer_provider.get_tracer("somebody.else"), MISTRAL)
        assert (only(exporter).attributes or {})["gen_ai.usage.cost.amount"] == pytest.approx(1000 * IN + 100 * OUT)


class TestMetrics:
    @pytest.fixture
    def told(self, tracer: Tracer, reader: InMemoryMetricReader) -> dict[str, list[Any]]:
        call(tracer, {**MISTRAL, "server.address": "api.mistral.ai"})
        return points(reader)

    def test_money_calls_and_tokens_are_counted_by_what_the_span_says(self, told: dict[str, list[Any]]) -> None:
        [spent] = told["shekel.cost"]
        assert spent.value == pytest.approx(1000 * IN + 100 * OUT)
        assert spent.attributes["gen_ai.provider.name"] == "mistral_ai"
        assert spent.attributes["gen_ai.request.model"] == "mistral-large-latest"
        assert spent.attributes["gen_ai.operation.name"] == "chat"
        [calls] = told["shekel.calls"]
        assert (calls.value, calls.attributes["shekel.outcome"]) == (1, "complete")
        assert sum(point.value for point in told["shekel.tokens"]) == 1100
        assert len(told["gen_ai.client.operation.cost"]) == 1

    def test_histograms_that_the_other_instrumentation_records_are_left_to_it(self, told: dict[str, list[Any]]) -> None:
        assert "gen_ai.client.token.usage" not in told
        assert "gen_ai.client.operation.duration" not in told
