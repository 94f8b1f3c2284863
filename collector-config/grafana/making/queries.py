"""The PromQL that panels share. Names are Prometheus' own, as the collector's exporter makes them.

`anchored` (a feature of Prometheus 3 that prometheus.yml names) measures from the last sample before a range to the
last one in it: the increases of neighbouring ranges add up, and nothing is extrapolated. Money is never asked
otherwise.
"""

from __future__ import annotations

RANGE = "$__range"
STEP = "$__interval"
RATE = "$__rate_interval"

SERVICE = 'job=~"$service"'
CALLS = f'{SERVICE}, gen_ai_request_model=~"$model"'
"""What the variables choose, of the metrics of calls."""

BUDGETS = f'{SERVICE}, shekel_budget_name=~"$budget"'
"""What the variables choose, of the metrics of budgets."""


def increase(metric: str, where: str, over: str) -> str:
    """How much a counter rose, exactly."""
    return f"increase({metric}{{{where}}}[{over}] anchored)"


def of_calls(app: str, traced: str, over: str, by: str = "", more: str = "") -> str:
    """The rise of a counter of calls: the app's own, or that of its spans where a service sends only spans.

    Args:
        app: the app's counter.
        traced: the collector's counter of the same, from spans.
        over: the range.
        by: labels to keep, separated by commas; none for one sum.
        more: a further matcher of both.
    """
    where = f"{CALLS}, {more}" if more else CALLS
    own = increase(app, where, over)
    # A service is taken from one of the two, never from both.
    spans = f"{increase(traced, where, over)} unless on (job) {_tells(app, over)}"
    return f"sum{_by(by)} ({own} or ({spans}))"


def spend(over: str, by: str = "", more: str = "") -> str:
    """Money spent, in USD."""
    return of_calls("shekel_cost_total", "shekel_traced_cost_total", over, by, more)


def spend_by_scope(over: str, label: str) -> str:
    """Money spent by a scope key that is allowed on metrics, of calls that have it: of the app, else of its spans."""
    some = f'{label}!=""'
    own = increase("shekel_cost_total", f"{CALLS}, {some}", over)
    spans = increase("shekel_traced_cost_total", f"{CALLS}, {some}", over)
    tells = f"present_over_time(shekel_cost_total{{{SERVICE}, {some}}}[{over}])"
    return f"sum by ({label}) ({own} or ({spans} unless on (job) {tells}))"


def calls(over: str, by: str = "", more: str = "") -> str:
    """Calls that ended."""
    return of_calls("shekel_calls_total", "shekel_traced_calls_total", over, by, more)


def of_tokens(kind: str) -> str:
    """Tokens in each interval: "input" or "output"."""
    # The app's counter has the kind as a label; the counters of spans have it in their names.
    own = increase("shekel_tokens_total", f'{CALLS}, gen_ai_token_type="{kind}"', STEP)
    spans = increase(f"shekel_traced_{kind}_tokens_total", CALLS, STEP)
    return f"sum ({own} or ({spans} unless on (job) {_tells('shekel_tokens_total', STEP)}))"


def total(metric: str, where: str, over: str, by: str = "") -> str:
    """The rise of a counter that only the app itself tells."""
    return f"sum{_by(by)} ({increase(metric, where, over)})"


def share(part: str, whole: str) -> str:
    """A part of a whole, 0 where there is a whole and no part, nothing where there is no whole."""
    return f"({part} or 0 * {whole}) / ({whole} > 0)"


def budget(gauge: str) -> str:
    """A gauge of budgets, by name, ledger and (where each process has a ledger of its own) service.

    With a ledger in memory, every process has its own money: the sum. With a shared one every process tells the same:
    the maximum.
    """
    metric = f"shekel_budget_{gauge}"
    return (
        f'sum by (shekel_budget_name, shekel_ledger_kind, job) ({metric}{{{BUDGETS}, shekel_ledger_kind="memory"}})'
        f' or max by (shekel_budget_name, shekel_ledger_kind) ({metric}{{{BUDGETS}, shekel_ledger_kind!="memory"}})'
    )


def quantile(q: float, histogram: str, where: str, over: str, by: str = "") -> str:
    """A quantile of a histogram, as exact as its buckets are narrow."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q:g}, sum by ({labels}) (rate({histogram}_bucket{{{where}}}[{over}])))"


def fullest() -> str:
    """How full a budget is, from 0 to 1: that of its fullest process, which nine idle ones do not hide."""
    limit = f"(shekel_budget_limit{{{BUDGETS}}} > 0)"
    return (
        f"max by (shekel_budget_name, shekel_ledger_kind, job) "
        f'(shekel_budget_spent{{{BUDGETS}, shekel_ledger_kind="memory"}} / {limit})'
        f" or max by (shekel_budget_name, shekel_ledger_kind) "
        f'(shekel_budget_spent{{{BUDGETS}, shekel_ledger_kind!="memory"}} / {limit})'
    )


def rule(name: str) -> str:
    """A recorded series of budgets."""
    return f"{name}{{{BUDGETS}}}"


def _tells(metric: str, over: str) -> str:
    return f"present_over_time({metric}{{{SERVICE}}}[{over}])"


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""
