"""What a budget tells: its summary as data and as text; and the decorator's own budgets."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import pytest

import shekel
from shekel import BudgetExceededError, budget, tool, with_budget
from shekel.testing import Clock, FakeProvider

from .conftest import CENT, MODEL

Ask = Any
NANO_MODEL = "gpt-4.1-nano"

KEYS = {
    "total_spent", "limit", "calls_used", "calls_limit", "model_switched", "switched_at_usd", "fallback_model",
    "fallback_spent", "total_calls", "calls", "by_model", "tool_calls_used", "tool_calls_limit", "tool_spent",
    "by_tool", "tenant_id",
}  # fmt: skip


@tool(price=0.05)
def search(query: str) -> str:
    return query


class TestSummaryData:
    def test_before_anything_happened(self) -> None:
        data = budget(max_usd=5, max_llm_calls=10, max_tool_calls=3).summary_data()
        assert set(data) >= KEYS
        assert {key: data[key] for key in KEYS} == {
            "total_spent": 0, "limit": 5, "calls_used": 0, "calls_limit": 10, "model_switched": False,
            "switched_at_usd": None, "fallback_model": None, "fallback_spent": 0, "total_calls": 0, "calls": [],
            "by_model": {}, "tool_calls_used": 0, "tool_calls_limit": 3, "tool_spent": 0, "by_tool": {},
            "tenant_id": None,
        }  # fmt: skip

    def test_after_calls_a_fallback_and_tools(self, ask: Ask, provider: FakeProvider) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with budget(max_usd=0.5, fallback={"at_pct": 0.02, "model": NANO_MODEL}, **CENT) as b:
                ask()
                ask()
                search("x")
                search("y")
        data = b.summary_data()
        assert data["total_spent"] == pytest.approx(0.12)
        assert (data["calls_used"], data["total_calls"]) == (2, 2)
        assert data["model_switched"] is True
        assert data["switched_at_usd"] == data["fallback_spent"] == pytest.approx(0.01)
        assert data["fallback_model"] == NANO_MODEL
        first, second = data["calls"]
        tokens = {"input_tokens": provider.bill[0].input_tokens, "output_tokens": 10}
        assert first.items() >= {"model": MODEL, "fallback": False, **tokens}.items()
        assert second.items() >= {"model": NANO_MODEL, "fallback": True, **tokens}.items()
        assert first["cost"] == second["cost"] == pytest.approx(0.01)
        assert data["by_model"][NANO_MODEL] == {"calls": 1, "cost": pytest.approx(0.01), "fallback": True, **tokens}
        assert data["by_model"][MODEL]["fallback"] is False
        assert (data["tool_calls_used"], data["tool_calls_limit"]) == (2, None)
        assert data["tool_spent"] == pytest.approx(0.1)
        assert data["by_tool"] == {"search": {"calls": 2, "cost": pytest.approx(0.1), "framework": "manual"}}


class TestSummary:
    def test_it_is_what_the_data_says(self, ask: Ask, provider: FakeProvider) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with budget(
                max_usd=0.5, max_llm_calls=9, max_tool_calls=4, name="report",
                fallback={"at_pct": 0.02, "model": NANO_MODEL}, **CENT,
            ) as b:  # fmt: skip
                ask()
                ask()
                search("x")
        tokens = f"{provider.bill[0].input_tokens:>9} {10:>9}"
        assert b.summary().splitlines() == [
            "Budget report",
            "  Total: $0.0700 of $0.50, 2 of 9 calls. Status: SWITCHED",
            f"  {'call':>6}  {'model':<28} {'input':>9} {'output':>9} {'cost':>11}",
            f"  {1:>6}  {MODEL:<28} {tokens}     $0.0100",
            f"  {2:>6}  {NANO_MODEL:<28} {tokens}     $0.0100  fallback",
            f"  {MODEL}: 1 calls, $0.0100",
            f"  {NANO_MODEL} (fallback): 1 calls, $0.0100",
            f"  Switched at $0.0100 to {NANO_MODEL}",
            "  Tools: 1 of 4 tool calls, $0.0500",
            "    search: 1 calls, $0.0500 [manual]",
        ]

    def test_without_a_limit_and_without_calls(self) -> None:
        assert budget().summary() == "Budget\n  Total: $0.0000, no limit, 0 calls. Status: OK"

    def test_it_says_when_the_limit_is_exceeded(self, ask: Ask) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with budget(max_usd=0.015, warn_only=True, **CENT) as b:
                ask()
                ask()
        assert "Status: EXCEEDED" in b.summary()

    def test_a_total_of_many_days_is_no_part_of_the_limit_of_one(self, ask: Ask, clock: Clock) -> None:
        with budget("$0.02/day + 5 calls/hr", name="daily", **CENT) as b:
            for _ in range(3):
                clock.advance(86_400)
                ask()
                lines = b.summary().splitlines()
            assert lines[:4] == [
                "Budget daily",
                "  Total: $0.0300, 3 calls. Status: OK",
                "  Limit $0.02/day: $0.01 used, $0.01 left",
                "  Limit 5 calls/hr: 1 used, 4 left",
            ]

    def test_it_says_when_a_window_is_exceeded_and_no_longer(self, ask: Ask, clock: Clock) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with budget("$0.015/day", at_limit="warn", **CENT) as b:
                ask()
                ask()
        assert "Status: EXCEEDED" in b.summary()
        clock.advance(86_400)
        assert "Status: OK" in b.summary()

    def test_what_the_program_recorded_without_a_model_is_called_so(self) -> None:
        with budget() as b:
            shekel.record(0.02)
        assert b.summary().splitlines()[-1] == "  no model: 1 calls, $0.0200"
        assert b.summary().splitlines()[-2].split()[1:3] == ["no", "model"]

    def test_a_small_limit_is_not_shown_as_nothing(self) -> None:
        with budget(max_usd=0.0005, name="small") as b:
            b.node("fetch", max_usd=0.0001)
        assert "Total: $0.0000 of $0.0005, 0 calls" in b.summary()
        assert b.tree().splitlines() == [
            "small: $0.0000 / $0.0005 (direct: $0.0000)",
            "  [node] fetch: $0.0000 / $0.0001 (0.0%)",
        ]


class TestDecorator:
    def test_each_call_has_a_budget_of_its_own(self, ask: Ask, provider: FakeProvider) -> None:
        @with_budget(max_usd=0.015, name="each", price_per_1k_tokens=CENT["price_per_1k_tokens"])
        def run(times: int) -> str:
            """Run."""
            for _ in range(times):
                ask()
            return "done"

        assert [run(1) for _ in range(3)] == ["done"] * 3
        with pytest.raises(BudgetExceededError) as refused:
            run(2)
        assert refused.value.budget == "each"
        assert len(provider.requests) == 4
        assert (run.__name__, run.__doc__) == ("run", "Run.")

    async def test_coroutines(self, ask_async: Ask, provider: FakeProvider) -> None:
        @with_budget(max_llm_calls=1, **CENT)
        async def run() -> str:
            await ask_async()
            return "done"

        assert inspect.iscoroutinefunction(run)
        assert [await run(), await run()] == ["done", "done"]
        assert len(provider.requests) == 2

    def test_all_arguments_of_a_budget(self, ask: Ask, provider: FakeProvider) -> None:
        told: list[Any] = []

        @with_budget(
            0.1, 0.1, lambda *seen: told.append(seen), CENT["price_per_1k_tokens"],
            {"at_pct": 0.1, "model": NANO_MODEL}, lambda *seen: told.append(seen), "named", 3,
        )  # fmt: skip
        def run() -> None:
            for _ in range(4):
                ask()

        with pytest.raises(BudgetExceededError) as refused:
            run()
        assert (refused.value.exceeded_counter, refused.value.budget) == ("llm_calls", "named")
        # Every limit warns at the share, each in its own unit.
        assert told == [(pytest.approx(0.01), 0.1), (1, 3), (pytest.approx(0.01), 0.1, NANO_MODEL)]

    def test_without_arguments_it_counts_only(self, ask: Ask) -> None:
        @with_budget()
        def run() -> None:
            ask()

        with budget(**CENT) as b:
            run()
        assert b.spent == pytest.approx(0.01)
