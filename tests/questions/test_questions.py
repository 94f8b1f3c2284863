"""Questions about a scope: what it has used and what is left, as its policies and the budgets around show it."""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

import shekel
from budgets.conftest import CLAUDE, HELLO, MODEL, ask, billed, nano, stream
from shekel import BudgetExceededError, affordable_tokens, budget, check, per, record, remaining, scope, usage
from shekel.budgets.tracking import Tracking, tracks_of
from shekel.runtime import the_runtime
from shekel.testing import FakeProvider, Reply


@pytest.fixture(autouse=True)
def nothing_configured() -> Iterator[None]:
    yield
    shekel.configure(policies=[], track=None)


class TestUsage:
    def test_every_limit_of_the_scope(self, client: openai.OpenAI, provider: FakeProvider) -> None:
        shekel.configure(policies=[per("user.id", "$5/day + 10 calls/hr + $1 on gpt-4o*"), per("tenant.id", "$9")])
        with scope(user_id="ada"):
            ask(client)
        found = usage(user_id="ada")
        money, of_model, calls = found.limits
        assert (nano(money.used), money.limit, money.budget, money.scope) == (
            billed(provider),
            5,
            "per user.id",
            "user.id=ada",
        )
        assert money.resets_at is not None
        assert money.window is None
        assert (of_model.model, nano(of_model.used)) == ("gpt-4o*", billed(provider))
        assert (calls.unit, calls.used, calls.limit, calls.remaining, calls.share) == ("calls", 1, 10, 9, 0.1)
        assert (calls.window, calls.resets_at) == (3600, None)
        assert nano(found.spent) == billed(provider)
        assert (found.calls, found.tokens, dict(found.by_model)) == (1, None, {})
        assert usage({"user.id": "bob"}).spent == 0
        assert usage().limits == ()
        assert usage(user_id="ada", tenant_id="acme").limits[3].budget == "per tenant.id"

    def test_the_scope_of_the_context_and_the_budgets_around(self, client: openai.OpenAI) -> None:
        shekel.configure(policies=[per("user.id", "$5/day")])
        with scope(user_id="ada"), budget(name="outer"), budget("3 calls", name="inner") as inner:
            ask(client)
            record(0.5, model="gpt-4o", output_tokens=7)
            found = usage()
            assert {each.budget for each in found.limits} == {"inner", "per user.id"}
            assert [period.of for period in found.periods] == ["inner", "outer"]
            assert found.scope == {"user.id": "ada"}
        assert found.calls == 2
        assert found.by_model["gpt-4o"].cost == 0.5
        assert found.by_model["gpt-4o"].tokens == 7
        assert nano(found.spent) == nano(inner.spent)

    def test_by_model_where_it_is_tracked(
        self, client: openai.OpenAI, claude: anthropic.Anthropic, provider: FakeProvider
    ) -> None:
        shekel.configure(track={"user.id": "month", ("tenant.id", "user.id"): "day tz=Europe/Berlin"})
        with scope(user_id="ada"):
            ask(client)
            ask(client)
            with scope(tenant_id="acme"):
                claude.messages.create(model=CLAUDE, max_tokens=64, messages=HELLO)
        found = usage(user_id="ada")
        first, second, third = provider.bill
        row = found.by_model[ask(client).model]
        assert (row.calls, nano(row.cost)) == (2, first.cost + second.cost)
        assert row.input_tokens == first.input_tokens + second.input_tokens
        assert (found.calls, nano(found.spent)) == (3, first.cost + second.cost + third.cost)
        assert found.tokens == sum(each.input_tokens + each.output_tokens for each in (first, second, third))
        both = usage(user_id="ada", tenant_id="acme")
        assert [period.of for period in both.periods] == ["tenant.id, user.id", "user.id"]
        assert (both.calls, nano(both.spent)) == (1, third.cost)
        assert both.periods[0].ends is not None
        assert usage(user_id="bob").calls == 0
        assert usage(tenant_id="acme").calls is None

    def test_a_correction_and_a_record_are_tracked_and_a_refusal_is_not(self, client: openai.OpenAI) -> None:
        shekel.configure(track=["user.id"], policies=[per("user.id", "$1")])
        with scope(user_id="ada"):
            answer = ask(client)
            record(0.995)
            with pytest.raises(BudgetExceededError):
                ask(client, max_tokens=16_000)
        assert usage(user_id="ada").calls == 2
        shekel.reconcile(shekel.call_of(answer).id, 0.001)
        assert usage(user_id="ada").spent == pytest.approx(0.996)

    def test_figures_are_exact_under_threads(self, client: openai.OpenAI, provider: FakeProvider) -> None:
        shekel.configure(track=["user.id"])

        def work() -> None:
            for number in range(6):
                with scope(user_id=f"u{number % 3}"):
                    ask(client)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        found = [usage(user_id=f"u{number}") for number in range(3)]
        assert [each.calls for each in found] == [16, 16, 16]
        assert sum(nano(each.spent) for each in found) == billed(provider)

    @pytest.mark.parametrize(
        "wrong",
        ["user.id", 7, {"user.id": "5min"}, {"user.id": "hr"}, {"": "day"}, {"a": 1}, {"a": "sometimes"}],
        ids=repr,
    )
    def test_what_cannot_be_tracked_is_refused(self, wrong: Any) -> None:
        with pytest.raises(ValueError, match="track"):
            shekel.configure(track=wrong)

    @pytest.mark.parametrize("ask_it", [usage, remaining, check], ids=lambda each: each.__name__)
    def test_a_scope_that_makes_no_sense_is_refused(self, ask_it: Any) -> None:
        for wrong in ({"user_id": ""}, {"user_id": 1.5}):
            with pytest.raises(ValueError, match="user_id"):
                ask_it(**wrong)
        with pytest.raises(ValueError, match="mapping"):
            ask_it("ada")


