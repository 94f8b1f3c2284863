"""The dashboard *Streams*: how fast answers come, how they end, how much of the money is an estimate."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from . import queries as q
from .panels import COUNT, SECONDS, SHARE, USD, Query, choice, dashboard, filled, lines, row, single, spread

_FIRST = "gen_ai_client_operation_time_to_first_chunk_seconds"
_DURATION = "gen_ai_client_operation_duration_seconds"
_ESTIMATED = 'shekel_cost_estimated="true"'
_EARLY = 'shekel_outcome=~"cut|closed|dropped|cancelled|incomplete|error"'


def build() -> Dashboard:
    """The dashboard *Streams*."""
    made = dashboard(
        "shekel-streams",
        "Streams",
        "Streamed answers: how soon and how fast they come, how they end, and how much of the money is an estimate "
        "because the provider did not tell the usage.",
        [
            choice("service", "Service", "service.name of the apps", "label_values(shekel_calls_total, job)", ".+"),
            choice(
                "model",
                "Model",
                "The model that was asked for, or that a fallback chose",
                'label_values(shekel_calls_total{job=~"$service"}, gen_ai_request_model)',
                ".*",
            ),
        ],
    )
    return filled(
        made,
        row("In the chosen time"),
        single(
            "Streams",
            "Streams that brought at least one chunk.",
            q.total(f"{_FIRST}_count", q.CALLS, q.RANGE),
            COUNT,
            decimals=0,
        ),
        single(
            "First chunk, 95 of 100",
            "95 of 100 streams brought their first chunk within this time, as exactly as the histogram's buckets are "
            "narrow (each twice the one before).",
            q.quantile(0.95, _FIRST, q.CALLS, q.RANGE),
            SECONDS,
        ),
        single(
            "Ended early",
            "The share of calls that were sent and did not complete: cut at a limit, closed or dropped by the program, "
            "cancelled, broken off, or failed.",
            q.share(q.calls(q.RANGE, more=_EARLY), q.calls(q.RANGE, more='shekel_outcome!="refused"')),
            SHARE,
            decimals=1,
        ),
        single(
            "Estimated money",
            "The share of the money that is an estimate: of calls that ended without the provider's own count.",
            q.share(q.spend(q.RANGE, more=_ESTIMATED), q.spend(q.RANGE)),
            SHARE,
            decimals=1,
            limits=(0.05, 0.2),
        ),
        single("Estimated", "The money that is an estimate.", q.spend(q.RANGE, more=_ESTIMATED), USD, decimals=4),
        row("How fast"),
        lines(
            "Time to the first chunk",
            "Half, and 95 of 100, streams brought their first chunk within this time. The points are calls, with "
            "traces.",
            [
                Query(q.quantile(0.5, _FIRST, q.CALLS, q.RATE), "half"),
                Query(q.quantile(0.95, _FIRST, q.CALLS, q.RATE), "95 of 100", exemplars=True),
            ],
            SECONDS,
        ),
        spread(
            "Streams by time to the first chunk",
            "How many streams brought their first chunk how soon.",
            Query(f"sum by (le) (increase({_FIRST}_bucket{{{q.CALLS}}}[{q.RATE}]))", "{{le}}", exemplars=True),
            SECONDS,
        ),
        lines(
            "Output tokens per second of a call",
            "Output tokens by the time that their calls took, plain calls included. Shekel counts tokens, not chunks: "
            "a chunk is whatever the provider chose to send, a token is what is paid.",
            [
                Query(
                    "sum by (gen_ai_request_model) (rate(gen_ai_client_token_usage_sum"
                    f'{{{q.CALLS}, gen_ai_token_type="output"}}[{q.RATE}])) / '
                    f"(sum by (gen_ai_request_model) (rate({_DURATION}_sum{{{q.CALLS}}}[{q.RATE}])) > 0)",
                    "{{gen_ai_request_model}}",
                )
            ],
            "short",
            decimals=1,
        ),
        lines(
            "Duration of calls",
            "Half, and 95 of 100, calls of a model took at most this long, streams until their last chunk.",
            [
                Query(
                    q.quantile(0.5, _DURATION, q.CALLS, q.RATE, "gen_ai_request_model"),
                    "{{gen_ai_request_model}}, half",
                ),
                Query(
                    q.quantile(0.95, _DURATION, q.CALLS, q.RATE, "gen_ai_request_model"),
                    "{{gen_ai_request_model}}, 95 of 100",
                    exemplars=True,
                ),
            ],
            SECONDS,
        ),
        row("How they end"),
        lines(
            "Ends",
            "Calls by how they ended, in each interval. complete: to the end. cut: stopped at a limit. refused: never "
            "sent. closed, dropped, cancelled: left by the program. incomplete: broken off. error: failed. pending: "
            "background work that is not finished.",
            [Query(q.calls(q.STEP, "shekel_outcome"), "{{shekel_outcome}}")],
            COUNT,
            decimals=0,
            bars=True,
        ),
        lines(
            "Failures by type",
            "Calls that failed, were cut or left, in each interval, by error.type.",
            [
                Query(
                    "sum by (error_type) ("
                    + q.increase(f"{_DURATION}_count", f'{q.CALLS}, error_type!=""', q.STEP)
                    + ")",
                    "{{error_type}}",
                )
            ],
            COUNT,
            decimals=0,
            bars=True,
        ),
        lines(
            "Money, told and estimated",
            "Spent in each interval: by the provider's own count, and by Shekel's estimate.",
            [Query(q.spend(q.STEP, "shekel_cost_estimated"), "estimated: {{shekel_cost_estimated}}")],
            USD,
            decimals=4,
            bars=True,
        ),
    )
