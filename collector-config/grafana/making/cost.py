"""The dashboard *Cost*: who spends what."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from . import queries as q
from .panels import (
    COUNT,
    MONTH,
    SHARE,
    TODAY,
    TOKENS,
    USD,
    Query,
    choice,
    dashboard,
    filled,
    lines,
    row,
    rows,
    single,
    spread,
    words,
)

_SECONDS_LEFT = "scalar(86400 * (days_in_month() - day_of_month() + 1) - 3600 * hour() - 60 * minute())"
"""Until the month ends, in UTC."""

_CACHED = 'gen_ai_token_type="cache_read"'
_INPUT = 'gen_ai_token_type="input"'
_SENT = 'shekel_outcome!="refused"'
_COST = "gen_ai_client_operation_cost"

_SEARCH = "${jaeger}/search?service=${service}&lookback=24h&limit=50"
_USERS = f"""\
Users are on traces, never on metrics: a label for each user would be a series for each user.

- [The last calls]({_SEARCH})
- [Calls above a cent]({_SEARCH}&tags=%7B%22cost.over.0.01%22%3A%22true%22%7D)
- [Refused]({_SEARCH}&tags=%7B%22shekel.decision%22%3A%22refused%22%7D),
  [cut]({_SEARCH}&tags=%7B%22shekel.decision%22%3A%22cut%22%7D),
  [fallback]({_SEARCH}&tags=%7B%22shekel.decision%22%3A%22fallback%22%7D)
- One user: search for the tag `user.id=NAME`, and add `cost.over.0.01=true` for the expensive calls only.

