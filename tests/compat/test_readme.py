"""The README's list for those who come from the `shekel` library: each line is held by a test, each name is there."""

from __future__ import annotations

import re
from pathlib import Path

import shekel
from shekel import Budget, BudgetExceededError, ToolBudgetExceededError

TESTS = Path(__file__).parents[1]
README = (TESTS.parent / "README.md").read_text()
SECTION = README[README.index("\n## Coming from shekel\n") : README.index("\n## Contributing\n")]
LINES = [" ".join(line.split()) for line in re.findall(r"^- (.+(?:\n  .+)*)", SECTION, re.MULTILINE)]

HELD = {
    "`spent`, `remaining`": "compat/test_windows.py::test_what_a_window_shows_is_what_counts_now",
    "`tool_spent`": "compat/test_tools.py::test_tools_and_calls_share_the_money",
    "`warn_at`": "compat/test_telling.py::test_all_arguments_of_a_budget",
    "`calls_used`": "compat/test_calls.py::test_a_call_that_the_provider_refuses_is_given_back",
    "`limit` of a child": "compat/test_nesting.py::test_a_child_is_capped_to_what_its_parent_has_left",
    "`children`": "compat/test_nesting.py::test_many_children_are_not_kept_for_ever",
    "`tree()`, `summary()`": "compat/test_nesting.py::test_it_shows_all_with_their_spending",
    "`node()`": "compat/test_nesting.py::test_it_holds_for_the_blocks_of_that_name_inside",
    "`max_velocity`": "compat/test_windows.py::test_money_that_goes_too_fast_is_stopped_before_it_goes",
    "`BudgetExceededError`": "origin/test_page.py::test_or_is_let_to_its_end_as_the_page_says_where_that_is_asked_for",
    "`shekel run`": "cli/test_run.py::test_what_makes_no_sense_ends_with_status_2_before_the_program",
    "`RedisBackend`": "compat/test_not_here_yet.py::test_making_one_says_what_to_use_instead",
    "A call was sent": "compat/test_blocks.py::test_nothing_is_sent_once_the_money_is_used_up",
    "`max_llm_calls=2`": "compat/test_calls.py::test_as_many_are_sent_as_the_limit_says_and_no_more",
    "A child without": "compat/test_nesting.py::test_a_child_that_only_tracks_shows_no_limit_and_lets_nothing_through",
    "A child was capped": "compat/test_nesting.py::test_the_cap_follows_the_parent_and_is_no_snapshot",
    "The parent saw": "compat/test_nesting.py::test_the_parent_sees_it_at_once_and_may_spend_meanwhile",
    "Nested budgets": "compat/test_nesting.py::test_names_are_not_needed_and_levels_are_not_counted",
    "A budget in a window": "compat/test_windows.py::test_one_inside_another_is_fine",
    "A window was fixed": "compat/test_windows.py::test_it_slides_and_is_no_fixed_window",
    "A model without": "test_budget.py::test_an_unknown_model_is_refused_with_three_remedies",
    "`fallback=": "compat/test_calls.py::test_a_name_alone_is_enough",
    "The price of": "compat/test_tools.py::test_a_price_of_the_decorator_is_refused_before_it_runs",
    "Parallel tools": "compat/test_tools.py::test_many_at_once_hold_exactly",
    "Not a number": "compat/test_blocks.py::test_it_is_said_in_one_sentence_that_names_the_argument",
    "Errors did not pickle": "compat/test_errors.py::test_each_comes_back_whole_from_another_process",
}
"""How each line begins, and the test that holds it."""


def test_every_line_is_held_by_a_test_that_exists() -> None:
    assert len(LINES) == len(HELD)
    for line, (start, test) in zip(LINES, HELD.items(), strict=True):
        assert line.startswith(start), line
        path, _, name = test.partition("::")
        assert re.search(rf"^ *(async )?def {name}\(", (TESTS / path).read_text(), re.MULTILINE), test


def test_every_name_is_there() -> None:
    names = {name for line in LINES for name in re.findall(r"`([A-Za-z_]+)(?:\(\))?`", line)}
    names -= {"shekel"}
    arguments = set(Budget.__init__.__annotations__) | {"backend", "tenant_id"}
    error = ToolBudgetExceededError("t", 1, 1, 0.0, None)
    for name in names | set(re.findall(r"`([a-z_]+)=[^`]*`", " ".join(LINES))):
        assert hasattr(shekel, name) or hasattr(Budget, name) or name in arguments or hasattr(error, name), name
    assert len(names) > 20


def test_what_the_vocabulary_names_is_public() -> None:
    errors = {name for name in dir(shekel) if name.endswith("Error")}
    for kind in ("Node", "Agent", "Task", "Chain", "Session", "Tool"):
        assert f"{kind}BudgetExceededError" in errors
    assert {"AgentLoopError", "SpendVelocityExceededError", "BudgetConfigMismatchError"} <= errors
    assert {"budget", "Budget", "TemporalBudget", "with_budget", "tool"} <= set(shekel.__all__)
    assert issubclass(shekel.NodeBudgetExceededError, BudgetExceededError)
    for name in shekel.vocabulary.NAMES:
        assert getattr(shekel, name) is getattr(shekel.vocabulary, name)
