"""What a budget promises to the one who makes it."""

from __future__ import annotations

import asyncio
import math
import pickle
import threading
from typing import Any

import anthropic
import openai
import pytest

import shekel
from shekel import BudgetExceededError, UnboundedCallError, UnpricedModelError, budget, with_budget
from shekel.testing import FakeProvider, Reply

MODEL = "gpt-4o-mini"
HELLO: list[Any] = [{"role": "user", "content": "Hello there, how are you today?"}]


def billed(provider: FakeProvider) -> float:
    provider.wait_idle()
    return provider.bill.total / 1e9


class TestBadInput:
    @pytest.mark.parametrize(
        "value", [0, 0.0, -1, -0.01, math.nan, math.inf, -math.inf, True, "five", "", "$", "$x", "$0"]
    )
    def test_a_limit_that_is_none_is_refused_at_once(self, value: Any) -> None:
        with pytest.raises(ValueError, match=r"(?s)^[^\n]+$"):
            budget(max_usd=value)

    @pytest.mark.parametrize("value", ["$5/fortnight", "$5 per eon"])
    def test_a_period_that_is_none_is_named(self, value: str) -> None:
        with pytest.raises(ValueError, match=r"fortnight|eon"):
            budget(value)

    @pytest.mark.parametrize(
        "fallback",
        [
            {},
            {"at_pct": 0.5},
            {"at_pct": 0.5, "model": ""},
            {"at_pct": 0.5, "model": "  "},
            {"at_pct": 0, "model": MODEL},
            {"at_pct": 1.1, "model": MODEL},
            {"at_pct": math.nan, "model": MODEL},
            5,
            [],
            [{"at_pct": 0.9, "model": "a"}, {"at_pct": 0.5, "model": "b"}],
        ],
    )
    def test_a_fallback_that_is_none_is_refused_at_once(self, fallback: Any) -> None:
        with pytest.raises(ValueError, match="fallback"):
            budget(max_usd=1, fallback=fallback)

    @pytest.mark.parametrize(
        "arguments",
        [
            {"mode": "loose"},
            {"name": ""},
            {"name": 7},
            {"unpriced": "maybe"},
            {"warn_at": 2},
            {"price_per_1k_tokens": {"input": -1, "output": 1}},
            {"price_per_1k_tokens": {"input": 1}},
        ],
    )
    def test_other_arguments_too(self, arguments: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=next(iter(arguments))):
            budget(max_usd=1, **arguments)

    def test_a_limit_given_twice(self) -> None:
        with pytest.raises(ValueError, match="once"):
            budget("$5", max_usd=3)

    def test_the_decorator_says_it_where_it_stands(self) -> None:
        with pytest.raises(ValueError, match="max_usd"):
            with_budget(max_usd=-1)

    def test_a_fallback_of_another_provider_refuses_the_first_call(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        with (
            budget(max_usd=1, fallback={"at_pct": 0.9, "model": "claude-3-haiku-20240307"}),
            pytest.raises(ValueError, match="same provider"),
        ):
            client.chat.completions.create(model=MODEL, messages=HELLO)
        assert billed(provider) == 0


class TestSpending:
    def test_spent_is_what_the_provider_bills(
        self, provider: FakeProvider, client: openai.OpenAI, claude: anthropic.Anthropic
    ) -> None:
        provider.default = Reply(output_tokens=40, reasoning_tokens=25, cached_tokens=3)
        with budget(max_usd=5) as b:
            client.chat.completions.create(model=MODEL, messages=HELLO)
            list(client.responses.create(model=MODEL, input="hello", stream=True))
            claude.messages.create(model="claude-opus-4-5", max_tokens=99, messages=HELLO)
            with claude.messages.stream(model="claude-opus-4-5", max_tokens=99, messages=HELLO) as stream:
                stream.get_final_message()
        assert round(b.spent * 1e9) == round(billed(provider) * 1e9)
        assert b.calls_used == 4
        assert b.held == 0
        assert b.exposure == 0
        assert b.limit == 5
        assert b.remaining == pytest.approx(5 - b.spent)

    def test_a_budget_without_a_limit_counts_and_never_refuses(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        with budget() as b:
            client.chat.completions.create(model=MODEL, messages=HELLO)
        assert b.spent == pytest.approx(billed(provider))
        assert b.remaining is None
        assert b.limit is None

    def test_it_accumulates_over_repeated_blocks(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        session = budget(max_usd=1, name="session")
        for _ in range(3):
            with session:
                client.chat.completions.create(model=MODEL, messages=HELLO)
        assert session.calls_used == 3
        assert session.spent == pytest.approx(billed(provider))

    def test_spending_survives_an_exception_of_the_block(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        b = budget(max_usd=1)
        with pytest.raises(KeyboardInterrupt), b:
            client.chat.completions.create(model=MODEL, messages=HELLO)
            raise KeyboardInterrupt
        assert b.spent == pytest.approx(billed(provider))

    def test_two_budgets_nested_are_both_charged(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        with budget(max_usd=1, name="outer") as outer:
            client.chat.completions.create(model=MODEL, messages=HELLO)
            with budget(max_usd=1, name="inner") as inner:
                client.chat.completions.create(model=MODEL, messages=HELLO)
        assert outer.calls_used == 2
        assert inner.calls_used == 1
        assert outer.spent == pytest.approx(2 * inner.spent)

    def test_a_child_never_lets_the_parent_through(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        with budget(max_usd=0.000001, name="outer") as outer, budget(name="tracks only"):
            with pytest.raises(BudgetExceededError) as refused:
                client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=50)
        assert refused.value.budget == "outer"
        assert outer.spent == 0 == billed(provider)

    def test_a_budget_entered_twice_is_charged_once(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        with budget(max_usd=1) as b, b:
            client.chat.completions.create(model=MODEL, messages=HELLO)
        assert b.calls_used == 1
        assert b.spent == pytest.approx(billed(provider))

    def test_the_stream_belongs_to_the_budget_it_was_opened_in(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        with budget(max_usd=1) as first:
            stream = client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
        with budget(max_usd=1) as second:
            thread = threading.Thread(target=lambda: list(stream))
            thread.start()
            thread.join()
        assert first.spent == pytest.approx(billed(provider))
        assert second.spent == 0

    def test_spent_includes_what_an_open_stream_has_cost_so_far(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        provider.default = Reply(output_tokens=400)
        with budget(max_usd=1) as b:
            stream = client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
            seen = []
            for index, _ in enumerate(stream):
                if index in (100, 300):
                    seen.append(b.spent)
        assert 0 < seen[0] < seen[1] < b.spent
        assert seen[1] == pytest.approx(0.75 * b.spent, rel=0.3)

    def test_fallen_tasks_of_asyncio_are_charged_too(self, provider: FakeProvider) -> None:
        async def main() -> float:
            async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="t", max_retries=0) as client:
                async with budget(max_usd=1) as b:
                    await asyncio.gather(
                        *(client.chat.completions.create(model=MODEL, messages=HELLO) for _ in range(5))
                    )
                return b.spent

        assert asyncio.run(main()) == pytest.approx(billed(provider))

    def test_the_summary_tells_each_call(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        with budget(max_usd=1) as b:
            list(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True))
        data = b.summary_data()
        [call] = data["calls"]
        [attempt] = provider.bill
        assert call["model"] == MODEL
        assert (call["input_tokens"], call["output_tokens"]) == (attempt.input_tokens, attempt.output_tokens)
        assert data["total_spent"] == call["cost"] == pytest.approx(billed(provider))
        assert data["by_model"][MODEL]["calls"] == 1

    def test_reset_forgets_but_not_inside_its_block(self, client: openai.OpenAI) -> None:
        b = budget(max_usd=1)
        with b:
            client.chat.completions.create(model=MODEL, messages=HELLO)
            with pytest.raises(RuntimeError, match="inside"):
                b.reset()
        b.reset()
        assert b.spent == 0
        assert b.calls_used == 0

    def test_the_decorator_makes_a_fresh_budget_for_each_call(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        @with_budget(max_usd=0.00005, name="each")
        def ask() -> None:
            client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=60)

        for _ in range(3):
            ask()  # one budget for all would be used up after the first
        assert len(provider.bill) == 3

    async def test_the_decorator_takes_coroutines(self, provider: FakeProvider) -> None:
        @with_budget(max_usd=0.000001)
        async def ask() -> None:
            async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="t") as client:
                await client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=60)

        with pytest.raises(BudgetExceededError):
            await ask()


class TestLimits:
    def test_a_call_that_does_not_fit_is_not_sent(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        with budget(max_usd=0.00001, name="tiny") as b, pytest.raises(BudgetExceededError) as refused:
            client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=1000)
        assert provider.requests == []
        error = refused.value
        assert (error.budget, error.limit, error.model) == ("tiny", 0.00001, MODEL)
        assert error.needed is not None
        assert error.needed > error.limit
        assert b.calls_used == 0

    def test_the_error_travels(self, client: openai.OpenAI) -> None:
        with budget(max_usd=0.00001, name="tiny"), pytest.raises(BudgetExceededError) as refused:
            client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=1000)
        copy = pickle.loads(pickle.dumps(refused.value))
        assert type(copy) is BudgetExceededError
        assert str(copy) == str(refused.value)
        assert copy.__dict__ == refused.value.__dict__
        assert "$" not in copy.public_message

    def test_a_stream_is_cut_and_its_connection_closed(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        provider.default = Reply(output_tokens=5000, pace=0.0005)
        text = 0
        with budget(max_usd=0.0003, name="cut") as b, pytest.raises(BudgetExceededError) as cut:
            for chunk in client.chat.completions.create(model=MODEL, messages=HELLO, stream=True):
                text += len(chunk.choices[0].delta.content or "")
        assert text > 500
        assert cut.value.reason == "cut"
        bill = billed(provider)
        [attempt] = provider.bill
        assert attempt.outcome == "disconnected"
        assert bill <= 0.0003 + b.peak_exposure
        assert 0.0002 < bill < 0.0006  # the whole answer would have cost 0.003
        assert b.held == 0

    async def test_an_async_stream_is_cut_too(self, provider: FakeProvider) -> None:
        provider.default = Reply(output_tokens=5000, pace=0.0005)
        async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="t") as client:
            async with budget(max_usd=0.0003) as b:
                stream = await client.responses.create(model=MODEL, input="Hello", stream=True)
                with pytest.raises(BudgetExceededError):
                    async for _ in stream:
                        pass
            await asyncio.to_thread(provider.wait_idle)
        assert billed(provider) < 0.0006
        assert b.held == 0

    def test_expected_mode_lets_streams_end(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        provider.default = Reply(output_tokens=3000)
        with budget(max_usd=0.0008, mode="expected") as b:
            list(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True))
        assert b.spent == pytest.approx(billed(provider))
        assert b.spent > 0.0008

    def test_strict_caps_the_output_in_a_copy_of_the_request(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        provider.default = Reply(output_tokens=5000)
        messages = [dict(HELLO[0])]
        with budget(max_usd=0.0005, mode="strict") as b:
            answer = client.chat.completions.create(model=MODEL, messages=messages)  # type: ignore[arg-type]
        assert answer.choices[0].finish_reason == "length"
        sent = provider.requests[0].body
        assert 100 < sent["max_completion_tokens"] < 1000
        assert messages == HELLO
        assert 0 < billed(provider) <= 0.0005
        assert b.exposure == 0

    def test_strict_never_raises_the_callers_own_cap(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        with budget(max_usd=5, mode="strict"):
            client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=7)
        assert provider.requests[0].body["max_tokens"] == 7

    def test_strict_refuses_what_nothing_bounds_and_names_the_field(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        with budget(max_usd=5, mode="strict"), pytest.raises(UnboundedCallError, match="previous_response_id"):
            client.responses.create(model=MODEL, input="go on", previous_response_id="resp_1")
        assert provider.requests == []

    def test_anthropic_thinking_is_respected_by_strict(
        self, provider: FakeProvider, claude: anthropic.Anthropic
    ) -> None:
        with budget(max_usd=5, mode="strict"):
            claude.messages.create(
                model="claude-opus-4-5",
                max_tokens=3000,
                thinking={"type": "enabled", "budget_tokens": 2000},
                messages=HELLO,
            )
        assert provider.requests[0].body["max_tokens"] == 3000
        with budget(max_usd=0.04, mode="strict"), pytest.raises(BudgetExceededError):
            claude.messages.create(  # fits only with less than its thinking budget
                model="claude-opus-4-5",
                max_tokens=3000,
                thinking={"type": "enabled", "budget_tokens": 2000},
                messages=HELLO,
            )

    def test_an_unknown_model_is_refused_with_three_remedies(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        with budget(max_usd=5), pytest.raises(UnpricedModelError) as refused:
            client.chat.completions.create(model="house-model-1", messages=HELLO)
        assert provider.requests == []
        for remedy in ("shekel.configure(prices=", "'free'", "unpriced='allow'"):
            assert remedy in str(refused.value)

    def test_each_remedy_works(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        with budget(max_usd=5, unpriced="allow") as allowed:
            client.chat.completions.create(model="house-model-2", messages=HELLO)
        assert allowed.spent == 0
        shekel.configure(prices={"house-model-3": {"input": 1, "output": 2}, "house-model-4": "free"})
        with budget(max_usd=5) as priced:
            client.chat.completions.create(model="house-model-3", messages=HELLO)
            client.chat.completions.create(model="house-model-4", messages=HELLO)
        attempt = provider.bill[1]
        assert priced.spent == pytest.approx((attempt.input_tokens * 1 + attempt.output_tokens * 2) / 1e6)
        with budget(max_usd=5, price_per_1k_tokens={"input": 0.001, "output": 0.002}) as overridden:
            client.chat.completions.create(model="house-model-5", messages=HELLO)
        assert overridden.spent == pytest.approx(priced.spent)

    def test_an_unknown_model_without_a_limit_passes(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        with budget() as b:
            client.chat.completions.create(model="house-model-6", messages=HELLO)
        assert b.calls_used == 1
        assert b.spent == 0


class TestFallback:
    def test_it_takes_over_at_its_threshold_and_shares_the_budget(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        told: list[tuple[float, float, str]] = []
        provider.default = Reply(output_tokens=100)
        with budget(
            max_usd=0.01,
            fallback={"at_pct": 0.2, "model": MODEL},
            on_fallback=lambda spent, limit, model: told.append((spent, limit, model)),
        ) as b:
            for _ in range(5):
                client.chat.completions.create(model="gpt-4o", messages=HELLO, max_tokens=100)
        models = [attempt.model for attempt in provider.bill]
        assert models == ["gpt-4o"] * 2 + [MODEL] * 3
        assert b.model_switched
        assert b.switched_at_usd == pytest.approx(sum(a.cost or 0 for a in provider.bill[:2]) / 1e9)
        assert told == [(b.switched_at_usd, 0.01, MODEL)]
        assert b.fallback_spent == pytest.approx(sum(a.cost or 0 for a in provider.bill[2:]) / 1e9)
        assert [call["fallback"] for call in b.summary_data()["calls"]] == [False] * 2 + [True] * 3
        assert b.spent == pytest.approx(billed(provider))

    def test_it_takes_over_where_only_the_cheaper_model_fits(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        with budget(max_usd=0.001, fallback={"at_pct": 0.9, "model": MODEL}) as b:
            client.chat.completions.create(model="gpt-4o", messages=HELLO, max_tokens=1000)
        assert provider.bill[0].model == MODEL
        assert b.model_switched

    def test_the_limit_holds_for_the_fallback_too(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        with budget(max_usd=0.00001, fallback={"at_pct": 0.5, "model": MODEL}), pytest.raises(BudgetExceededError):
            client.chat.completions.create(model="gpt-4o", messages=HELLO, max_tokens=1000)
        assert provider.requests == []


class TestWarning:
    def test_it_is_said_once(self, client: openai.OpenAI) -> None:
        told: list[tuple[float, float]] = []
        b = budget(max_usd=0.001, warn_at=0.01, on_warn=lambda spent, limit: told.append((spent, limit)))
        for _ in range(3):
            with b:
                client.chat.completions.create(model=MODEL, messages=HELLO)
        assert len(told) == 1
        assert told[0][1] == 0.001

    def test_however_many_threads_cross_the_threshold(self, client: openai.OpenAI) -> None:
        told: list[float] = []
        b = budget(max_usd=0.002, warn_at=0.01, on_warn=lambda spent, limit: told.append(spent))

        def ask() -> None:
            with b:
                client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=64)

        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(told) == 1
        assert b.calls_used == 16

    def test_an_error_of_the_callback_does_not_mask_the_answer(self, client: openai.OpenAI) -> None:
        def broken(spent: float, limit: float) -> None:
            raise RuntimeError("no")

        with budget(max_usd=0.001, warn_at=0.01, on_warn=broken):
            assert client.chat.completions.create(model=MODEL, messages=HELLO).choices
