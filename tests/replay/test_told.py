"""What Shekel tells about recorded traffic: one span for each exchange, with the provider's usage at list price."""

from __future__ import annotations

import functools

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from . import drive
from .expected import NANO, answered, cost, counted
from .records import Record, records
from .runs import Exchange, assert_none, run, shekel
from .server import GIVES_USAGE, INVENTED_USAGE
from .test_differences import KINDS, SETUPS

ANTHROPIC_SCOPE = "com.anthropic.sdk.python"


@functools.cache
def told(api: str, is_async: bool, tracing: bool) -> list[tuple[Record, Exchange]]:
    """Every record through the instrumented SDK."""
    exchanges = run(records(api), {"create": drive.create}, is_async=is_async, tracing=tracing, instrumentation=shekel)
    return list(zip(records(api), exchanges.values(), strict=True))


def one_span(exchange: Exchange) -> ReadableSpan:
    assert len(exchange.spans) == 1, [span.name for span in exchange.spans]
    return exchange.spans[0]


def check(found: list[str], record: Record, what: str, got: object, expected: object) -> None:
    if got != expected:
        found.append(f"{record.id}: {what} is {got!r}, expected {expected!r}")


@SETUPS
@KINDS
def test_each_exchange_is_one_finished_span(api: str, is_async: bool, tracing: bool) -> None:
    found: list[str] = []
    exchanges = told(api, is_async, tracing)
    for record, exchange in exchanges:
        check(found, record, "number of spans", len(exchange.spans), 1)
        for span in exchange.spans:
            attributes = span.attributes or {}
            scope = span.instrumentation_scope.name if span.instrumentation_scope else None
            check(found, record, "scope", scope, ANTHROPIC_SCOPE if tracing else "shekel")
            check(found, record, "kind", span.kind, SpanKind.CLIENT)
            check(found, record, "ended", span.end_time is not None, True)
            check(found, record, "model", attributes.get("gen_ai.request.model"), record.request.get("model"))
            provider = "anthropic" if api == "messages" else "openai"
            check(found, record, "provider", attributes.get("gen_ai.provider.name"), provider)
            if not tracing and "model" in record.request:
                check(found, record, "name", span.name, f"chat {record.request['model']}")
        check(found, record, "warnings", exchange.logged, ())
    assert_none(found, of=len(exchanges))


@SETUPS
@KINDS
def test_usage_is_the_provider_s(api: str, is_async: bool, tracing: bool) -> None:
    found: list[str] = []
    with_usage = [(r, e) for r, e in told(api, is_async, tracing) if r.usage is not None]
    assert len(with_usage) > 100
    for record, exchange in with_usage:
        attributes = one_span(exchange).attributes or {}
        usage = counted(record)
        assert usage is not None
        for name, expected in (
            ("gen_ai.usage.input_tokens", usage.input),
            ("gen_ai.usage.output_tokens", usage.output),
            ("gen_ai.usage.cache_read.input_tokens", usage.cache_read),
            ("gen_ai.usage.cache_creation.input_tokens", usage.cache_write),
        ):
            got = attributes.get(name)
            # A count of nothing need not be told.
            check(found, record, name, 0 if got is None and "cache" in name else got, expected)
        check(found, record, "estimated", attributes.get("shekel.cost.estimated", False), False)
        check(found, record, "response id", attributes.get("gen_ai.response.id"), answered(record, "id"))
        check(found, record, "response model", attributes.get("gen_ai.response.model"), answered(record, "model"))
    assert_none(found, of=len(with_usage))


@SETUPS
@KINDS
def test_the_cost_is_the_list_price_of_the_usage(api: str, is_async: bool, tracing: bool) -> None:
    found: list[str] = []
    with_usage = [(r, e) for r, e in told(api, is_async, tracing) if r.usage is not None]
    unpriced = 0
    for record, exchange in with_usage:
        attributes = one_span(exchange).attributes or {}
        expected = cost(record)
        amount = attributes.get("gen_ai.usage.cost.amount")
        if expected is None:
            unpriced += 1
            check(found, record, "cost", amount, None)
            check(found, record, "unpriced", attributes.get("shekel.unpriced"), True)
        else:
            check(found, record, "cost", amount, float(expected / NANO))
            check(found, record, "currency", attributes.get("gen_ai.usage.cost.currency"), "USD")
    assert unpriced < len(with_usage) / 10, "the price list knows too few of the models to prove anything"
    assert_none(found, of=len(with_usage))


