"""`shekel run`: a program as it is, in a process of its own; its exit status and what it says at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shekel.testing import FakeProvider

ASKS = """
import sys, threading, openai
client = openai.OpenAI(max_retries=0)
def ask():
    messages = [{"role": "user", "content": "Hello there."}]
    client.chat.completions.create(model="gpt-4o-mini", messages=messages, max_tokens=30)
for number in range(int(sys.argv[1])):
    ask()
    print("answer", number)
"""
THREAD = ASKS + "thread = threading.Thread(target=ask)\nthread.start()\nthread.join()\n"
SWALLOWS = ASKS.replace("    ask()\n    print", "    try: ask()\n    except Exception: pass\n    print")


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider(output_tokens=10) as provider:
        yield provider


@pytest.fixture
def run(provider: FakeProvider, tmp_path: Path) -> object:
    def run(*words: str, program: str = ASKS, **more: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "app.py").write_text(program)
        environment = {**os.environ, "OPENAI_BASE_URL": provider.openai_url, "OPENAI_API_KEY": "test", **more}
        command = [sys.executable, "-m", "shekel.cli", "run", *words]
        return subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )

    return run


def last(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    return json.loads(done.stdout.splitlines()[-1])


def test_it_runs_as_it_is_and_says_what_it_spent(run, provider: FakeProvider) -> None:
    done = run("app.py", "--budget", "5", "2")
    assert (done.returncode, done.stderr) == (0, "")
    spent = f"{float(provider.bill.usd):.6f}"
    assert done.stdout == f"answer 0\nanswer 1\n${spent} spent / $5.00 (0%) · 2 calls · gpt-4o-mini\n"


@pytest.mark.parametrize(
    "words",
    [
        ("app.py", "--max-llm-calls", "2", "5"),
        ("--max-llm-calls=2", "app.py", "5"),
        ("--budget", "2 calls", "app.py", "5"),
    ],
    ids=" ".join,
)
def test_a_limit_refuses_with_status_1(run, provider: FakeProvider, words: tuple[str, ...]) -> None:
    done = run(*words, "--output", "json")
    assert (done.returncode, len(provider.bill)) == (1, 2)
    assert done.stderr.splitlines() == [
        "shekel: The budget has 2 of 2 calls used: a call to gpt-4o-mini does not fit and was not sent."
    ]
    told = last(done)
    assert list(told) == ["spent", "limit", "calls", "tool_calls", "status", "tenant_id", "model"]
    assert (told["status"], told["calls"], told["limit"], told["model"]) == ("exceeded", 2, None, "gpt-4o-mini")


def test_threads_count_too(run, provider: FakeProvider) -> None:
    done = run("app.py", "--max-llm-calls", "1", "1", program=THREAD)
    assert len(provider.bill) == 1
    assert "BudgetExceededError" in done.stderr


def test_threads_that_outlive_the_program_count_too(run, provider: FakeProvider) -> None:
    program = THREAD.replace("thread.join()", "").replace("def ask():", "def ask():\n    import time; time.sleep(0.2)")
    done = run("app.py", "--budget", "5", "--output", "json", "0", program=program)
    assert (done.returncode, last(done)["calls"], len(provider.bill)) == (0, 1, 1)


def test_one_that_the_program_has_caught_leaves_its_own_status(run, provider: FakeProvider) -> None:
    done = run("app.py", "--max-llm-calls", "1", "--output", "json", "3", program=SWALLOWS)
    assert (done.returncode, last(done)["status"], len(provider.bill)) == (0, "exceeded", 1)


def test_what_the_environment_says_of_budgets_and_policies_holds(run, provider: FakeProvider, tmp_path: Path) -> None:
    assert run("app.py", "3", SHEKEL_BUDGET="2 calls").returncode == 1
    assert run("app.py", "--budget", "5", "3", SHEKEL_BUDGET="2 calls").returncode == 0
    (tmp_path / "p.toml").write_text('[policies.users]\nper = "user.id"\nlimit = "1 call"\n')
    program = "import shekel\n" + ASKS.replace("    ask()\n", "    with shekel.scope(user_id='ada'): ask()\n")
    done = run("app.py", "--budget", "5", "3", program=program, SHEKEL_POLICIES="p.toml")
    assert (done.returncode, len(provider.bill)) == (1, 2 + 3 + 1)
    for wrong in ({"SHEKEL_BUDGET": "$5/dya"}, {"SHEKEL_POLICIES": "nosuch.toml"}, {"SHEKEL_TRUST": "some"}):
        done = run("app.py", "3", **wrong)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("switch", ["--warn-only", "--dry-run"])
def test_only_to_warn_refuses_nothing(run, provider: FakeProvider, switch: str) -> None:
    done = run("app.py", switch, "--budget", "0.000001", "--output", "json", "3")
    assert (done.returncode, last(done)["status"], len(provider.bill)) == (0, "exceeded", 3)


def test_a_share_that_is_reached_is_a_warning(run) -> None:
    done = run("app.py", "--max-llm-calls", "4", "--warn-at", "0.5", "--output", "json", "2")
    assert (done.returncode, last(done)["status"]) == (0, "warn")
    assert run("app.py", "--max-llm-calls", "4", "--warn-at", "0.9", "--output", "json", "2").stdout.count('"ok"') == 1


def test_a_fallback_takes_over(run, provider: FakeProvider) -> None:
    words = ("--max-llm-calls", "4", "--fallback-model", "gpt-4.1-nano", "--fallback-at", "0.5")
    assert run("app.py", *words, "4").returncode == 0
    assert [each.model for each in provider.bill] == ["gpt-4o-mini"] * 2 + ["gpt-4.1-nano"] * 2


def test_the_command_line_goes_before_the_environment_and_that_before_the_file(run, tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text("[budget]\nmax_usd = 0.5\nmax_llm_calls = 9\n")
    limits = [
        last(run(*words, "--output", "json", "app.py", "1", **more))["limit"]
        for words, more in [
            ((), {}),
            (("--budget-file", "b.toml"), {}),
            (("--budget-file", "b.toml"), {"AGENT_BUDGET_USD": "3"}),
            (("--budget-file", "b.toml", "--budget", "5"), {"AGENT_BUDGET_USD": "3"}),
        ]
    ]
    assert limits == [None, 0.5, 3, 5]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nosuch.py",), "there is no script 'nosuch.py'"),
        (("app.py", "--budget", "-1"), "shekel: --budget must be above 0, not '-1'"),
        (("app.py", "--budget", "nan"), "shekel: --budget must be finite, not 'nan'"),
        (("app.py", "--budget", "$5/dya"), "--budget: 'dya' in '$5/dya' is no period: did you mean day?"),
        (("app.py", "--budget", "5 calls", "--max-llm-calls", "6"), "contradicts itself: '6 calls' and '5 calls'"),
        (("app.py", "--budget", "5", "--warn-at", "2"), "warn_at must be a share"),
        (("app.py", "--budget", "5", "--fallback-model", "x", "--fallback-at", "2"), "fallback at_pct must be a share"),
        (("app.py", "--max-llm-calls", "0"), "max_llm_calls must be above 0"),
        (("app.py", "--budget-file", "nosuch.toml"), "the budget file 'nosuch.toml' cannot be read"),
        (("app.py", "--budget-file", "app.py"), "the budget file 'app.py' is no TOML"),
        (("app.py", "--budget-file", "other.toml"), "has no table [budget]"),
        (("app.py", "--budget-file", "slip.toml"), "'max_usdd' in [budget] of 'slip.toml' is no limit: did you mean"),
        (("--bugdet", "5", "app.py"), "unrecognized arguments: --bugdet"),
        ((), "SCRIPT"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_ends_with_status_2_before_the_program(run, tmp_path: Path, words, said: str) -> None:
    (tmp_path / "other.toml").write_text("[policies.users]\n")
    (tmp_path / "slip.toml").write_text("[budget]\nmax_usdd = 5\n")
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_rest_is_the_programs_and_so_is_its_status(run) -> None:
    program = "import sys, helper\nprint(sys.argv, __name__)\nsys.exit(int(sys.argv[1]))\n"
    words = ("--budget", "5", "app.py", "3", "--verbose", "--output", "json", "--", "--output", "x")
    (done := run("app.py", "0", program="import pathlib\npathlib.Path('helper.py').write_text('')\n"))
    assert done.stderr == "shekel: no call of the openai or anthropic SDK was seen.\n"
    done = run(*words, program=program)
    assert done.returncode == 3
    assert done.stdout.splitlines()[0] == "['app.py', '3', '--verbose', '--output', 'x'] __main__"
    assert last(done)["status"] == "ok"


def test_an_error_of_the_program_shows_as_it_does_without(run) -> None:
    done = run("app.py", "--budget", "5", program="raise ValueError('boom')\n")
    assert done.returncode == 1
    assert "ValueError: boom" in done.stderr
    assert done.stdout.startswith("$0.00 spent / $5.00")
    done = run("app.py", program="raise SystemExit('enough')\n")
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, "enough")


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "shekel.cli", *words], capture_output=True, text=True, timeout=60, check=False
    )


def test_an_estimate_of_one_call() -> None:
    asked = ("--input-tokens", "1000", "--output-tokens", "500")
    done = command("estimate", "--model", "gpt-4o", *asked)
    assert (done.returncode, done.stdout) == (0, "Estimated cost: $0.007500\n")
    done = command("estimate", "--model", "nosuch", *asked)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "shekel: no price is known for 'nosuch': give a model's name as the provider has it.\n"
    done = command("estimate", "--model", "gpt-4o", "--input-tokens", "-1", "--output-tokens", "500")
    assert done.returncode == 2
    assert "must be a number of tokens, at least 0, not '-1'" in done.stderr


@pytest.mark.parametrize(("name", "instead"), [("models", "shekel estimate"), ("tenants", "policies=[per(")])
def test_what_is_not_here_says_what_to_use_instead(name: str, instead: str) -> None:
    done = command(name, "--name", "x")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"shekel: `shekel {name}` is not here yet: ")
    assert instead in done.stderr
