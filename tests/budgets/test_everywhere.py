"""A budget for the whole process: SHEKEL_BUDGET on a program that knows nothing of it, and `configure(budget=…)`."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import openai
import pytest

import shekel
from shekel import BudgetExceededError, ShekelInstrumentor, UnpricedModelError, budget
from shekel.testing import FakeProvider

from .conftest import DEADLINE, MODEL, ask, ask_async, async_client, billed, everywhere, nano

ALONE = ",".join(sorted({each.name for each in entry_points(group="opentelemetry_instrumentor")} - {"shekel"}))
"""All other instrumentations that are installed: starting them takes many times as long as the program."""

PROGRAM = Path(__file__).with_name("unchanged.py")


def run(
    provider: FakeProvider, spec: str, *arguments: Any, start: str = "instrument", **more: str
) -> subprocess.CompletedProcess[str]:
    """Run the program as it is, under the agent, with that budget in the environment."""
    environment = {
        **os.environ,
        "OPENAI_BASE_URL": provider.openai_url,
        "OPENAI_API_KEY": "test",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": ALONE,
        "SHEKEL_BUDGET": spec,
        **more,
    }
    agent = str(Path(sys.executable).with_name("opentelemetry-instrument"))
    command = [agent, sys.executable, str(PROGRAM), *map(str, arguments or (5, MODEL))]
    if start == "initialize":  # the agent, started by the program's own code
        code = "import runpy; from opentelemetry.instrumentation.auto_instrumentation import initialize; initialize();"
        command = [sys.executable, "-c", f"{code} runpy.run_path({str(PROGRAM)!r}, run_name='__main__')", *command[3:]]
    elif start == "code":
        code = "import runpy, shekel; shekel.ShekelInstrumentor().instrument();"
        command = [sys.executable, "-c", f"{code} runpy.run_path({str(PROGRAM)!r}, run_name='__main__')", *command[3:]]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE * 4, check=False)


class TestUnchangedProgram:
    def test_it_is_refused_at_the_limit_with_a_message_a_person_understands(self, provider: FakeProvider) -> None:
        done = run(provider, "$0.0001/day", OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="")  # a call is about $0.00004
        assert done.returncode == 1
        assert done.stdout.split("\n")[:-1] == ["answer 0", "answer 1"]
        assert len(provider.bill) == 2
        assert billed(provider) <= 100_000
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith(
            "shekel.budgets.errors.BudgetExceededError: Budget 'SHEKEL_BUDGET' of $0.0001 has $0.0000"
        )
        assert f"a call to {MODEL} that needs" in last
        assert "does not fit and was not sent. The window frees room in" in last

    def test_any_limit_and_option_of_a_spec_does(self, provider: FakeProvider) -> None:
        done = run(provider, "$5/day + 3 calls/hr name=nightly")
        assert done.stdout.split("\n")[:-1] == ["answer 0", "answer 1", "answer 2"]
        assert "Budget 'nightly' has 3 of 3 calls used: a call to gpt-4o-mini does not fit" in done.stderr

    def test_a_budget_that_only_warns_stops_nothing(self, provider: FakeProvider) -> None:
        done = run(provider, "1 call at_limit=warn")
        assert (done.returncode, len(provider.bill)) == (0, 5)
        assert done.stderr.count("has used 1 of 1 calls") == 1

    def test_a_model_without_a_price_is_refused_unless_allowed(self, provider: FakeProvider) -> None:
        refused = run(provider, "$5", 2, "nobodys-model")
        assert (refused.returncode, provider.requests) == (1, [])
        assert "unpriced='allow'" in refused.stderr
        allowed = run(provider, "$5 unpriced=allow", 2, "nobodys-model")
        assert (allowed.returncode, allowed.stderr, len(provider.bill)) == (0, "", 2)

    def test_without_telemetry_too(self, provider: FakeProvider) -> None:
        done = run(provider, "2 calls", OTEL_SDK_DISABLED="true")
        assert len(provider.bill) == 2
        assert "BudgetExceededError" in done.stderr

    @pytest.mark.parametrize("start", ["instrument", "initialize"])
    def test_what_is_no_budget_ends_the_program_with_one_sentence(self, provider: FakeProvider, start: str) -> None:
        done = run(provider, "$5/dya", start=start)
        assert done.returncode == 1
        assert (done.stdout, provider.requests) == ("", [])
        assert done.stderr == (
            "shekel: SHEKEL_BUDGET: 'dya' in '$5/dya' is no period: did you mean day? The program was not started.\n"
        )

    @pytest.mark.parametrize(
        "text",
        ["/day", "0/day", ".50/day", "bash.50/hr", "/bin/sh.25", "+ 100 calls/hr", "9 calls/hr + /day", "5 calls +"],
    )
    def test_what_a_shell_has_left_of_it_says_how_to_write_it(self, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SHEKEL_BUDGET", text)
        with pytest.raises(
            ValueError, match=r"^SHEKEL_BUDGET: .* \(in a shell in single quotes, which keep the \$\)\.$"
        ):
            ShekelInstrumentor().instrument()

    @pytest.mark.parametrize("text", ["$5/dya", "$5/", "$x", "five", "5 bananas", "9 calls on"])
    def test_what_no_shell_has_touched_does_not(self, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SHEKEL_BUDGET", text)
        with pytest.raises(ValueError, match="SHEKEL_BUDGET") as caught:
            ShekelInstrumentor().instrument()
        assert "shell" not in str(caught.value)

    def test_an_empty_one_limits_nothing_and_says_so_once(
        self, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        done = run(provider, "")  # what a shell makes of "$5"
        assert done.returncode == 0
        assert (
            done.stderr.count("SHEKEL_BUDGET is empty and limits nothing: in a shell, write '$5' in single quotes") == 1
        )

    def test_in_code_it_is_a_value_error(self, provider: FakeProvider) -> None:
        done = run(provider, "five", start="code")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.splitlines()[-1].startswith("ValueError: SHEKEL_BUDGET: 'five'")
        assert run(provider, "1 call", start="code").stdout == "answer 0\n"

    def test_instrument_fails_and_can_be_repeated(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SHEKEL_BUDGET", "five")
        with pytest.raises(ValueError, match="SHEKEL_BUDGET"):
            ShekelInstrumentor().instrument()
        assert not ShekelInstrumentor().is_instrumented_by_opentelemetry
        monkeypatch.setenv("SHEKEL_BUDGET", "")
        ShekelInstrumentor().instrument()
        ShekelInstrumentor().uninstrument()


class TestConfigured:
    def test_every_call_is_charged_in_whatever_thread_until_none(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        with everywhere(budget("3 calls", name="process")) as b:
            ask(client)
            thread = threading.Thread(target=lambda: ask(client))
            thread.start()
            thread.join()

            async def main() -> None:
                async with async_client(provider) as other:
                    await ask_async(other)

            asyncio.run(main())
            with pytest.raises(BudgetExceededError, match="'process' has 3 of 3 calls used"):
                ask(client)
            assert b.calls_used == 3
            assert nano(b.spent) == billed(provider)
        ask(client)
        assert b.calls_used == 3

    def test_a_spec_or_an_amount_makes_one(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        for spec in ("$0.00001", 0.00001):
            with everywhere(spec), pytest.raises(BudgetExceededError):
                ask(client)
        assert provider.requests == []
        with pytest.raises(ValueError, match="fortnight"):
            shekel.configure(budget="$5/fortnight")

    def test_blocks_inside_are_charged_too_and_in_one_step(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        with everywhere(budget(name="process")) as outer, budget("1 call", name="inner") as inner:
            ask(client)
            with pytest.raises(BudgetExceededError) as refused:
                ask(client)
        assert refused.value.budget == "inner"
        assert (outer.calls_used, inner.calls_used, outer.held) == (1, 1, 0)

    def test_entered_as_a_block_it_is_charged_once(self, client: openai.OpenAI) -> None:
        with everywhere(budget("5 calls")) as b, b:
            ask(client)
        assert [each.used for each in b.limits()] == [1]

    def test_another_one_takes_its_place(self, client: openai.OpenAI) -> None:
        first, second = budget(name="first"), budget(name="second")
        with everywhere(first):
            ask(client)
            shekel.configure(budget=second)
            ask(client)
        assert (first.calls_used, second.calls_used) == (1, 1)


class TestDefaultMode:
    @pytest.fixture(autouse=True)
    def sliced_again(self) -> Any:
        yield
        shekel.configure(mode="sliced")

    def test_budgets_and_policies_made_from_now_on_have_it(self) -> None:
        before = budget(max_usd=1)
        shekel.configure(mode="strict")
        assert before.mode == "sliced"
        assert budget(max_usd=1).mode == "strict"
        assert budget("$5/day").mode == "strict"
        assert shekel.per("user.id", "$5").mode == "strict"
        assert budget(max_usd=1, mode="expected").mode == "expected"
        assert budget("$5 mode=sliced").mode == "sliced"

    def test_it_is_in_force(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        shekel.configure(mode="strict")
        with budget(max_usd=0.0005):
            client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hi"}])
        assert provider.requests[0].body["max_completion_tokens"] > 0

    def test_one_that_is_none_is_refused(self) -> None:
        with pytest.raises(ValueError, match="mode must be"):
            shekel.configure(mode="loose")


def test_an_unpriced_model_under_a_process_budget_says_how_to_let_it_pass(client: openai.OpenAI) -> None:
    with everywhere("$5"), pytest.raises(UnpricedModelError):
        ask(client, model="nobodys-model")
    with everywhere("$5 unpriced=allow"):
        ask(client, model="nobodys-model")
