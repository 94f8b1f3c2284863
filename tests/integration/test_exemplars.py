"""From a number to the call behind it: exemplars of money reach Prometheus, and Jaeger has their traces."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import pytest

from shekel.testing import FakeProvider

from .apps import App
from .conftest import Stack
from .programs import Prometheus, get, wait_for


def exemplars(prometheus: Prometheus, query: str) -> list[dict[str, Any]]:
    """The exemplars of the last ten minutes behind a query."""
    now = time.time()
    found = get(f"{prometheus.url}/api/v1/query_exemplars", query=query, start=str(now - 600), end=str(now + 60))
    return [each for series in json.loads(found)["data"] for each in series["exemplars"]]


@pytest.mark.parametrize(
    "metric", ["gen_ai_client_operation_cost_bucket", "gen_ai_client_operation_duration_seconds_bucket"]
)
def test_an_exemplar_leads_to_a_trace(stack: Stack, metric: str) -> None:
    service = f"app-{uuid.uuid4().hex[:8]}"
    # An export carries the exemplars since the last one: it must stay until it is scraped, as 60 s do for 15 s.
    slower = {"OTEL_METRIC_EXPORT_INTERVAL": "4000"}
    with FakeProvider() as provider, App(provider, stack.collector.otlp_http, service=service, **slower) as app:
        app.do("spend", calls=5)
        query = f'{metric}{{job="{service}"}}'
        [exemplar, *_] = wait_for("an exemplar", lambda: exemplars(stack.prometheus, query))
        trace = exemplar["labels"]["trace_id"]
        [found] = wait_for("its trace", lambda: stack.jaeger.traces_by_id(trace))
    [span] = found["spans"]
    tags = {tag["key"]: tag["value"] for tag in span["tags"]}
    assert span["spanID"] == exemplar["labels"]["span_id"]
    assert tags["gen_ai.usage.cost.amount"] > 0
    if metric.startswith("gen_ai_client_operation_cost"):
        assert float(exemplar["value"]) == pytest.approx(tags["gen_ai.usage.cost.amount"])
