"""What a budget does where a call does not fit: refuse, warn, count what it would have refused, let streams end."""

from __future__ import annotations

import asyncio
import logging
import pickle
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shekel import AtLimit, Budget, BudgetExceededError, Exceeded, ShekelInstrumentor, budget, call_of, reconcile, usage
from shekel.testing import FakeProvider, Reply

from .conftest import CLAUDE, HELLO, MODEL, ask, async_claude, async_client, billed, nano, stream

LONG = Reply(output_tokens=1500, pace=0.0002)


class Told:
    """What OpenTelemetry was told."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader])

    @property
    def spans(self) -> list[dict[str, Any]]:
        return [dict(span.attributes or {}) for span in self.exporter.get_finished_spans()]

    @property
    def events(self) -> list[tuple[str, dict[str, Any]]]:
        spans = self.exporter.get_finished_spans()
        return [(event.name, dict(event.attributes or {})) for span in spans for event in span.events]

    def points(self, name: str) -> list[tuple[dict[str, Any], float]]:
        data = self.reader.get_metrics_data()
        return [
            (dict(point.attributes or {}), getattr(point, "value", 0))
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def decisions(self, name: str) -> dict[str, float]:
        """Of one budget: how often each was made."""
        points = self.points("shekel.budget.decisions")
        return {at["shekel.decision"]: value for at, value in points if at.get("shekel.budget.name") == name}

    def overrun(self, name: str) -> dict[str, int]:
        """Of one budget, in nano-dollars, by cause."""
        points = self.points("shekel.budget.overrun")
        return {at["shekel.overrun.cause"]: nano(value) for at, value in points if at.get("shekel.budget.name") == name}


@pytest.fixture
def told() -> Iterator[Told]:
    told = Told()
    ShekelInstrumentor().instrument(tracer_provider=told.tracers, meter_provider=told.meters)
    yield told
    ShekelInstrumentor().uninstrument()


class TestRaise:
    def test_it_is_what_happens_unless_told(self, client: openai.OpenAI, told: Told) -> None:
        with budget("1 call", name="raises") as b:
            ask(client)
            with pytest.raises(BudgetExceededError):
                ask(client)
        assert b.at_limit is AtLimit.RAISE
        assert told.decisions("raises") == {"admitted": 1, "refused": 1}
        refused = told.spans[-1]
        assert refused["shekel.decision"] == "refused"
        assert (refused["shekel.budget.unit"], refused["shekel.budget.limit"], refused["shekel.budget.used"]) == (
            "calls", 1, 1,
        )  # fmt: skip

    def test_gauges_show_a_budget_from_its_first_call_on_and_a_new_limit_at_once(
        self, provider: FakeProvider, client: openai.OpenAI, told: Told
    ) -> None:
        with budget(max_usd=0.5, name="shown") as b:
            opened = stream(client, max_tokens=50)
            at = {"shekel.budget.name": "shown", "shekel.ledger.kind": "memory"}
            assert (at, 0.5) in told.points("shekel.budget.limit")
            [held] = [value for have, value in told.points("shekel.budget.held") if have == at]
            assert held == b.held > 0
            list(opened)
            b.set_limit(0.25)
            assert (at, 0.25) in told.points("shekel.budget.limit")
            assert (at, b.spent) in told.points("shekel.budget.spent")

    def test_gauges_show_the_whole_limit_with_what_is_kept_for_a_last_call(
        self, client: openai.OpenAI, told: Told
    ) -> None:
        at = {"shekel.budget.name": "kept", "shekel.ledger.kind": "memory"}
        with budget(max_usd=0.5, last_call=0.2, name="kept") as b:
            ask(client)
            assert (at, 0.5) in told.points("shekel.budget.limit")
            b.set_limit(0.4)
            assert (at, 0.4) in told.points("shekel.budget.limit")

    def test_a_name_that_is_none_is_refused_when_the_budget_is_made(self) -> None:
        for value in ("stop", "", 3, True):
            with pytest.raises(ValueError, match=r"^at_limit must be 'raise', 'warn', 'shadow', 'pause' or 'finish'"):
                budget("1 call", at_limit=value)


class TestWarn:
    def test_it_only_tells_once_per_window(self, provider: FakeProvider, client: openai.OpenAI, told: Told) -> None:
        heard: list[tuple[float, float]] = []
        with budget("2 calls + $5", at_limit="warn", on_warn=lambda *at: heard.append(at), name="w") as b:
            for _ in range(4):
                ask(client)
        assert heard == [(2, 2)]
        assert (b.calls_used, len(provider.bill)) == (4, 4)
        assert b.limits()[1].used == 4
        assert b.limits()[1].remaining == 0
        assert [name for name, _ in told.events] == ["shekel.budget.warning"]
        assert told.events[0][1] == {
            "shekel.budget.name": "w", "shekel.budget.unit": "calls", "shekel.budget.limit": 2, "shekel.budget.used": 2,
        }  # fmt: skip
        assert told.overrun("w") == {}

    def test_without_a_callback_it_is_a_python_warning(self, client: openai.OpenAI) -> None:
        with budget("1 call", at_limit="warn", name="w"), warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            ask(client)
            ask(client)
        assert [str(each.message) for each in heard] == ["budget w has used 1 of 1 calls"]

    def test_streams_are_not_cut(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        provider.default = LONG
        with budget("$0.0001", at_limit="warn", on_warn=lambda *at: None) as b:
            list(stream(client))
        assert nano(b.spent) == billed(provider) > 100_000

    def test_a_model_without_a_price_passes(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        with budget("$5", at_limit="warn"):
            ask(client, model="nobodys-model")
        assert len(provider.bill) == 1


class TestShadow:
    """The same calls, once with a limit that is kept and once with its shadow."""

    SPECS = ("$0.0002", "5 calls", "400 tokens", "250 output tokens", "$0.0003 + 6 calls", "3 calls on gpt-4o-mini")

    @pytest.mark.parametrize("spec", SPECS)
    @pytest.mark.parametrize("mode", ["sliced", "expected"])
    def test_it_predicts_what_enforcement_does(
        self, provider: FakeProvider, client: openai.OpenAI, spec: str, mode: str
    ) -> None:
        lengths = [40, 64, 20, 64, 8, 64, 64, 3, 64, 64, 1, 30]

        def run(b: Budget) -> int:
            refused = 0
            with b:
                for number, length in enumerate(lengths):
                    model = "gpt-4.1-nano" if number % 4 == 3 else MODEL
                    provider.default = Reply(output_tokens=length)
                    try:
                        ask(client, max_tokens=length, model=model)
                    except BudgetExceededError:
                        refused += 1
            return refused

        kept, shadow = budget(spec, mode=mode), budget(spec, mode=mode, at_limit="shadow")
        refused = run(kept)
        bill = billed(provider)
        provider.bill.clear()
        assert 0 < refused < len(lengths)
        assert run(shadow) == 0
        assert shadow.shadow_refused == refused
        assert (shadow.spent, shadow.calls_used) == (kept.spent, kept.calls_used)
        assert nano(shadow.spent) == bill
        assert nano(shadow.spent) + nano(shadow.shadow_spent) == billed(provider)
        assert [each.used for each in shadow.limits()] == [each.used for each in kept.limits()]
        assert [each.held for each in shadow.limits()] == [0] * len(shadow.limits())
        assert shadow.exposure == kept.exposure

    def test_the_program_is_told_nothing(self, client: openai.OpenAI, told: Told) -> None:
        told_of: list[Any] = []
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with budget(
                "1 call",
                at_limit="shadow",
                name="quiet",
                on_exceed=told_of.append,
                fallback={"at_pct": 0.5, "model": "gpt-4.1-nano"},
                on_fallback=lambda *at: told_of.append(at),
            ) as b:
                answers = [ask(client) for _ in range(3)]
        assert [each.model for each in answers] == [MODEL] * 3
        assert told_of == []
        assert b.shadow_refused == 2
        assert not b.model_switched
        assert told.decisions("quiet") == {"admitted": 3, "would_refuse": 2}
        assert [each.get("shekel.budget.shadows") for each in told.spans] == [None, ("quiet",), ("quiet",)]
        assert [each["shekel.outcome"] for each in told.spans] == ["complete"] * 3

    def test_a_stream_that_would_have_been_cut_goes_on(
        self, provider: FakeProvider, client: openai.OpenAI, told: Told
    ) -> None:
        provider.default = LONG
        with budget("$0.0003", at_limit="shadow", name="cuts") as b:
            chunks = list(stream(client))
        assert chunks[-1].choices[0].finish_reason == "stop"
        bill = billed(provider)
        assert (b.shadow_refused, b.calls_used) == (1, 1)
        assert 200_000 < nano(b.spent) <= 300_000 < bill
        assert nano(b.spent) + nano(b.shadow_spent) == bill
        assert told.decisions("cuts") == {"admitted": 1, "would_cut": 1}
        assert told.spans[0]["shekel.budget.shadows"] == ("cuts",)

    @pytest.mark.parametrize("mode", ["sliced", "expected"])
    @pytest.mark.parametrize(("usd", "cap"), [(0.0001, None), (0.0001, 200), (0.00004, 60), (0.000015, None)])
    def test_it_predicts_a_stream_of_which_less_than_a_slice_fits(
        self, provider: FakeProvider, client: openai.OpenAI, mode: str, usd: float, cap: int | None
    ) -> None:
        asked = {} if cap is None else {"max_tokens": cap}
        ended: dict[str, list[int]] = {}
        for at_limit in ("raise", "shadow"):
            refused = 0
            with budget(usd, at_limit=at_limit, mode=mode) as b:
                for length in (1000, 5, 5):
                    provider.default = Reply(output_tokens=length, pace=0.0003 if length > 5 else 0)
                    try:
                        list(stream(client, **asked))
                    except BudgetExceededError:
                        refused += 1
            assert b.spent <= usd or at_limit == "raise" or mode == "expected"  # which never cuts
            ended[at_limit] = [refused or b.shadow_refused, b.calls_used]
        assert ended["shadow"] == ended["raise"]

    def test_it_changes_nothing_for_a_limit_that_is_kept_beside_it(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        provider.default = Reply(output_tokens=200)
        with budget("200 output tokens") as kept, budget("100 output tokens", at_limit="shadow") as shadow:
            list(stream(client, max_tokens=200))
        assert ([each.used for each in kept.limits()], kept.calls_used) == ([200], 1)
        assert ([each.used for each in shadow.limits()], shadow.shadow_refused) == ([100], 1)
        with budget("200 output tokens") as kept, budget("100 output tokens", at_limit="shadow") as shadow:
            provider.default = Reply(output_tokens=40)
            list(stream(client, max_tokens=200))
        assert ([each.used for each in shadow.limits()], shadow.shadow_refused) == ([40], 0)

    def test_of_an_answer_that_strict_would_have_capped_lower(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        provider.default = Reply(output_tokens=200)
        shadow = budget("100 output tokens", at_limit="shadow", mode="strict")
        with budget("200 output tokens", mode="strict"), shadow:
            ask(client, max_tokens=200)
        assert provider.requests[-1].body["max_tokens"] == 200
        assert ([each.used for each in shadow.limits()], shadow.shadow_refused) == ([100], 0)

    def test_a_correction_charges_no_more_than_what_was_held_by_then(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        provider.default = LONG
        with budget("$0.0003", at_limit="shadow") as b, budget() as all_of_it:
            opened = stream(client)
            list(opened)
        before, whole = b.spent, all_of_it.spent
        receipt = call_of(opened)
        assert receipt is not None
        assert nano(reconcile(receipt.id, 2 * whole)) == nano(whole)
        assert (nano(b.spent), nano(all_of_it.spent)) == (nano(before), 2 * nano(whole))
        reconcile(receipt.id, 0.0001)
        assert (nano(b.spent), nano(all_of_it.spent)) == (100_000, 100_000)

    def test_what_an_open_stream_costs_counts_no_more_once_it_would_have_been_cut(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        provider.default = LONG
        with budget("$0.0003", at_limit="shadow") as b:
            most = max(b.spent for _ in stream(client))
        assert most <= 0.0003
        with budget("$0.00001", at_limit="shadow") as refusing:
            assert max(refusing.spent for _ in stream(client, max_tokens=900)) == 0
        assert (refusing.shadow_refused, refusing.peak_exposure) == (1, 0)

    def test_a_model_without_a_price_would_have_been_refused(self, client: openai.OpenAI) -> None:
        with budget("$5", at_limit="shadow") as b, budget("$5", at_limit="shadow", unpriced="allow") as allows:
            ask(client, model="nobodys-model")
        assert (b.shadow_refused, b.calls_used) == (1, 0)
        assert (allows.shadow_refused, allows.calls_used) == (0, 1)

    def test_what_strict_cannot_bound_would_have_been_refused(self, client: openai.OpenAI) -> None:
        with budget("$5", at_limit="shadow", mode="strict") as b:
            client.responses.create(model=MODEL, input="go on", previous_response_id="resp_1", max_output_tokens=50)
        assert (b.shadow_refused, b.spent) == (1, 0)

    def test_a_shadow_inside_a_limit_that_is_kept(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        with budget("3 calls") as kept, budget("1 call", at_limit="shadow") as shadow:
            for _ in range(3):
                ask(client)
            with pytest.raises(BudgetExceededError):
                ask(client)
        assert (kept.calls_used, shadow.calls_used, shadow.shadow_refused) == (3, 1, 2)

    def test_under_threads_it_counts_each(self, client: openai.OpenAI) -> None:
        b = budget("5 calls", at_limit="shadow")
        threads = [threading.Thread(target=b.bind(lambda: ask(client))) for _ in range(16)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert (b.calls_used, b.shadow_refused) == (5, 11)


class TestFinish:
    def test_the_whole_answer_is_delivered_and_then_it_raises(
        self, provider: FakeProvider, client: openai.OpenAI, told: Told
    ) -> None:
        provider.default = LONG
        chunks: list[Any] = []
        with budget("$0.0003", at_limit="finish", name="ends") as b:
            opened = stream(client)
            with pytest.raises(BudgetExceededError) as after:
                chunks.extend(opened)
            with pytest.raises(BudgetExceededError) as next_one:
                ask(client)
        assert chunks[-1].choices[0].finish_reason == "stop"
        assert [each.outcome for each in provider.bill] == ["complete"]
        bill = billed(provider)
        error = after.value
        assert (error.reason, error.limit, nano(error.spent)) == ("finished", 0.0003, bill)
        assert "let to its end and went over the limit" in str(error)
        assert next_one.value.reason == "exceeded"
        assert nano(b.spent) == bill
        assert b.held == 0
        [span, _] = told.spans
        assert span["shekel.outcome"] == "complete"
        overrun = told.overrun("ends")
        assert set(overrun) == {"finish"}
        assert overrun["finish"] == bill - 300_000

    def test_a_stream_that_fits_raises_nothing(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        with budget("$0.0003", at_limit="finish"):
            assert list(stream(client))

    def test_of_messages_and_the_helpers(self, provider: FakeProvider, claude: anthropic.Anthropic) -> None:
        provider.default = LONG
        with budget("$0.002", at_limit="finish"):
            with claude.messages.stream(model=CLAUDE, max_tokens=2000, messages=HELLO) as opened:
                with pytest.raises(BudgetExceededError) as after:
                    for _ in opened:
                        pass
                assert opened.get_final_message().usage.output_tokens == 1500
        assert after.value.reason == "finished"

    async def test_async_streams(self, provider: FakeProvider) -> None:
        provider.default = LONG
        got = 0
        async with async_client(provider) as client, budget("400 output tokens", at_limit="finish") as b:
            opened = await client.responses.create(model=MODEL, input="Hello", stream=True)
            with pytest.raises(BudgetExceededError) as after:
                async for event in opened:
                    got += event.type == "response.completed"
        assert got == 1
        assert (after.value.reason, after.value.exceeded_counter, after.value.spent) == (
            "finished", "output_tokens", 1500,
        )  # fmt: skip
        assert b.limits()[0].used == 1500

    async def test_async_messages(self, provider: FakeProvider) -> None:
        provider.default = LONG
        async with async_claude(provider) as client, budget("$0.002", at_limit="finish"):
            opened = await client.messages.create(model=CLAUDE, max_tokens=2000, messages=HELLO, stream=True)
            with pytest.raises(BudgetExceededError) as after:
                async for _ in opened:
                    pass
        assert after.value.reason == "finished"

    def test_a_cut_of_one_meter_beats_finish_of_another(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        provider.default = Reply(output_tokens=5000, pace=0.0005)
        with budget("$0.0005", name="kept") as kept, budget("$0.0002", at_limit="finish") as ends:
            with pytest.raises(BudgetExceededError) as cut:
                list(stream(client))
        assert (cut.value.reason, cut.value.budget) == ("cut", "kept")
        billed(provider)
        assert [each.outcome for each in provider.bill] == ["disconnected"]
        assert (kept.held, ends.held) == (0, 0)
        assert ends.spent == kept.spent > 0.0002

    def test_and_the_other_way_round_the_inner_cuts(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        provider.default = LONG
        with budget("$0.0005", at_limit="finish"), budget("300 output tokens", name="kept"):
            with pytest.raises(BudgetExceededError) as cut:
                list(stream(client))
        assert (cut.value.reason, cut.value.budget) == ("cut", "kept")

    def test_leaving_early_raises_nothing(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        provider.default = LONG
        with budget("$0.0003", at_limit="finish") as b:
            with stream(client) as opened:
                for number, _ in enumerate(opened):
                    if number == 1000:
                        break
        assert b.held == 0
        assert b.spent > 0.0003


class TestOverrun:
    """How far a limit was exceeded, by cause: never more than the whole, never twice."""

    def test_a_settlement_above_its_hold(self, provider: FakeProvider, client: openai.OpenAI, told: Told) -> None:
        provider.default = Reply(output_tokens=2000)
        with budget("$0.00095", name="over") as b:
            client.chat.completions.create(model=MODEL, messages=HELLO)  # no cap: the expected output is held
        assert told.overrun("over") == {"settlement": nano(b.spent) - 950_000}
        assert nano(b.spent) == billed(provider)

    def test_a_limit_that_is_lowered_counts_once(
        self, provider: FakeProvider, client: openai.OpenAI, told: Told
    ) -> None:
        with budget("$0.01", name="low") as b:
            ask(client)
            opened = stream(client, max_tokens=64)
            used = nano(b.limits()[0].used) + nano(b.held)
            b.set_limit(0.00005)
            b.set_limit(0.00003)
            assert told.overrun("low") == {"limit": used - 30_000}
            list(opened)
            b.set_limit(0.01)
        assert told.overrun("low") == {"limit": used - 30_000}

    def test_a_retry(self, provider: FakeProvider, told: Told) -> None:
        provider.reply(Reply(stall_after=-1), Reply(output_tokens=64))
        with openai.OpenAI(base_url=provider.openai_url, api_key="t", max_retries=1, timeout=0.5) as client:
            with budget("$0.00006", name="again") as b:
                ask(client)
        [(cause, over)] = told.overrun("again").items()
        assert cause == "retry"
        assert over == nano(b.spent) - 60_000

    def test_a_reconciliation(self, client: openai.OpenAI, told: Told) -> None:
        import shekel

        with budget("$0.001", name="invoice"):
            answer = ask(client)
        shekel.reconcile(shekel.call_of(answer).id, 0.0015)
        assert told.overrun("invoice") == {"reconcile": 500_000}

    def test_bounds_that_hold_are_not_violated(self, client: openai.OpenAI, told: Told) -> None:
        with budget("$0.01", mode="strict"):
            ask(client)
        assert told.points("shekel.budget.bound_violations") == []

    def test_a_bound_that_is_broken_is_counted(self, provider: FakeProvider, client: openai.OpenAI, told: Told) -> None:
        provider.default = Reply(input_tokens=5000, output_tokens=5)
        with budget("$0.01", mode="strict"):
            ask(client)
        assert told.points("shekel.budget.bound_violations") == [({"gen_ai.request.model": MODEL}, 1)]


class TestThresholds:
    def test_each_once_however_many_threads_cross_them(self, client: openai.OpenAI) -> None:
        heard: list[float] = []
        b = budget(
            "40 calls/hr + 40 calls + $5", warn_at=[0.1, 0.5, 0.8], on_warn=lambda used, limit: heard.append(limit)
        )
        start = threading.Barrier(32)

        def work() -> None:
            start.wait()
            ask(client)

        threads = [threading.Thread(target=b.bind(work)) for _ in range(32)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert heard == [40] * 6  # two limits of calls, three thresholds
        assert b.calls_used == 32

    def test_limits_of_some_models_do_not_confuse_them(self, client: openai.OpenAI) -> None:
        heard: list[tuple[float, float]] = []
        with budget("$5 + $1 on gpt-4o + 4 calls", warn_at=0.5, on_warn=lambda *at: heard.append(at)):
            for model in (MODEL, "gpt-4o", MODEL, "gpt-4o"):
                ask(client, model=model)
        assert heard == [(2, 4)]

    def test_after_a_reset_and_after_a_higher_limit_again(self, client: openai.OpenAI) -> None:
        heard: list[tuple[float, float]] = []
        b = budget("2 calls", warn_at=0.5, on_warn=lambda *at: heard.append(at))
        with b:
            ask(client)
            b.set_limit("4 calls")
            ask(client)
        b.reset()
        with b:
            ask(client)
            ask(client)
        assert heard == [(1, 2), (2, 4), (2, 4)]

    def test_an_error_of_a_callback_is_logged_and_masks_nothing(
        self, client: openai.OpenAI, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from shekel import faults

        monkeypatch.setattr(faults, "_said", set())

        def broken(*at: Any) -> None:
            raise RuntimeError("no")

        with caplog.at_level(logging.WARNING, "shekel"):
            with budget("4 calls", warn_at=0.25, on_warn=broken, fallback={"at_pct": 0.5, "model": "gpt-4.1-nano"},
                        on_fallback=broken, on_exceed=broken):  # fmt: skip
                for _ in range(4):
                    assert ask(client).choices
                with pytest.raises(BudgetExceededError):
                    ask(client)
        said = " ".join(record.message for record in caplog.records)
        for place in ("called on_warn", "called on_fallback", "called on_exceed"):
            assert place in said


class TestFallbackChain:
    CHAIN = ({"at_pct": 0.25, "model": "gpt-4.1-mini"}, {"at_pct": 0.75, "model": "gpt-4.1-nano"})

    def test_each_takes_over_at_its_share(self, provider: FakeProvider, client: openai.OpenAI, told: Told) -> None:
        heard: list[str] = []
        with budget("4 calls", fallback=self.CHAIN, on_fallback=lambda spent, limit, model: heard.append(model)) as b:
            for _ in range(4):
                ask(client, model="gpt-4o")
        models = ["gpt-4o", "gpt-4.1-mini", "gpt-4.1-mini", "gpt-4.1-nano"]
        assert [each.model for each in provider.bill] == models
        assert heard[0] == "gpt-4.1-mini"
        assert [each["gen_ai.request.model"] for each in told.spans] == models
        assert [each.get("shekel.fallback.from") for each in told.spans] == [None, "gpt-4o", "gpt-4o", "gpt-4o"]
        assert b.model_switched

    def test_the_first_that_fits_is_used(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        chain = [{"at_pct": 0.9, "model": "gpt-4.1"}, {"at_pct": 0.95, "model": "gpt-4.1-nano"}]
        with budget("$0.0005", fallback=chain):
            ask(client, model="gpt-4o", max_tokens=1000)  # $0.01, then $0.008, then $0.0004
        assert [each.model for each in provider.bill] == ["gpt-4.1-nano"]

    def test_it_is_a_share_of_the_whole_limit_with_what_is_kept_for_a_last_call(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        with budget("$0.0002", last_call=0.0001, fallback={"at_pct": 0.3, "model": "gpt-4.1-nano"}) as b:
            ask(client)
            assert 0.3 * 0.0001 < b.spent < 0.3 * 0.0002
            ask(client)
            assert b.spent > 0.3 * 0.0002
            with b.last_call():  # which sees more of the same limit
                ask(client)
        assert [each.model for each in provider.bill] == [MODEL, MODEL, "gpt-4.1-nano"]

    def test_none_that_fits_is_a_refusal_that_changes_nothing(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        with budget("$0.00001", fallback=self.CHAIN) as b, pytest.raises(BudgetExceededError):
            ask(client, model="gpt-4o", max_tokens=1000)
        assert provider.requests == []
        assert not b.model_switched
        assert b.held == 0

    def test_who_was_granted_more_gets_the_model_that_was_asked_for(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        with budget("$0.00001", fallback=self.CHAIN, on_exceed=lambda question: 1):
            answer = ask(client, model="gpt-4o", max_tokens=1000)
        assert answer.model == "gpt-4o"

    def test_in_nested_budgets_the_innermost_decides(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        with (
            budget("2 calls", fallback={"at_pct": 0.5, "model": "gpt-4.1-mini"}),
            budget("2 calls", fallback={"at_pct": 0.5, "model": "gpt-4.1-nano"}),
        ):
            ask(client)
            ask(client)
        assert [each.model for each in provider.bill] == [MODEL, "gpt-4.1-nano"]

    def test_streams_and_messages_too(self, provider: FakeProvider, claude: anthropic.Anthropic) -> None:
        with budget("2 calls", fallback={"at_pct": 0.5, "model": "claude-haiku-4-5"}):
            claude.messages.create(model="claude-opus-4-5", max_tokens=64, messages=HELLO)
            list(claude.messages.create(model="claude-opus-4-5", max_tokens=64, messages=HELLO, stream=True))
        assert [each.model for each in provider.bill] == ["claude-opus-4-5", "claude-haiku-4-5"]


class TestLastCall:
    def test_the_reserve_is_seen_only_inside_its_block(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        with budget("$0.0001", last_call=0.00006, name="kept") as b:
            ask(client, max_tokens=50)
            with pytest.raises(BudgetExceededError):
                ask(client, max_tokens=50)
            with b.last_call():
                ask(client, max_tokens=50)
            with pytest.raises(BudgetExceededError):
                ask(client, max_tokens=50)
        assert billed(provider) == nano(b.spent) <= 100_000

    def test_what_is_left_shows_it_only_inside_its_block(self, client: openai.OpenAI) -> None:
        with budget("$1 + 9 calls", last_call=0.9995) as b, budget("$2") as inner:
            assert (b.limit, b.remaining, nano(inner.remaining)) == (1, 0.0005, 500_000)
            assert [(each.limit, each.remaining) for each in b.limits()] == [(1, 0.0005), (9, 9)]
            assert next((each.limit, each.remaining) for each in usage().limits) == (1, 0.0005)
            ask(client)
            left = b.remaining
            assert left is not None
            assert nano(left) == 500_000 - nano(b.spent)
            with b.last_call():
                assert nano(b.remaining) == 1_000_000_000 - nano(b.spent)
                assert b.limits()[0].remaining == b.remaining
            assert b.remaining == left

    def test_a_refusal_and_a_warning_name_the_whole_limit(self, client: openai.OpenAI) -> None:
        told: list[tuple[float, float]] = []
        with budget("$0.0001", last_call=0.00006, name="kept", warn_at=0.3, on_warn=lambda *at: told.append(at)) as b:
            ask(client, max_tokens=50)
            with pytest.raises(BudgetExceededError) as caught:
                ask(client, max_tokens=50)
        assert told == [(b.spent, 0.0001)]
        assert (caught.value.limit, caught.value.kept) == (0.0001, 0.00006)
        assert "Budget 'kept' of $0.0001 has" in str(caught.value)
        assert "and keeps $0.00006 for a last call: a call" in str(caught.value)
        assert pickle.loads(pickle.dumps(caught.value)).kept == 0.00006

    def test_what_is_lacking_is_asked_for_without_it(self, client: openai.OpenAI) -> None:
        asked: list[Exceeded] = []

        def grant(question: Exceeded) -> bool:
            asked.append(question)
            return True

        with budget("$0.0001", last_call=0.00009, on_exceed=grant):
            ask(client, max_tokens=50)
        assert [(each.limit, nano(each.lacking)) for each in asked] == [(0.0001, nano(asked[0].needed) - 10_000)]

    def test_not_in_a_thread_beside_it_but_in_a_task_and_a_bound_function(self, provider: FakeProvider) -> None:
        with openai.OpenAI(base_url=provider.openai_url, api_key="t", max_retries=0) as client:
            b = budget("$0.0002", last_call=0.00019)
            seen: list[str] = []

            def work() -> None:
                try:
                    ask(client, max_tokens=50)
                    seen.append("passed")
                except BudgetExceededError:
                    seen.append("refused")

            def beside() -> None:
                with b:
                    work()

            with b, b.last_call():
                thread = threading.Thread(target=beside)
                thread.start()
                thread.join()
                bound = threading.Thread(target=b.bind(work))
                bound.start()
                bound.join()

                async def main() -> None:
                    await asyncio.create_task(asyncio.to_thread(work))

                asyncio.run(main())
        assert seen == ["refused", "passed", "passed"]

    def test_of_another_budget_it_opens_nothing(self, client: openai.OpenAI) -> None:
        other = budget("$1", last_call=0.5)
        with other, budget("$0.00005", last_call=0.00004), other.last_call(), pytest.raises(BudgetExceededError):
            ask(client)

    @pytest.mark.parametrize("reserve", [0, -1, 5, 6, float("nan"), "x", True])
    def test_one_that_makes_no_sense_is_refused_at_once(self, reserve: Any) -> None:
        with pytest.raises(ValueError, match="last_call"):
            budget("$5", last_call=reserve)
        with pytest.raises(ValueError, match="last_call"):
            budget("5 calls", last_call=1)