@SETUPS
@KINDS
def test_without_usage_it_is_estimated_or_pending(api: str, is_async: bool, tracing: bool) -> None:
    found: list[str] = []
    silent = [
        (record, exchange)
        for record, exchange in told(api, is_async, tracing)
        if record.usage is None and record.said.status < 400 and "stream_error" not in record.features
    ]
    if api == "messages":
        assert not silent, "every message of the set has usage"
    else:
        assert silent
    for record, exchange in silent:
        attributes = one_span(exchange).attributes or {}
        pending = "background" in record.features
        check(found, record, "pending", attributes.get("shekel.pending", False), pending)
        if attributes.get("shekel.unpriced"):
            continue
        check(found, record, "estimated", attributes.get("shekel.cost.estimated"), True)
        check(found, record, "has a cost", float(attributes.get("gen_ai.usage.cost.amount", 0)) > 0, True)  # type: ignore[arg-type]
    assert_none(found, of=len(silent))


@SETUPS
@KINDS
def test_an_http_error_has_a_type_and_costs_nothing(api: str, is_async: bool, tracing: bool) -> None:
    found: list[str] = []
    failed = [(r, e) for r, e in told(api, is_async, tracing) if r.said.status >= 400]
    assert failed
    for record, exchange in failed:
        span = one_span(exchange)
        attributes = span.attributes or {}
        check(found, record, "status", span.status.status_code, StatusCode.ERROR)
        check(found, record, "has an error type", bool(attributes.get("error.type")), True)
        tokens = [name for name in attributes if name.startswith("gen_ai.usage.") and ".cost." not in name]
        check(found, record, "usage told", tokens, [])
        check(found, record, "cost", attributes.get("gen_ai.usage.cost.amount", 0), 0)
    assert_none(found, of=len(failed))


@KINDS
def test_an_error_inside_a_stream_is_an_error(is_async: bool) -> None:
    failing = [e for r, e in told("responses", is_async, False) if "error_event_mid_stream" in r.oddities]
    assert failing
    for exchange in failing:
        span = one_span(exchange)
        assert span.status.status_code is StatusCode.ERROR
        assert (span.attributes or {}).get("error.type")


@KINDS
def test_a_chat_stream_that_was_asked_for_usage_is_not_estimated(is_async: bool) -> None:
    silent = [r for r in records("chat.completions") if r.stream and r.said.status == 200 and r.usage is None]
    found: list[str] = []
    exchanges = run(silent, {"create": drive.create}, is_async=is_async, instrumentation=shekel, delivery=GIVES_USAGE)
    for record, exchange in zip(silent, exchanges.values(), strict=True):
        attributes = one_span(exchange).attributes or {}
        asked = (record.request.get("stream_options") or {}).get("include_usage", True)
        if asked:
            check(found, record, "input", attributes.get("gen_ai.usage.input_tokens"), INVENTED_USAGE["prompt_tokens"])
            check(
                found,
                record,
                "output",
                attributes.get("gen_ai.usage.output_tokens"),
                INVENTED_USAGE["completion_tokens"],
            )
            check(found, record, "estimated", attributes.get("shekel.cost.estimated", False), False)
    assert_none(found, of=len(silent))


def test_no_prompt_and_no_answer_is_told() -> None:
    found: list[str] = []
    for api in ("chat.completions", "responses", "messages"):
        for record, exchange in told(api, False, False):
            span = one_span(exchange)
            values = [*(span.attributes or {}).values()]
            for event in span.events:
                values += [*(event.attributes or {}).values()]
            long = [value for value in values if isinstance(value, str) and len(value) > 120]
            check(found, record, "long attributes", long, [])
            body = record.said.body.decode()
            texts = {text for text in _texts(record.request) if len(text) > 24 and text not in body}
            leaked = [text for text in texts for value in values if isinstance(value, str) and text in value]
            check(found, record, "prompt told", leaked, [])
    assert_none(found, of=len(found) or 1)


def _texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for key, item in value.items() if key != "model" for text in _texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []
