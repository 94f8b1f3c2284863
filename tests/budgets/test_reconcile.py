"""`shekel.reconcile`: the true cost of a call, once it is known, wherever the call was charged and shown."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from decimal import Decimal

import openai
import pytest

import shekel
from shekel import BudgetExceededError, budget
from shekel.runtime import the_runtime
from shekel.testing import FakeProvider, Reply

from .conftest import ask, nano, stream, until


class TestReconcile:
    def test_both_ways(self, client: openai.OpenAI) -> None:
        with budget("$1", name="outer") as outer, budget() as inner:
            call = shekel.call_of(ask(client))
            ask(client)
        before = outer.spent
        assert call.cost is not None
        assert nano(shekel.reconcile(call.id, 0.5)) == 500_000_000 - nano(call.cost)
        for each in (outer, inner):
            assert nano(each.spent) == nano(before) - nano(call.cost) + 500_000_000
            rows = each.summary_data()["calls"]
            assert [row["cost"] for row in rows if row["call_id"] == call.id] == [0.5]
        assert nano(outer.remaining) == 1_000_000_000 - nano(outer.spent)
        assert nano(shekel.reconcile(call.id, 0)) == -500_000_000
        assert nano(outer.spent) == nano(before) - nano(call.cost)
        assert shekel.reconcile(call.id, 0) == 0

    def test_it_makes_room_and_takes_it(self, client: openai.OpenAI) -> None:
        with budget("$0.001", name="room") as b:
            call = shekel.call_of(ask(client))
            shekel.reconcile(call.id, 0.002)
            with pytest.raises(BudgetExceededError) as error:
                ask(client)
            assert error.value.spent == 0.002
            shekel.reconcile(call.id, 0.0001)
            ask(client)
        assert b.calls_used == 2

    def test_in_a_sliding_window_it_keeps_its_stamp(self, client: openai.OpenAI) -> None:
        with budget("$1/1s") as b:
            call = shekel.call_of(ask(client))
            shekel.reconcile(call.id, 0.5)
            assert b.spent == 0.5
            until(lambda: b.spent == 0)
            assert shekel.reconcile(call.id, 0.75) == 0.25
            assert b.spent == 0
            ask(client)

    def test_what_was_before_a_reset_changes_nothing(self, client: openai.OpenAI) -> None:
        b = budget("$1")
        call = shekel.call_of(b.run(ask, client))
        b.reset()
        shekel.reconcile(call.id, 0.5)
        assert b.spent == 0

    def test_on_a_policys_meter(self, client: openai.OpenAI) -> None:
        shekel.configure(policies=[shekel.per("user.id", "$0.001")])
        try:
            with shekel.scope(user_id="reconciled"):
                call = shekel.call_of(ask(client))
                shekel.reconcile(call.id, 0.001)
                with pytest.raises(BudgetExceededError, match=r"user\.id=reconciled"):
                    ask(client)
                shekel.reconcile(call.id, 0.0001)
                ask(client)
        finally:
            shekel.configure(policies=[])

    def test_only_money_is_corrected(self, client: openai.OpenAI) -> None:
        with budget("5 calls + 1k tokens") as b:
            call = shekel.call_of(ask(client))
            used = [each.used for each in b.limits()]
            shekel.reconcile(call.id, 3)
        assert [each.used for each in b.limits()] == used
        assert b.spent == 3

    def test_a_call_is_known_however_many_tools_have_run_since(self, client: openai.OpenAI) -> None:
        @shekel.tool(price=1e-9)
        def paid() -> None: ...

        @shekel.tool
        def free() -> None: ...

        with budget("$0.0001") as b:
            call = shekel.call_of(ask(client))
        with budget("$1 + 20000 tool calls"):
            for _ in range(5_001):
                paid()
                free()
        spent = b.spent
        assert call.cost is not None
        assert shekel.reconcile(call.id, call.cost) == 0
        assert b.spent == b.summary_data()["total_spent"] == spent
        assert nano(shekel.reconcile(call.id, 0)) == -nano(spent)
        assert b.spent == 0

    def test_a_call_that_the_ledger_has_let_go_is_never_charged_anew(self, client: openai.OpenAI) -> None:
        with budget("$1") as b:
            call = shekel.call_of(ask(client))
        spent, total = b.spent, b.summary_data()["total_spent"]
        ledger = the_runtime().ledger
        for n in range(10_000):
            ledger.settle(f"other {n}", {"other": 0})
        ledger.forget("other")
        with pytest.raises(LookupError, match="is remembered"):
            shekel.reconcile(call.id, 0.5)
        assert (b.spent, b.summary_data()["total_spent"]) == (spent, total)

    def test_what_was_before_a_reset_is_in_no_total_after_it(self, client: openai.OpenAI) -> None:
        with budget("$1") as outer:
            with budget("$1") as inner:
                call = shekel.call_of(ask(client))
            ask(client)
        inner.reset()
        kept = nano(outer.spent)
        assert call.cost is not None
        assert nano(shekel.reconcile(call.id, 0.5)) == 500_000_000 - nano(call.cost)  # one of them has it still
        assert nano(outer.spent) == nano(outer.summary_data()["total_spent"]) == kept - nano(call.cost) + 500_000_000
        assert (inner.spent, inner.summary_data()["total_spent"], inner.spent_direct) == (0, 0, 0)
        outer.reset()
        for cost in (0, 0.25):
            assert shekel.reconcile(call.id, cost) == 0
            for each in (outer, inner):
                shown = (each.spent, each.summary_data()["total_spent"], each.spent_direct, each.spent_by_children)
                assert shown == (0, 0, 0, 0)

    def test_a_stream_that_ends_after_a_reset_is_corrected_in_the_totals_since(self, client: openai.OpenAI) -> None:
        b = budget("$1")
        with b:
            opened = stream(client)
        b.reset()
        list(opened)
        shekel.reconcile(shekel.call_of(opened).id, 0.5)
        assert b.spent == b.summary_data()["total_spent"] == 0.5

    def test_of_a_past_period_only_the_totals_of_the_budgets_life_change(
        self, client: openai.OpenAI, before_midnight: Callable[[float], None]
    ) -> None:
        with budget("$1/day") as b:
            call = shekel.call_of(ask(client))
            before_midnight(3600)
            ask(client)
            spent = b.spent
            assert call.cost is not None
            assert nano(shekel.reconcile(call.id, 0.5)) == 500_000_000 - nano(call.cost)
        assert b.spent == spent
        assert nano(b.summary_data()["total_spent"]) == nano(spent) + 500_000_000

    def test_all_that_a_budget_shows_of_the_call(self, client: openai.OpenAI) -> None:
        fallback = {"at_pct": 0.00001, "model": "gpt-4.1-nano"}
        with budget("$1", fallback=fallback, on_fallback=lambda *_: None) as outer:
            ask(client)
            with budget("$1") as inner:
                call = shekel.call_of(ask(client))
        kept, cost = nano(outer.spent_direct), call.cost
        assert outer.fallback_spent == cost
        shekel.reconcile(call.id, 0.5)
        assert nano(outer.spent_direct) == kept
        assert (outer.spent_by_children, outer.fallback_spent) == (0.5, 0.5)
        assert (inner.spent_direct, inner.spent_by_children) == (0.5, 0)
        assert call.cost == cost, "a receipt says what was known when the call ended"

    def test_it_settles_what_the_call_was_exposed_to(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        provider.default = Reply(usage=False)
        with budget("$1") as b:
            call = shekel.call_of(ask(client, max_tokens=4_000))
            other = shekel.call_of(ask(client, max_tokens=100))
        both = b.exposure
        assert b.peak_exposure >= both
        assert call.cost is not None
        shekel.reconcile(call.id, call.cost)
        of_the_other = b.exposure
        assert 0 < of_the_other < both
        shekel.reconcile(call.id, 0.00004)
        assert b.exposure == of_the_other
        shekel.reconcile(other.id, 0.00004)
        assert b.exposure == 0
        assert b.peak_exposure >= both

    def test_many_at_once_leave_ledger_and_totals_in_agreement(self, client: openai.OpenAI) -> None:
        interval = sys.getswitchinterval()
        shekel.configure(track=["user.id"])
        try:
            with shekel.scope(user_id="corrected"), budget("$9") as b:
                call = shekel.call_of(ask(client))
            start = threading.Barrier(4)

            def work(cost: float) -> None:
                start.wait()
                for _ in range(100):
                    shekel.reconcile(call.id, cost)

            sys.setswitchinterval(1e-6)
            for _ in range(5):
                threads = [threading.Thread(target=work, args=(cost,)) for cost in (0.1, 0.2, 0.3, 0.4)]
                for each in threads:
                    each.start()
                for each in threads:
                    each.join()
                data = b.summary_data()
                shown = {nano(b.spent), nano(data["total_spent"]), nano(data["calls"][0]["cost"]), nano(b.spent_direct)}
                assert shown == {nano(shekel.usage(user_id="corrected").spent)}
        finally:
            sys.setswitchinterval(interval)
            shekel.configure(track=None)

    def test_an_id_that_nobody_knows_and_a_cost_that_is_none(self, client: openai.OpenAI) -> None:
        with pytest.raises(LookupError, match="no finished call 'nobody' is remembered"):
            shekel.reconcile("nobody", 1)
        with budget():
            call = shekel.call_of(ask(client))
        for bad in (-1, float("nan"), float("inf"), "1", None, True, Decimal("sNaN"), Decimal("1E+999999"), 10**5000):
            with pytest.raises(ValueError, match=r"^cost .*: give the whole cost in USD"):
                shekel.reconcile(call.id, bad)  # type: ignore[arg-type]

    def test_an_open_stream_cannot_be_yet(self, client: openai.OpenAI) -> None:
        with budget():
            opened = stream(client)
            call = shekel.call_of(opened)
            with pytest.raises(LookupError):
                shekel.reconcile(call.id, 1)
            list(opened)
            shekel.reconcile(call.id, 1)
