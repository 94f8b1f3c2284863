"""`shekel run SCRIPT`: a program as it is, under a budget that the command line, the environment or a file says.

The command, its options, its exit status and its JSON are those of the `shekel` library. The budget is that of the
whole process, so that threads count too. What stands behind the script, and is no option of ours, is the script's.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import sys
import threading
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..budgets.errors import money as dollars
from ..budgets.options import nearest
from ..settings import BUDGET_VARIABLE
from ..shown import shown

if TYPE_CHECKING:
    from ..budgets.budget import Budget

VARIABLE = "AGENT_BUDGET_USD"
DONE, OVER, WRONG, INTERRUPTED = 0, 1, 2, 130
"""The exit status: the program's own where it ended well; a limit refused, or it failed; wrong arguments; Ctrl+C."""

_VALUES = (
    "--budget", "--warn-at", "--max-llm-calls", "--max-tool-calls", "--fallback-model", "--fallback-at", "--output",
    "--budget-file",
)  # fmt: skip
_SWITCHES = ("--warn-only", "--dry-run", "--help", "-h")
_KEYS = dict.fromkeys(("max_usd", "warn_at", "max_llm_calls", "max_tool_calls"))


def main(argv: Sequence[str]) -> int:
    """Run a script.

    Args:
        argv: options, the script and its arguments, in any order; behind `--` all is the script's.

    Returns:
        the exit status of the script; 1 where a limit refused something that it did not catch, or it failed; 2 for
        arguments that make no sense; 130 after Ctrl+C.

    Raises:
        SystemExit: by `--help` (0) and by an option that makes no sense (2).
    """
    from ..configuration import configure
    from ..runtime import the_runtime

    ours, theirs = _split(argv)
    options = parser().parse_args([*ours, *theirs[:1]])
    script = Path(options.script)
    try:
        if not script.is_file():
            raise ValueError(f"there is no script {shown(options.script)}: give the path of a Python file.")
        budget = _budget(options)
        configure(budget=budget)
        the_runtime().settings.read_environment()  # policies, and whom to trust
    except (ValueError, TypeError) as error:
        print(f"shekel: {error}", file=sys.stderr)
        return WRONG
    return _run(script, [options.script, *theirs[1:]], budget, options)


