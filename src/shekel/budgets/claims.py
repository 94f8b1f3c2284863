"""Claims: what budgets and policies say to the gate about a call. Facts and protocols only; nothing is decided here."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import translate
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from weakref import ref

from opentelemetry.context import Context

from .limits import Mode, Unit

if TYPE_CHECKING:
    from ..call import Call
    from ..policies.standing import Row
    from ..pricing import Quote
    from ..settlement import Cost
    from .books import Booked
    from .parts import Part


class AtLimit(StrEnum):
    """What a budget does where a call does not fit.

    RAISE (default): refuse it, or cut its stream.
    WARN: only tell; the call goes on.
    SHADOW: count what would have been refused, and tell nothing to the program.
    PAUSE: wait for room, so long as the budget says, then refuse.
    FINISH: refuse calls, but let an open stream end, and raise after its last chunk.
    """

    RAISE = "raise"
    WARN = "warn"
    SHADOW = "shadow"
    PAUSE = "pause"
    FINISH = "finish"


class Account(Protocol):
    """Who is told what happens on its meters (a `Budget`); policies with a meter per user have none."""

    @property
    def myself(self) -> ref[Any]: ...
    @property
    def warns(self) -> bool: ...
    def claims(self, now: float, *, last_call: bool = False) -> tuple[Claim, ...]: ...
    def limit_of(self, claim: Claim, now: float) -> int | None: ...
    def call_opened(self, call: Call, index: int) -> None: ...
    def call_withdrawn(self, call: Call) -> None: ...
    def call_settled(self, call: Call, cost: Cost, amount: int, *, innermost: bool) -> Booked: ...
    def left_out(self, call: Call) -> None: ...
    def saved(self, call: Call, amount: int) -> None: ...
    def switched(self, call: Call, model: str, spent: int) -> None: ...
    def after_settlement(self, call: Call) -> None: ...
    def corrected(self, call_id: str, model: str, difference: int, booked: Booked, now: int) -> Booked | None: ...
    def after_correction(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Fallback:
    """The model that takes over when a budget is used up to a share.

    Attributes:
        at: the share of the limit, above 0 and at most 1.
        model: the model's name, of the same provider.
    """

    at: float
    model: str


class Claim(NamedTuple):
    """One meter that a call is charged to, and what its budget says of it. A tuple: each call makes some.

    A budget with several limits makes one claim for each; the first is always in USD, and speaks for the budget.
    """

    meter: Hashable
    limit: int | None
    mode: Mode = Mode.SLICED
    name: str | None = None
    scope: str | None = None
    resets_at: float | None = None
    account: Account | None = None
    fallbacks: tuple[Fallback, ...] = ()
    price: Quote | None = None
    allow_unpriced: bool = False
    unit: Unit = Unit.USD
    window: int = 0
    slides: bool = False
    until: int = 0
    at_limit: AtLimit = AtLimit.RAISE
    first: bool = True
    model: str | None = None
    stopped: bool = False
    last_call: bool = False
    """Whether the call may spend what its budget keeps back for a last one."""
    kept: int = 0
    """What is kept for such a call, in nano-dollars, where this one may not spend it: `limit` is without it."""
    rate_of: str | None = None
    """Set where the limit is a rate ("$1/min"), which has an error of its own: the rate as it was given."""
    number: int = 0
    """Which limit of its budget it stands for; -1 for a part of it."""
    part: Part | None = None
    """Set where the limit is a part's (`Budget.node`), which has an error of its own."""
    models: tuple[str, ...] = ()
    """Patterns, one of which the model must match beside `model`; none for every model."""
    row: Row | None = None
    """Set where the limit is a policy's."""

    @property
    def whole(self) -> int:
        """The limit as it was given, with what is kept for a last call: what people are told; 0 without one."""
        return (self.limit or 0) + self.kept

    @property
    def votes(self) -> bool:
        """Whether it can refuse a call."""
        return self.limit is not None and self.at_limit not in (AtLimit.WARN, AtLimit.SHADOW)

    @property
    def strict(self) -> bool:
        """Whether the call's output must be capped for it."""
        return self.mode is Mode.STRICT and self.votes and self.counts_output

    @property
    def counts_output(self) -> bool:
        """Whether the length of the answer makes a difference to it."""
        return self.limit is not None and self.unit is not Unit.CALLS

    @property
    def whose(self) -> Hashable:
        """What the claims of one budget have in common; of a policy, those of one value."""
        return (self.name, self.scope) if self.account is None else id(self.account)

    @property
    def shadow(self) -> Hashable | None:
        """The group of a budget that would refuse, and does not."""
        return self.whose if self.at_limit is AtLimit.SHADOW else None

    def counts(self, model: str) -> bool:
        """Whether a call of that model is charged to it."""
        if self.model is not None and _models(self.model).fullmatch(model) is None:
            return False
        return not self.models or any(_models(each).fullmatch(model) is not None for each in self.models)


class Payer(Protocol):
    """A source of claims: the budgets of the context, the policies."""

    def claims(self, context: Context, now: float, *, provider: str | None = None) -> Iterable[Claim]: ...


@lru_cache(maxsize=256)
def _models(name: str) -> re.Pattern[str]:
    """A glob; a plain name also stands for its dated versions, so that gpt-4o is gpt-4o-2024-08-06 but not -mini."""
    if any(sign in name for sign in "*?["):
        return re.compile(translate(name))
    return re.compile(re.escape(name) + r"(-\d{4}-?\d{2}-?\d{2}|-latest)?")
