"""What limits are bought for and often do not do: one named case each, by what the stand-in received and billed."""

from __future__ import annotations

import asyncio
import math
import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import openai
import pytest

import shekel
from shekel import Budget, BudgetExceededError, UnboundedCallError, UnpricedModelError, budget
from shekel.testing import FakeProvider, Reply

from .callers import Callers
from .clients import async_client, sync_client
from .requests import MODEL, OUTPUT, SHORT
from .table import NANO, Case, forget_what_was_learnt, run
from .watchdog import finishes

ASKED: dict[str, Any] = {"model": MODEL, **SHORT}


@pytest.fixture(autouse=True)
def nothing_learnt() -> None:
    forget_what_was_learnt()


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider(output_tokens=OUTPUT) as running:
        yield running


@pytest.fixture
def client(provider: FakeProvider) -> Iterator[openai.OpenAI]:
    with sync_client(provider.openai_url) as made:
        yield made


class TestBeforeItIsSent:
    def test_five_attempts_after_exhaustion_send_nothing(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        with budget(max_usd=0.00005) as b:
            client.chat.completions.create(**ASKED)
            for _ in range(5):
                with pytest.raises(BudgetExceededError):
                    client.chat.completions.create(**ASKED)
        assert len(provider.requests) == 1
        assert b.calls_used == 1

    def test_two_calls_are_two_and_every_paid_answer_is_handed_over(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        answers: list[str | None] = []
        with budget(max_llm_calls=2), pytest.raises(BudgetExceededError):
            while True:
                answers.append(client.chat.completions.create(**ASKED).choices[0].message.content)
        assert len(provider.requests) == len(provider.bill) == len(answers) == 2
        assert all(answers)


class TestAtTheSameTime:
    def test_of_16_threads_one_gets_the_only_call(self, provider: FakeProvider) -> None:
        provider.default = Reply(output_tokens=OUTPUT, delay=0.2)
        callers = Callers(provider, budget(max_llm_calls=1), 16, ASKED)
        callers.go("threads")
        assert (len(provider.requests), callers.finished, len(callers.refused)) == (1, 1, 15)

    def test_of_50_tasks_one_gets_the_only_call(self, provider: FakeProvider) -> None:
        provider.default = Reply(output_tokens=OUTPUT, delay=0.2)
        callers = Callers(provider, budget(max_llm_calls=1), 50, ASKED)
        callers.go("tasks")
        assert (len(provider.requests), callers.finished, len(callers.refused)) == (1, 1, 49)

    @pytest.mark.parametrize("kind", ["chinese", "emoji", "tools"])
    def test_what_counts_more_than_its_letters_stays_below_under_strict(self, kind: str) -> None:
        row = run(Case("threads", kind, False, "strict"))
        assert 0 < row.billed <= row.limit

    @pytest.mark.parametrize("mode", ["sliced", "expected"])
    def test_without_a_cap_nine_of_ten_pass_once_the_model_is_known(self, mode: str) -> None:
        """They hold what such calls usually take, not what the model could."""
        row = run(Case("threads", "uncapped", False, mode), taught=16)
        assert row.admitted >= 9
        assert row.billed >= 0.9 * row.limit


class TestOneHugeCall:
    LIMIT = 0.01

    def test_its_input_alone_is_too_much(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        huge = "All work and no play makes Jack a dull boy. " * 40_000
        for mode in ("strict", "sliced", "expected"):
            with budget(max_usd=self.LIMIT, mode=mode), pytest.raises(BudgetExceededError):
                client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": huge}])
        assert len(provider.requests) == 0

    def test_its_output_is_capped_by_strict(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        provider.default = Reply(output_tokens=100_000, chunk_tokens=50)
        with budget(max_usd=self.LIMIT, mode="strict"):
            answer = client.chat.completions.create(model="gpt-4o", messages=SHORT["messages"])
        assert answer.choices[0].finish_reason == "length"
        # It holds for the dearest service tier that may answer, which this one does not.
        assert Decimal("0.005") <= provider.bill.usd <= Decimal("0.01")

    def test_what_takes_no_cap_is_held_for_whole_by_strict(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        """It may be as long as the model can write: 16,384 tokens at $0.60 a million, more at another tier."""
        with budget(max_usd=self.LIMIT, mode="strict"), pytest.raises(BudgetExceededError, match="was not sent"):
            client.responses.compact(model=MODEL, input="Hello")
        assert len(provider.requests) == 0
        with budget(max_usd=3 * self.LIMIT, mode="strict"), pytest.raises(openai.NotFoundError):  # not the stand-in's
            client.responses.compact(model=MODEL, input="Hello")
        assert len(provider.requests) == 1

    def test_its_stream_is_cut(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        provider.default = Reply(output_tokens=10_000, pace=0.002)
        with budget(max_usd=self.LIMIT) as b, pytest.raises(BudgetExceededError):
            list(client.chat.completions.create(model="gpt-4o", messages=SHORT["messages"], stream=True))
        provider.wait_idle()
        # 10,000 tokens would be $0.10. At 500 tokens a second some is under way at the cut.
        assert self.LIMIT * 0.8 <= float(provider.bill.usd) <= self.LIMIT * 1.5
        assert float(provider.bill.usd) <= self.LIMIT + b.peak_exposure


class TestExecutors:
    def test_a_bound_function_is_charged_in_any_executor(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        b = budget(max_usd=1)
        with ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(b.bind(client.chat.completions.create), **ASKED) for _ in range(8)]:
                future.result()
        assert b.calls_used == 8
        assert round(b.spent * NANO) == provider.bill.total

    def test_a_budget_of_the_process_sees_plain_executors(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        b = budget(max_llm_calls=3)
        shekel.configure(budget=b)
        try:
            with ThreadPoolExecutor(8) as pool:
                calls = [pool.submit(client.chat.completions.create, **ASKED) for _ in range(8)]
                errors = [call.exception() for call in calls]
        finally:
            shekel.configure(budget=None)
        assert len(provider.requests) == b.calls_used == 3
        assert sum(isinstance(error, BudgetExceededError) for error in errors) == 5


class TestWindows:
    def test_a_rolling_window_rolls(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        """Half of the money just before what a fixed window would call its end, and no fresh money just after."""
        length = 1.0
        cost = 0.0001
        b = budget(f"${10 * cost}/{length:g}s")

        def until_refused() -> int:
            done = 0
            while True:
                try:
                    with b:
                        client.chat.completions.create(**ASKED)
                    done += 1
                except BudgetExceededError:
                    return done

        until_refused()
        first = provider.bill[0].ended
        pause = threading.Event()
        while time.monotonic() < first + 1.5 * length:
            pause.wait(0.02)
            until_refused()
        ends = [(each.ended, each.cost or 0) for each in provider.bill]
        worst = max(sum(cost for at, cost in ends if start <= at < start + length) for start, _ in ends)
        assert worst <= 10 * cost * NANO
        assert sum(cost for _, cost in ends) > 10 * cost * NANO

    @pytest.mark.parametrize(
        ("spec", "counter", "limit"),
        [
            ("$1 + 200 tokens", "tokens", 200),
            ("$1 + 150 output tokens/hr", "output_tokens", 150),
            ("$1 + 40 input tokens", "input_tokens", 40),
        ],
    )
    def test_token_limits_of_a_spec_are_kept(
        self, provider: FakeProvider, client: openai.OpenAI, spec: str, counter: str, limit: int
    ) -> None:
        with budget(spec), pytest.raises(BudgetExceededError) as refusal:
            for _ in range(10):
                client.chat.completions.create(**ASKED)
        assert refusal.value.exceeded_counter == counter
        billed = {
            "input_tokens": sum(each.input_tokens for each in provider.bill),
            "output_tokens": sum(each.output_tokens for each in provider.bill),
        }
        billed["tokens"] = sum(billed.values())
        assert limit * 0.7 <= billed[counter] <= limit


class TestLocks:
    def test_callbacks_that_ask_the_budget_in_50_tasks_at_once_end(self, provider: FakeProvider) -> None:
        asked: list[int] = []

        async def work() -> None:
            async def ask(question: Any) -> Any:
                asked.append(1)
                await asyncio.sleep(0)
                assert question.budget.spent >= 0
                return await asyncio.to_thread(lambda: 0.00001 if question.budget.held >= 0 else None)

            b = budget(max_usd=0.0004, on_exceed=ask, warn_at=[0.1, 0.5], on_warn=lambda *_: b.summary_data())
            async with async_client(provider.openai_url) as client:

                async def call() -> None:
                    async with b:
                        try:
                            await client.chat.completions.create(**ASKED)
                        except BudgetExceededError:
                            assert b.limits()

                await asyncio.gather(*(call() for _ in range(50)))
            assert b.held == 0
            assert round(b.spent * NANO) == provider.bill.total

        finishes(lambda: asyncio.run(work()))
        assert asked

    def test_a_callback_that_records_something_of_its_own_ends(self, client: openai.OpenAI) -> None:
        ids: list[str] = []

        def on_warn(spent: float, limit: float) -> None:
            ids.append(b.summary_data()["calls"][-1]["call_id"])

        b = budget(max_usd=1, warn_at=0.00001, on_warn=on_warn)

        def work() -> None:
            with b:
                client.chat.completions.create(**ASKED)
            assert shekel.reconcile(ids[0], 0.5) > 0

        finishes(work)
        assert b.spent == 0.5


class TestErrorsAndLimits:
    def test_errors_come_whole_out_of_another_process(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        met: list[BudgetExceededError] = []
        provider.default = Reply(output_tokens=4_000, pace=0.001)
        for limits, asked in (
            ({"max_usd": 0.00001, "name": "small"}, ASKED),
            ({"max_usd": 0.0002}, {**ASKED, "max_completion_tokens": 4_000, "stream": True}),
            ({"max_usd": 1}, {**ASKED, "model": "nobody-prices-this"}),
            ({"max_usd": 1, "mode": "strict"}, {**ASKED, "messages": [_REMOTE]}),
        ):
            with budget(**limits), pytest.raises(BudgetExceededError) as refusal:  # type: ignore[arg-type]
                list(client.chat.completions.create(**asked))  # type: ignore[call-overload]
            met.append(refusal.value)
        assert [type(error) for error in met] == [
            BudgetExceededError,
            BudgetExceededError,
            UnpricedModelError,
            UnboundedCallError,
        ]
        for error in met:
            copy = pickle.loads(pickle.dumps(error))
            assert type(copy) is type(error)
            assert str(copy) == str(error)
            assert vars(copy) == vars(error)

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, 0, "nan", "inf", "$0"])
    @pytest.mark.parametrize("field", ["max_usd", "max_llm_calls", "max_output_tokens", "window_seconds", "warn_at"])
    def test_what_is_no_limit_is_refused_when_it_is_made(self, field: str, value: Any) -> None:
        """Not a number, infinite, negative; and nothing is not the same as without end."""
        others: dict[str, Any] = {} if field == "max_usd" else {"max_usd": 1}
        with pytest.raises(ValueError, match=field):
            budget(**{field: value}, **others)

    def test_none_is_the_only_word_for_no_limit(self, client: openai.OpenAI) -> None:
        b: Budget = budget(max_usd=None)
        with b:
            client.chat.completions.create(**ASKED)
        assert (b.limit, b.remaining, b.calls_used) == (None, None, 1)


_REMOTE = {"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}
