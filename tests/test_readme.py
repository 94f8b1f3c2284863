"""The README promises nothing that is not so: its code runs, its names, commands and paths are the real ones."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

import shekel
from holds.table import CASES, lines
from shekel import ShekelInstrumentor
from shekel.call import open_calls
from shekel.providers import find_endpoint
from shekel.runtime import the_runtime
from shekel.telemetry import names
from shekel.testing import FakeProvider

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", README, re.DOTALL | re.MULTILINE))
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
QUOTED = set(re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", README, flags=re.DOTALL | re.MULTILINE)))
TELEMETRY = set(re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)`", SECTIONS["What it records"])) - {"shekel.testing"}


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeProvider]:
    """A stand-in where the SDKs look for the provider, and nothing left of what a block set up."""
    with FakeProvider() as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.openai_url)
        monkeypatch.setenv("OPENAI_API_KEY", "test")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", provider.anthropic_url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "test")
        the_runtime().estimator.__init__()  # type: ignore[misc]  # what other tests taught it must not show
        hosts = the_runtime().usage_hosts
        yield provider
        shekel.configure(policies=[], track=None, environment=None, include_usage_hosts=hosts)
        if ShekelInstrumentor().is_instrumented_by_opentelemetry:
            ShekelInstrumentor().uninstrument()


def title(block: str) -> str:
    """The README's last heading above a block."""
    return re.findall(r"^#+ (.+)$", README[: README.index(block)], re.MULTILINE)[-1]


@pytest.mark.parametrize("block", BLOCKS, ids=title)
def test_every_block_runs_and_prints_what_it_says(
    block: str, provider: FakeProvider, capsys: pytest.CaptureFixture[str]
) -> None:
    given: dict[str, Any] = {  # what the text leaves to the reader, once it has been shown
        "__name__": "__main__",
        "shekel": shekel,
        "budget": shekel.budget,
        "client": openai.OpenAI(),
        "messages": [{"role": "user", "content": "Name three rivers."}],
    }
    exec(compile(block, f"README.md, {title(block)}", "exec"), given)
    written = [value for name, value in given.items() if name.startswith("test_")]
    for test in written:
        test()
    printed = capsys.readouterr().out.splitlines()
    for line in re.findall(r"^# > (.+)$", block, re.MULTILINE):
        assert line in printed
    provider.wait_idle()
    # The block that shows a refusal sends nothing; a test of the reader's own has its own stand-in.
    sends = re.search(r"\.(create|stream)\(", block) and "BudgetExceededError" not in block
    assert bool(provider.bill) == bool(sends)
    assert open_calls == {}


