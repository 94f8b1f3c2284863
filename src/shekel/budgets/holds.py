"""Holds: what a call needs of each meter, by the mode of its budget. Pure arithmetic in nano-dollars and tokens.

The sizes are those of the law of the ledger: `sliced` holds the input and a slice of output (or the cap of a plain
call), `strict` the most that the call can cost, `expected` what it will probably cost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..ledgers.base import Line
from .limits import Mode

if TYPE_CHECKING:
    from ..call import Call
    from ..pricing import Quote
    from .claims import Claim

SLICE = 256
"""The most output tokens that a stream takes at once."""

LEAST_SLICE = 16
"""The fewest, but for the rest of a cap."""


class Need(NamedTuple):
    """What a call needs under one price: the parts that a hold is made of, in nano-dollars and tokens.

    A tuple: each call makes one.
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

    def rest(self, used: int) -> int:
        """Output tokens that a slice may still take, after so many."""
        return SLICE if self.cap is None else max(0, self.cap * self.choices - used)

    def least(self, used: int) -> int:
        """The fewest output tokens that are worth going on for, after so many."""
        return min(LEAST_SLICE, self.rest(used))

    def is_whole(self, granted: int) -> bool:
        """Whether a grant pays for all that the cap allows."""
        return self.cap is not None and granted >= self.cap * self.choices


def need_of(call: Call, quote: Quote, likely: int) -> Need:
    """What a call needs under a price, if it is likely to generate so many output tokens of all choices."""
    request = call.request
    n = request.choices
    base = call.input_tokens * quote.input_rate
    most = request.cap if request.cap is not None else quote.max_output
    bound = request.input_bound
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
    if claim.mode is Mode.STRICT:
        assert need.strict_base is not None
        return Line(claim.meter, claim.limit, need.strict_base, need.strict_rate)
    if claim.mode is Mode.SLICED:
        if stream:
            # Beside a strict meter the grant counts output per choice, so the slice is a fixed part there.
            if strict:
                return Line(claim.meter, claim.limit, need.input + first * need.output_rate)
            return Line(claim.meter, claim.limit, need.input, need.output_rate)
        if need.cap is not None:
            return Line(claim.meter, claim.limit, need.input + need.choices * need.cap * need.output_rate)
    return Line(claim.meter, claim.limit, need.expected)


def with_failed(call: Call, lines: list[Line]) -> list[Line]:
    """The lines with what failed attempts have probably cost; strict lines hold for all attempts from the start."""
    if not call.failed_spent:
        return lines
    return [
        line if claim.mode is Mode.STRICT else line._replace(base=line.base + call.failed_spent)
        for claim, line in zip(call.claims, lines, strict=True)
    ]
