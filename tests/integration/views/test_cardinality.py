"""The README's calculation of series: its numbers are those of COUNTING.md, and a real run stays under it."""

from __future__ import annotations

import re

from ..programs import CONFIG
from .conftest import Run

README = (CONFIG / "README.md").read_text(encoding="utf-8")
COUNTING = (CONFIG / "prometheus" / "COUNTING.md").read_text(encoding="utf-8")
ROWS = {
    what: (int(series), int(more))
    for what, series, more in re.findall(r"^\| ([a-z ]+) \| (\d+) \| (\d+) \|$", COUNTING, re.MULTILINE)
}


def most(processes: int, models: int, budgets: int, values: int = 1) -> int:
    """The calculation, for one service."""

    def of(what: str) -> int:
        series, more = ROWS[what]
        return series + more * values

    process = models * of("model of a process") + budgets * of("budget of a process") + of("process")
    service = models * of("model of a service") + budgets * of("budget of a service") + of("service")
    return processes * process + service + of("collector")


def test_the_readme_calculates_with_the_numbers_of_the_page_that_explains_them() -> None:
    [formula] = re.findall(r"^    (P × .+)$", README, re.MULTILINE)
    python = formula.replace("×", "*").replace("M (", "M * (")
    for processes, models, budgets, values in ((1, 1, 0, 1), (10, 3, 5, 1), (10, 3, 5, 100)):
        named = {"P": processes, "M": models, "B": budgets, "T": values, "S": 1}
        assert eval(python, {}, named) == most(processes, models, budgets, values)
    assert f"= {most(10, 3, 5):,}," in README
    assert f"= {most(10, 3, 5, 100):,}." in README


def test_a_run_stays_under_it(ran: Run) -> None:
    def count(what: str) -> int:
        return int(ran.prometheus.value(f"count({what})", ran.at) or 0)

    budgets = count('shekel_budget_limit{job="assistant"}')
    assert budgets >= 3
    seen = count('{__name__=~".+", job="assistant"}')
    assert most(1, 3, budgets, 3) / 4 < seen <= most(1, 3, budgets, 3)


def test_no_series_is_of_a_user(ran: Run) -> None:
    assert {span["user.id"] for span in ran.spans if "user.id" in span}
    assert ran.prometheus.query('{user_id!=""} or {session_id!=""}', ran.at) == []
    users = re.compile(r"user-\d|odd one")
    assert not users.search(repr(ran.prometheus.query('{__name__=~".+"}', ran.at)))
