"""What should be told about a recorded exchange: usage and cost, worked out here from the record alone.

Usage is the record's own, made inclusive by each API's rules; the cost is what `genai_prices` says of it. Nothing of
Shekel is used, so that what it tells can be held against this.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Any

import genai_prices

from .records import Record

NANO = Decimal(1_000_000_000)


@dataclass(frozen=True, slots=True)
class Counted:
    """Inclusive token counts, and the same for the price list."""

    input: int
    output: int
    cache_read: int
    cache_write: int
    priced: Mapping[str, int]


def _whole(source: Any, *path: str) -> int:
    for name in path:
        source = source.get(name) if isinstance(source, Mapping) else None
    return source if isinstance(source, int) else 0


def counted(record: Record) -> Counted | None:
    """The record's usage, inclusive; None where the provider sent none."""
    usage = record.usage
    if usage is None:
        return None
    if record.api == "messages":
        return _anthropic(usage)
    kind = ("prompt", "completion") if record.api == "chat.completions" else ("input", "output")
    inputs, outputs = f"{kind[0]}_tokens_details", f"{kind[1]}_tokens_details"
    priced = {
        "input_tokens": _whole(usage, f"{kind[0]}_tokens"),
        "output_tokens": _whole(usage, f"{kind[1]}_tokens"),
        "cache_read_tokens": _whole(usage, inputs, "cached_tokens"),
        "cache_write_tokens": _whole(usage, inputs, "cache_write_tokens"),
        "input_audio_tokens": _whole(usage, inputs, "audio_tokens"),
        "output_audio_tokens": _whole(usage, outputs, "audio_tokens"),
        "input_image_tokens": _whole(usage, inputs, "image_tokens"),
        "output_reasoning_tokens": _whole(usage, outputs, "reasoning_tokens"),
        **_server_tools(record),
    }
    return Counted(
        priced["input_tokens"],
        priced["output_tokens"],
        priced["cache_read_tokens"],
        priced["cache_write_tokens"],
        priced,
    )


def _server_tools(record: Record) -> dict[str, int]:
    """Calls of server tools that the price list prices, where OpenAI does not count them for us.

    Source: OpenAI's page on web search: only the action `search` is billed, not `open_page` and `find_in_page`.
    """
    if record.api != "responses":
        return {}
    output = [item for item in answered(record, "output") or () if isinstance(item, Mapping)]
    searches = [item for item in output if item.get("type") == "web_search_call"]
    billed = sum((item.get("action") or {}).get("type", "search") == "search" for item in searches)
    said = ((answered(record, "tool_usage") or {}).get("web_search") or {}).get("num_requests")
    return {
        "web_searches": billed if said is None else said,
        "storage_searches": sum(item.get("type") == "file_search_call" for item in output),
    }


def _anthropic(usage: Mapping[str, Any]) -> Counted:
    read, written = _whole(usage, "cache_read_input_tokens"), _whole(usage, "cache_creation_input_tokens")
    hour, five = (_whole(usage, "cache_creation", f"ephemeral_{ttl}_input_tokens") for ttl in ("1h", "5m"))
    # A stream says the split once, at its start; what is written later is of the one kind that was in use.
    hour = written if hour and not five else hour
    priced = {
        "input_tokens": _whole(usage, "input_tokens") + read + written,
        "output_tokens": _whole(usage, "output_tokens"),
        "cache_read_tokens": read,
        "cache_write_tokens": written,
        "cache_write_1h_tokens": hour,
        "output_reasoning_tokens": _whole(usage, "output_tokens_details", "thinking_tokens"),
        "web_searches": _whole(usage, "server_tool_use", "web_search_requests"),
    }
    return Counted(priced["input_tokens"], priced["output_tokens"], read, written, priced)


def events(record: Record) -> Iterator[Mapping[str, Any]]:
    """The JSON objects of the answer: one, or those of a stream's events."""
    text = record.said.body.decode()
    if not record.said.content_type.startswith("text/event-stream"):
        yield json.loads(text)
        return
    for line in text.splitlines():
        if line.startswith("data:") and line.strip() != "data: [DONE]":
            event = json.loads(line.removeprefix("data:"))
            yield event
            for inner in ("response", "message"):
                if isinstance(event.get(inner), Mapping):
                    yield event[inner]


def answered(record: Record, name: str) -> Any:
    """The last value that the answer gives to a field of its top level; None if it never does."""
    return next((event[name] for event in reversed(list(events(record))) if event.get(name) is not None), None)


def cost(record: Record) -> int | None:
    """Nano-dollars of the record's usage at list price, rounded up; None where the list does not know the model."""
    usage = counted(record)
    assert usage is not None
    provider = "anthropic" if record.api == "messages" else "openai"
    model = answered(record, "model") or record.request.get("model") or ""
    tier = record.usage.get("service_tier") if provider == "anthropic" else answered(record, "service_tier")
    words = {"service_tier": tier, "speed": record.usage.get("speed")}
    try:
        total = _price(usage.priced, model, provider, words)
    except LookupError:
        return None
    for part in record.usage.get("iterations") or ():
        # Not in the totals; see the notes that come with the records.
        if part.get("type") in ("compaction", "advisor_message"):
            total += _price(_anthropic(part).priced, part.get("model") or model, provider, words)
    return int((total * NANO).to_integral_value(ROUND_CEILING))


def _price(counts: Mapping[str, int], model: str, provider: str, words: Mapping[str, Any]) -> Decimal:
    context = {key: value for key, value in words.items() if value}
    usage = genai_prices.Usage(**{key: value for key, value in counts.items() if value})
    return genai_prices.calc_price(usage, model, provider_id=provider, price_context=context or None).total_price
