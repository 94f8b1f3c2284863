"""Limits: how much a budget allows of what, in which window, for which models. Facts and their checks; no meters.

An amount is a whole number: of nano-dollars, calls or tokens. A period's key is part of the meter's name, so a call's
hold and its settlement stay in the period in which it was admitted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_DOWN, Context, Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, Final

from ..shown import shown
from .windows import FOREVER, Calendar, Session, Sliding, Span, Window

NANO: Final = 1_000_000_000
"""Nano-dollars in a dollar."""

MOST: Final = 2**63 - 1
"""The greatest amount: a ledger may keep it in 64 bits. Some nine billion dollars."""

EXACT = Context(prec=100, rounding=ROUND_DOWN)
"""Not the program's own context, which may round as it likes."""

_UP = Context(prec=100, rounding=ROUND_CEILING)


class Mode(StrEnum):
    """How a budget holds money for open calls. `money.md` of the design says what each may overspend.

    SLICED (default): streams take money slice by slice and are cut when there is no more.
    STRICT: the output is capped in the request at what the budget buys; nothing is overspent.
    EXPECTED: holds the expected cost; no cap, no cut.
    """

    SLICED = "sliced"
    STRICT = "strict"
    EXPECTED = "expected"


class Unit(StrEnum):
    """What a limit counts. TOKENS are input and output together."""

    USD = "usd"
    CALLS = "calls"
    INPUT = "input_tokens"
    OUTPUT = "output_tokens"
    TOKENS = "tokens"
    TOOL_CALLS = "tool_calls"

    @property
    def counts_tokens(self) -> bool:
        return self in (Unit.INPUT, Unit.OUTPUT, Unit.TOKENS)


@dataclass(frozen=True, slots=True)
class Limit:
    """The most of something that a budget allows. `str()` gives its spec.

    Attributes:
        amount: in nano-dollars, calls or tokens; above 0.
        unit: what is counted.
        window: over which time; None for all time.
        model: only calls to this model count, or to those that match it, such as "gpt-4o*"; None for every model.
        text: how the user wrote it.

    Raises:
        ValueError: a field that makes no sense.
    """

    amount: int
    unit: Unit = Unit.USD
    window: Window | None = None
    model: str | None = None
    text: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.amount, bool) or not isinstance(self.amount, int) or not 0 < self.amount <= MOST:
            raise ValueError(f"the amount of a limit must be a whole number above 0, not {shown(self.amount)}.")
        if not isinstance(self.unit, Unit):
            raise ValueError(f"the unit of a limit must be a Unit, not {shown(self.unit)}.")
        if self.window is not None and not isinstance(self.window, (Sliding, Calendar, Session)):
            raise ValueError(f"the window of a limit must be Sliding, Calendar or Session, not {shown(self.window)}.")
        if self.model is not None:
            check_model(self.model)
            if self.unit is Unit.TOOL_CALLS:
                raise ValueError(f"tool calls have no model such as {shown(self.model)}: leave it out.")

    @property
    def nano(self) -> int:
        """The amount of a limit in USD, in nano-dollars."""
        return self.amount

    @property
    def usd(self) -> float:
        """The amount of a limit in USD."""
        return self.amount / NANO

    def place(self, now: float) -> Span:
        """Where the Unix time `now` lies in its window."""
        return FOREVER if self.window is None else self.window.at(now)

    def __str__(self) -> str:
        return format_limit(self)


def format_limit(limit: Limit) -> str:
    """The spec of a limit, in the one form that equal limits share; `parse_spec` reads it back."""
    text = _amount(limit.amount, limit.unit)
    if limit.window is not None:
        text += f"/{limit.window.word}"
    if limit.model is not None:
        text += f" on {limit.model}"
    return text if limit.window is None else text + limit.window.options


def _amount(amount: int, unit: Unit) -> str:
    if unit is Unit.USD:
        dollars, rest = divmod(amount, NANO)
        return f"${dollars}" if not rest else f"${dollars}.{f'{rest:09d}'.rstrip('0').ljust(2, '0')}"
    name = unit.replace("_", " ")
    if unit.counts_tokens:
        for scale, letter in ((1_000_000, "M"), (1_000, "k")):
            if amount % scale == 0:
                return f"{amount // scale}{letter} {name}"
    return f"{amount} {name.removesuffix('s') if amount == 1 else name}"


