"""Budgets inside budgets: who is whose child, what each sees, and what the parent does not let through."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from shekel import BudgetExceededError, NodeBudgetExceededError, budget, with_budget
from shekel.testing import FakeProvider

from .conftest import CENT

Ask = Any


class TestRelatives:
    def test_who_is_whose(self) -> None:
        with budget(name="flow") as flow:
            assert (flow.parent, flow.children, flow.active_child) == (None, [], None)
            with budget(name="research") as research:
                assert research.parent is flow
                assert flow.active_child is research
                with budget(name="api") as api:
                    assert (flow.active_child, research.active_child) == (research, api)
            assert flow.active_child is None
            with budget(name="writing") as writing:
                pass
        assert flow.children == [research, writing]
        assert research.children == [api]
        assert api.full_name == "flow.research.api"
        assert (flow.full_name, budget().full_name) == ("flow", "unnamed")

    async def test_async_is_the_same(self) -> None:
        async with budget(name="flow") as flow, budget(name="step") as step:
            assert step.parent is flow
            assert flow.active_child is step
        assert flow.active_child is None

    def test_a_budget_inside_itself_is_not_its_own_child(self, ask: Ask) -> None:
        with budget(max_usd=1, name="b", **CENT) as b, b:
            ask()
        assert (b.parent, b.children) == (None, [])
        assert b.spent == pytest.approx(0.01)

    def test_alone_again_it_has_no_parent(self) -> None:
        child = budget(name="child")
        with budget(name="one") as one, child:
            assert child.parent is one
        with child:
            assert child.parent is None

    def test_many_children_are_not_kept_for_ever(self, ask: Ask) -> None:
        with budget(max_usd=1, name="server", **CENT) as server:
            for number in range(300):
                with budget(name=f"request {number}"):
                    if number == 0:
                        ask()
        assert len(server.children) <= 101
        assert server.children[-1].name == "request 299"
        assert server.spent_by_children == pytest.approx(0.01), "the first child is gone, and its cent is not"
        assert "more" in server.tree()


class TestNames:
    def test_siblings_of_one_name_are_refused(self) -> None:
        with budget(name="flow"):
            with budget(name="step"):
                pass
            with pytest.raises(ValueError, match=r"'flow'.*'step'"):
                with budget(name="step"):
                    pass

    async def test_async_is_the_same(self) -> None:
        async with budget(name="flow"):
            async with budget(name="step"):
                pass
            with pytest.raises(ValueError, match="'step'"):
                async with budget(name="step"):
                    pass

    def test_a_refused_block_leaves_nothing_behind(self, ask: Ask) -> None:
        with budget(name="flow", **CENT) as flow:
            with budget(name="step"):
                pass
            with pytest.raises(ValueError, match="step"), budget(name="step"):
                pass
            ask()
            assert (flow.active_child, len(flow.children)) == (None, 1)
        assert flow.spent_direct == pytest.approx(0.01)
        flow.reset()

    def test_elsewhere_the_name_is_free(self) -> None:
        with budget(name="flow"):
            with budget(name="one"), budget(name="step"):
                pass
            with budget(name="two"), budget(name="step"):
                pass
            with budget(name="step"):
                pass

    def test_the_same_budget_may_come_back(self, ask: Ask) -> None:
        step = budget(name="step")
        with budget(name="flow", **CENT) as flow:
            for _ in range(3):
                with step:
                    ask()
        assert flow.children == [step]
        assert step.spent == pytest.approx(0.03)

    def test_names_are_not_needed_and_levels_are_not_counted(self, ask: Ask) -> None:
        with budget(**CENT) as outer, budget() as a, budget(), budget(), budget(), budget(), budget() as inner:
            ask()
        assert outer.spent == a.spent == inner.spent == pytest.approx(0.01)

    def test_a_decorated_function_may_run_often(self, ask: Ask) -> None:
        run = with_budget(max_usd=0.015, name="step")(ask)
        with budget(name="flow", **CENT) as flow:
            for _ in range(3):
                run()
        assert flow.spent == pytest.approx(0.03)


class TestMoney:
    def test_the_parent_sees_it_at_once_and_may_spend_meanwhile(self, ask: Ask) -> None:
        with budget(max_usd=1, name="flow", **CENT) as flow:
            ask()
            with budget(max_usd=1, name="step") as step:
                ask()
                ask()
                assert flow.spent == pytest.approx(0.03)
                assert flow.calls_used == 3
        assert flow.spent_direct == pytest.approx(0.01)
        assert flow.spent_by_children == step.spent == step.spent_direct == pytest.approx(0.02)

    def test_grandchildren_are_children_too(self, ask: Ask) -> None:
        with budget(name="a", **CENT) as a, budget(name="b") as b, budget(name="c"):
            ask()
        assert (a.spent_direct, b.spent_direct) == (0, 0)
        assert a.spent_by_children == b.spent_by_children == pytest.approx(0.01)

    def test_a_child_is_capped_to_what_its_parent_has_left(self, ask: Ask, provider: FakeProvider) -> None:
        with budget(max_usd=0.05, name="flow", **CENT) as flow:
            ask()
            ask()
            with budget(max_usd=0.04, name="step") as step:
                assert step.limit == step.remaining == flow.remaining == pytest.approx(0.03)
                assert step.max_usd == 0.04
                ask()
                assert step.limit == pytest.approx(0.03)
                assert step.remaining == pytest.approx(0.02)
                with pytest.raises(BudgetExceededError) as refused:
                    for _ in range(9):
                        ask()
        assert len(provider.requests) == 5
        assert refused.value.budget == "flow"
        with budget(max_usd=0.04, name="alone") as alone:
            assert alone.limit == 0.04

    def test_a_parent_whose_block_was_left_caps_nothing(self, ask: Ask) -> None:
        step = budget(max_usd=1, max_llm_calls=9, max_tool_calls=9, name="step")
        with budget(max_usd=0.02, max_llm_calls=2, max_tool_calls=1, name="flow", **CENT) as flow, step:
            ask()
            assert (step.remaining, step.calls_remaining, step.tool_calls_remaining) == (pytest.approx(0.01), 1, 1)
        assert (step.remaining, step.limit) == (pytest.approx(0.99), 1)
        assert (step.calls_remaining, step.tool_calls_remaining) == (8, 9)
        assert (step.parent, step.full_name) == (flow, "flow.step")

    def test_inside_the_parent_the_cap_stays_after_the_block(self, ask: Ask) -> None:
        with budget(max_usd=0.02, name="flow", **CENT) as flow:
            with budget(max_usd=1, name="step") as step:
                ask()
            assert step.remaining == flow.remaining == pytest.approx(0.01)

    def test_a_parent_that_is_left_first_caps_what_is_still_charged_to_it(self, ask: Ask) -> None:
        flow, step = budget(max_usd=0.02, name="flow", **CENT), budget(max_usd=1, name="step")
        flow.__enter__()
        with step:
            flow.__exit__(None, None, None)
            assert step.remaining == pytest.approx(0.02)
        assert step.remaining == 1

    def test_the_cap_follows_the_parent_and_is_no_snapshot(self, ask: Ask) -> None:
        step = budget(max_usd=0.04, name="step")
        with budget(max_usd=0.05, name="flow", **CENT) as flow:
            with step:
                assert step.remaining == pytest.approx(0.04)
                thread = threading.Thread(target=lambda: _inside(flow, ask, 3))
                thread.start()
                thread.join()
                assert step.remaining == pytest.approx(0.02)

    def test_calls_and_tools_are_capped_too(self, ask: Ask) -> None:
        with budget(max_llm_calls=3, max_tool_calls=2, name="flow", **CENT):
            ask()
            with budget(max_llm_calls=9, max_tool_calls=9, name="step") as step:
                assert (step.calls_remaining, step.tool_calls_remaining) == (2, 2)

    def test_a_child_that_only_tracks_shows_no_limit_and_lets_nothing_through(
        self, ask: Ask, provider: FakeProvider
    ) -> None:
        with budget(max_usd=0.02, name="flow", **CENT), budget(name="step") as step:
            assert step.limit is step.remaining is None
            with pytest.raises(BudgetExceededError):
                for _ in range(9):
                    ask()
        assert len(provider.requests) == 2

    async def test_children_at_the_same_time_share_the_parent(self, ask_async: Ask, provider: FakeProvider) -> None:
        refused = 0

        async def work(number: int) -> None:
            nonlocal refused
            async with budget(max_usd=0.02, name=f"worker {number}"):
                try:
                    await ask_async()
                except BudgetExceededError:
                    refused += 1

        async with budget(max_usd=0.03, name="flow", **CENT) as flow:
            await asyncio.gather(*(work(number) for number in range(10)))
        assert len(provider.requests) == 3
        assert refused == 7
        assert flow.active_child is None
        assert flow.spent == pytest.approx(0.03)


class TestParts:
    def test_each_kind_returns_the_budget(self) -> None:
        b = budget(max_usd=5, name="b")
        assert b.node("fetch", max_usd=0.5).agent("writer", max_usd=1).task("report", 2).chain("sum", 0.1) is b

    @pytest.mark.parametrize("kind", ["node", "agent", "task", "chain"])
    @pytest.mark.parametrize("value", [0, -1, float("nan"), "much"])
    def test_a_cap_that_is_none_is_refused(self, kind: str, value: Any) -> None:
        with pytest.raises(ValueError, match="max_usd"):
            getattr(budget(max_usd=5), kind)("x", max_usd=value)

    @pytest.mark.parametrize("kind", ["node", "agent", "task", "chain"])
    def test_it_holds_for_the_blocks_of_that_name_inside(self, ask: Ask, provider: FakeProvider, kind: str) -> None:
        from shekel import exceptions

        wanted = getattr(exceptions, f"{kind.capitalize()}BudgetExceededError")
        with budget(max_usd=1, name="flow", **CENT) as flow:
            getattr(flow, kind)("fetch", max_usd=0.02)
            ask()
            with budget(name="fetch"):
                ask()
                ask()
                with pytest.raises(wanted) as refused:
                    ask()
            ask()
        error = refused.value
        assert getattr(error, f"{kind}_name") == "fetch"
        assert (error.spent, error.limit, error.budget) == (pytest.approx(0.02), 0.02, "flow")
        assert len(provider.requests) == 4

    def test_a_decorated_function_is_such_a_block(self, ask: Ask) -> None:
        fetch = with_budget(name="fetch")(ask)
        with budget(max_usd=1, name="flow", **CENT) as flow:
            flow.node("fetch", max_usd=0.02)
            fetch()
            fetch()
            with pytest.raises(NodeBudgetExceededError):
                fetch()

    def test_reset_forgets_what_a_part_has_spent(self, ask: Ask) -> None:
        flow = budget(max_usd=1, name="flow", **CENT).node("fetch", max_usd=0.01)
        for _ in range(2):
            with flow, budget(name="fetch"):
                ask()
            flow.reset()


class TestTree:
    def test_it_shows_all_with_their_spending(self, ask: Ask) -> None:
        with budget(max_usd=10, name="flow", **CENT) as flow:
            ask()
            with budget(max_usd=5, name="research"), budget(name="api"):
                ask()
            flow.node("fetch", max_usd=0.5)
            with budget(name="writing"):
                lines = flow.tree().splitlines()
        assert lines == [
            "flow: $0.0200 / $10.00 (direct: $0.0100)",
            "  [node] fetch: $0.0000 / $0.50 (0.0%)",
            "  research: $0.0100 / $5.00 (direct: $0.0000)",
            "    api: $0.0100 / track-only (direct: $0.0100)",
            "  writing [ACTIVE]: $0.0000 / track-only (direct: $0.0000)",
        ]

    def test_who_has_no_name_is_numbered(self) -> None:
        with budget() as outer:
            with budget(name="one"):
                pass
            with budget() as second, budget() as first:
                pass
        assert (second.full_name, first.full_name) == ("unnamed.#2", "unnamed.#2.#1")
        assert [line.split(":")[0].strip() for line in outer.tree().splitlines()] == ["unnamed", "one", "#2", "#1"]
        assert second.name is None

    def test_budgets_inside_each_other_both_ways_end(self) -> None:
        one, two = budget(name="one"), budget(name="two")
        with one, two:
            pass
        with two, one:
            pass
        assert one.tree().count("one") == 2


def _inside(b: Any, ask: Ask, times: int) -> None:
    with b:
        for _ in range(times):
            ask()