class TestTracking:
    def tracking(self) -> Tracking:
        return Tracking(tracks_of({"user.id": "day"}))

    def call(self, user: str, at: float) -> Any:
        """A call that has ended: what tracking reads of one."""
        from shekel.call import Call
        from shekel.providers import endpoint_named
        from shekel.providers.base import Request

        runtime = the_runtime()
        endpoint = endpoint_named("chat.completions")
        assert endpoint is not None
        call = Call(
            endpoint, Request(MODEL), gate=runtime.gate, teller=runtime.teller, now=time.perf_counter, wall=lambda: at
        )
        call.scope = {"user.id": user}
        return call

    def test_who_is_idle_is_forgotten_when_the_period_after_the_next_begins(self) -> None:
        from shekel.settlement import Cost

        tracking = self.tracking()
        day = 86_400.0
        for number in range(1_000):
            tracking.settled(self.call(f"u{number}", 10 * day), Cost(spent=5))
        assert len(tracking) == 1_000
        tracking.settled(self.call("u1", 11 * day), Cost(spent=7))
        late = self.call("u2", 10 * day)  # began yesterday, ends today
        tracking.settled(late, Cost(spent=3))
        [yesterday], [today] = (tracking.of({"user.id": f"u{n}"}, n * 0 + at * day) for n, at in ((2, 10), (1, 11)))
        assert yesterday.by_model[MODEL].calls == 2
        assert nano(today.by_model[MODEL].cost) == 7
        tracking.settled(self.call("u1", 12 * day), Cost(spent=1))
        assert len(tracking) == 2
        tracking.settled(self.call("u3", 9 * day), Cost(spent=1))  # too late: nobody shows that day any more
        assert len(tracking) == 2

    def test_memory_is_flat_over_days_of_new_users(self) -> None:
        from shekel.settlement import Cost

        tracking = self.tracking()

        def day(number: int) -> None:
            for user in range(500):
                tracking.settled(self.call(f"{number}-{user}", number * 86_400.0), Cost(spent=1))

        for number in range(25):  # fills what is remembered for corrections, too
            day(number)
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(25, 40):
            day(number)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert len(tracking) == 1_000
        assert grown < 4_000_000  # what is counted now replaces what was there before it was counted

    def test_nothing_is_kept_where_nobody_wants_it(self, client: openai.OpenAI) -> None:
        with scope(user_id="ada"):
            ask(client)
        assert the_runtime().gate.tracking is None