def agree(limits: Iterable[Limit], field: str) -> tuple[Limit, ...]:
    """The limits, if no two of them limit the same.

    Raises:
        ValueError: two do; the message names both.
    """
    seen: dict[tuple[Unit, Window | None, str | None], Limit] = {}
    for limit in limits:
        other = seen.setdefault((limit.unit, limit.window, limit.model), limit)
        if other is not limit:
            both = f"{shown(written(other))} and {shown(written(limit))}"
            how = "says twice how much" if other.amount == limit.amount else "contradicts itself"
            raise ValueError(f"{field} {how}: {both} limit the same: keep one of them.")
    return tuple(seen.values())


def written(limit: Limit) -> str:
    return limit.text or str(limit)


def money(value: Any, field: str) -> int:
    """USD as nano-dollars, rounded down (a limit never grows by rounding).

    Raises:
        ValueError: not a number, not finite, zero or negative, below a nano-dollar or too large.
    """
    remedy = "give an amount in USD above 0, such as 5 or 0.25"
    wrong = f"{field} must be an amount in USD, not {shown(value)}: {remedy}."
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, str)):
        raise ValueError(wrong)
    try:
        amount = Decimal(value if isinstance(value, int) else str(value).strip())
    except InvalidOperation:
        raise ValueError(wrong) from None
    if not amount.is_finite():
        raise ValueError(f"{field} must be finite, not {shown(value)}: {remedy}; leave it out for no limit.")
    if amount <= 0:
        raise ValueError(f"{field} must be above 0, not {shown(value)}: {remedy}; leave it out for no limit.")
    if amount > MOST // NANO:
        raise ValueError(f"{field} is too large with {shown(value)}: {remedy}; leave it out for no limit.")
    nano = int(EXACT.multiply(amount, NANO))
    if not nano:
        raise ValueError(f"{field} is below a nano-dollar with {shown(value)}: {remedy}.")
    return nano


def cost(value: Any, field: str, remedy: str) -> int:
    """USD that something costs as nano-dollars, rounded up (what is spent never shrinks by rounding).

    Args:
        value: that; 0 is free.
        field: what a message calls it.
        remedy: what a message says to do instead.

    Raises:
        ValueError: not a number, not finite, negative or too large.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise ValueError(f"{field} must be an amount in USD, not {shown(value)}: {remedy}.")
    amount = Decimal(str(float(value)) if isinstance(value, float) else value)
    if not amount.is_finite() or amount < 0:
        raise ValueError(f"{field} must be finite and at least 0, not {shown(value)}: {remedy}.")
    if amount > MOST // NANO:
        raise ValueError(f"{field} is too large with {shown(value)}: {remedy}.")
    return int(_UP.multiply(amount, NANO).to_integral_value(ROUND_CEILING))


def count(value: Any, field: str, unit: Unit) -> int:
    """A number of calls or tokens.

    Raises:
        ValueError: not a whole number above 0, or too large.
    """
    what = unit.replace("_", " ")
    remedy = f"give a whole number of {what} above 0, such as {100_000 if unit.counts_tokens else 100}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{field} must be a number of {what}, not {shown(value)}: {remedy}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{field} must be finite, not {shown(value)}: {remedy}; leave it out for no limit.")
    if value <= 0:
        raise ValueError(f"{field} must be above 0, not {shown(value)}: {remedy}; leave it out for no limit.")
    if value != int(value):
        raise ValueError(f"{field} must be whole, not {shown(value)}: {remedy}.")
    if value > MOST:
        raise ValueError(f"{field} is too large with {shown(value)}: {remedy}; leave it out for no limit.")
    return int(value)


def check_model(name: Any) -> None:
    """Raises ValueError if that cannot be the name of a model, or a pattern for names."""
    if not isinstance(name, str) or not name or any(sign.isspace() or sign in "=\"'," for sign in name):
        what = "a model must be a name or a pattern such as 'gpt-4o*', without spaces"
        one = " and commas, each in a limit of its own" if isinstance(name, str) and "," in name else ""
        raise ValueError(f"{what}{one}, not {shown(name)}.")


def as_mode(value: Any) -> Mode:
    """A mode from its name. Raises ValueError with the names there are."""
    if not isinstance(value, str) or value not in set(Mode):
        raise ValueError(f"mode must be 'sliced', 'strict' or 'expected', not {shown(value)}.")
    return Mode(value)
