"""Claims: what budgets and policies say to the gate about a call. Facts and protocols only; nothing is decided here."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from opentelemetry.context import Context

from .limits import Mode

if TYPE_CHECKING:
    from ..call import Call
    from ..pricing import Quote
    from ..settlement import Cost


class Account(Protocol):
    """Who is told what happens on its meter (a `Budget`); policies with a meter per user have none."""

    def call_opened(self, call: Call, index: int) -> None: ...
    def call_settled(self, call: Call, cost: Cost, amount: int) -> None: ...
    def switched(self, call: Call, model: str, spent: int) -> None: ...
    def after_settlement(self, call: Call) -> None: ...


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
    """One meter that a call is charged to, and what its budget says of it. A tuple: each call makes some."""

    meter: Hashable
    limit: int | None
    mode: Mode = Mode.SLICED
    name: str | None = None
    scope: str | None = None
    resets_at: float | None = None
    account: Account | None = None
    fallback: Fallback | None = None
    price: Quote | None = None
    allow_unpriced: bool = False


class Payer(Protocol):
    """A source of claims: the budgets of the context, the policies."""

    def claims(self, context: Context, now: float) -> Iterable[Claim]: ...
