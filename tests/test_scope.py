"""Who pays: scopes, a budget per user, and the span processor that admits."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from opentelemetry import baggage
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode

import shekel
from shekel import BudgetExceededError, ShekelInstrumentor, ShekelSpanProcessor, budget, per, scope, scoped
from shekel.testing import FakeProvider, Reply

MODEL = "gpt-4o-mini"
HELLO: list[Any] = [{"role": "user", "content": "Hello there, how are you today?"}]
ONE_CALL = "$0.00004"
"""Pays for one call of 64 output tokens with gpt-4o-mini, and not for two."""


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as provider:
        provider.default = Reply(output_tokens=60)
        yield provider


@pytest.fixture
def policies() -> Iterator[None]:
    shekel.configure(policies=[per("user.id", ONE_CALL)])
    yield
    shekel.configure(policies=[])


class Told:
    """Spans and metrics of an instrumented program."""

    def __init__(self, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider(**options)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider(metric_readers=[self.reader])

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def metric(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        found = []
        data = self.reader.get_metrics_data()
        for resource in [] if data is None else data.resource_metrics:
            for scope_metrics in resource.scope_metrics:
                for metric in scope_metrics.metrics:
                    if metric.name == name:
                        found += [(dict(p.attributes or {}), p) for p in metric.data.data_points]
        return found


@pytest.fixture
def told(request: pytest.FixtureRequest) -> Iterator[Told]:
    told = Told(**getattr(request, "param", {}))
    ShekelInstrumentor().instrument(tracer_provider=told.tracer_provider, meter_provider=told.meter_provider)
    yield told
    ShekelInstrumentor().uninstrument()


def ask(client: openai.OpenAI) -> None:
    client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=60)


def two_users(client: openai.OpenAI) -> None:
    with scope(user_id="ada"):
        ask(client)
        with pytest.raises(BudgetExceededError) as refused:
            ask(client)
    assert refused.value.scope == "user.id=ada"
    with scope(user_id="bob"):
        ask(client)
        with pytest.raises(BudgetExceededError):
            ask(client)
    ask(client)  # nobody's


class TestScope:
    def test_it_writes_the_baggage_and_takes_it_back(self) -> None:
        with scope(user_id="ada", session_id=7, feature="search"):
            assert baggage.get_all() == {"user.id": "ada", "session.id": "7", "feature": "search"}
            with scope(user_id="bob"):
                assert baggage.get_baggage("user.id") == "bob"
            assert baggage.get_baggage("user.id") == "ada"
        assert baggage.get_all() == {}

    async def test_it_is_a_decorator_of_both_kinds(self) -> None:
        @scope(user_id="ada")
        def plain() -> object:
            return baggage.get_baggage("user.id")

        @scope(user_id="bob")
        async def coroutine() -> object:
            return baggage.get_baggage("user.id")

        assert plain() == "ada"
        assert await coroutine() == "bob"

    @pytest.mark.parametrize("value", ["", True, 1.5, ["ada"]])
    def test_a_value_that_is_none_is_refused_at_once(self, value: Any) -> None:
        with pytest.raises(ValueError, match="user_id"):
            scope(user_id=value)

    @pytest.mark.parametrize("value", ["no", 0, None])
    def test_whether_to_propagate_is_a_switch_and_no_word(self, value: Any) -> None:
        for make in (lambda: scope(user_id="ada", propagate=value), lambda: scoped(user_id="uid", propagate=value)):
            with pytest.raises(ValueError, match=rf"^propagate must be True or False, not {value!r}\.$"):
                make()

    def test_one_entry_by_two_names_says_one_thing(self) -> None:
        with scope(user_id="ada", **{"user.id": "ada"}):
            assert baggage.get_baggage("user.id") == "ada"
        with pytest.raises(ValueError, match=r"^user\.id is given twice, .*: keep one of them\.$") as caught:
            scope(user_id="ada", **{"user.id": "bob"})
        assert "bob" not in str(caught.value)

    def test_a_generator_resumed_in_another_context_is_no_error(self, caplog: pytest.LogCaptureFixture) -> None:
        from contextvars import copy_context

        def events() -> Iterator[str]:
            with scope(user_id="ada"), budget(max_usd=1):
                yield "one"
                yield "two"

        stream = events()
        seen = [copy_context().run(next, stream, None) for _ in range(3)]
        assert seen == ["one", "two", None]
        assert caplog.records == []
        assert baggage.get_all() == {}


class TestPolicy:
    @pytest.mark.parametrize("arguments", [(), ("user.id",), ("", "$5"), (7, "$5"), ("user.id", "$"), ("user.id", -1)])
    def test_one_that_is_none_is_refused_at_once(self, arguments: Any) -> None:
        with pytest.raises(ValueError, match=r"per\(|scope key|limit"):
            per(*arguments)

    @pytest.mark.usefixtures("policies")
    def test_two_users_have_separate_limits(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        two_users(client)
        assert len(provider.requests) == 3

    @pytest.mark.usefixtures("policies")
    def test_what_came_from_outside_charges_nobody(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        from opentelemetry import context

        token = context.attach(baggage.set_baggage("user.id", "ada"))
        try:
            for _ in range(3):
                ask(client)
        finally:
            context.detach(token)
        with scope(user_id="ada"):
            ask(client)

    @pytest.mark.usefixtures("policies")
    def test_the_provider_is_not_told_who_pays(self, provider: FakeProvider, told: Told) -> None:
        with (
            anthropic.Anthropic(
                base_url=provider.anthropic_url,
                api_key="t",
                open_telemetry={"tracer_provider": told.tracer_provider},
            ) as claude,
            scope(user_id="ada", tenant_id="acme"),
        ):
            claude.messages.create(model="claude-haiku-4-5", max_tokens=3, messages=HELLO)
        [seen] = provider.requests
        assert "traceparent" in seen.headers
        assert "baggage" not in seen.headers
        others = str({name: value for name, value in seen.headers.items() if name != "traceparent"})
        assert "ada" not in others
        assert "acme" not in others
        [span] = told.spans
        assert (span.attributes or {})["user.id"] == "ada"


@pytest.mark.usefixtures("policies")
class TestTold:
    def test_the_refused_call_has_a_span_with_its_reason(self, client: openai.OpenAI, told: Told) -> None:
        two_users(client)
        refused = [span for span in told.spans if span.status.status_code is StatusCode.ERROR]
        assert len(told.spans) == 5
        assert [(s.attributes or {})["user.id"] for s in refused] == ["ada", "bob"]
        for span in refused:
            attributes = dict(span.attributes or {})
            assert attributes["error.type"] == "BudgetExceededError"
            assert attributes["shekel.decision"] == "refused"
            assert attributes["shekel.decision.reason"] == "exceeded"
            assert [event.name for event in span.events] == ["shekel.budget.refusal"]

    def test_decisions_and_money_are_counted(self, client: openai.OpenAI, told: Told, provider: FakeProvider) -> None:
        two_users(client)
        decisions = {a["shekel.decision"]: p.value for a, p in told.metric("shekel.budget.decisions")}
        assert decisions == {"admitted": 2, "refused": 2}
        outcomes = {a["shekel.outcome"]: p.value for a, p in told.metric("shekel.calls")}
        assert outcomes == {"complete": 3, "refused": 2}
        assert sum(p.value for _, p in told.metric("shekel.cost")) == pytest.approx(provider.bill.total / 1e9)
        [(_, tokens)] = [e for e in told.metric("gen_ai.client.token.usage") if e[0]["gen_ai.token.type"] == "output"]
        assert (tokens.count, tokens.sum) == (3, sum(a.output_tokens for a in provider.bill))
        rows = told.metric("shekel.budget.spent")
        [(attributes, spent)] = [row for row in rows if row[0]["shekel.budget.name"] == "per user.id"]
        assert attributes["shekel.ledger.kind"] == "memory"
        assert spent.value == pytest.approx(provider.bill.total / 3e9)

    def test_a_warning_is_an_event(self, client: openai.OpenAI, told: Told) -> None:
        with budget(max_usd=1, warn_at=0.00001, name="w", on_warn=lambda spent, limit: None):
            ask(client)
            ask(client)
        first, second = told.spans
        assert [event.name for event in first.events] == ["shekel.budget.warning"]
        assert second.events == ()

    def test_no_scope_value_is_on_a_metric(self, client: openai.OpenAI, told: Told) -> None:
        two_users(client)
        data = told.reader.get_metrics_data()
        assert data is not None
        assert "ada" not in data.to_json()

    def test_the_processor_admits_where_it_runs(self, client: openai.OpenAI, told: Told) -> None:
        from shekel.runtime import the_runtime

        gate = the_runtime().gate
        places: list[str] = []
        admit = gate._admit

        def watched(call: Any) -> None:
            frame = sys._getframe(2)
            places.append(frame.f_code.co_name)
            admit(call)

        gate._admit = watched  # type: ignore[method-assign]
        try:
            two_users(client)
        finally:
            del gate._admit  # type: ignore[method-assign]
        assert places == ["on_start"] * 5

    def test_a_processor_added_by_hand_does_no_harm(self, client: openai.OpenAI, told: Told) -> None:
        told.tracer_provider.add_span_processor(ShekelSpanProcessor())
        two_users(client)
        assert len(told.spans) == 5

    @pytest.mark.parametrize("told", [{"sampler": ALWAYS_OFF}], indirect=True)
    def test_nothing_sampled_is_the_same_money(self, client: openai.OpenAI, told: Told) -> None:
        two_users(client)
        assert told.spans == ()
        assert {a["shekel.decision"]: p.value for a, p in told.metric("shekel.budget.decisions")}["refused"] == 2

    def test_suppressed_is_silent_and_the_same_money(self, client: openai.OpenAI, told: Told) -> None:
        from opentelemetry.instrumentation.utils import suppress_instrumentation

        with suppress_instrumentation():
            two_users(client)
        assert told.spans == ()
        assert told.metric("shekel.calls") == []

    def test_a_shut_down_provider_does_not_stop_enforcement(self, client: openai.OpenAI, told: Told) -> None:
        told.tracer_provider.shutdown()
        two_users(client)


PROGRAM = """
import openai, shekel
from shekel import ShekelInstrumentor, BudgetExceededError, per, scope
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry import trace
trace.set_tracer_provider(TracerProvider())
ShekelInstrumentor().instrument()
shekel.configure(policies=[per("user.id", "$0.00004")])
client = openai.OpenAI(api_key="test", max_retries=0)
for user in ("ada", "bob"):
    with scope(user_id=user):
        for _ in range(2):
            try:
                client.chat.completions.create(
                    model="gpt-4o-mini", max_tokens=60, messages=[{"role": "user", "content": "Hello there"}])
                print(user, "answered")
            except BudgetExceededError as error:
                print(user, "refused")
"""


@pytest.mark.parametrize("disabled", ["true", "false"])
def test_a_disabled_sdk_is_the_same_money(provider: FakeProvider, disabled: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "OPENAI_BASE_URL": provider.openai_url, "OTEL_SDK_DISABLED": disabled},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert result.stdout.split("\n")[:4] == ["ada answered", "ada refused", "bob answered", "bob refused"]
    assert len(provider.bill) == 2
