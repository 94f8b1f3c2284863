"""Fallbacks: which cheaper model takes over, and when. The rules only; the gate switches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .errors import FallbackError

if TYPE_CHECKING:
    from ..call import Call
    from ..ledgers.base import Ledger
    from .claims import Claim, Fallback

PROVIDERS = ("openai", "anthropic")
"""The providers whose calls a door sees, and can switch to another model."""


def due(call: Call, ledger: Ledger) -> tuple[str, Claim] | None:
    """The model whose threshold is reached, of the innermost budget with one; None if none is.

    Thresholds read what is settled and held, on whichever limit of the budget is used up most: of the whole limit, what
    is kept for a last call included.
    """
    found = None
    for claim in () if call.request.fixed else call.claims:
        if not claim.fallbacks or claim.shadow is not None:  # a shadow changes nothing
            continue
        for fallback in claim.fallbacks:
            same_provider(call, fallback)
        # A rate or the cap of a part is used up and free again: neither says how much of the budget is left.
        mine = [c for c in call.claims if c.whose == claim.whose and c.rate_of is None and c.number >= 0]
        share = max((_share(call, each, ledger) for each in mine), default=0.0)
        reached = [fallback for fallback in claim.fallbacks if share >= fallback.at]
        if reached:
            found = (reached[-1].model, claim)
    return found


def owner(call: Call, refusing: Claim | None) -> Claim | None:
    """The claim that has the chain of the budget that refuses."""
    if refusing is None or call.request.fixed:
        return None
    for claim in call.claims:
        if claim.fallbacks and claim.whose == refusing.whose:
            return claim
    return None


def after(model: str, owner: Claim | None) -> Iterator[tuple[str, Claim]]:
    """The models that come after this one in the chain; all of them if it is not in it."""
    if owner is None:
        return
    models = [fallback.model for fallback in owner.fallbacks]
    for each in models[models.index(model) + 1 :] if model in models else models:
        yield each, owner


def same_provider(call: Call, fallback: Fallback) -> None:
    """Raise if the fallback is known to be a model of the other provider."""
    other = known_provider(fallback.model)
    own = call.endpoint.provider
    if other is not None and own in PROVIDERS and other != own:
        raise FallbackError(
            f"fallback model {fallback.model!r} belongs to {other}, but the call goes to {own}: "
            "a fallback must be a model of the same provider."
        )


def known_provider(model: str) -> str | None:
    """Which of the providers whose calls can be switched a model belongs to; None for a name that says none of them."""
    from ..pricing import provider_of  # the price list is loaded by who needs it

    provider = provider_of(model)
    return provider if provider in PROVIDERS else None


def _share(call: Call, claim: Claim, ledger: Ledger) -> float:
    if not claim.limit:
        return 0.0
    balance = ledger.read(claim.meter, call.moment())
    return (balance.settled + balance.held) / claim.whole
