"""The dashboard *Budgets*: how full they are, how long they last, what they decided."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from . import queries as q
from .panels import COUNT, SHARE, USD, Query, choice, dashboard, filled, lines, row, rows, single

_NAME = "{{shekel_budget_name}} {{job}}"
_LABELS = {"shekel_budget_name": "Budget", "job": "Service", "shekel_ledger_kind": "Ledger"}
_LEDGERS = (
    "With a ledger in memory every process has money of its own, and a service's are added up; a shared ledger has one "
    "total, whoever tells it."
)


def _decided(what: str, over: str = q.RANGE, by: str = "shekel_budget_name, job") -> str:
    return q.total("shekel_budget_decisions_total", f'{q.BUDGETS}, shekel_decision="{what}"', over, by)


def _stopped(over: str) -> str:
    return q.total("shekel_budget_decisions_total", f'{q.BUDGETS}, shekel_decision=~"refused|cut"', over)


def build() -> Dashboard:
    """The dashboard *Budgets*."""
    made = dashboard(
        "shekel-budgets",
        "Budgets",
        "Every budget that has a limit: what it spent and holds, how long it lasts, what it decided. A budget with "
        "many meters, such as one per user, shows its fullest.",
        [
            choice("service", "Service", "service.name of the apps", "label_values(shekel_budget_limit, job)", ".*"),
            choice(
                "budget",
                "Budget",
                "The budget's name",
                'label_values(shekel_budget_limit{job=~"$service"}, shekel_budget_name)',
                ".*",
            ),
        ],
    )
    return filled(
        made,
        row("Now"),
        single(
            "Fullest budget",
            "What the fullest budget has spent of its limit, in the process where it is fullest.",
            f"max ({q.fullest()})",
            SHARE,
            decimals=1,
            limits=(0.8, 1.0),
        ),
        single(
            "First limit to bite, in hours",
            "At the pace of the last 15 minutes. No data: nothing is being spent.",
            f"min ({q.rule('shekel:budget:hours_to_limit')})",
            "h",
            decimals=1,
        ),
        single(
            "Stopped",
            "Calls that were refused or cut in the chosen time.",
            f"{_stopped(q.RANGE)} or 0 * sum (increase(shekel_calls_total{{{q.SERVICE}}}[{q.RANGE}] anchored))",
            COUNT,
            decimals=0,
        ),
        single(
            "Over limits",
            "The money by which limits were exceeded in the chosen time, of all budgets and causes. A call is charged "
            "to each budget around it, so that one call can be in it twice.",
            q.total("shekel_budget_overrun_total", q.BUDGETS, q.RANGE),
            USD,
            decimals=4,
        ),
        rows(
            "Every budget",
            f"Now. {_LEDGERS} “Full” is that of the fullest process. A process that ended is in it for three minutes "
            f"more.",
            {
                "Spent": (q.budget("spent"), USD, 4),
                "Held": (q.budget("held"), USD, 4),
                "Limit": (q.budget("limit"), USD, 4),
                "Full": (q.fullest(), SHARE, 1),
                "Burn, per hour": (q.rule("shekel:budget:burn_usd_per_hour"), USD, 4),
                "Hours left": (q.rule("shekel:budget:hours_to_limit"), COUNT, 1),
            },
            _LABELS,
            sort="Full",
            links=(
                (
                    "Budget",
                    "What it refused, in Jaeger",
                    "${jaeger}/search?service=${__data.fields.Service}&lookback=24h&limit=50"
                    "&tags=%7B%22shekel.budget.name%22%3A%22${__data.fields.Budget}%22%2C"
                    "%22shekel.decision%22%3A%22refused%22%7D",
                ),
            ),
        ).span(24),
        row("Money"),
        lines(
            "Full",
            "What each budget has spent of its limit, in the process where it is fullest. It falls to nothing when the "
            "budget's day, week or month begins.",
            [Query(q.fullest(), _NAME)],
            SHARE,
            decimals=1,
        ),
        lines(
            "Held by open calls",
            f"Money set aside for calls that have not ended. {_LEDGERS}",
            [Query(q.budget("held"), _NAME)],
            USD,
            decimals=4,
        ),
        lines(
            "Burn, per hour",
            "What an hour costs at the pace of the last 15 minutes. Brought up to date every minute.",
            [Query(q.rule("shekel:budget:burn_usd_per_hour"), _NAME)],
            USD,
            decimals=4,
        ),
        lines(
            "Hours to the limit",
            "How long what is left lasts at that pace; what is held counts as spent. No line: nothing is being spent.",
            [Query(q.rule("shekel:budget:hours_to_limit"), _NAME)],
            "h",
            decimals=1,
        ),
        row("Decisions"),
        lines(
            "Refused, cut, fallback",
            "Calls in each interval by what the budgets decided; a call counts once, for the budget that refused or "
            "cut it, else for the innermost with a limit.",
            [
                Query(
                    "sum by (shekel_decision) ("
                    + q.increase("shekel_budget_decisions_total", f'{q.BUDGETS}, shekel_decision!="admitted"', q.STEP)
                    + ")",
                    "{{shekel_decision}}",
                )
            ],
            COUNT,
            decimals=0,
            bars=True,
        ),
        rows(
            "Decisions by budget",
            "In the chosen time; a call counts once, for the budget that refused or cut it, else for the innermost "
            "with a limit. An empty cell: none.",
            {
                "Refused": (_decided("refused"), COUNT, 0),
                "Cut": (_decided("cut"), COUNT, 0),
                "Fallback": (_decided("fallback"), COUNT, 0),
                "Admitted": (_decided("admitted"), COUNT, 0),
            },
            {"shekel_budget_name": "Budget", "job": "Service"},
            sort="Refused",
        ),
        lines(
            "Over limits, by cause",
            "The money by which limits were exceeded, in each interval.",
            [
                Query(
                    q.total(
                        "shekel_budget_overrun_total", q.BUDGETS, q.STEP, "shekel_budget_name, shekel_overrun_cause"
                    ),
                    "{{shekel_budget_name}}: {{shekel_overrun_cause}}",
                )
            ],
            USD,
            decimals=4,
            bars=True,
        ),
        lines(
            "Shekel's own faults, and broken bounds",
            "Faults: the call went on without Shekel at that place. Broken bounds: calls that cost more than the bound "
            "stated for them. Both should be none.",
            [
                Query(q.total("shekel_errors_total", q.SERVICE, q.STEP, "shekel_fault"), "{{shekel_fault}}"),
                Query(
                    q.total("shekel_budget_bound_violations_total", q.SERVICE, q.STEP, "gen_ai_request_model"),
                    "bound broken: {{gen_ai_request_model}}",
                ),
            ],
            COUNT,
            decimals=0,
            bars=True,
        ),
    )
