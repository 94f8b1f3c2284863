"""Spending by hand: charged where a call would be, once per key, never refused, and told like a call."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import openai
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import shekel
from budgets.conftest import MODEL, ask, nano
from shekel import BudgetExceededError, ShekelInstrumentor, UsageEvent, budget, per, record, scope
from shekel.manual import REMEMBERED, _keys
from shekel.runtime import the_runtime


@pytest.fixture(autouse=True)
def no_policies() -> Iterator[None]:
    yield
    shekel.configure(policies=[])


def spent(user: str, name: str = "per user.id") -> int:
    """What a policy has on its first meter of a user, in nano-dollars."""
    claims = the_runtime().policies.claims_of({"user.id": user}, time.time())
    claim = next(each for each in claims if each.name == name)
    return the_runtime().ledger.read(claim.meter, time.time_ns() // 1000).settled


class TestCharges:
    def test_every_budget_and_policy_of_the_scope(self) -> None:
        shekel.configure(policies=[per("user.id", "$5/day + 10 calls/hr + 1M tokens/hr on gpt-4o"), per("team", "$1")])
        with budget(max_usd=1, name="outer") as outer, budget(name="inner") as inner:
            event = record(
                0.25, user_id="ada", team="red", input_tokens=10, output_tokens=5, model="gpt-4o", description="images"
            )
        assert event is not None
        assert nano(outer.spent) == nano(inner.spent) == spent("ada") == 250_000_000
        assert (outer.calls_used, inner.summary_data()["by_model"]["gpt-4o"]["input_tokens"]) == (1, 10)
        used = [
            the_runtime().ledger.read(claim.meter, time.time_ns() // 1000).settled
            for claim in the_runtime().policies.claims_of({"user.id": "ada", "team": "red"}, time.time())
        ]
        assert used == [250_000_000, 1, 15, 250_000_000]
        assert (event.source, event.description, event.cost_explicit) == ("manual", "images", True)
        assert (event.user_id, event.metadata, event.budget) == ("ada", {}, "per team")
        assert (event.cost_total, event.total_tokens, event.provider) == (0.25, 15, "openai")

    def test_the_scope_of_the_context_and_exactly_the_one_that_is_named(self) -> None:
        shekel.configure(policies=[per("user.id", "$5"), per("team", "$5", name="team")])
        with scope(user_id="ada", team="red"):
            record(0.5)
            event = record(0.25, {"user.id": "bob"})
            assert event is not None
            assert event.scope == {"user.id": "bob"}
        assert (spent("ada"), spent("bob")) == (500_000_000, 250_000_000)

    def test_tokens_are_priced_by_their_model(self) -> None:
        with budget() as b, budget(price_per_1k_tokens={"input": 1, "output": 2}) as dear:
            event = record(input_tokens=1000, output_tokens=100, model=MODEL)
        assert event is not None
        assert dear.spent == b.spent == event.cost_total == 1.2
        plain = record(input_tokens=1_000_000, output_tokens=100_000, model=MODEL)
        assert plain is not None
        assert (nano(plain.cost_total), plain.cost_explicit) == (210_000_000, False)

    def test_the_money_is_spent_so_it_is_never_refused_and_what_comes_next_is(self, client: openai.OpenAI) -> None:
        shekel.configure(policies=[per("user.id", "$1/day")])
        with scope(user_id="ada"):
            record(0.9)
            record(0.3)
            assert spent("ada") == 1_200_000_000
            with pytest.raises(BudgetExceededError):
                ask(client)
        stopped = budget()
        stopped.stop()
        with stopped:
            record(0.1)
        assert nano(stopped.spent) == 100_000_000

    def test_it_slides_out_of_its_window(self) -> None:
        with budget("$1/2s") as b:
            record(0.5)
            assert b.spent == 0.5
            deadline = time.monotonic() + 30
            while b.spent:
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def test_it_can_be_reconciled(self) -> None:
        with budget() as b:
            event = record(Decimal("0.5"))
            assert event is not None
            assert nano(shekel.reconcile(event.id, 0.125)) == -375_000_000
        assert nano(b.spent) == 125_000_000

    def test_it_teaches_the_estimates_nothing(self) -> None:
        before = the_runtime().estimator.expected_output("gpt-4.1-nano")
        for _ in range(20):
            record(output_tokens=7, model="gpt-4.1-nano")
        assert the_runtime().estimator.expected_output("gpt-4.1-nano") == before


class TestKeys:
    def test_the_same_key_again_charges_nothing(self) -> None:
        events: list[UsageEvent] = []
        with budget() as b, shekel.on_usage(events.append):
            first = record(0.5, idempotency_key="invoice-1")
            again = record(0.5, idempotency_key="invoice-1", user_id="somebody else")
            other = record(0.5, idempotency_key="invoice-2")
        assert first is not None
        assert other is not None
        assert again is None
        assert nano(b.spent) == 1_000_000_000
        assert events == [first, other]

    def test_threads_with_one_key_charge_once(self) -> None:
        b = budget()
        results: list[Any] = []
        gate = threading.Barrier(16)

        def work() -> None:
            gate.wait(30)
            results.extend(record(0.01, idempotency_key=f"race-{number}") for number in range(20))

        threads = [threading.Thread(target=b.bind(work)) for _ in range(16)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert len([each for each in results if each is not None]) == 20
        assert nano(b.spent) == 200_000_000

    def test_an_entry_that_is_refused_leaves_its_key(self) -> None:
        with pytest.raises(ValueError, match="price"):
            record(input_tokens=5, model="nobody-knows-this", idempotency_key="later")
        assert record(0.1, idempotency_key="later") is not None

    def test_the_keys_that_are_remembered_are_bounded(self) -> None:
        for number in range(REMEMBERED + 10):
            _keys.take(f"bound-{number}")
        assert len(_keys._used) == REMEMBERED
        assert not _keys.take(f"bound-{REMEMBERED + 9}")
        _keys._used.clear()


class TestTold:
    def test_as_a_span_with_the_scope_and_in_the_counters_but_not_as_time(self) -> None:
        spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(spans))
        ShekelInstrumentor().instrument(tracer_provider=tracers, meter_provider=MeterProvider([reader]))
        try:
            with tracers.get_tracer("app").start_as_current_span("job"), scope(user_id="ada"):
                with budget(max_usd=0.1, name="small"):
                    record(0.5, model=MODEL, input_tokens=3, metadata={"secret": "text"}, description="secret text")
        finally:
            ShekelInstrumentor().uninstrument()
        entry, job = spans.get_finished_spans()
        told = dict(entry.attributes or {})
        assert entry.name == f"record {MODEL}"
        assert entry.parent is not None
        assert entry.parent.span_id == job.context.span_id
        assert (told["user.id"], told["gen_ai.usage.cost.amount"], told["shekel.budget.name"]) == ("ada", 0.5, "small")
        assert "secret" not in str(told)
        found = reader.get_metrics_data()
        assert found is not None
        metrics = {
            m.name: m.data.data_points for r in found.resource_metrics for s in r.scope_metrics for m in s.metrics
        }
        assert [point.value for point in metrics["shekel.cost"]] == [0.5]
        assert [point.value for point in metrics["shekel.calls"]] == [1]
        [overrun] = metrics["shekel.budget.overrun"]
        assert overrun.value == pytest.approx(0.4)
        assert overrun.attributes == {"shekel.overrun.cause": "record", "shekel.budget.name": "small"}
        assert "gen_ai.client.operation.duration" not in metrics
        assert "gen_ai.client.token.usage" not in metrics

    def test_tools_and_metadata_are_in_the_event(self) -> None:
        event = record(0.1, tool_calls=["search", "fetch", "search"], metadata={"order": 7}, session_id=9)
        assert event is not None
        assert (event.tool_calls, event.metadata, event.session_id) == ({"search": 2, "fetch": 1}, {"order": 7}, "9")
        other = record(0, tool_calls={"search": 3})
        assert other is not None
        assert (other.tool_calls, other.cost_total, other.model) == ({"search": 3}, 0.0, "")


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"input_tokens": 5},
        {"cost": -1},
        {"cost": float("nan")},
        {"cost": float("inf")},
        {"cost": "1"},
        {"cost": True},
        {"cost": 1e300},
        {"cost": 1, "input_tokens": -1},
        {"cost": 1, "output_tokens": 1.5},
        {"cost": 1, "input_tokens": True},
        {"cost": 1, "model": ""},
        {"cost": 1, "model": 7},
        {"cost": 1, "idempotency_key": ""},
        {"cost": 1, "idempotency_key": "k" * 201},
        {"cost": 1, "idempotency_key": 7},
        {"cost": 1, "metadata": "x"},
        {"cost": 1, "tool_calls": "search"},
        {"cost": 1, "tool_calls": {"search": -1}},
        {"cost": 1, "tool_calls": [1]},
        {"cost": 1, "tool_calls": 3},
        {"cost": 1, "user_id": ""},
        {"cost": 1, "user_id": 1.5},
        {"cost": 1, "scope": "ada"},
        {"cost": 1, "scope": {"user.id": " "}},
        {"input_tokens": 5, "model": "nobody-knows-this"},
    ],
    ids=repr,
)
def test_what_makes_no_sense_is_refused_and_charges_nothing(wrong: dict[str, Any]) -> None:
    with budget() as b, pytest.raises(ValueError, match=r"."):
        record(**wrong)
    assert b.spent == b.calls_used == 0
