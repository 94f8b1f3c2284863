"""The README's table for those who come from Paygent: what stands in its right column is code that runs."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import openai
import pytest

import shekel
from shekel import BudgetExceededError, ShekelInstrumentor
from shekel.testing import FakeProvider

README = (Path(__file__).parents[2] / "README.md").read_text()
[SECTION] = re.findall(r"^## Coming from Paygent\n(.*?)(?=^## )", README, re.DOTALL | re.MULTILINE)
ROWS = re.findall(r"^\| (.+?) \| (.+?) \|$", SECTION, re.MULTILINE)[1:]
CODE = [(there, code) for there, here in ROWS for code in re.findall(r"`((?:await |list\()?shekel\.[^`]+)`", here)]
POLICIES = 'shekel.configure(policies=[shekel.per("user.id", plans='


@pytest.fixture
def names(provider: FakeProvider) -> Iterator[dict[str, Any]]:
    """What the lines leave to the reader."""
    messages = [{"role": "user", "content": "Hello."}]
    options: dict[str, Any] = {"base_url": provider.openai_url, "api_key": "test", "max_retries": 0}
    [plans] = [code for _, code in CODE if code.startswith(POLICIES)]
    exec(plans, {"shekel": shekel})
    yield {
        "shekel": shekel,
        "client": openai.OpenAI(**options),
        "aclient": openai.AsyncOpenAI(**options),
        "messages": messages,
        "ask": {"model": "gpt-4o-mini", "messages": messages},
    }
    shekel.configure(policies=[], track=None)
    if ShekelInstrumentor().is_instrumented_by_opentelemetry:
        ShekelInstrumentor().uninstrument()


def test_most_rows_are_code() -> None:
    assert len(ROWS) > 25
    assert len({there for there, _ in CODE}) > 23


@pytest.mark.parametrize(("there", "code"), CODE, ids=[code[:60] for _, code in CODE])
async def test_each_line_runs(there: str, code: str, names: dict[str, Any], provider: FakeProvider) -> None:
    compiled = compile(code, there, "eval", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = FunctionType(compiled, names)() if "await" in code else eval(compiled, names)
    if inspect.isawaitable(result):
        result = await result
    assert result is not None or "configure" in code or "instrument" in code or "assign" in code or "cancel" in code
    if "create(" in code:
        provider.wait_idle()
        used = shekel.usage(user_id="ada")
        assert used.spent is not None
        assert used.spent > 0


def test_the_plan_that_was_assigned_holds(names: dict[str, Any], provider: FakeProvider) -> None:
    shekel.record(0.1, user_id="ada")
    assert not shekel.check(user_id="ada")
    shekel.assign_plan("ada", "pro")
    assert shekel.check(user_id="ada")
    assert not shekel.check(user_id="bob", model="gpt-4o", request={"max_tokens": 100_000})


def test_a_refusal_shows_a_sentence_instead_of_a_guard_result(names: dict[str, Any]) -> None:
    shekel.record(0.1, user_id="ada")
    with pytest.raises(BudgetExceededError) as refused:
        shekel.meter(lambda: names["client"].chat.completions.create(**names["ask"]), user_id="ada")
    assert "$" not in refused.value.public_message
    assert refused.value.scope == "user.id=ada"