class TestRemaining:
    def test_in_every_dimension_and_the_tightest(self, client: openai.OpenAI, provider: FakeProvider) -> None:
        shekel.configure(
            policies=[
                per("user.id", "$5/day + 10 calls/hr + 100k tokens/day + 1M output tokens/day + $1 on gpt-4o"),
                per("user.id", "2 calls/hr", name="only tells", at_limit="warn"),
            ]
        )
        with scope(user_id="ada"):
            ask(client)
            ask(client)
            ask(client)
        left = remaining(user_id="ada")
        cost = billed(provider)
        tokens = sum(each.input_tokens + each.output_tokens for each in provider.bill)
        assert nano(left.usd) == 5_000_000_000 - cost
        assert (left.calls, left.tokens) == (7, 100_000 - tokens)
        assert left.output_tokens == 1_000_000 - sum(each.output_tokens for each in provider.bill)
        assert left.input_tokens is None
        assert left.tool_calls is None
        assert left.tightest is not None
        assert (left.tightest.unit, left.tightest.share) == ("calls", 0.3)
        assert list(left.by_model) == ["gpt-4o"]
        assert remaining(user_id="bob").calls == 10
        assert remaining().tightest is None

    def test_what_open_calls_hold_is_not_left(self, client: openai.OpenAI, provider: FakeProvider) -> None:
        provider.default = Reply(output_tokens=50, pace=0.01)
        with budget("$1", name="b") as b:
            opened = stream(client)
            left, used = remaining(), usage()
            assert nano(left.usd) == 1_000_000_000 - nano(b.held)
            assert nano(used.held) == nano(b.held) > 0
            opened.close()


class TestAffordable:
    @pytest.mark.parametrize("mode", ["sliced", "strict"])
    @pytest.mark.parametrize("choices", [1, 3])
    @pytest.mark.parametrize("limit", ["$0.0005", "5000 tokens", "700 output tokens", "$0.0005 + 1200 output tokens"])
    def test_so_many_are_admitted_and_not_one_more(
        self, limit: str, choices: int, mode: str, client: openai.OpenAI
    ) -> None:
        shekel.configure(policies=[per("user.id", limit, mode=mode)])
        more = {"n": choices}
        question: Any = {"user_id": "ada", "model": MODEL, "messages": HELLO, "client": client}
        found = affordable_tokens(**question, request=more)
        assert found.tokens is not None
        assert found.tokens > 0
        assert found.by == ("strict" if mode == "strict" else "expected")
        assert (found.budget, found.scope) == ("per user.id", "user.id=ada")
        if mode == "strict":
            assert check(**question, request=more).cap == found.tokens
        else:
            assert check(**question, request={**more, "max_tokens": found.tokens})
            assert not check(**question, request={**more, "max_tokens": found.tokens + 1})

    def test_what_else_bounds_them(self, client: openai.OpenAI) -> None:
        assert affordable_tokens(model=MODEL, messages=HELLO).by == "model"
        capped = affordable_tokens(model=MODEL, messages=HELLO, request={"max_tokens": 9})
        assert (capped.tokens, capped.by) == (9, "request")
        assert affordable_tokens(model="nobody-knows-this").tokens is None
        with budget(max_usd=1, name="b") as b:
            unpriced = affordable_tokens(model="nobody-knows-this")
            assert (unpriced.tokens, unpriced.by, unpriced.budget) == (0, "unpriced", "b")
            b.stop()
            assert affordable_tokens(model=MODEL).by == "stopped"
        with budget(max_usd=1, mode="strict"):
            more = {"previous_response_id": "r"}
            assert affordable_tokens(model=MODEL, messages="hi", api="responses", request=more).by == "unbounded"
        with budget(max_usd=0.0000001):
            assert affordable_tokens(model=MODEL, messages=HELLO).tokens == 0