Choose one service above: Jaeger searches in one.
"""


def build() -> Dashboard:
    """The dashboard *Cost*."""
    made = dashboard(
        "shekel-cost",
        "Cost",
        "What calls to language models cost: now, today, this month; by model, service, tenant and call. Days and "
        "months are those of UTC, as the budgets' are.",
        [
            choice(
                "service",
                "Service",
                "service.name of the apps",
                'label_values({__name__=~"shekel_cost_total|shekel_traced_cost_total"}, job)',
                ".+",
            ),
            choice(
                "model",
                "Model",
                "The model that was asked for, or that a fallback chose",
                'label_values({__name__=~"shekel_cost_total|shekel_traced_cost_total", job=~"$service"},'
                " gen_ai_request_model)",
                ".*",
            ),
        ],
    )
    return filled(
        made,
        row("How much"),
        single(
            "Per minute now",
            "What is spent in a minute: the average of the last five.",
            f"{q.spend('5m')} / 5",
            USD,
            decimals=4,
        ),
        single("Today", "Spent since midnight, UTC.", q.spend(q.RANGE), USD, period=TODAY),
        single("This month", "Spent since the first of the month, UTC.", q.spend(q.RANGE), USD, period=MONTH),
        single(
            "Month, forecast",
            "This month so far, and its rest spent like the last 24 hours. Hours without data count as hours without "
            "spending, so on the first day it is too low.",
            f"{q.spend(q.RANGE)} + {q.spend('1d')} / 86400 * {_SECONDS_LEFT}",
            USD,
            period=MONTH,
        ),
        single(
            "Cost per call",
            "What was spent in the chosen time, by the calls that were sent in it (refused ones are not).",
            f"{q.spend(q.RANGE)} / ({q.calls(q.RANGE, more=_SENT)} > 0)",
            USD,
            decimals=5,
        ),
        single(
            "Input from caches",
            "The share of input tokens that the providers read from a cache, in the chosen time. Apps that send only "
            "traces are not in it.",
            q.share(
                q.total("shekel_tokens_total", f"{q.CALLS}, {_CACHED}", q.RANGE),
                q.total("shekel_tokens_total", f"{q.CALLS}, {_INPUT}", q.RANGE),
            ),
            SHARE,
            decimals=1,
        ),
        row("Who"),
        lines(
            "By model",
            "Spent in each interval; the bars together are the sum in the legend. A fallback counts for the model that "
            "answered in place of the other.",
            [Query(q.spend(q.STEP, "gen_ai_request_model"), "{{gen_ai_request_model}}")],
            USD,
            decimals=4,
            bars=True,
        ),
        lines(
            "By service",
            "Spent in each interval, by service.name.",
            [Query(q.spend(q.STEP, "job"), "{{job}}")],
            USD,
            decimals=4,
            bars=True,
        ),
        lines(
            "By tenant",
            "Spent in each interval, by tenant.id. It is empty unless that key is allowed on metrics, in the apps or "
            "in the collector: SHEKEL_METRIC_SCOPES=tenant.id. Calls outside of a scope with a tenant are not in it.",
            [Query(q.spend_by_scope(q.STEP, "tenant_id"), "{{tenant_id}}")],
            USD,
            decimals=4,
            bars=True,
        ),
        rows(
            "Services and models",
            "In the chosen time. Calls are those that were sent; a model without a known price costs nothing here, see "
            "“Without a price”.",
            {
                "Spent": (q.spend(q.RANGE, "job, gen_ai_request_model"), USD, 4),
                "Calls": (q.calls(q.RANGE, "job, gen_ai_request_model", _SENT), COUNT, 0),
                "Per call": (
                    f"{q.spend(q.RANGE, 'job, gen_ai_request_model')} / "
                    f"({q.calls(q.RANGE, 'job, gen_ai_request_model', _SENT)} > 0)",
                    USD,
                    5,
                ),
            },
            {"job": "Service", "gen_ai_request_model": "Model"},
            sort="Spent",
            links=(
                (
                    "Model",
                    "Its calls in Jaeger",
                    "${jaeger}/search?service=${__data.fields.Service}&lookback=1h&limit=50"
                    "&tags=%7B%22gen_ai.request.model%22%3A%22${__data.fields.Model}%22%7D",
                ),
            ),
        ),
        row("Which calls"),
        lines(
            "Cost of a call, and the most expensive traces",
            "Half, 95 and 99 of 100 calls cost at most this, as exactly as the histogram's buckets are narrow (thirds "
            "of a decade). The points are calls: the highest are the most expensive; click one for its trace in "
            "Jaeger.",
            [
                Query(q.quantile(0.5, _COST, q.CALLS, q.RATE), "half"),
                Query(q.quantile(0.95, _COST, q.CALLS, q.RATE), "95 of 100"),
                Query(q.quantile(0.99, _COST, q.CALLS, q.RATE), "99 of 100", exemplars=True),
            ],
            USD,
            decimals=5,
        ),
        spread(
            "Calls by cost",
            "How many calls cost how much. The points are calls, with their traces.",
            Query(f"sum by (le) (increase({_COST}_bucket{{{q.CALLS}}}[{q.RATE}]))", "{{le}}", exemplars=True),
            USD,
        ),
        words("Users", "Searches in Jaeger.", _USERS),
        row("What caches save, and what has no price"),
        lines(
            "Saved by caches",
            "What cached input would have cost more at the full price, in each interval. Writing to a cache costs "
            "extra with some providers; that is in the spending.",
            [
                Query(
                    q.total("shekel_cache_savings_total", q.CALLS, q.STEP, "gen_ai_request_model"),
                    "{{gen_ai_request_model}}",
                )
            ],
            USD,
            decimals=4,
            bars=True,
        ),
        lines(
            "Tokens",
            "Tokens in each interval. Input and output hold their parts: caches and reasoning are not added to them.",
            [
                Query(
                    q.of_tokens("input"),
                    "input",
                ),
                Query(q.of_tokens("output"), "output"),
            ],
            TOKENS,
            decimals=0,
            bars=True,
        ),
        lines(
            "Without a price",
            "Calls whose model the price list does not know, in each interval: what they cost is unknown, not nothing. "
            "Give the model a price with shekel.configure(prices=…).",
            [
                Query(
                    q.total("shekel_unpriced_total", q.CALLS, q.STEP, "gen_ai_request_model"),
                    "{{gen_ai_request_model}}",
                )
            ],
            COUNT,
            decimals=0,
            bars=True,
        ),
    )
