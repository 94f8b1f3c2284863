"""Quotes: one model's price in one request, compiled so that a usage costs a handful of integer multiplications.

A price list says what each *kind* of token costs (input, cache read, audio, ...), and kinds contain each other. A token
is billed once, at its most special kind that has a price. The nesting is worked out when a quote is made; a cost is
then a sum of integers over one common denominator, and rounded once, upwards, to the nano-dollar.

**Counts that contradict each other** (more cache reads than input) never raise: a part is billed as it was counted,
and what is left of the whole is at least nothing. So no named token is ever free, and none is billed twice.

Nothing here knows which models exist, where a list comes from, or who pays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import lcm
from operator import attrgetter, mul
from typing import TYPE_CHECKING, Any

from .usage import Usage

if TYPE_CHECKING:
    import genai_prices

NANO = 1_000_000_000

# Where each of the price list's counts stands in ours. What is not named here (seconds, pages, pixels, characters,
# video) is not in Usage either, so its count is zero and its price never matters.
FIELDS: Mapping[str, str] = {
    "input_tokens": "input",
    "output_tokens": "output",
    "cache_read_tokens": "cache_read",
    "cache_write_tokens": "cache_write",
    "cache_write_1h_tokens": "cache_write_1h",
    "output_reasoning_tokens": "reasoning",
    "input_audio_tokens": "input_audio",
    "output_audio_tokens": "output_audio",
    "cache_audio_read_tokens": "cache_read_audio",
    "input_image_tokens": "input_image",
    "output_image_tokens": "output_image",
    "web_searches": "web_searches",
    "storage_searches": "storage_searches",
    "code_executions": "code_executions",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled price. The tuples run in step, the most special kind of token first.

    Attributes:
        fields: which counts of a usage are priced.
        read: takes them from a usage.
        parts: for each count, the earlier ones that it contains.
        rates: price of one unit, in nano-dollars / `scale`.
        steps: (more input tokens than this, the rates then), the highest first: cliffs, not brackets.
        fixed: price of the request itself, in nano-dollars / `scale`.
        scale: the common denominator.
    """

    fields: tuple[str, ...]
    read: Callable[[Usage], tuple[int, ...]] = field(compare=False, repr=False)
    parts: tuple[tuple[int, ...], ...]
    rates: tuple[int, ...]
    steps: tuple[tuple[int, tuple[int, ...]], ...]
    fixed: int
    scale: int


