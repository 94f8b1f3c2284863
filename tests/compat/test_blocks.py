"""Blocks: what accumulates, what is forgotten, what survives, what may not be asked for."""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from typing import Any

import anthropic
import pytest

from shekel import Budget, BudgetExceededError, Limit, budget, per, scope, with_budget
from shekel.budgets.limits import Unit
from shekel.testing import FakeProvider

from .conftest import CENT, HELLO, MODEL

Ask = Any


class Unwritable:
    """A value that says nothing of itself."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


class TestWithoutALimit:
    def test_it_counts_and_never_raises(self, ask: Ask) -> None:
        with budget(**CENT) as b:
            for _ in range(3):
                ask()
        assert b.spent == pytest.approx(0.03)
        assert b.calls_used == 3
        assert b.limit is b.remaining is b.calls_remaining is b.tool_calls_remaining is None

    def test_both_sdks_are_seen(self, ask: Ask, claude: anthropic.Anthropic) -> None:
        with budget(**CENT) as b:
            ask()
            claude.messages.create(model="claude-haiku-4-5", max_tokens=10, messages=HELLO)
        assert b.spent == pytest.approx(0.02)
        assert set(b.summary_data()["by_model"]) == {MODEL, "claude-haiku-4-5"}

    async def test_async_is_the_same(self, ask_async: Ask) -> None:
        async with budget(**CENT) as b:
            await ask_async()
        assert b.spent == pytest.approx(0.01)


class TestAccumulating:
    def test_a_named_budget_adds_up_over_its_blocks(self, ask: Ask) -> None:
        session = budget(max_usd=1, name="session", **CENT)
        seen = []
        for _ in range(3):
            with session:
                ask()
            seen.append(session.remaining)
        assert session.spent == pytest.approx(0.03)
        assert seen == [pytest.approx(0.99), pytest.approx(0.98), pytest.approx(0.97)]

    async def test_also_over_async_blocks(self, ask_async: Ask) -> None:
        session = budget(max_usd=1, name="session", **CENT)
        for _ in range(2):
            async with session:
                await ask_async()
        assert session.spent == pytest.approx(0.02)

    def test_the_limit_is_over_all_of_them(self, ask: Ask, provider: FakeProvider) -> None:
        session = budget(max_usd=0.025, name="session", **CENT)
        with pytest.raises(BudgetExceededError):
            for _ in range(3):
                with session:
                    ask()
        assert len(provider.requests) == 2

    def test_another_object_starts_at_nothing_also_with_the_same_name(self, ask: Ask) -> None:
        for _ in range(2):
            with budget(name="same", **CENT) as b:
                ask()
            assert b.spent == pytest.approx(0.01)

    def test_reset_forgets_all(self, ask: Ask) -> None:
        b = budget(max_usd=0.025, max_llm_calls=9, name="b", fallback={"at_pct": 0.3, "model": "gpt-4.1-nano"}, **CENT)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with b:
                ask()
                ask()
        assert b.model_switched
        b.reset()
        assert b.spent == b.calls_used == b.fallback_spent == b.tool_spent == 0
        assert b.remaining == pytest.approx(0.025)
        assert b.calls_remaining == 9
        assert not b.model_switched
        assert b.switched_at_usd is None
        assert b.summary_data()["calls"] == []

    def test_reset_inside_the_block_raises(self) -> None:
        with budget(max_usd=1, name="b") as b:
            with pytest.raises(RuntimeError, match="inside"):
                b.reset()
            with budget(max_usd=1, name="child"), pytest.raises(RuntimeError, match="inside"):
                b.reset()


class TestSurviving:
    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
    def test_spending_survives_whatever_ends_the_block(self, ask: Ask, error: type[BaseException]) -> None:
        outer = budget(max_usd=1, name="outer", **CENT)
        inner = budget(max_usd=1, name="inner")
        with pytest.raises(error):
            with outer, inner:
                ask()
                raise error
        assert inner.spent == outer.spent == pytest.approx(0.01)


class TestAtTheLimit:
    def test_nothing_is_sent_once_the_money_is_used_up(self, ask: Ask, provider: FakeProvider) -> None:
        with budget(max_usd=0.02, **CENT) as b:
            ask()
            ask()
            for _ in range(3):
                with pytest.raises(BudgetExceededError) as refused:
                    ask()
        assert len(provider.requests) == 2
        assert b.remaining == 0
        error = refused.value
        assert (error.spent, error.limit, error.model) == (pytest.approx(0.02), 0.02, MODEL)
        assert error.exceeded_counter == "usd"

    def test_warn_only_goes_on(self, ask: Ask) -> None:
        told: list[tuple[float, float]] = []
        with budget(
            max_usd=0.02, max_llm_calls=1, warn_at=0.5, warn_only=True,
            on_warn=lambda spent, limit: told.append((spent, limit)), **CENT,
        ) as b:  # fmt: skip
            for _ in range(4):
                ask()
        assert b.warn_only
        assert b.spent == pytest.approx(0.04)
        assert b.calls_used == 4
        assert b.remaining == b.calls_remaining == 0
        assert (pytest.approx(0.01), 0.02) in told

    def test_warn_only_is_off_unless_asked_for(self) -> None:
        assert budget(max_usd=1).warn_only is False


class TestWarning:
    def test_it_is_said_once_also_across_blocks(self, ask: Ask) -> None:
        told: list[tuple[float, float]] = []
        b = budget(max_usd=0.1, warn_at=0.2, on_warn=lambda spent, limit: told.append((spent, limit)), **CENT)
        for _ in range(4):
            with b:
                ask()
        assert told == [(pytest.approx(0.02), 0.1)]

    def test_it_is_said_again_after_a_reset(self, ask: Ask) -> None:
        told: list[float] = []
        b = budget(max_usd=0.1, warn_at=0.1, on_warn=lambda spent, limit: told.append(spent), **CENT)
        for _ in range(2):
            with b:
                ask()
            b.reset()
        assert len(told) == 2

    def test_without_a_callback_it_is_a_warning_of_python(self, ask: Ask) -> None:
        with budget(max_usd=0.1, warn_at=0.2, **CENT):
            ask()
            with pytest.warns(UserWarning, match=r"0\.02"):
                ask()

    def test_small_amounts_are_said_with_their_digits(self, ask: Ask) -> None:
        price = {"input": 0.0, "output": 0.004}
        fallback = {"at_pct": 0.05, "model": "gpt-4.1-nano"}
        with budget(max_usd=0.0005, warn_at=0.01, fallback=fallback, price_per_1k_tokens=price):
            with pytest.warns(UserWarning, match=r"^budget has spent \$0\.00004 of \$0\.0005$"):
                ask()
            with pytest.warns(UserWarning, match=r"^budget has spent \$0\.00004: calls go to gpt-4\.1-nano"):
                ask()

    def test_below_the_threshold_nothing_is_said(self, ask: Ask) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with budget(max_usd=0.1, warn_at=0.2, **CENT):
                ask()


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "field"),
        [
            ({"max_usd": 0}, "max_usd"),
            ({"max_usd": -1}, "max_usd"),
            ({"max_usd": math.nan}, "max_usd"),
            ({"max_usd": math.inf}, "max_usd"),
            ({"max_llm_calls": 0}, "max_llm_calls"),
            ({"max_llm_calls": -1}, "max_llm_calls"),
            ({"max_llm_calls": 1.5}, "max_llm_calls"),
            ({"max_tool_calls": 0}, "max_tool_calls"),
            ({"max_tool_calls": -3}, "max_tool_calls"),
            ({"max_usd": 1, "warn_at": 1.5}, "warn_at"),
            ({"max_usd": 1, "warn_at": -0.1}, "warn_at"),
            ({"price_per_1k_tokens": {"input": 1.0}}, "price_per_1k_tokens"),
            ({"fallback": {"at_pct": 0.5, "model": MODEL}}, "fallback"),
            ({"max_usd": 1, "fallback": {"at_pct": 0, "model": MODEL}}, "fallback"),
            ({"max_usd": 1, "fallback": {"at_pct": 0.5, "model": ""}}, "fallback"),
            ({"max_usd": 1, "fallback": {"model": MODEL}}, "fallback"),
            ({"max_usd": 1, "on_fallback": print}, "on_fallback"),
            ({"max_usd": 1, "tool_prices": {"search": -1}}, "tool_prices"),
            ({"max_usd": 1, "tool_prices": ["search"]}, "tool_prices"),
            ({"max_usd": 1, "tool_prices": {3: 1}}, "tool_prices"),
            ({"loop_guard": True, "loop_guard_max_calls": 0}, "loop_guard_max_calls"),
            ({"loop_guard": True, "loop_guard_max_calls": 2.5}, "loop_guard_max_calls"),
            ({"loop_guard": True, "loop_guard_window_seconds": -1}, "loop_guard_window_seconds"),
            ({"loop_guard": True, "loop_guard_window_seconds": math.inf}, "loop_guard_window_seconds"),
            ({"loop_guard": "yes"}, "loop_guard"),
            ({"loop_guard": True, "loop_guard_window_seconds": 1e-7}, "loop_guard_window_seconds"),
            ({"loop_guard": True, "loop_guard_window_seconds": 1e308}, "loop_guard_window_seconds"),
            pytest.param({"loop_guard_window_seconds": 10**400}, "loop_guard_window_seconds", id="huge window"),
            ({"loop_guard_window_seconds": math.nan}, "loop_guard_window_seconds"),
            ({"loop_guard_window_seconds": "abc"}, "loop_guard_window_seconds"),
            ({"loop_guard_max_calls": "abc"}, "loop_guard_max_calls"),
            ({"loop_guard_max_calls": math.nan}, "loop_guard_max_calls"),
            ({"loop_guard_max_calls": -1}, "loop_guard_max_calls"),
            pytest.param({"loop_guard_max_calls": 10**400}, "loop_guard_max_calls", id="huge calls"),
            ({"warn_only": "yes"}, "warn_only"),
            ({"max_usd": 1, "tool_prices": {"search": 1e308}}, "tool_prices"),
            pytest.param({"max_usd": 1, "tool_prices": {"search": 10**400}}, "tool_prices", id="huge price"),
            ({"price_per_1k_tokens": {"input": 1, "output": math.nan}}, "price_per_1k_tokens"),
            ({"price_per_1k_tokens": {"input": 1, "output": 1e300}}, "price_per_1k_tokens"),
            ({"price_per_1k_tokens": {"input": 1e-300, "output": 1}}, "price_per_1k_tokens"),
            pytest.param(
                {"price_per_1k_tokens": {"input": 1, "output": 10**400}}, "price_per_1k_tokens", id="huge rate"
            ),
            ({"max_usd": 5, "fallback": [MODEL, "gpt-4.1-nano", MODEL]}, "fallback"),
            ({"max_usd": 5, "fallback": ["gpt-4o", "claude-haiku-4-5"]}, "fallback 'gpt-4o' belongs to openai"),
            ({"max_usd": 5, "fallback": ["own", "claude-haiku-4-5", "other", "gpt-4o"]}, "give models of one provider"),
            ({"limits": ["$5"]}, "limits"),
            ({"limits": "$5/day"}, "limits"),
            ({"limits": ""}, "limits"),
            ({"limits": 5}, "limits"),
            ({"limits": 0}, "limits"),
            ({"limits": False}, "limits"),
            ({"limits": {}}, "limits"),
            ({"limits": Limit(5)}, "limits"),
            ({"max_usd": 5, "limits": [Limit(5)]}, "the budget contradicts itself"),
            ({"max_velocity": "fast"}, "max_velocity"),
            ({"warn_velocity": "$1/min"}, "warn_velocity"),
            ({"max_velocity": "$1/min", "warn_velocity": "$1/min"}, "warn_velocity"),
        ],
    )
    def test_it_is_said_in_one_sentence_that_names_the_argument(self, arguments: dict[str, Any], field: str) -> None:
        for make in (budget, Budget):
            with pytest.raises(ValueError, match=field) as caught:
                make(**arguments)
            assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("value", ["x " * 2500, [Unwritable()], Unwritable()], ids=["long", "in a list", "alone"])
    @pytest.mark.parametrize(
        "field",
        [
            "max_usd",
            "mode",
            "at_limit",
            "unpriced",
            "warn_only",
            "warn_at",
            "on_warn",
            "on_exceed",
            "on_fallback",
            "fallback",
            "tool_prices",
            "price_per_1k_tokens",
            "max_velocity",
            "warn_velocity",
            "max_wait",
            "last_call",
            "loop_guard",
            "loop_guard_max_calls",
            "loop_guard_window_seconds",
            "limits",
            "models",
            "max_llm_calls",
            "window_seconds",
        ],
    )
    def test_a_long_value_is_cut_and_one_that_cannot_be_written_is_named_by_its_type(
        self, field: str, value: Any
    ) -> None:
        with pytest.raises(ValueError, match=field) as caught:
            Budget(**{field: value})
        assert len(str(caught.value)) < 500

    @pytest.mark.parametrize("name", [[1] * 2000, Unwritable()], ids=["long", "unwritable"])
    def test_a_name_that_is_none(self, name: Any) -> None:
        with pytest.raises(ValueError, match="name must be a text") as caught:
            Budget(1, name=name)
        assert len(str(caught.value)) < 500

    def test_long_values_that_contradict_each_other_are_cut(self) -> None:
        model = "m" * 5000
        for make in (
            lambda: budget(f"$5/day on {model}", max_usd=5),
            lambda: budget(f"$5 on {model} + $6 on {model}"),
            lambda: Budget(fallback=model),
            lambda: Budget(5, fallback=[model, model]),
            lambda: Budget(models={model: f"$5 on {model}"}),
            lambda: Budget(5, tool_prices={model: -1}),
            lambda: Budget(5).tool(model),
            lambda: Budget(5).set_limit(f"$6 on {model}"),
        ):
            with pytest.raises(ValueError, match="mmm") as caught:
                make()
            assert len(str(caught.value)) < 500

    @pytest.mark.parametrize(
        "fallback", [["own", "gpt-4o"], ["llama-3", "claude-haiku-4-5"], ["gpt-4o", "gpt-4o-mini"]]
    )
    def test_a_chain_may_have_models_whose_provider_nobody_knows(self, fallback: list[str]) -> None:
        assert Budget(5, fallback=fallback).fallback == fallback

    def test_limits_that_are_made_already(self) -> None:
        calls = Limit(3, Unit.CALLS)
        for limits in ([calls], (calls,), {calls}, iter([calls])):
            assert [each.text for each in Budget(5, limits=limits).limits()] == ["$5", "3 calls"]
        for nothing in ([], (), None):
            assert Budget(limits=nothing).limits() == []

    def test_limits_that_are_made_already_beside_a_spec(self) -> None:
        calls = Limit(3, Unit.CALLS)
        for made in (
            budget("$5", limits=[calls]),
            budget("$5", name="b", limits=[calls]),
            budget(5, limits=[calls]),
            budget("$5/hr", name="b", limits=[calls]),
        ):
            assert [each.unit for each in made.limits()] == ["usd", "calls"]
        with pytest.raises(ValueError, match="contradicts itself"):
            budget("$5", limits=[Limit(5)])
        with pytest.raises(ValueError, match="limits must be a list of Limits"):
            budget("$5", limits=["3 calls"])

    @pytest.mark.parametrize(
        ("spec", "beside"),
        [
            ("warn_at=0.5", {"warn_at": 0.5}),
            ("warn_at=80%,0.5", {"warn_at": [0.8, 0.5]}),
            ("mode=strict", {"mode": "strict"}),
        ],
    )
    def test_a_spec_and_an_argument_may_say_the_same(self, spec: str, beside: dict[str, Any]) -> None:
        assert [each.text for each in budget(f"$5 {spec}", **beside).limits()] == ["$5"]
        assert [limit.text for limit in per("user.id", f"$5 {spec}", **beside).limits] == ["$5"]

    @pytest.mark.parametrize("limit", ["$5/hr", "5", 5])
    def test_a_spec_and_a_limit_that_is_none_beside_it(self, limit: Any) -> None:
        assert len(budget(limit, name="b", max_usd=None, max_llm_calls=None, window_seconds=None).limits()) == 1

    def test_a_spec_and_an_argument_that_says_otherwise(self) -> None:
        with pytest.raises(
            ValueError, match=r"^mode is said twice: 'strict' in '\$5 mode=strict', and 'sliced' beside"
        ):
            budget("$5 mode=strict", mode="sliced")
        with pytest.raises(ValueError, match=r"^warn_at is said twice: .* in the limit, and 0.9 beside"):
            per("user.id", "$5 warn_at=0.5", warn_at=0.9)

    @pytest.mark.parametrize("function", [None, 5, "search", []])
    def test_what_is_no_function_is_refused_where_it_is_given(self, function: Any) -> None:
        for take in (budget(5).bind, with_budget(max_usd=5), scope(user_id="ada")):
            with pytest.raises(TypeError, match="takes a function") as caught:
                take(function)
            assert repr(function) in str(caught.value)

    @pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, pickle.dumps])
    @pytest.mark.parametrize("make", [lambda: budget(1), lambda: budget("$5/hr", name="b")])
    def test_there_is_no_copy(self, make: Any, again: Any) -> None:
        b = make()
        with pytest.raises(TypeError, match=r"cannot be copied or pickled, .*: use this object .*, or make a new one"):
            again(b)
        assert b.spent == 0

    @pytest.mark.parametrize("cap", ["max_usd", "max_llm_calls", "max_tool_calls", "window_seconds"])
    def test_a_spec_and_a_limit_beside_it(self, cap: str) -> None:
        with pytest.raises(ValueError, match=cap):
            budget("$5/hr", name="b", **{cap: 5})

    def test_an_argument_that_does_not_exist(self) -> None:
        with pytest.raises(TypeError):
            budget(max_usd=1, persistent=True)


def test_budget_takes_all_arguments_by_position_that_programs_give_so() -> None:
    b = Budget(1.0, 0.8, None, {"input": 1.0, "output": 2.0}, {"at_pct": 0.9, "model": MODEL}, None, "b", 7)
    assert (b.limit, b.name, b.calls_remaining) == (1.0, "b", 7)
    assert b.price_override == {"input": 1.0, "output": 2.0}
    assert b.fallback == {"at_pct": 0.9, "model": MODEL}
