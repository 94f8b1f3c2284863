"""Limits of calls, of tokens, of models and of windows, under the same load as those in USD, and budgets in budgets.

What is compared is what the stand-in has served: requests that reached it, tokens and money on its bill.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import openai
import pytest

from shekel import Budget, BudgetExceededError, budget
from shekel.testing import FakeProvider, Reply

from .callers import Callers
from .clients import sync_client
from .quarter import quarter
from .requests import OUTPUT, request
from .table import MODES, NANO, forget_what_was_learnt

WHO = ("threads", "tasks")
PLAIN_OR_STREAM = (False, True)
CAPPED = ("english", "chinese", "emoji", "tools", "four")
BOTH = pytest.mark.parametrize("who", WHO)
STREAM = pytest.mark.parametrize("stream", PLAIN_OR_STREAM, ids=["plain", "stream"])
COST = 19 * 150 + OUTPUT * 600
"""Nano-dollars: a bit more than a short call to gpt-4o-mini costs."""


@pytest.fixture(autouse=True)
def nothing_learnt() -> None:
    forget_what_was_learnt()


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider(output_tokens=OUTPUT, delay=0.15, pace=0.0005) as running:
        yield running


@pytest.fixture
def client(provider: FakeProvider) -> Iterator[openai.OpenAI]:
    with sync_client(provider.openai_url) as made:
        yield made


def crowd(provider: FakeProvider, counted: Budget, who: str, asked: Any) -> Callers:
    """32 threads or 50 tasks at once, to the end."""
    everyone = Callers(provider, counted, 32 if who == "threads" else 50, asked)
    everyone.go(who)
    provider.wait_idle()
    assert counted.held == 0
    return everyone


class TestCalls:
    @pytest.mark.parametrize(("who", "stream", "mode", "cap"), quarter(WHO, PLAIN_OR_STREAM, MODES, (1, 10)))
    def test_exactly_so_many_reach_the_provider(
        self, provider: FakeProvider, who: str, stream: bool, mode: str, cap: int
    ) -> None:
        everyone = crowd(provider, budget(max_llm_calls=cap, mode=mode), who, request("english", stream))
        assert len(provider.requests) == len(provider.bill) == cap
        assert everyone.finished == cap
        assert len(everyone.refused) == everyone.callers - cap
        assert {error.exceeded_counter for error in everyone.refused} == {"llm_calls"}

    @BOTH
    def test_also_where_money_is_limited_and_would_suffice(self, provider: FakeProvider, who: str) -> None:
        crowd(provider, budget("$1 + 10 calls"), who, request("english"))
        assert len(provider.requests) == 10

    @BOTH
    def test_what_the_provider_refuses_uses_none(self, provider: FakeProvider, who: str) -> None:
        """Errors that are not billed give their call back: after any number of them the limit is still whole."""
        b = budget("$1 + 10 calls")
        provider.default = Reply(status=429)
        with sync_client(provider.openai_url) as client, b:
            for _ in range(15):
                with pytest.raises(openai.RateLimitError):
                    client.chat.completions.create(**request("english"))
        provider.default = Reply(output_tokens=OUTPUT, delay=0.2)
        crowd(provider, b, who, request("english"))
        assert len([each for each in provider.bill if each.cost]) == 10
        assert round(b.spent * NANO) == provider.bill.total


class TestTokens:
    LIMIT = 500

    @pytest.mark.parametrize(("who", "stream"), [("threads", True), ("tasks", False)])
    def test_output_under_strict_is_never_above(self, provider: FakeProvider, who: str, stream: bool) -> None:
        everyone = crowd(provider, budget(max_output_tokens=self.LIMIT, mode="strict"), who, request("english", stream))
        output = sum(each.output_tokens for each in provider.bill)
        # Seven whole answers, and one whose cap is what was left.
        assert output == self.LIMIT
        assert everyone.finished == 8

    @pytest.mark.parametrize(("who", "stream"), [("threads", False), ("tasks", True)])
    def test_output_without_a_cap_is_capped_by_strict(self, provider: FakeProvider, who: str, stream: bool) -> None:
        provider.default = Reply(output_tokens=2_000, delay=0.2, pace=0.0001)
        crowd(provider, budget(max_output_tokens=self.LIMIT, mode="strict"), who, request("uncapped", stream))
        assert sum(each.output_tokens for each in provider.bill) == self.LIMIT

    @BOTH
    @pytest.mark.parametrize("mode", ["sliced", "expected"])
    def test_output_of_capped_plain_calls_is_never_above(self, provider: FakeProvider, who: str, mode: str) -> None:
        crowd(provider, budget(max_output_tokens=self.LIMIT, mode=mode), who, request("english"))
        assert sum(each.output_tokens for each in provider.bill) == self.LIMIT // OUTPUT * OUTPUT

    @pytest.mark.parametrize(("who", "stream", "kind"), quarter(WHO, PLAIN_OR_STREAM, CAPPED))
    def test_all_tokens_under_strict_are_never_above(
        self, provider: FakeProvider, who: str, stream: bool, kind: str
    ) -> None:
        limit = 4_000
        crowd(provider, budget(max_tokens=limit, mode="strict"), who, request(kind, stream))
        assert 0 < sum(each.input_tokens + each.output_tokens for each in provider.bill) <= limit

    @pytest.mark.parametrize(("who", "kind"), quarter(WHO, ["english", "chinese", "emoji", "tools"]))
    def test_input_under_strict_is_never_above(self, provider: FakeProvider, who: str, kind: str) -> None:
        limit = 4_000
        crowd(provider, budget(max_input_tokens=limit, mode="strict"), who, request(kind))
        assert 0 < sum(each.input_tokens for each in provider.bill) <= limit


class TestPerModel:
    @BOTH
    @STREAM
    def test_each_has_its_own_and_the_others_none(self, provider: FakeProvider, who: str, stream: bool) -> None:
        limit = 4 * COST
        b = budget(models={"gpt-4o-mini": limit / NANO}, mode="strict")
        models = ["gpt-4o-mini", "gpt-4.1-nano"]
        asked = [{**request("short", stream), "model": model} for model in models]
        everyone = crowd(provider, b, who, lambda number: asked[number % 2])
        billed = {
            model: sum(each.cost or 0 for each in provider.bill if str(each.model).startswith(model))
            for model in models
        }
        sent = [seen.body["model"] for seen in provider.requests]
        assert 0 < billed["gpt-4o-mini"] <= limit
        assert sent.count("gpt-4.1-nano") == everyone.callers // 2
        assert {error.model for error in everyone.refused} == {"gpt-4o-mini"}


class TestSlidingWindow:
    """What a window promises is looked up on the bill: in no stretch of its length has more ended than the limit."""

    WINDOW = 1.0

    @pytest.mark.parametrize(("mode", "stream"), quarter(MODES, PLAIN_OR_STREAM))
    def test_never_more_in_any_stretch_of_its_length(self, provider: FakeProvider, mode: str, stream: bool) -> None:
        limit = 8 * COST
        b = budget(f"${limit / NANO:.9f}/{self.WINDOW:g}s", mode=mode)
        provider.default = Reply(output_tokens=OUTPUT, delay=0.01, pace=0.0005)
        deadline = time.monotonic() + 2.6 * self.WINDOW
        tried = itertools.count()

        def keep_calling(client: openai.OpenAI) -> None:
            pause = threading.Event()
            with b:
                while time.monotonic() < deadline:
                    next(tried)
                    try:
                        answer = client.chat.completions.create(**request("short", stream))
                        if stream:
                            list(answer)
                    except BudgetExceededError:
                        pause.wait(0.02)

        with sync_client(provider.openai_url) as client:
            with ThreadPoolExecutor(8) as pool:
                for each in [pool.submit(keep_calling, client) for _ in range(8)]:
                    each.result()
        provider.wait_idle()
        ends = sorted((each.ended, each.cost or 0) for each in provider.bill)
        stretches = [sum(cost for ended, cost in ends if start <= ended < start + self.WINDOW) for start, _ in ends]
        exposure = 0 if mode == "strict" else b.peak_exposure * NANO
        assert max(stretches) <= limit + exposure
        assert sum(cost for _, cost in ends) > limit  # room came back
        assert next(tried) > len(ends)  # and was asked for more often than there was


class TestNested:
    def fan_out(self, parent: Budget, make: Callable[[int], list[Budget]], client: openai.OpenAI) -> list[str]:
        """16 threads, each in children of its own inside the parent, four calls each."""
        start = threading.Barrier(16)

        def work(number: int) -> list[str]:
            said = []
            with ExitStack() as stack:
                stack.enter_context(parent)
                for child in make(number):
                    stack.enter_context(child)
                start.wait()
                for _ in range(4):
                    try:
                        client.chat.completions.create(**request("short"))
                        said.append("sent")
                    except BudgetExceededError as error:
                        said.append(str(error.budget))
            return said

        with ThreadPoolExecutor(16) as pool:
            return [said for each in [pool.submit(work, n) for n in range(16)] for said in each.result()]

    @pytest.mark.parametrize("mode", ["strict", "sliced"])
    def test_children_at_the_same_time_share_their_parent(
        self, provider: FakeProvider, client: openai.OpenAI, mode: str
    ) -> None:
        parent = budget(max_usd=10 * COST / NANO, name="parent", mode=mode)
        children = [budget(max_usd=8 * COST / NANO, mode=mode) for _ in range(16)]
        said = self.fan_out(parent, lambda number: [children[number]], client)
        provider.wait_idle()
        assert provider.bill.total <= 10 * COST
        assert len(provider.requests) == said.count("sent") >= 8
        assert set(said) == {"sent", "parent"}
        assert round(parent.spent * NANO) == round(sum(child.spent for child in children) * NANO) == provider.bill.total

    def test_a_child_that_only_tracks_lets_nothing_through(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        parent = budget(max_usd=10 * COST / NANO, name="parent")
        tracked = budget(name="tracked")
        said = self.fan_out(parent, lambda number: [tracked], client)
        provider.wait_idle()
        assert len(provider.requests) == said.count("sent") == 10
        assert provider.bill.total <= 10 * COST
        assert round(tracked.spent * NANO) == provider.bill.total

    def test_a_child_with_less_is_held_to_it(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        parent = budget(max_usd=100 * COST / NANO, name="parent")
        child = budget(max_usd=3 * COST / NANO, name="child")
        said = self.fan_out(parent, lambda number: [child], client)
        provider.wait_idle()
        assert len(provider.requests) == said.count("sent") == 3
        assert set(said) == {"sent", "child"}

    def test_entering_again_is_one_charge_and_no_error(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        parent = budget(max_usd=10 * COST / NANO, name="parent")
        child = budget(max_usd=10 * COST / NANO, name="child")
        said = self.fan_out(parent, lambda number: [child, parent, child], client)
        provider.wait_idle()
        assert len(provider.requests) == said.count("sent") == 10
        assert round(parent.spent * NANO) == round(child.spent * NANO) == provider.bill.total

    def test_four_deep_the_tightest_holds_whatever_its_place(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        for place in range(4):
            chain = [budget(max_usd=(3 if n == place else 90) * COST / NANO, name=f"level {n}") for n in range(4)]
            before = len(provider.requests)
            said = self.fan_out(chain[0], lambda number, rest=chain[1:]: rest, client)  # type: ignore[misc]
            provider.wait_idle()
            assert len(provider.requests) - before == said.count("sent") == 3
            assert set(said) == {"sent", f"level {place}"}
            assert {each.held for each in chain} == {0}
