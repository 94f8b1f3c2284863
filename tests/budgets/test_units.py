"""Limits of each unit, alone and together on one budget: what is refused, what the error says, what is left."""

from __future__ import annotations

import threading
from typing import Any

import anthropic
import openai
import pytest

import shekel
from shekel import BudgetExceededError, budget
from shekel.call import open_calls
from shekel.testing import FakeProvider, Reply

from .conftest import CLAUDE, HELLO, MODEL, ask, billed, nano, stream


def refused(client: openai.OpenAI, **more: Any) -> BudgetExceededError:
    with pytest.raises(BudgetExceededError) as error:
        ask(client, **more)
    return error.value


def tokens(provider: FakeProvider) -> tuple[int, int]:
    provider.wait_idle()
    return sum(each.input_tokens for each in provider.bill), sum(each.output_tokens for each in provider.bill)


class TestEachUnitAlone:
    def test_calls(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        with budget("2 calls", name="few") as b:
            ask(client)
            list(stream(client))
            error = refused(client)
        assert len(provider.bill) == 2
        assert (error.exceeded_counter, error.spent, error.limit, error.held) == ("llm_calls", 2, 2, 0)
        assert (error.needed, error.budget, error.model, error.reason) == (1, "few", MODEL, "exceeded")
        assert (error.retry_after, error.window_spent, error.window_reset) == (None, None, None)
        assert str(error) == (f"Budget 'few' has 2 of 2 calls used: a call to {MODEL} does not fit and was not sent.")
        [state] = b.limits()
        assert (state.text, state.unit, state.limit, state.used, state.held, state.remaining) == (
            "2 calls", "calls", 2, 2, 0, 0,
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("spec", "counter", "words"),
        [
            ("300 tokens", "tokens", "tokens used"),
            ("200 output tokens", "output_tokens", "output tokens used"),
            ("60 input tokens", "input_tokens", "input tokens used"),
        ],
    )
    def test_tokens(self, provider: FakeProvider, client: openai.OpenAI, spec: str, counter: str, words: str) -> None:
        with budget(spec) as b:
            while len(provider.bill) < 20:
                try:
                    ask(client)
                except BudgetExceededError as error:
                    last = error
                    break
        sent, got = tokens(provider)
        used = {"tokens": sent + got, "output_tokens": got, "input_tokens": sent}[counter]
        limit = int(spec.split()[0])
        assert 0.5 * limit < used <= limit
        assert (last.exceeded_counter, last.spent, last.limit, last.held) == (counter, used, limit, 0)
        assert last.needed is not None
        assert used + last.needed > limit
        assert f"The budget has {used} of {limit} {words}: a call to {MODEL} that needs {last.needed:.0f}" in str(last)
        assert [each.used for each in b.limits()] == [used]
        assert b.remaining is None
        assert nano(b.spent) == billed(provider)

    def test_a_stream_is_cut_at_its_output_tokens(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        provider.default = Reply(output_tokens=3000, pace=0.0005)
        with budget("400 output tokens", name="short") as b, pytest.raises(BudgetExceededError) as cut:
            for _ in stream(client):
                pass
        error = cut.value
        assert (error.reason, error.exceeded_counter, error.limit) == ("cut", "output_tokens", 400)
        assert 380 <= error.spent <= 408  # with the chunk at which it was seen
        assert str(error).startswith(f"Budget 'short' has {error.spent:.0f} of 400 output tokens used")
        assert "the stream from gpt-4o-mini was cut, because nothing is left for more output." in str(error)
        _, got = tokens(provider)
        assert 380 <= got < 1000
        assert b.limits()[0].held == 0

    def test_strict_caps_the_output_at_what_is_left_of_the_tokens(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        provider.default = Reply(output_tokens=5000)
        with budget("150 output tokens", mode="strict"):
            client.chat.completions.create(model=MODEL, messages=HELLO)
            error = refused(client)
        assert provider.requests[0].body["max_completion_tokens"] == 150
        assert tokens(provider)[1] == 150
        assert error.exceeded_counter == "output_tokens"

    def test_messages_of_anthropic_count_alike(self, provider: FakeProvider, claude: anthropic.Anthropic) -> None:
        with budget("500 tokens + 3 calls") as b:
            claude.messages.create(model=CLAUDE, max_tokens=64, messages=HELLO)
            with claude.messages.stream(model=CLAUDE, max_tokens=64, messages=HELLO) as opened:
                opened.get_final_message()
        assert [each.used for each in b.limits()] == [sum(tokens(provider)), 2]

    def test_a_failed_call_that_is_not_billed_is_no_call(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        provider.reply(Reply(status=400), Reply(status=503))
        with budget("1 call") as b:
            with pytest.raises(openai.BadRequestError):
                ask(client)
            with pytest.raises(openai.InternalServerError):
                ask(client)
            ask(client)
            refused(client)
        assert b.limits()[0].used == 1

    def test_a_sliding_limit_says_when(self, client: openai.OpenAI) -> None:
        with budget("1 call/hr"):
            ask(client)
            error = refused(client)
        assert error.retry_after is not None
        assert 3590 < error.retry_after < 3600 * 65 / 64 + 60
        assert (error.window_spent, error.window_reset) == (1, None)
        assert str(error).endswith(f"The window frees room in {error.retry_after:.0f} s at the earliest.")

    def test_a_calendar_limit_says_when_it_starts_anew(self, client: openai.OpenAI) -> None:
        with budget("1 call/month tz=Europe/Berlin") as b:
            ask(client)
            error = refused(client)
        assert error.window_reset is not None
        assert error.window_reset == b.limits()[0].resets_at
        assert error.retry_after is not None
        assert 0 < error.retry_after <= 31 * 86_400 + 3600

    @pytest.mark.parametrize("at_limit", ["raise", "finish"])
    @pytest.mark.parametrize(("window", "most"), [("month tz=Europe/Berlin", 31 * 86_400 + 3600), ("hr", 3660)])
    def test_a_stream_that_alone_used_up_a_window_says_when_there_is_room_again(
        self, provider: FakeProvider, client: openai.OpenAI, window: str, most: float, at_limit: str
    ) -> None:
        provider.default = Reply(output_tokens=2_000)
        with budget(f"$0.0003/{window}", at_limit=at_limit) as b:
            with pytest.raises(BudgetExceededError) as ended:
                list(stream(client))
            error = ended.value
            assert error.reason == ("cut" if at_limit == "raise" else "finished")
            assert error.retry_after is not None
            assert refused(client).retry_after == pytest.approx(error.retry_after, abs=120)
        assert 0 < error.retry_after <= most
        assert error.window_spent is not None
        assert error.window_reset == b.limits()[0].resets_at
        assert str(error).endswith(f"The window frees room in {error.retry_after:.0f} s at the earliest.")

    @pytest.mark.parametrize("window", ["month", "hr", "session"])
    def test_nobody_is_told_to_wait_for_what_never_fits(self, client: openai.OpenAI, window: str) -> None:
        @shekel.tool(price=0.01)
        def search() -> None: ...

        with budget(f"$0.00001/{window}"):
            error = refused(client)
            with pytest.raises(shekel.ToolBudgetExceededError) as tool:
                search()
        for each in (error, tool.value):
            assert each.retry_after is None
            assert "frees room" not in str(each)


class TestTogether:
    def test_the_refusal_names_the_limit_that_refuses(self, client: openai.OpenAI) -> None:
        with budget("$5/hr + 2 calls/hr", name="both") as b:
            ask(client)
            ask(client)
            error = refused(client)
            assert (error.exceeded_counter, error.limit) == ("llm_calls", 2)
            b.set_limit("9 calls/hr")
            b.set_limit("$0.00006/hr")
            error = refused(client)
            assert (error.exceeded_counter, error.limit) == ("usd", 0.00006)
        assert [(each.text, each.unit) for each in b.limits()] == [("$0.00006/hr", "usd"), ("9 calls/hr", "calls")]

    def test_of_two_that_refuse_the_tightest(self, client: openai.OpenAI) -> None:
        with budget("$0.00001 + $0.000001/day") as b:
            error = refused(client)
            assert error.limit == 0.000001
            assert b.limit == 0.00001

    def test_nothing_is_held_or_charged_anywhere_if_one_refuses(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        with budget("$5 + 9 calls + 10k tokens", name="outer") as outer, budget("$1 + 5 output tokens") as inner:
            error = refused(client)
        assert error.exceeded_counter == "output_tokens"
        assert error.budget is None
        for each in (*outer.limits(), *inner.limits()):
            assert (each.used, each.held) == (0, 0)
        assert (outer.calls_used, inner.calls_used, provider.requests) == (0, 0, [])
        assert open_calls == {}

    def test_each_holds_while_the_call_is_open_and_settles_after(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        provider.default = Reply(output_tokens=30)
        with budget("$5 + 9 calls + 10k tokens + 5k input tokens + 5k output tokens") as b:
            opened = stream(client, max_tokens=100)
            held = {str(each.unit): each.held for each in b.limits()}
            assert held["calls"] == 1
            assert held["output_tokens"] == 100
            assert held["tokens"] == held["input_tokens"] + 100
            assert held["usd"] > 0
            list(opened)
        sent, got = tokens(provider)
        assert {str(each.unit): each.used for each in b.limits()} == {
            "usd": b.spent, "calls": 1, "tokens": sent + got, "input_tokens": sent, "output_tokens": got,
        }  # fmt: skip
        assert all(each.held == 0 for each in b.limits())

    def test_remaining_is_the_least_of_the_limits_in_usd(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        with budget("$5 + $1/day + $9/hr") as b:
            assert (b.limit, b.remaining) == (5, 1)
            ask(client)
        assert nano(b.remaining) == 1_000_000_000 - billed(provider)

    def test_limits_as_objects_and_keywords(self, client: openai.OpenAI) -> None:
        b = budget(max_usd=5, max_llm_calls=3, max_tokens=1000)
        assert {each.text for each in b.limits()} == {"$5", "3 calls", "1k tokens"}

    def test_as_many_threads_as_there_are_calls_left_get_through(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        b = budget("$5 + 7 calls")
        start = threading.Barrier(32)
        refusals: list[BudgetExceededError] = []

        def work() -> None:
            start.wait()
            try:
                with b:
                    ask(client)
            except BudgetExceededError as error:
                refusals.append(error)

        threads = [threading.Thread(target=work) for _ in range(32)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert len(provider.bill) == 7
        assert len(refusals) == 25
        assert {each.exceeded_counter for each in refusals} == {"llm_calls"}
        assert b.limits()[1].used == 7


class TestPerModel:
    def test_only_calls_of_that_model_count_and_its_dated_versions(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        with budget("2 calls on gpt-4o", name="big") as b:
            ask(client)  # gpt-4o-mini is another model
            ask(client, model="gpt-4o-2024-08-06")
            ask(client, model="gpt-4o")
            ask(client)
            error = refused(client, model="gpt-4o-2024-11-20")
        assert (error.model, error.spent, error.limit) == ("gpt-4o-2024-11-20", 2, 2)
        [state] = b.limits()
        assert (state.text, state.model, state.used) == ("2 calls on gpt-4o", "gpt-4o", 2)
        assert b.calls_used == 4

    def test_a_pattern_counts_all_that_match_together(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        with budget("2 calls on gpt-4o*"):
            ask(client, model="gpt-4.1-mini")
            ask(client, model="gpt-4o")
            ask(client)
            refused(client, model="gpt-4o-2024-08-06")
            ask(client, model="gpt-4.1-mini")
        assert len(provider.bill) == 4

    def test_money_per_model_beside_money_for_all(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        with budget("$1 + $0.00002 on gpt-4o") as b:
            ask(client)
            error = refused(client, model="gpt-4o")
            ask(client)
        assert (error.limit, error.exceeded_counter) == (0.00002, "usd")
        assert b.limit == 1
        assert [each.used for each in b.limits()] == [b.spent, 0]

    def test_with_only_a_limit_of_another_model_a_model_without_a_price_passes(self, client: openai.OpenAI) -> None:
        with budget("$1 on gpt-4o") as b:
            ask(client, model="nobodys-model")
        assert b.calls_used == 1

    def test_models_as_keywords(self, client: openai.OpenAI) -> None:
        with budget(models={"gpt-4o": "1 call", "gpt-4o-mini": 0.0001}) as b:
            ask(client, model="gpt-4o")
            refused(client, model="gpt-4o")
            ask(client)
        assert {each.model for each in b.limits()} == {"gpt-4o", "gpt-4o-mini"}

    def test_a_fallback_is_charged_to_the_limits_of_its_own_model(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        spec = "$1 + 1 call on gpt-4o + 2 calls on gpt-4o-mini"
        with budget(spec, fallback={"at_pct": 1, "model": MODEL}) as b:
            ask(client, model="gpt-4o")
            ask(client, model="gpt-4o")  # the limit of gpt-4o is the reason to fall back
            ask(client, model="gpt-4o")
            error = refused(client, model="gpt-4o")
        assert [each.model for each in provider.bill] == ["gpt-4o", MODEL, MODEL]
        assert error.exceeded_counter == "llm_calls"
        assert {each.model: each.used for each in b.limits() if each.model} == {"gpt-4o": 1, MODEL: 2}
        assert all(each.held == 0 for each in b.limits())


class TestAnInputThatWasEstimatedTooLow:
    """Messages says how long the input was before the first word: from the next slice on the stream holds for that."""

    LONG = Reply(input_tokens=50_000, output_tokens=2_000, pace=0.001)

    def test_it_is_held_for(self, provider: FakeProvider, claude: anthropic.Anthropic) -> None:
        provider.default = self.LONG
        with budget("$1 + 1M input tokens + 1M tokens") as b:
            with claude.messages.create(model=CLAUDE, max_tokens=2_000, messages=HELLO, stream=True) as events:
                for _ in zip(range(500), events, strict=False):
                    pass
                money, tokens_in, tokens = b.limits()
                assert money.held >= 50_000 * 1e-6
                assert tokens_in.held == 50_000
                assert tokens.held > 50_000

    @pytest.mark.parametrize("limit", ["$0.04", "40k input tokens", "40k tokens"])
    def test_the_stream_is_cut_where_that_does_not_fit(
        self, provider: FakeProvider, claude: anthropic.Anthropic, limit: str
    ) -> None:
        provider.default = self.LONG
        seen = 0
        with budget(limit) as b, pytest.raises(BudgetExceededError) as cut:
            for _ in claude.messages.create(model=CLAUDE, max_tokens=2_000, messages=HELLO, stream=True):
                seen += 1
        assert cut.value.reason == "cut"
        assert seen < 600, "a slice or two were under way"
        assert nano(b.spent) >= 50_000 * 1_000
        assert b.held == 0