@dataclass(frozen=True, slots=True)
class Quote:
    """What one model costs in one request. Immutable. Rates are nano-dollars per token, rounded up.

    Attributes:
        model_id: the model's name in the price list, or the name that the user gave a price to.
        source: "genai-prices <version>" or "override".
        input_rate, output_rate: an ordinary token, at the tier asked for and below any threshold.
        dearest_input, dearest_output: the dearest that any token can cost in this request: above every threshold,
            written to the dearest cache, audio or image, and at the dearest service tier that may answer.
        max_output: the most output tokens that the model can generate; None if nobody says so.
    """

    model_id: str
    source: str
    input_rate: int
    output_rate: int
    dearest_input: int
    dearest_output: int
    max_output: int | None
    plan: Plan | None
    odd: Callable[[Usage], Fraction] | None = field(default=None, compare=False, repr=False)
    """Prices a usage in nano-dollars where the list's price has a shape that cannot be compiled."""

    def cost(self, usage: Usage) -> int:
        """The cost of a usage in nano-dollars, rounded up. `usage.also` is not included: see `Prices.cost`."""
        plan = self.plan
        if plan is None:
            exact = self.exact(usage)
            return -(-exact.numerator // exact.denominator)
        return -(-self._sum(plan, usage) // plan.scale)

    def exact(self, usage: Usage) -> Fraction:
        """The cost of a usage in nano-dollars, not rounded."""
        if self.plan is not None:
            return Fraction(self._sum(self.plan, usage), self.plan.scale)
        assert self.odd is not None
        return self.odd(usage)

    @staticmethod
    def _sum(plan: Plan, usage: Usage) -> int:
        counts: list[int] = []
        # Hot: once per call and per cut decision. `read` and `map` run in C; the loop is short.
        for count, parts in zip(plan.read(usage), plan.parts, strict=True):
            for part in parts:
                count -= counts[part]
            counts.append(count if count > 0 else 0)
        rates = plan.rates
        for start, dearer in plan.steps:
            if usage.input > start:
                rates = dearer
                break
        total: int = plan.fixed + sum(map(mul, counts, rates))
        return total


def round_up(amount: Fraction) -> int:
    """The least whole number that is not below the amount."""
    return -(-amount.numerator // amount.denominator)


def as_genai_usage(usage: Usage) -> genai_prices.Usage:
    """The same counts as the price list's own type, which is inclusive as ours is.

    Every count is named, zeros too, and so are the joins that we do not count (images read from a cache): the list
    refuses to guess a count that others imply. Counts below zero become zero. `usage.also` has models of its own.

    Raises:
        nothing for any usage of whole numbers; pricing the result may raise ValueError where counts contradict.
    """
    import genai_prices
    from genai_prices.units import _get_registry

    units = _get_registry().units
    counts = {
        key: 0
        for key, unit in units.items()
        if "token_type" in unit.dimensions and unit.dimensions.get("modality") in ("audio", "image")
    }
    counts |= {key: max(0, getattr(usage, name)) for key, name in FIELDS.items() if key in units}
    return genai_prices.Usage(**counts)


def reconciled(usage: Usage) -> Usage:
    """The same usage with every whole raised to the sum of its parts, so that the price list accepts it."""

    def count(name: str) -> int:
        return max(0, int(getattr(usage, name)))

    write = max(count("cache_write"), count("cache_write_1h"))
    heard = count("cache_read_audio")
    read, audio = max(count("cache_read"), heard), max(count("input_audio"), heard)
    return replace(
        usage,
        input=max(count("input"), read + write + audio - heard + count("input_image")),
        output=max(count("output"), count("reasoning") + count("output_audio") + count("output_image")),
        cache_read=read,
        cache_write=write,
        input_audio=audio,
    )


def flat(model_id: str, rates: Mapping[str, Fraction], max_output: int | None = None) -> Quote:
    """A quote of plain rates, as users give them.

    Args:
        model_id: the name that the price is for.
        rates: nano-dollars per token by "input", "output", "cache_read", "cache_write". A cache rate that is not
            given is the input rate.
        max_output: as in `Quote`.
    """
    order = ("cache_read", "cache_write", "input", "output")
    exact = [rates.get(kind, rates["input"]) for kind in order]
    scale = lcm(*(rate.denominator for rate in exact))
    plan = Plan(
        fields=order,
        read=attrgetter(*order),
        parts=((), (), (0, 1), ()),
        rates=tuple(int(rate * scale) for rate in exact),
        steps=(),
        fixed=0,
        scale=scale,
    )
    ups = [round_up(rate) for rate in exact]
    return Quote(model_id, "override", ups[2], ups[3], max(ups[:3]), ups[3], max_output, plan)


def from_list(
    model_id: str,
    source: str,
    price: Any,
    others: Iterable[Any],
    max_output: int | None,
    odd: Callable[[Usage], Fraction],
) -> Quote:
    """A quote from the price list.

    Args:
        model_id, source, max_output: as in `Quote`.
        price: the list's `ModelPrice` for this request.
        others: the prices of every tier that may answer it, for the dearest rates.
        odd: prices a usage by the list itself, in nano-dollars; used where the price cannot be compiled.
    """
    kinds = _kinds(price)
    if kinds is None:
        many = 1_000_000
        rate_in, rate_out = round_up(odd(Usage(input=many)) / many), round_up(odd(Usage(output=many)) / many)
        return Quote(model_id, source, rate_in, rate_out, rate_in, rate_out, max_output, None, odd)
    rates = [(kind.field, kind.rate(0)) for kind in kinds]
    dearest = {"input": 0, "output": 0}
    for other in (price, *others):
        for kind in _kinds(other) or ():
            if kind.direction in dearest:
                dearest[kind.direction] = max(dearest[kind.direction], round_up(kind.dearest))
    ordinary = dict(rates)
    return Quote(
        model_id,
        source,
        round_up(ordinary.get("input", Fraction(0))),
        round_up(ordinary.get("output", Fraction(0))),
        dearest["input"],
        dearest["output"],
        max_output,
        _compile(kinds),
    )


@dataclass(frozen=True, slots=True)
class _Kind:
    """One priced kind of unit: the field that counts it, what it is, and its price by total input tokens."""

    field: str
    dimensions: frozenset[tuple[str, str]]
    base: Fraction
    tiers: tuple[tuple[int, Fraction], ...]

    @property
    def direction(self) -> str:
        return dict(self.dimensions).get("direction", "") if ("family", "tokens") in self.dimensions else ""

    @property
    def dearest(self) -> Fraction:
        return max((self.base, *(price for _, price in self.tiers)))

    def rate(self, total_input: int) -> Fraction:
        """Nano-dollars per unit when the request has so many input tokens."""
        return next((price for start, price in reversed(self.tiers) if total_input > start), self.base)


def _kinds(price: Any) -> list[_Kind] | None:
    """The priced kinds that a usage can hold, the most special first; None if the price has another shape."""
    from decimal import Decimal

    from genai_prices.types import ModelPrice, TieredPrices
    from genai_prices.units import _get_registry

    if type(price) is not ModelPrice:
        return None
    registry = _get_registry()
    kinds = []
    for key, value in vars(price).items():
        if value is None or key.startswith("_"):
            continue
        try:
            unit = registry.unit_for_price_key(key)
        except KeyError:
            continue  # the list itself warns of a key that it does not know, and prices without it
        name = "requests" if unit.usage_key == "requests" else FIELDS.get(unit.usage_key)
        if name is None:
            continue
        base, tiers = (value.base, value.tiers) if isinstance(value, TieredPrices) else (value, [])
        if not all(isinstance(amount, Decimal) for amount in (base, *(tier.price for tier in tiers))):
            return None
        nano = Fraction(NANO, unit.per)
        kinds.append(
            _Kind(
                name,
                frozenset(unit.dimensions.items()),
                Fraction(base) * nano,
                tuple((tier.start, Fraction(tier.price) * nano) for tier in tiers),
            )
        )
    return sorted(kinds, key=lambda kind: (-len(kind.dimensions), kind.field))


def _compile(kinds: list[_Kind]) -> Plan:
    fixed = next((kind.base for kind in kinds if kind.field == "requests"), Fraction(0))
    kinds = [kind for kind in kinds if kind.field != "requests"]
    fields = tuple(kind.field for kind in kinds)
    starts = sorted({start for kind in kinds for start, _ in kind.tiers}, reverse=True)
    table = [[kind.rate(total) for kind in kinds] for total in (0, *(start + 1 for start in starts))]
    scale = lcm(fixed.denominator, *(rate.denominator for rates in table for rate in rates))
    base, *dearer = [tuple(int(rate * scale) for rate in rates) for rates in table]
    return Plan(
        fields=fields,
        read=_reader(fields),
        parts=tuple(
            tuple(i for i, part in enumerate(kinds[:n]) if kind.dimensions < part.dimensions)
            for n, kind in enumerate(kinds)
        ),
        rates=base,
        steps=tuple(zip(starts, dearer, strict=True)),
        fixed=int(fixed * scale),
        scale=scale,
    )


def _reader(fields: tuple[str, ...]) -> Callable[[Usage], tuple[int, ...]]:
    if len(fields) > 1:
        return attrgetter(*fields)
    if fields:  # attrgetter of a single name gives the bare value
        (name,) = fields
        return lambda usage: (getattr(usage, name),)
    return lambda usage: ()
