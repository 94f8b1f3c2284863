"""Holds: what a call needs of each meter, by the mode of its budget. Pure arithmetic in nano-dollars and tokens.

The sizes are those of the law of the ledger: `sliced` holds the input and a slice of output (or the cap of a plain
call), `strict` the most that the call can cost, `expected` what it will probably cost. Tokens are held like money, at a
price of one each; a call is one, whatever it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..ledgers.base import Line
from ..settlement import Billing
from .limits import Mode, Unit

if TYPE_CHECKING:
    from ..call import Call
    from ..pricing import Quote
    from .claims import Claim

SLICE = 256
"""The most output tokens that a stream takes at once."""

LEAST_SLICE = 16
"""The fewest, but for the rest of a cap."""

_COUNT_INPUT = (Unit.INPUT, Unit.TOKENS)
_COUNT_OUTPUT = (Unit.OUTPUT, Unit.TOKENS)


class Need(NamedTuple):
    """What a call needs under one price: the parts that a hold is made of, in nano-dollars and tokens.

    A tuple: each call makes one. Without a price (which only budgets without a limit in USD let pass) money is 0.
    """

    input: int
    output_rate: int
    expected: int
    cap: int | None
    choices: int
    upper: int | None
    strict_base: int | None
    strict_rate: int
    most: int | None
    unbounded: str | None
    tokens: int
    likely: int
    bound: int | None
    attempts: int

    def rest(self, used: int) -> int:
        """Output tokens that a slice may still take, after so many."""
        return SLICE if self.cap is None else max(0, self.cap * self.choices - used)

    def least(self, used: int) -> int:
        """The fewest output tokens that are worth going on for, after so many."""
        return min(LEAST_SLICE, self.rest(used))

    def is_whole(self, granted: int) -> bool:
        """Whether a grant pays for all that the cap allows."""
        return self.cap is not None and granted >= self.cap * self.choices

    def rate(self, unit: Unit) -> int:
        """What one more output token takes of a meter of that unit."""
        if unit is Unit.USD:
            return self.output_rate
        return 1 if unit in _COUNT_OUTPUT else 0

    def base(self, unit: Unit, known: int | None = None, input_rate: int = 0) -> int:
        """What the input takes of a meter of that unit; at least `known` tokens, once the provider has counted them."""
        if unit is Unit.USD:
            return self.input if known is None else max(self.input, known * input_rate)
        if unit in _COUNT_INPUT:
            return self.tokens if known is None else max(self.tokens, known)
        return 1 if unit is Unit.CALLS else 0

    def likely_of(self, unit: Unit) -> int:
        """What an attempt will probably take of a meter of that unit; a call is one, however many are made."""
        if unit is Unit.USD:
            return self.expected
        return 0 if unit is Unit.CALLS else self.base(unit) + self.likely * self.rate(unit)

    def strict(self, unit: Unit) -> tuple[int, int]:
        """The most that the call can take of a meter of that unit: its base, and its rate per token of a choice."""
        if unit is Unit.USD:
            return self.strict_base or 0, self.strict_rate
        if unit is Unit.CALLS:
            return 1, 0
        base = (self.bound or 0) * self.attempts if unit in _COUNT_INPUT else 0
        return base, self.attempts * self.choices if unit in _COUNT_OUTPUT else 0


def need_of(call: Call, quote: Quote | None, likely: int) -> Need:
    """What a call needs under a price, if it is likely to generate so many output tokens of all choices."""
    request = call.request
    n = request.choices
    bound = request.input_bound
    if quote is None:
        return Need(
            0, 0, 0, request.cap, n, None, None if bound is None else 0, 0, request.cap, request.unbounded,
            call.input_tokens, likely, bound, call.attempts,
        )  # fmt: skip
    base = call.input_tokens * quote.input_rate
    most = request.cap if request.cap is not None else quote.max_output
    strict_base = None if bound is None else call.attempts * bound * quote.dearest_input
    strict_rate = call.attempts * n * quote.dearest_output
    upper = None if strict_base is None or most is None else strict_base + most * strict_rate
    return Need(
        input=base,
        output_rate=quote.output_rate,
        expected=base + likely * quote.output_rate,
        cap=request.cap,
        choices=n,
        upper=upper,
        strict_base=strict_base,
        strict_rate=strict_rate,
        most=most,
        unbounded=request.unbounded,
        tokens=call.input_tokens,
        likely=likely,
        bound=bound,
        attempts=call.attempts,
    )


def line_of(claim: Claim, need: Need, *, stream: bool, strict: bool, first: int) -> Line:
    """What an admission asks of one meter.

    Args:
        claim: the meter and its mode.
        need: what the call needs.
        stream: whether the answer is streamed.
        strict: whether a meter of the call is strict: the grant then counts output per choice.
        first: output tokens of the first slice.
    """
    unit = claim.unit
    base, rate = need.base(unit), need.rate(unit)
    if claim.mode is Mode.STRICT and claim.limit is not None:
        base, rate = need.strict(unit)
        if not strict:  # only a shadow or a warning is strict here: nothing caps the output for it
            base, rate = base + rate * (need.most or need.likely), 0
    elif claim.mode is Mode.SLICED and stream:
        # Beside a strict meter the grant counts output per choice, so the slice is a fixed part there.
        if strict:
            base, rate = base + first * rate, 0
    elif claim.mode is Mode.SLICED and need.cap is not None:
        base, rate = base + need.choices * need.cap * rate, 0
    else:
        base, rate = base + need.likely * rate, 0
    return line(claim, base, rate)


def line(claim: Claim, base: int, rate: int = 0) -> Line:
    """The line of a claim; where the claim only warns, it does not vote."""
    at_limit = claim.at_limit
    limit = None if at_limit == "warn" else claim.limit
    return Line(claim.meter, limit, base, rate, claim.window, claim.slides, claim.shadow, claim.until)


def with_failed(call: Call, lines: list[Line]) -> list[Line]:
    """The lines with what failed attempts have probably cost; strict lines hold for all attempts from the start."""
    billed = call.failed.count(Billing.PROBABLY) if call.failed else 0
    need = call.need
    if not billed or need is None:
        return lines
    return [
        each if claim.mode is Mode.STRICT else each._replace(base=each.base + billed * need.likely_of(claim.unit))
        for claim, each in zip(call.claims, lines, strict=True)
    ]