class TestNames:
    def test_what_the_tables_name_is_defined(self) -> None:
        defined = {value for value in vars(names).values() if isinstance(value, str)}
        assert len(TELEMETRY) > 50
        assert TELEMETRY - defined == set()

    def test_what_the_code_tells_is_in_the_tables(self) -> None:
        # What dialects name is read from the spans of others.
        files = [path for path in (ROOT / "src").rglob("*.py") if path.parent.name != "dialects"]
        used = {name for path in files for name in _names_used(ast.parse(path.read_text()))}
        told = {getattr(names, name) for name in used}
        told = {value for value in told if isinstance(value, str) and re.match(r"(shekel|gen_ai|openai)\.", value)}
        assert len(told) > 50
        assert told - TELEMETRY == set()
        assert {name for name in TELEMETRY if name.startswith(("shekel.", "gen_ai."))} - told == set()

    def test_elsewhere_too_a_dotted_name_is_one_of_ours(self) -> None:
        found = {m[0] for each in QUOTED for m in re.finditer(r"\bshekel(\.\w+)+", each)}
        assert found
        for dotted in found - TELEMETRY - {"shekel.toml"}:  # a file
            module, _, attribute = dotted.rpartition(".")
            assert _exists(module, attribute), dotted

    def test_attributes_of_a_budget_exist(self) -> None:
        quoted = re.findall(r"\bb\.(\w+)", README)
        assert len(set(quoted)) >= 6
        for attribute in quoted:
            assert hasattr(shekel.Budget, attribute), attribute

    def test_attributes_of_the_error_exist(self) -> None:
        [sentence] = re.findall(r"The error carries (.+?)\. It pickles", README, re.DOTALL)
        error = shekel.BudgetExceededError(1.0, 1.0)
        for attribute in re.findall(r"`(\w+)`", sentence):
            assert hasattr(error, attribute), attribute

    def test_outcomes_and_modes_are_all_of_them(self) -> None:
        from shekel.budgets.limits import Mode
        from shekel.settlement import Outcome

        [row] = re.findall(r"^\| `shekel\.outcome` \|(.+)\|$", README, re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", row)) == {str(outcome) for outcome in Outcome}
        assert re.findall(r"^\| `(sliced|strict|expected)`", README, re.MULTILINE) == [str(mode) for mode in Mode]


class TestPaths:
    ROWS = re.findall(r"^\| ((?:OpenAI|Anthropic) [^|]+) \| ([^|]+) \| (metered|not yet) \|$", README, re.MULTILINE)

    def test_what_is_said_to_be_metered_is_and_the_rest_is_not(self) -> None:
        assert {state for *_, state in self.ROWS} == {"metered", "not yet"}
        for api, paths, state in self.ROWS:
            sdk = api.split()[0].lower()
            for path in re.findall(r"`([^`]+)`", paths):
                assert (find_endpoint(sdk, "POST", path) is not None) == (state == "metered"), path

    def test_the_paths_are_those_of_the_sdks(self) -> None:
        for api, paths, _ in self.ROWS:
            sdk = api.split()[0].lower()
            source = Path(importlib.import_module(sdk).__file__ or "").parent / "resources"
            code = "".join(path.read_text() for path in source.rglob("*.py"))
            for path in re.findall(r"`([^`]+)`", paths):
                pattern = re.escape(path).replace("/threads/", "/threads/{thread_id}/").replace("{", r"\{")
                assert re.search(rf"\"{pattern}(\?beta=true)?\"", code), path


class TestCommands:
    def test_every_extra_exists(self) -> None:
        extras = set(re.findall(r"pip install [^`\n]*?\[(\w+)\]", README))
        assert extras == {"auto", "demo", "test"}
        assert extras <= PROJECT["project"]["optional-dependencies"].keys()

    def test_the_two_lines_for_a_fresh_machine_stand_as_they_are(self) -> None:
        head = README[: README.index("\n## ")]
        assert '\npip install ".[demo]" && shekel demo\npip install -e ".[test]" && pytest\n' in head
        assert "shekel" in PROJECT["project"]["scripts"]

    def test_every_module_that_is_run_exists(self) -> None:
        modules = set(re.findall(r"python -m ([\w.]+)", README))
        assert len(modules) == 2
        for module in modules:
            path = ROOT / (module.replace(".", "/") + ".py")
            assert '__name__ == "__main__"' in path.read_text(), module

    def test_every_tool_is_in_the_test_extra(self) -> None:
        needed = {re.split(r"[\[>=]", each)[0] for each in PROJECT["project"]["optional-dependencies"]["test"]}
        commands = re.findall(r"^\| [\w ]+ \| `([^`]+)` \|$", SECTIONS["Contributing"], re.MULTILINE)
        tools = {command.split()[0] for command in commands} - {"pip", "python", "bash", "shekel"}
        assert tools == {"pytest", "ruff", "mypy"}
        assert tools <= needed

    def test_the_marker_and_the_gate_exist(self) -> None:
        assert any(each.startswith("slow:") for each in PROJECT["tool"]["pytest"]["ini_options"]["markers"])
        assert (ROOT / ".ci/run").stat().st_mode & 0o111

    def test_the_lowest_versions_are_those_of_the_project(self) -> None:
        said = dict(re.findall(r"`(openai|anthropic)` (\d+\.\d+) or later", README))
        wanted = PROJECT["project"]["optional-dependencies"]["instruments-any"]
        assert [f"{sdk}>={version}" for sdk, version in said.items()] == wanted


class TestMeasured:
    def test_the_table_has_the_columns_and_the_cases_of_the_real_one(self) -> None:
        [table] = re.findall(r"^```text\nMoney.*?\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
        head, *rows = table.splitlines()
        assert head == next(lines(iter(())))
        assert len(rows) > 8
        cases = {str(case) for case in CASES}
        for row in rows:
            case, _, admitted, limit, billed, over, exposure = row.split()
            assert case in cases
            assert int(over) == max(0, int(billed) - int(limit))
            assert int(over) <= (0 if "-strict-" in case else int(exposure))
            assert int(admitted) >= 0


def _names_used(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "names":
            yield node.attr


def _exists(module: str, attribute: str) -> bool:
    try:
        if hasattr(importlib.import_module(module), attribute):
            return True
        return importlib.import_module(f"{module}.{attribute}") is not None
    except ImportError:
        return False
