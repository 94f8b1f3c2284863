"""What the gate must decide, written for reading: the law's sizes of holds, and brute sums over what is kept apart.

It knows the law and the facts of a request (its tokens, caps and prices), and shares no code with the gate, the holds
or the ledger. Amounts are nano-dollars, tokens or calls, as the unit says.
"""

from __future__ import annotations

from dataclasses import dataclass, field

LEAST_SLICE, SLICE = 16, 256


@dataclass
class Facts:
    """One request, in numbers."""

    tokens: int  # estimated input
    bound: int  # input bound
    cap: int | None
    n: int
    likely: int  # output of all choices that is to be expected
    attempts: int
    stream: bool
    rate_in: int
    rate_out: int
    dearest_in: int
    dearest_out: int
    maximum: int  # documented maximum output

    @property
    def rest(self):
        """What a stream's first slice can be at most."""
        return SLICE if self.cap is None else min(SLICE, self.cap * self.n)

    def parts(self, unit):
        """What input and one output token take of a meter of that unit."""
        return {
            "usd": (self.tokens * self.rate_in, self.rate_out),
            "calls": (1, 0),
            "input_tokens": (self.tokens, 0),
            "output_tokens": (0, 1),
            "tokens": (self.tokens, 1),
        }[unit]

    def strict_parts(self, unit):
        """The most that all attempts can take: of the input, and for each output token of a choice."""
        a, n = self.attempts, self.n
        return {
            "usd": (a * self.bound * self.dearest_in, a * n * self.dearest_out),
            "calls": (1, 0),
            "input_tokens": (a * self.bound, 0),
            "output_tokens": (0, a * n),
            "tokens": (a * self.bound, a * n),
        }[unit]


@dataclass
class Meter:
    """A limit of a budget."""

    unit: str
    limit: int | None
    mode: str
    votes: bool = True
    window: object = None
    model: str | None = None
    settled: dict = field(default_factory=dict)  # call → amount
    held: dict = field(default_factory=dict)  # call → amount

    @property
    def used(self):
        return sum(self.settled.values()) + sum(self.held.values())

    def room(self, without=None):
        return self.limit - self.used + self.held.get(without, 0)


def decide(meters, facts):
    """Whether the call is admitted, and for each meter the least and the most that it may then hold.

    In `strict` the two are equal: the cap is the largest that fits everywhere.
    """
    voting = [meter for meter in meters if meter.votes and meter.limit is not None]
    strict = any(meter.mode == "strict" and meter.unit != "calls" for meter in voting)
    if strict:
        most = facts.maximum if facts.cap is None else facts.cap
        for cap in _candidates(voting, facts, most):
            if all(_at_cap(meter, facts, cap) <= meter.room() for meter in voting):
                return True, [(_at_cap(meter, facts, cap),) * 2 for meter in meters]
        return False, None
    spans = []
    for meter in meters:
        base, rate = facts.parts(meter.unit)
        if meter.mode == "sliced" and facts.stream:
            spans.append((base + min(LEAST_SLICE, facts.rest) * rate, base + facts.rest * rate))
        elif meter.mode == "sliced" and facts.cap is not None:
            spans.append((base + facts.n * facts.cap * rate,) * 2)
        elif meter.mode == "strict" and meter.limit is not None:  # only calls are limited strictly
            base, rate = facts.strict_parts(meter.unit)
            spans.append((base + rate * (facts.cap or facts.maximum),) * 2)
        else:
            spans.append((base + facts.likely * rate,) * 2)
    fits = all(least <= meter.room() for meter, (least, _) in zip(meters, spans, strict=True) if meter in voting)
    return fits, spans if fits else None


def charge(meter, facts, failed, last, usage, held):
    """What a call is charged: for each attempt what its row of the law says.

    Args:
        meter: where; not of calls.
        facts: the request.
        failed: how each attempt failed that another followed: "nothing", "perhaps" or "probably".
        last: how the last one failed, if it did.
        usage: the provider's input and output tokens, if it said them.
        held: what the meter held when the call was admitted.
    """
    strict = meter.mode == "strict" and meter.votes and meter.limit is not None
    if strict:
        probably = perhaps = held // facts.attempts
    else:
        base, rate = facts.parts(meter.unit)
        probably, perhaps = base + facts.likely * rate, 0
    unknown = probably if strict or meter.unit == "usd" else held  # tokens of an attempt that nobody counted
    row = {"nothing": 0, "perhaps": perhaps, "probably": probably}
    before = sum(row[each] for each in failed)
    if usage is None:
        all_in_all = before + {**row, "probably": unknown, "perhaps": unknown if strict else 0}[last]
        return min(held, all_in_all) if strict else all_in_all
    taken, made = usage
    if meter.unit == "usd":
        return before + taken * facts.rate_in + made * facts.rate_out
    return before + {"input_tokens": taken, "output_tokens": made, "tokens": taken + made}[meter.unit]


def least(meters, facts):
    """What each meter must have room for, at least, for the call to be admitted."""
    free = [Meter(meter.unit, None if meter.limit is None else 10**15, meter.mode, meter.votes) for meter in meters]
    strict = any(m.mode == "strict" and m.unit != "calls" and m.votes and m.limit is not None for m in meters)
    if strict:
        return [_at_cap(meter, facts, 1) for meter in meters]
    return [span[0] for span in decide(free, facts)[1]]


def _candidates(voting, facts, most):
    """Caps worth trying, the largest first: the most, and the largest that each meter alone allows."""
    caps = {most}
    for meter in voting:
        if meter.mode == "strict":
            base, rate = facts.strict_parts(meter.unit)
            if rate:
                caps.add((meter.room() - base) // rate)
    return sorted((cap for cap in caps if 1 <= cap <= most), reverse=True)


def _at_cap(meter, facts, cap):
    """What a meter takes of a call whose output is capped for a strict one beside it."""
    if meter.mode == "strict" and meter.limit is not None:
        base, rate = facts.strict_parts(meter.unit)
        return base + cap * rate
    base, rate = facts.parts(meter.unit)
    if meter.mode == "sliced" and facts.stream:
        return base + min(LEAST_SLICE, facts.rest) * rate
    if meter.mode == "sliced" and facts.cap is not None:
        return base + facts.n * facts.cap * rate
    return base + facts.likely * rate
