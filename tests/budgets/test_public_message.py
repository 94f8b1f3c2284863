"""What an end user reads when a budget says no: never an amount, a name or a model, and the program's own words."""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import openai
import pytest

import shekel
from shekel import BudgetExceededError, ToolBudgetExceededError, budget
from shekel.budgets.errors import FallbackError
from shekel.budgets.part_errors import AgentLoopError
from shekel.budgets.public import REASONS

from .conftest import HELLO, MODEL


@pytest.fixture(autouse=True)
def own_words_again() -> Iterator[None]:
    yield
    shekel.configure(public_message=None)


def errors() -> list[Any]:
    kinds = [BudgetExceededError(1.23, 4.56, MODEL, budget="ada's", scope="user.id=ada", reason=r) for r in REASONS]
    loop, tool = AgentLoopError("search", 5, 60.0, 1.23), ToolBudgetExceededError("search", 3, 3, 1.23, 4.56)
    return [*kinds, loop, tool, FallbackError(f"{MODEL} is no model of $4.56")]


class TestOurs:
    def test_shows_no_amount_no_name_and_no_model(self) -> None:
        for error in errors():
            text = error.public_message
            assert text.endswith(".")
            assert not any(sign.isdigit() or sign == "$" for sign in text)
            for secret in (MODEL, "ada", "search"):
                assert secret not in text

    def test_tells_apart_what_waiting_helps_against(self) -> None:
        said = {reason: BudgetExceededError(1, 1, reason=reason).public_message for reason in REASONS}
        assert "later" in said["exceeded"]
        assert "later" in said["stopped"]
        assert "later" not in said["unpriced"]
        assert "stopped" in said["cut"]


class TestTheProgramsOwn:
    def test_one_sentence_for_all(self) -> None:
        shekel.configure(public_message="Genug für heute.")
        assert {error.public_message for error in errors()} == {"Genug für heute."}

    def test_by_reason_with_a_default(self) -> None:
        shekel.configure(public_message={"cut": "Abgebrochen.", "default": "Genug."})
        assert BudgetExceededError(1, 1, reason="cut").public_message == "Abgebrochen."
        assert BudgetExceededError(1, 1).public_message == "Genug."
        shekel.configure(public_message={"cut": "Abgebrochen."})
        assert BudgetExceededError(1, 1).public_message.startswith("The usage limit")

    def test_a_function_of_a_real_refusal(self, client: openai.OpenAI) -> None:
        shekel.configure(public_message=lambda error: f"Ask {error.budget}.")
        with budget(max_usd=0.00001, name="sales"), pytest.raises(BudgetExceededError) as refused:
            client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=1000)
        assert refused.value.public_message == "Ask sales."

    def test_a_function_that_fails_or_says_nothing_gives_ours(self, caplog: pytest.LogCaptureFixture) -> None:
        def fails(error: Exception) -> str:
            raise KeyError("secret text")

        for wrong in (fails, lambda error: None, lambda error: "  "):
            shekel.configure(public_message=wrong)  # type: ignore[arg-type]
            with caplog.at_level(logging.WARNING):
                assert BudgetExceededError(1, 1).public_message.startswith("The usage limit")
        assert "secret text" not in caplog.text

    def test_it_goes_along_to_another_process(self) -> None:
        shekel.configure(public_message="Genug.")
        for error in errors():
            if isinstance(error, FallbackError):
                continue
            program = f"import pickle; print(pickle.loads({pickle.dumps(error)!r}).public_message)"
            copy = pickle.loads(pickle.dumps(error))
            assert copy.public_message == "Genug."
        shekel.configure(public_message=None)
        assert copy.public_message == "Genug."
        told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert told.stdout.strip() == "Genug."

    @pytest.mark.parametrize("wrong", ["", "  ", 7, {"cut": ""}, {"Cut": "x"}, {"cut": 3}], ids=repr)
    def test_what_makes_no_sense_is_refused_and_changes_nothing(self, wrong: Any) -> None:
        shekel.configure(public_message="Genug.")
        with pytest.raises(ValueError, match="public_message"):
            shekel.configure(public_message=wrong)
        assert BudgetExceededError(1, 1).public_message == "Genug."
