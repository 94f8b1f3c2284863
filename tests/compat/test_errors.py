"""The errors of the vocabulary: who is whose child, what they carry, how they read, and that they travel."""

from __future__ import annotations

import copy
import pickle
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest

from shekel.budgets.errors import BudgetExceededError, BudgetPausedError, UnboundedCallError, UnpricedModelError
from shekel.budgets.part_errors import (
    AgentBudgetExceededError,
    AgentLoopError,
    BudgetConfigMismatchError,
    ChainBudgetExceededError,
    NodeBudgetExceededError,
    SessionBudgetExceededError,
    SpendVelocityExceededError,
    TaskBudgetExceededError,
    ToolBudgetExceededError,
)

TOKENS = {"input": 12, "output": 34}

ERRORS: list[Any] = [
    BudgetExceededError(1.5, 1.0, "gpt-4o", TOKENS, 30.0, 0.5, "usd", budget="b", scope="user.id=ada", held=0.25),
    BudgetPausedError(1.5, 1.0, "gpt-4o", reason="paused", window_reset=1_800_000_000.0),
    UnpricedModelError(0.0, 1.0, "m", reason="unpriced", detail="no price."),
    UnboundedCallError(0.0, 1.0, "m", reason="unbounded", detail="no bound."),
    NodeBudgetExceededError("fetch", 0.5, 0.4, budget="graph", held=0.1),
    AgentBudgetExceededError("writer", 0.5, 0.4),
    TaskBudgetExceededError("report", 0.5, 0.4),
    ChainBudgetExceededError("summary", 0.5, 0.4),
    SessionBudgetExceededError("claw", 0.5, 0.4, 3600.0),
    AgentLoopError("search", 5, 60.0, 0.125, budget="b"),
    SpendVelocityExceededError(0.75, 0.5, 30.0, "gpt-4o", TOKENS, retry_after=4.0),
    ToolBudgetExceededError("search", 3, 3, 0.3, 1.0, budget="b", exceeded_counter="tool_calls"),
    BudgetConfigMismatchError("other limits"),
]


def raise_it(error: Exception) -> None:
    raise error


def same(one: Exception, other: Exception) -> None:
    assert type(other) is type(one)
    assert str(other) == str(one)
    assert vars(other) == vars(one)
    assert other.args == one.args


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
class TestTravelling:
    def test_pickle_keeps_all(self, error: Exception) -> None:
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            same(error, pickle.loads(pickle.dumps(error, protocol)))

    def test_copies_keep_all(self, error: Exception) -> None:
        same(error, copy.copy(error))
        same(error, copy.deepcopy(error))

    def test_what_a_program_adds_travels_too(self, error: Exception) -> None:
        error = copy.copy(error)
        error.add_note("seen in the nightly job")
        error.mine = 7  # type: ignore[attr-defined]
        again = pickle.loads(pickle.dumps(error))
        assert (again.__notes__, again.mine) == (["seen in the nightly job"], 7)


def test_each_comes_back_whole_from_another_process() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for error in ERRORS:
            with pytest.raises(type(error)) as caught:
                pool.submit(raise_it, error).result(timeout=60)
            same(error, caught.value)


def test_whoever_catches_the_budget_error_catches_all_but_those_of_tools() -> None:
    apart = {ToolBudgetExceededError, BudgetConfigMismatchError}
    for error in ERRORS:
        assert isinstance(error, BudgetExceededError) is (type(error) not in apart)
        assert isinstance(error, Exception)


class TestWhatTheyCarry:
    def test_the_base_has_defaults(self) -> None:
        error = BudgetExceededError(2.0, 1.0)
        assert (error.spent, error.limit, error.model) == (2.0, 1.0, "unknown")
        assert error.tokens == {"input": 0, "output": 0}
        assert (error.retry_after, error.window_spent, error.exceeded_counter) == (None, None, None)
        assert error.reason == "exceeded"

    def test_the_base_takes_its_facts_in_the_known_order(self) -> None:
        error = BudgetExceededError(2.0, 1.0, "m", TOKENS, 9.0, 1.5, "llm_calls")
        assert (error.tokens, error.retry_after, error.window_spent) == (TOKENS, 9.0, 1.5)
        assert error.exceeded_counter == "llm_calls"

    def test_calls_have_one_name_whoever_says_it(self) -> None:
        assert BudgetExceededError(2, 2, exceeded_counter="calls").exceeded_counter == "llm_calls"

    @pytest.mark.parametrize(
        ("error", "field", "model"),
        [
            (NodeBudgetExceededError("x", 0.5, 0.4), "node_name", "node:x"),
            (AgentBudgetExceededError("x", 0.5, 0.4), "agent_name", "agent:x"),
            (TaskBudgetExceededError("x", 0.5, 0.4), "task_name", "task:x"),
            (ChainBudgetExceededError("x", 0.5, 0.4), "chain_name", "chain:x"),
            (SessionBudgetExceededError("x", 0.5, 0.4), "agent_name", "session:x"),
        ],
    )
    def test_a_part_is_named(self, error: Any, field: str, model: str) -> None:
        assert getattr(error, field) == "x"
        assert (error.spent, error.limit, error.model) == (0.5, 0.4, model)
        assert "'x'" in str(error)

    def test_a_session_knows_its_window(self) -> None:
        assert SessionBudgetExceededError("x", 0.5, 0.4).window is None
        assert SessionBudgetExceededError("x", 0.5, 0.4, window=60.0).window == 60.0

    def test_a_loop_has_no_limit_of_its_own(self) -> None:
        error = AgentLoopError("search", 5, 60.0, 0.125)
        assert (error.tool_name, error.repeat_count, error.window_seconds) == ("search", 5, 60.0)
        assert error.spent == error.limit == 0.125
        assert error.model == "loop:search"

    def test_a_velocity_is_told_per_minute(self) -> None:
        error = SpendVelocityExceededError(0.75, 0.5, 30.0, "m", TOKENS)
        assert (error.spent_in_window, error.limit_usd, error.window_seconds) == (0.75, 0.5, 30.0)
        assert (error.velocity_per_min, error.limit_per_min) == (1.5, 1.0)
        assert (error.spent, error.limit, error.model, error.tokens) == (0.75, 0.5, "m", TOKENS)

    def test_a_velocity_without_a_length_is_still_an_error_that_can_be_made(self) -> None:
        assert str(SpendVelocityExceededError(0.0, 0.5, 0.0))

    def test_a_tool_says_what_was_used_of_calls_and_of_money(self) -> None:
        error = ToolBudgetExceededError("search", 3, 3, 0.3, 1.0)
        assert (error.tool_name, error.calls_used, error.calls_limit) == ("search", 3, 3)
        assert (error.usd_spent, error.usd_limit, error.framework) == (0.3, 1.0, "manual")


