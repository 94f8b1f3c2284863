"""Limits of calls, and what a fallback does at them."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import openai
import pytest

from shekel import BudgetExceededError, budget
from shekel.testing import FakeProvider

from .conftest import CENT, HELLO, MODEL

Ask = Any
NANO_MODEL = "gpt-4.1-nano"


class TestCallLimit:
    def test_as_many_are_sent_as_the_limit_says_and_no_more(self, ask: Ask, provider: FakeProvider) -> None:
        with budget(max_llm_calls=2, **CENT) as b:
            ask()
            assert (b.calls_used, b.calls_remaining) == (1, 1)
            ask()
            for _ in range(3):
                with pytest.raises(BudgetExceededError) as refused:
                    ask()
        assert len(provider.requests) == 2
        assert (b.calls_used, b.calls_remaining) == (2, 0)
        error = refused.value
        assert (error.spent, error.limit, error.exceeded_counter) == (2, 2, "llm_calls")
        assert "2 of 2 calls" in str(error)

    def test_a_stream_is_one_call(self, ask: Ask) -> None:
        with budget(max_llm_calls=2, **CENT) as b:
            ask(stream=True)
            assert b.calls_used == 1
            ask(stream=True)
            with pytest.raises(BudgetExceededError):
                ask(stream=True)
        assert b.calls_used == 2

    def test_of_calls_and_money_the_tighter_one_holds(self, ask: Ask) -> None:
        with budget(max_usd=0.025, max_llm_calls=9, **CENT) as b, pytest.raises(BudgetExceededError) as refused:
            for _ in range(9):
                ask()
        assert (b.calls_used, refused.value.exceeded_counter) == (2, "usd")
        with budget(max_usd=9, max_llm_calls=2, **CENT) as b, pytest.raises(BudgetExceededError) as refused:
            for _ in range(9):
                ask()
        assert (b.calls_used, refused.value.exceeded_counter) == (2, "llm_calls")

    def test_threads_that_start_at_once_hold_it_too(self, client: openai.OpenAI, provider: FakeProvider) -> None:
        b = budget(max_llm_calls=3, **CENT)
        refused = []
        start = threading.Barrier(12)

        def work() -> None:
            start.wait()
            with b:
                try:
                    client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=10)
                except BudgetExceededError as error:
                    refused.append(error)

        threads = [threading.Thread(target=work) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(provider.requests) == 3
        assert len(refused) == 9

    def test_a_call_that_the_provider_refuses_is_given_back(self, ask: Ask, provider: FakeProvider) -> None:
        from shekel.testing import Reply

        provider.reply(Reply(status=400))
        with budget(max_llm_calls=1, **CENT) as b:
            with pytest.raises(openai.BadRequestError):
                ask()
            ask()
        assert b.calls_used == 1


class TestFallback:
    def test_it_takes_over_at_its_share_of_the_calls_rounded_up(self, ask: Ask, provider: FakeProvider) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with budget(max_llm_calls=10, fallback={"at_pct": 0.85, "model": NANO_MODEL}, **CENT) as b:
                for _ in range(10):
                    ask()
        assert [attempt.model for attempt in provider.bill] == [MODEL] * 9 + [NANO_MODEL]  # 8.5 is 9
        assert b.model_switched
        assert b.fallback_spent == pytest.approx(0.01)

    def test_it_takes_over_at_its_share_of_the_money_from_the_next_call_on(
        self, ask: Ask, provider: FakeProvider
    ) -> None:
        told: list[tuple[float, float, str]] = []
        with budget(
            max_usd=0.1,
            fallback={"at_pct": 0.2, "model": NANO_MODEL},
            on_fallback=lambda spent, limit, model: told.append((spent, limit, model)),
            **CENT,
        ) as b:
            for _ in range(3):
                ask()
        assert [attempt.model for attempt in provider.bill] == [MODEL, MODEL, NANO_MODEL]
        assert told == [(pytest.approx(0.02), 0.1, NANO_MODEL)]
        assert b.switched_at_usd == pytest.approx(0.02)
        assert b.spent == pytest.approx(0.03)
        assert [call["fallback"] for call in b.summary_data()["calls"]] == [False, False, True]

    def test_it_shares_the_limit(self, ask: Ask, provider: FakeProvider) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with budget(max_usd=0.03, fallback={"at_pct": 0.5, "model": NANO_MODEL}, **CENT) as b:
                with pytest.raises(BudgetExceededError):
                    for _ in range(9):
                        ask()
        assert len(provider.requests) == 3
        assert b.spent == pytest.approx(0.03)

    def test_it_stays_over_blocks(self, ask: Ask, provider: FakeProvider) -> None:
        b = budget(max_usd=0.1, fallback={"at_pct": 0.1, "model": NANO_MODEL}, on_fallback=lambda *told: None, **CENT)
        for _ in range(3):
            with b:
                ask()
        assert [attempt.model for attempt in provider.bill] == [MODEL, NANO_MODEL, NANO_MODEL]

    def test_a_stream_switches_the_next_call(self, ask: Ask, provider: FakeProvider) -> None:
        with budget(max_usd=0.1, fallback={"at_pct": 0.1, "model": NANO_MODEL}, on_fallback=lambda *told: None, **CENT):
            ask(stream=True)
            ask(stream=True)
        assert [attempt.model for attempt in provider.bill] == [MODEL, NANO_MODEL]

    async def test_async_is_the_same(self, ask_async: Ask, provider: FakeProvider) -> None:
        async with budget(
            max_usd=0.1, fallback={"at_pct": 0.1, "model": NANO_MODEL}, on_fallback=lambda *told: None, **CENT
        ):
            await ask_async()
            await ask_async()
        assert [attempt.model for attempt in provider.bill] == [MODEL, NANO_MODEL]

    def test_without_a_callback_it_is_a_warning_of_python(self, ask: Ask) -> None:
        with budget(max_usd=0.1, fallback={"at_pct": 0.1, "model": NANO_MODEL}, **CENT):
            ask()
            with pytest.warns(UserWarning, match=NANO_MODEL):
                ask()

    def test_the_warning_comes_before_it(self, ask: Ask) -> None:
        order: list[str] = []
        with budget(
            max_usd=0.1, warn_at=0.1, on_warn=lambda *told: order.append("warn"),
            fallback={"at_pct": 0.2, "model": NANO_MODEL}, on_fallback=lambda *told: order.append("fallback"), **CENT,
        ):  # fmt: skip
            for _ in range(4):
                ask()
        assert order == ["warn", "fallback"]

    def test_a_model_of_the_other_provider_is_refused(self, ask: Ask, provider: FakeProvider) -> None:
        with budget(max_usd=0.1, fallback={"at_pct": 0.1, "model": "claude-haiku-4-5"}, **CENT):
            with pytest.raises(ValueError, match="provider"):
                ask()
                ask()

    def test_a_name_alone_is_enough(self, ask: Ask, provider: FakeProvider) -> None:
        with budget(max_usd=0.05, fallback=NANO_MODEL, on_fallback=lambda *told: None, **CENT):
            for _ in range(5):
                ask()
        assert [attempt.model for attempt in provider.bill] == [MODEL] * 4 + [NANO_MODEL]  # at four fifths
