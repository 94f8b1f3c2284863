"""Budgets in windows that slide: the spec, the keywords, the class, and how fast money may go."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from shekel import Budget, BudgetExceededError, SpendVelocityExceededError, TemporalBudget, budget
from shekel.testing import Clock, FakeProvider
from shekel.vocabulary import NotHereYetError

from .conftest import CENT, MODEL

Ask = Any


WAYS: list[Any] = [
    lambda: budget("$0.02/hr", name="api", **CENT),
    lambda: budget(max_usd=0.02, window_seconds=3600, name="api", **CENT),
    lambda: TemporalBudget(0.02, 3600, name="api", **CENT),
    lambda: TemporalBudget(max_usd=0.02, window_seconds=3600, name="api", **CENT),
    lambda: TemporalBudget(name="api", caps=[("usd", 0.02, 3600)], **CENT),
]


@pytest.mark.parametrize("make", WAYS, ids=["spec", "keywords", "positions", "names", "caps"])
def test_every_way_to_make_one_is_the_same_budget(make: Any, ask: Ask, clock: Clock, provider: FakeProvider) -> None:
    b = make()
    assert isinstance(b, TemporalBudget)
    assert isinstance(b, Budget)
    assert (b.name, b.limit, b.tenant_id) == ("api", 0.02, None)
    with b:
        ask()
        clock.advance(1200)
        ask()
        with pytest.raises(BudgetExceededError) as refused:
            ask()
        error = refused.value
        assert (error.spent, error.limit, error.exceeded_counter) == (pytest.approx(0.02), 0.02, "usd")
        assert error.window_spent == pytest.approx(0.02)
        assert error.retry_after == pytest.approx(2400, rel=0.05)
        clock.advance(error.retry_after + 1)
        ask()
        with pytest.raises(BudgetExceededError):
            ask()
    assert len(provider.requests) == 3


def test_it_slides_and_is_no_fixed_window(ask: Ask, clock: Clock, provider: FakeProvider) -> None:
    with budget("$0.03/60s", name="api", **CENT):
        ask()
        clock.advance(55)
        ask()
        ask()
        clock.advance(10)  # a fixed window would have started anew, and let three through
        ask()
        with pytest.raises(BudgetExceededError):
            ask()
    assert len(provider.requests) == 4


def test_what_a_window_shows_is_what_counts_now(ask: Ask, clock: Clock) -> None:
    with budget("$0.05/hr", name="api", **CENT) as b:
        ask()
        assert (b.spent, b.remaining) == (pytest.approx(0.01), pytest.approx(0.04))
        clock.advance(7200)
        assert (b.spent, b.remaining) == (0, 0.05)
    assert b.summary_data()["total_spent"] == b.spent_direct == pytest.approx(0.01)
    assert b.calls_used == 1


def test_several_limits_each_in_its_own_window(ask: Ask, clock: Clock) -> None:
    with budget("$0.03/hr + 1 calls/10s", name="api", **CENT):
        ask()
        with pytest.raises(BudgetExceededError) as refused:
            ask()
        assert refused.value.exceeded_counter == "llm_calls"
        assert refused.value.retry_after == pytest.approx(10, rel=0.05)
        for _ in range(2):
            clock.advance(11)
            ask()
        clock.advance(11)
        with pytest.raises(BudgetExceededError) as refused:
            ask()
        assert refused.value.exceeded_counter == "usd"


def test_keywords_share_the_window(ask: Ask, clock: Clock) -> None:
    b = budget(max_usd=5, max_llm_calls=1, window_seconds=60, name="api", **CENT)
    with b:
        ask()
        with pytest.raises(BudgetExceededError) as refused:
            ask()
        assert refused.value.exceeded_counter == "llm_calls"
        clock.advance(61)
        ask()
    assert b.calls_remaining == 0


def test_caps_name_what_they_count(ask: Ask, clock: Clock) -> None:
    b = TemporalBudget(
        name="api",
        caps=[("usd", None, 60), ("llm_calls", 1, 60), ("tool_calls", 3.0, 60), ("tokens", 1000, 60)],
        **CENT,
    )
    assert (b.limit, b.calls_remaining, b.tool_calls_remaining) == (None, 1, 3)
    with b:
        ask()
        with pytest.raises(BudgetExceededError):
            ask()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"max_usd": 5, "window_seconds": 60}, "name"),
        ({"max_usd": 5, "window_seconds": 60, "name": ""}, "name"),
        ({"max_usd": 5, "name": "api"}, "window_seconds"),
        ({"window_seconds": 60, "name": "api"}, "max_usd"),
        ({"max_usd": 5, "window_seconds": 0, "name": "api"}, "window_seconds"),
        ({"max_usd": 5, "window_seconds": -1, "name": "api"}, "window_seconds"),
        ({"name": "api", "caps": [("usd", 0, 60)]}, "caps"),
        ({"name": "api", "caps": [("euros", 5, 60)]}, "euros"),
        ({"name": "api", "caps": [("usd", 5)]}, "caps"),
        ({"name": "api", "caps": []}, "caps"),
        ({"name": "api", "caps": [("usd", 5, 60)], "max_usd": 5}, "caps"),
        ({"max_usd": 5, "window_seconds": 60, "name": "api", "tenant_id": ""}, "tenant_id"),
        ({"max_usd": 5, "window_seconds": 60, "name": "api", "tenant_id": "acme"}, "backend"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_sentence(arguments: dict[str, Any], word: str) -> None:
    with pytest.raises((ValueError, TypeError), match=word) as caught:
        TemporalBudget(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("arguments", [{}, {"name": "api"}])
def test_a_tenant_needs_a_ledger_that_is_shared(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="tenant_id"):
        budget(max_usd=5, tenant_id="acme", **arguments)


def test_a_ledger_that_is_shared_is_not_here_yet() -> None:
    with pytest.raises(ValueError, match="name"):
        budget(max_usd=5, backend=object())
    for make in (budget, TemporalBudget):
        with pytest.raises(NotHereYetError, match="backend"):
            make(max_usd=5, window_seconds=60, name="api", backend=object())
    with pytest.raises(NotHereYetError, match=r"per\("):
        budget(max_usd=5, name="api", backend=object(), tenant_id="acme")


def test_one_inside_another_is_fine(ask: Ask, provider: FakeProvider) -> None:
    with budget("$0.02/hr", name="outer", **CENT), budget("$5/min", name="inner"):
        with pytest.raises(BudgetExceededError) as refused:
            for _ in range(9):
                ask()
    assert refused.value.budget == "outer"
    assert len(provider.requests) == 2


@pytest.mark.parametrize("spec", ["$5/fortnight", "five", "$0/hr", "$5/hr +", "5 euros/hr", ""])
def test_a_spec_that_is_none_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        budget(spec, name="api")


class TestVelocity:
    def test_money_that_goes_too_fast_is_stopped_before_it_goes(
        self, ask: Ask, clock: Clock, provider: FakeProvider
    ) -> None:
        with budget(max_usd=5, max_velocity="$0.02/30s", name="b", **CENT) as b:
            ask()
            ask()
            with pytest.raises(SpendVelocityExceededError) as stopped:
                ask()
            assert len(provider.requests) == 2
            clock.advance(31)
            ask()
        error = stopped.value
        assert isinstance(error, BudgetExceededError)
        assert (error.spent_in_window, error.limit_usd, error.window_seconds) == (pytest.approx(0.02), 0.02, 30)
        assert (error.velocity_per_min, error.limit_per_min) == (pytest.approx(0.04), pytest.approx(0.04))
        assert (error.model, error.budget, error.exceeded_counter) == (MODEL, "b", "usd")
        assert error.retry_after == pytest.approx(30, rel=0.05)
        assert b.limit == 5
        assert b.spent == pytest.approx(0.03), "all that was spent, not what the window shows"

    def test_it_needs_no_other_limit(self, ask: Ask, clock: Clock) -> None:
        with budget(max_velocity="$0.01/min", **CENT) as b:
            ask()
            with pytest.raises(SpendVelocityExceededError):
                ask()
        assert b.limit is b.remaining is None

    def test_the_other_limit_keeps_its_own_error(self, ask: Ask, clock: Clock) -> None:
        with budget(max_usd=0.01, max_velocity="$5/min", **CENT), pytest.raises(BudgetExceededError) as refused:
            ask()
            ask()
        assert not isinstance(refused.value, SpendVelocityExceededError)

    def test_a_warning_comes_before_and_again_once_the_window_was_empty(self, ask: Ask, clock: Clock) -> None:
        told: list[tuple[float, float]] = []
        with budget(
            max_velocity="$0.10/min", warn_velocity="$0.02/min",
            on_warn=lambda spent, limit: told.append((spent, limit)), **CENT,
        ):  # fmt: skip
            for _ in range(3):
                ask()
            assert told == [(pytest.approx(0.02), 0.02)]
            clock.advance(70)
            for _ in range(3):
                ask()
        assert told == [(pytest.approx(0.02), 0.02)] * 2

    def test_without_a_callback_it_is_a_warning_of_python(self, ask: Ask, clock: Clock) -> None:
        with budget(max_velocity="$0.10/min", warn_velocity="$0.02/min", **CENT):
            ask()
            with pytest.warns(UserWarning, match=r"0\.02"):
                ask()

    def test_warn_only_goes_on(self, ask: Ask, clock: Clock) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with budget(max_velocity="$0.01/min", warn_only=True, **CENT) as b:
                for _ in range(3):
                    ask()
        assert b.calls_used == 3