class TestHowTheyRead:
    @pytest.mark.parametrize(
        ("error", "sentence"),
        [
            (
                BudgetExceededError(0.0, 0.0001, "gpt-4o-mini", budget="report", needed=0.000302),
                "Budget 'report' of $0.0001 has $0.00 spent: a call to gpt-4o-mini that needs $0.000302 does not fit "
                "and was not sent.",
            ),
            (
                BudgetExceededError(3, 3, "gpt-4o", exceeded_counter="llm_calls", needed=1, budget="b"),
                "Budget 'b' has 3 of 3 calls used: a call to gpt-4o does not fit and was not sent.",
            ),
            (
                BudgetExceededError(900, 1000, "m", exceeded_counter="input_tokens", needed=120, held=50),
                "The budget has 900 of 1,000 input tokens used and 50 held by open calls: "
                "a call to m that needs 120 does not fit and was not sent.",
            ),
            (
                BudgetExceededError(1.5, 1.5, "m", scope="user.id=ada", reason="cut", exceeded_counter="usd"),
                "The budget for user.id=ada of $1.50 has $1.50 spent: the stream from m was cut, because nothing is "
                "left for more output.",
            ),
            (
                BudgetExceededError(1.6, 1.5, "m", reason="finished"),
                "The budget of $1.50 has $1.60 spent: the stream from m was let to its end and went over the limit.",
            ),
            (
                BudgetExceededError(0, 1.5, "m", budget="b", reason="stopped"),
                "Budget 'b' is stopped: a call to m was not sent. Its resume() lets calls pass again.",
            ),
            (
                BudgetPausedError(1, 1, "m", None, 12.4, reason="paused"),
                "The budget of $1.00 has $1.00 spent: a call to m waited for room, got none in time and was not sent. "
                "The window frees room in 12 s at the earliest.",
            ),
            (
                BudgetExceededError(2.0, 1.0),
                "The budget of $1.00 has $2.00 spent: a call does not fit and was not sent.",
            ),
            (
                NodeBudgetExceededError("fetch", 0.4, 0.4, budget="graph", needed=0.1),
                "Node 'fetch' of budget 'graph' has $0.40 of its cap of $0.40 spent: a call to node:fetch that needs "
                "$0.10 does not fit and was not sent.",
            ),
            (
                AgentLoopError("search", 5, 60.0, 0.125, budget="b"),
                "Budget 'b' takes the tool 'search' for a loop: it ran 5 times in the last 60 s, with $0.1250 spent, "
                "so it was not run again. Where that is meant, raise loop_guard_max_calls or shorten "
                "loop_guard_window_seconds.",
            ),
            (
                SpendVelocityExceededError(0.45, 0.5, 30.0, "m", held=0.05, needed=0.01),
                "The budget may spend $0.50 in 30 s ($1.00 per minute) and has spent $0.45, with $0.05 held by open "
                "calls: a call to m that needs $0.01 does not fit and was not sent.",
            ),
            (
                ToolBudgetExceededError("search", 3, 3, 0.3, 1.0, budget="b", exceeded_counter="tool_calls"),
                "Budget 'b' has 3 of 3 tool calls used: the tool 'search' was not run.",
            ),
            (
                ToolBudgetExceededError("search", 3, 9, 0.95, 1.0, exceeded_counter="usd", price=0.1),
                "The budget of $1.00 has $0.95 spent: the tool 'search', which costs $0.10, does not fit and was not "
                "run.",
            ),
            (
                ToolBudgetExceededError("search", 3, None, 0.95, None),
                "The budget has 3 tool calls used: the tool 'search' was not run.",
            ),
        ],
    )
    def test_a_sentence_says_who_has_what_and_what_was_not_done(self, error: Exception, sentence: str) -> None:
        assert str(error) == sentence

    def test_a_loop_for_all_time_says_so(self) -> None:
        assert "all-time" in str(AgentLoopError("search", 5, 0, 0.0))

    def test_the_public_message_shows_no_amount_and_no_name(self) -> None:
        for error in ERRORS[:-1]:
            text = error.public_message
            assert text.endswith(".")
            assert not any(character.isdigit() or character in "$'" for character in text)
            for secret in ("gpt", "ada", "search", "fetch", "writer"):
                assert secret not in text

    def test_each_reason_that_a_user_should_know_apart_has_its_own(self) -> None:
        texts = {BudgetExceededError(1, 1, reason=reason).public_message for reason in ("exceeded", "cut", "stopped")}
        assert len(texts) == 3


def test_making_them_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        copy.deepcopy(ERRORS)
