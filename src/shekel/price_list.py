"""The price list: how a name, a host and a moment become one model's price in `genai-prices`.

The one place that knows that library's shapes, besides the compiling of its prices (`quotes`). It is imported at the
first question, never before. Overrides, aliases, caches and budgets are not known here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from typing import Any

from .quotes import NANO, Quote, as_genai_usage, from_list, reconciled
from .usage import Usage

EVER = (float("-inf"), float("inf"))
"""A price that never changes: from when until when, in Unix seconds."""

# OpenTelemetry's `gen_ai.provider.name` values → ids of the price list, where the two differ.
_PROVIDERS: Mapping[str, str] = {
    "azure.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "az.ai.inference": "azure",
    "aws.bedrock": "aws",
    "gcp.vertex_ai": "google",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "mistral_ai": "mistral",
    "x_ai": "x-ai",
    "moonshot_ai": "moonshotai",
}


# Kept: the import statement alone would cost more than the rest of a quote.
_getter: Callable[[], Any] | None = None


def snapshot() -> Any:
    """The list in use; whoever updates prices puts another object in its place."""
    global _getter
    if _getter is None:
        from genai_prices.data_snapshot import get_snapshot

        _getter = get_snapshot
    return _getter()


def provider_of(model: str) -> str | None:
    """The price list's id of the provider that a model name belongs to ("openai", "anthropic", ...); None if unclear.

    A leading "provider/" counts. A name that several hosts serve ("llama-3...") belongs to none.
    """
    from genai_prices.data_snapshot import find_provider_by_id

    listed = snapshot()
    name = model.strip().lower()
    prefix, slash, rest = name.partition("/")
    if slash and rest and (named := find_provider_by_id(listed.providers, prefix)):
        return str(named.id)
    for provider in listed.providers:
        if provider.id in ("openai", "anthropic") and provider.find_model(name):
            return str(provider.id)
    try:
        return str(listed.find_provider(name, None, None).id) if name else None
    except LookupError:
        return None


def find(listed: Any, provider: str, name: str, host: str | None, *, anywhere: bool) -> tuple[Any, Any] | None:
    """The list's provider and model. `anywhere`: the user named the model, so it may be another provider's."""
    from genai_prices.data_snapshot import find_provider_by_id

    if not name:
        return None
    everyone = listed.providers
    hosts: list[Any] = []
    if host:
        url = host if "://" in host else f"https://{host}"
        url = url if "/" in url.partition("://")[2] else f"{url}/"
        hosts = [candidate for candidate in everyone if re.match(candidate.api_pattern, url)]
    own = find_provider_by_id(everyone, _PROVIDERS.get(provider, provider))
    if own is not None and own.id == "google":  # "models/…", "publishers/google/models/…": resources, not names
        name = name.rpartition("models/")[2]
    for candidate in hosts or ([own] if own else []):
        if info := candidate.find_model(name, all_providers=everyone):
            return candidate, info
    # A gateway that nobody knows often takes "provider/model".
    prefix, slash, rest = name.partition("/")
    named = find_provider_by_id(everyone, prefix) if slash and not hosts else None
    if named is not None and (info := named.find_model(rest, all_providers=everyone)):
        return named, info
    if anywhere and (maker := provider_of(name)):
        named = find_provider_by_id(everyone, maker)
        if named is not None and (info := named.find_model(name)):
            return named, info
    return None


def _context(service_tier: str | None, speed: str | None) -> dict[str, str]:
    """The list's words for what was asked. "auto" and "standard" are the list's price without any context."""
    tier = (service_tier or "").lower()
    context = {"processing": "batch"} if tier == "batch" else {"service_tier": tier} if tier else {}
    return context | ({"speed": speed.lower()} if speed else {})


def quote_of(
    provider: Any, info: Any, service_tier: str | None, speed: str | None, at: float, max_output: int | None
) -> tuple[Quote | None, float, float]:
    import genai_prices

    moment = datetime.fromtimestamp(at, UTC)
    # A model borrowed from another provider (OpenAI's at Azure) has that provider's standard price, not its tiers.
    variants = (info.price_variants or []) if any(info is own for own in provider.models) else []
    context = _context(service_tier, speed)
    # Who asks for no tier may be served any; who asks for one may be served the standard one instead.
    tiers: set[str] = set()
    if not service_tier or service_tier.lower() == "auto":
        tiers = {variant.when["service_tier"] for variant in variants if "service_tier" in variant.when}
    maybe: list[dict[str, str]] = [{}, *({**context, "service_tier": tier} for tier in tiers)]

    def priced(words: dict[str, str]) -> Any:
        return info.get_prices(moment, words if variants else None)

    def ask(usage: Usage) -> Fraction:
        price = info.calc_price(as_genai_usage(usage), provider, genai_request_timestamp=moment, price_context=context)
        return Fraction(price.total_price) * NANO

    def odd(usage: Usage) -> Fraction:
        try:
            return ask(usage)
        except ValueError:  # counts that contradict each other
            return ask(reconciled(usage))

    since, until = _validity(info, moment)
    try:
        ask(Usage())  # a price that the list itself refuses is no price
        source = f"genai-prices {genai_prices.__version__}"
        quote = from_list(info.id, source, priced(context), map(priced, maybe), max_output, odd)
    except Exception:
        return None, since, until
    return quote, since, until


def _validity(info: Any, moment: datetime) -> tuple[float, float]:
    """From when until when (Unix seconds) the model's conditional prices stay as they are at a moment."""
    conditional = info.prices if isinstance(info.prices, list) else []
    edges: list[float] = []
    for item in (*conditional, *(info.price_variants or ())):
        constraint = item.constraint
        if constraint is None:
            continue
        if (start := getattr(constraint, "start_date", None)) is not None:
            edges.append(datetime.combine(start, time(), UTC).timestamp())
            continue
        for edge in (constraint.start_time, constraint.end_time):
            for days in (-2, -1, 0, 1, 2):
                day: date = moment.date() + timedelta(days)
                edges.append(datetime.combine(day, edge, edge.tzinfo or UTC).timestamp())
    now = moment.timestamp()
    return (
        max((edge for edge in edges if edge <= now), default=EVER[0]),
        min((edge for edge in edges if edge > now), default=EVER[1]),
    )