def parser() -> argparse.ArgumentParser:
    """What it takes."""
    made = argparse.ArgumentParser(
        prog="shekel run",
        usage="shekel run [options] SCRIPT [arguments of the script]",
        description="Runs a Python script as it is, under a budget. A call beyond it is not sent.",
        epilog=f"{VARIABLE}, else {BUDGET_VARIABLE}, is --budget, where that is not given; all go before the file. "
        "Exit status: that of the script; 1 where a limit refused something or it failed; 2 for wrong arguments.",
    )
    made.add_argument("script", metavar="SCRIPT", help="the Python file")
    made.add_argument("--budget", metavar="USD", help="the limit in USD, or a spec such as '$5/day + 100 calls/hr'")
    made.add_argument(
        "--warn-at", metavar="SHARE", type=float, help="the share of a limit at which to warn, such as 0.8"
    )
    made.add_argument("--max-llm-calls", metavar="N", type=int, help="the most calls")
    made.add_argument("--max-tool-calls", metavar="N", type=int, help="the most runs of tools")
    made.add_argument("--fallback-model", metavar="NAME", help="the model that takes over")
    made.add_argument("--fallback-at", metavar="SHARE", type=float, default=0.8, help="from which share on (0.8)")
    made.add_argument("--output", choices=("text", "json"), default="text", help="of the last line (text)")
    made.add_argument("--warn-only", action="store_true", help="refuse nothing, only warn")
    made.add_argument("--dry-run", action="store_true", help="the same")
    made.add_argument("--budget-file", metavar="FILE", help=f"a TOML file with a table [budget] of {', '.join(_KEYS)}")
    return made


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our options with their values, and the rest: the script and what is its own."""
    ours: list[str] = []
    theirs: list[str] = []
    words = iter(argv)
    for word in words:
        name, equals, _ = word.partition("=")
        if word == "--":
            return ours, [*theirs, *words]
        if name in _VALUES:
            ours += [word] if equals else [word, *[each for each in [next(words, None)] if each is not None]]
        elif name in _SWITCHES or (not theirs and word.startswith("-")):
            ours.append(word)  # in front of the script, what is no option of ours is nobody's
        else:
            theirs.append(word)
    return ours, theirs


def _budget(options: argparse.Namespace) -> Budget:
    """The budget that is said.

    Raises:
        ValueError: a value that makes no sense, or a file that says none.
    """
    from ..budgets.budget import Budget
    from ..budgets.limits import Limit, money
    from ..budgets.making import from_spec, is_number

    said: dict[str, Any] = {} if options.budget_file is None else _of_file(options.budget_file)
    limit, source = options.budget, "--budget"
    for variable in (VARIABLE, BUDGET_VARIABLE):
        if limit is None and os.environ.get(variable, "").strip():
            limit, source = os.environ[variable], variable
    for name in ("warn_at", "max_llm_calls", "max_tool_calls"):
        if getattr(options, name) is not None:
            said[name] = getattr(options, name)
    if options.fallback_model is not None:
        said["fallback"] = {"at_pct": options.fallback_at, "model": options.fallback_model}
    said["warn_only"] = options.warn_only or options.dry_run
    if limit is None:
        return Budget(**said)
    said.pop("max_usd", None)
    if is_number(limit):
        return Budget(limits=[Limit(money(limit, source))], **said)
    return from_spec(limit, source=source, **{key: value for key, value in said.items() if value})


def _of_file(path: str) -> dict[str, Any]:
    try:
        tables = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ValueError(f"the budget file {shown(path)} cannot be read ({error.strerror}).") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"the budget file {shown(path)} is no TOML: {error}.") from None
    table = tables.get("budget")
    if not isinstance(table, dict):
        raise ValueError(f"the budget file {shown(path)} has no table [budget]: write it, and max_usd = 5 below.")
    for key in table:
        if key not in _KEYS:
            raise ValueError(f"{shown(key)} in [budget] of {shown(path)} is no limit: {nearest(key, _KEYS)}")
    return dict(table)


def _run(script: Path, argv: list[str], budget: Budget, options: argparse.Namespace) -> int:
    from ..budgets.errors import BudgetExceededError
    from ..budgets.part_errors import ToolBudgetExceededError
    from ..subscriptions import on_hard_limit

    refusals: list[Any] = []
    on_hard_limit(refusals.append)
    sys.argv = argv
    if not sys.flags.safe_path:  # as `python SCRIPT` does
        sys.path[0] = str(script.parent.resolve())
    status = DONE
    try:
        with budget:
            runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        status = _status(end.code)
    except (BudgetExceededError, ToolBudgetExceededError) as error:
        refusals.append(error)
        status = OVER
        print(f"shekel: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = OVER
    for thread in threading.enumerate():  # Python waits for them, too; the budget stays in force to the end
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    sys.stdout.flush()
    _tell(budget, bool(refusals), options)
    return status


def _status(code: Any) -> int:
    if code is None or isinstance(code, int):
        return int(code or 0)
    print(code, file=sys.stderr)
    return OVER


def _tell(budget: Any, refused: bool, options: argparse.Namespace) -> None:
    """The last line: what was spent, and how it ended."""
    data = budget.summary_data()
    used = max((each.used / each.limit for each in budget.limits()), default=0.0)
    status = "exceeded" if refused or used > 1 else "ok"
    if status == "ok" and options.warn_at is not None and used >= options.warn_at:
        status = "warn"
    spent, limit, calls = data["total_spent"], data["limit"], data["calls_used"]
    model = data["calls"][-1]["model"] if data["calls"] else None
    if options.output == "json":
        told = {"spent": spent, "limit": limit, "calls": calls, "tool_calls": data["tool_calls_used"]}
        print(json.dumps({**told, "status": status, "tenant_id": None, "model": model}))
        return
    of = "" if limit is None else f" / {dollars(limit)} ({spent / limit:.0%})"
    print(f"{dollars(spent)} spent{of} · {calls} calls" + (f" · {model}" if model else ""))
    if not calls:
        print("shekel: no call of the openai or anthropic SDK was seen.", file=sys.stderr)
