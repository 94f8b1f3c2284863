"""Pricing: Usage → Cost, by the price list of `genai-prices` after the user's own overrides and aliases.

A model that nobody prices has no quote (None): unknown is not zero, and neither is free. Costs are whole
nano-dollars, exact, and rounded once per call, upwards. The list is imported at the first question, never before.
Pricing knows no budgets, spans or SDKs, and never fetches anything.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from decimal import Context, Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

from . import price_list
from .model_limits import max_output_of
from .price_list import EVER, find, provider_of, quote_of
from .quotes import NANO, Quote, as_genai_usage, flat, round_up
from .shown import shown
from .usage import Usage

__all__ = ["Prices", "Quote", "as_genai_usage", "nanos", "per_1k", "provider_of", "usd"]

Amount = str | int | float | Decimal

_DATE = re.compile(r"-20\d\d-?(0[1-9]|1[0-2])-?(0[1-9]|[12]\d|3[01])$")
_KEYS = ("input", "output", "cache_read", "cache_write")
_CACHED = 1024
_EXACT = Context(prec=100)


def nanos(amount: Amount, *, up: bool = False) -> int:
    """Nano-dollars of an amount in USD: rounded down, as limits are, or with `up` upwards, as costs are.

    Raises:
        ValueError: the amount is no finite number.
    """
    exact = Fraction(_decimal("amount", amount, "give a finite number of US dollars")) * NANO
    return round_up(exact) if up else exact.numerator // exact.denominator


def usd(nano: int) -> Decimal:
    """USD of an amount in nano-dollars, exact."""
    return Decimal(nano).scaleb(-9, _EXACT)


def per_1k(input: Amount, output: Amount) -> Quote:
    """A quote from prices in USD per 1,000 tokens, as the `shekel` vocabulary gives them.

    Raises:
        ValueError: a price is negative or no finite number.
    """
    rates = {"input": _rate("input", input, 1_000), "output": _rate("output", output, 1_000)}
    return flat("price_per_1k_tokens", rates)


class Prices:
    """A price list with the user's overrides and aliases before it. Safe to share between threads."""

    def __init__(self) -> None:
        self._overrides: dict[str, dict[str, Fraction]] = {}
        self._aliases: dict[str, str] = {}
        self._cache: dict[tuple[Any, ...], tuple[float, float, Any, Quote | None]] = {}
        self.lock = threading.RLock()

    def set(self, model: str, price: Mapping[str, Amount] | str) -> None:
        """Give a model a price of the user's own. It goes before the list, for every provider, tier and date.

        A name that is in the list also prices the dated names of the same model.

        Args:
            model: the model's name.
            price: USD per million tokens as `{"input": …, "output": …}`, optionally `"cache_read"` and
                `"cache_write"` (else they cost what input costs); or "free".

        Raises:
            ValueError: a bad name, key or value.
        """
        name = _name("model", model)
        if price == "free":
            rates = {"input": Fraction(0), "output": Fraction(0)}
        elif isinstance(price, Mapping):
            for key in price:
                if key not in _KEYS:
                    raise ValueError(f"price of {shown(model)}: unknown key {shown(key)}; use {', '.join(_KEYS)}")
            for key in ("input", "output"):
                if key not in price:
                    raise ValueError(f"price of {shown(model)}: {key!r} is missing; give USD per million tokens")
            rates = {key: _rate(f"{key} price of {shown(model)}", value, 1_000_000) for key, value in price.items()}
        else:
            remedy = 'give {"input": …, "output": …} in USD per million tokens, or "free"'
            raise ValueError(f"price of {shown(model)} is {shown(price)}; {remedy}")
        with self.lock:
            self._overrides[name] = rates
            self._cache = {}

    def alias(self, name: str, target: str) -> None:
        """Price one name (a deployment, a gateway's own name) as another model.

        Raises:
            ValueError: a bad name, or aliases that lead back to themselves.
        """
        source, end = _name("alias", name), _name("alias target", target)
        with self.lock:
            step: str | None = end
            while step is not None:
                if step == source:
                    raise ValueError(
                        f"alias {shown(name)} → {shown(target)} leads back to itself; point it at a priced model"
                    )
                step = self._aliases.get(step)
            self._aliases[source] = end
            self._cache = {}

    def quote(
        self,
        provider: str,
        model: str,
        *,
        host: str | None = None,
        service_tier: str | None = None,
        speed: str | None = None,
        at: float,
    ) -> Quote | None:
        """What a model costs in one request; None if nobody prices it.

        Args:
            provider: the `gen_ai.provider.name` of the API's format.
            model: the model's name, as asked for or as answered.
            host: the host (or host and path) that the request goes to. Where it is one that the price list knows
                ("api.groq.com"), that provider's prices count, whatever the format; else `provider`'s.
            service_tier: the tier asked for or billed ("flex", "priority", "batch", ...); None or "auto" if open.
            speed: Anthropic's `speed`.
            at: when the request was made, in Unix seconds.
        """
        cache = self._cache
        key = (provider, model, host, service_tier, speed)
        entry = cache.get(key)
        if entry is not None and entry[0] <= at < entry[1] and entry[2] is price_list.snapshot():
            return entry[3]
        listed = price_list.snapshot()
        quote, since, until = self._resolve(listed, provider, model, host, service_tier, speed, at)
        with self.lock:
            if len(cache) >= _CACHED:
                cache.clear()
            # Into the cache that was current at the start: an override that came meanwhile began a new one.
            cache[key] = (since, until, listed, quote)
        return quote

    def cost(self, quote: Quote, usage: Usage, *, provider: str, at: float, host: str | None = None) -> int:
        """The cost of a call in nano-dollars, rounded up once, the passes of other models (`usage.also`) included.

        A pass whose model has no price costs what the call's own model would.
        """
        if not usage.also:
            return quote.cost(usage)
        return round_up(self._exact(quote, usage, provider, at, host))

    def _exact(self, quote: Quote, usage: Usage, provider: str, at: float, host: str | None) -> Fraction:
        total = quote.exact(usage)
        for part in usage.also:
            tier = part.usage.service_tier or usage.service_tier
            speed = part.usage.speed
            other = part.model and self.quote(provider, part.model, host=host, service_tier=tier, speed=speed, at=at)
            total += self._exact(other or quote, part.usage, provider, at, host)
        return total

    def _resolve(
        self,
        listed: Any,
        provider: str,
        model: str,
        host: str | None,
        service_tier: str | None,
        speed: str | None,
        at: float,
    ) -> tuple[Quote | None, float, float]:
        name = model.strip().lower()
        aliased = name in self._aliases
        while name in self._aliases:
            name = self._aliases[name]
        found = find(listed, provider, name, host, anywhere=aliased)
        info = found[1] if found else None
        limit = max_output_of(info.id, info.context_window) if info else max_output_of(name, None)
        for known in (name, info.id if info else _DATE.sub("", name)):
            if known in self._overrides:
                return flat(known, self._overrides[known], limit), *EVER
        if found is None:
            return None, *EVER
        return quote_of(*found, service_tier, speed, at, limit)


def _name(what: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{what} is {shown(value)}; give the name of a model")
    return value.strip().lower()


def _rate(what: str, value: object, per: int) -> Fraction:
    """Nano-dollars per token of a price in USD per so many tokens."""
    remedy = f"give a number of US dollars per {per:,} tokens that is finite and at least 0"
    amount = _decimal(what, value, remedy)
    if amount < 0:
        raise ValueError(f"{what} is {shown(value)}; {remedy}")
    return Fraction(amount) * NANO / per


def _decimal(what: str, value: object, remedy: str) -> Decimal:
    if isinstance(value, (str, int, float, Decimal)) and not isinstance(value, bool):
        try:
            exact = Decimal(value if isinstance(value, int) else str(value))
        except InvalidOperation:
            exact = Decimal("NaN")
        # Beyond these, no sum of money: only a number that would take long to write out.
        if exact.is_finite() and exact.adjusted() < 30 and int(exact.as_tuple().exponent) > -60:
            return exact
    raise ValueError(f"{what} is {shown(value)}; {remedy}")
