"""Traced calls: what is held for a call that only a span of another instrumentation shows.

Nothing caps its output and nothing cuts it, and its text is not known: it is held by what it will probably cost. Pure
arithmetic, and the rules of who decides; the gate asks.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

from .claims import AtLimit, Claim
from .holds import Need, line, line_of
from .limits import Mode, Unit

if TYPE_CHECKING:
    from ..call import Call
    from ..ledgers.base import Line


class Way(Enum):
    """How a traced call is admitted.

    ALONE: nobody else sees it. It holds its expected cost, or is refused.
    DOOR: a door of ours in the provider's SDK may see it too, knows the request, and will decide exactly. It holds its
        expected cost or what there is of it, and is refused only where not even one token of output fits; budgets that
        need a door (strict, waiting, with a fallback) leave it to the door altogether.
    AFTERWARDS: it has happened. It is charged, whatever fits.
    """

    ALONE = auto()
    DOOR = auto()
    AFTERWARDS = auto()


def needs_door(claims: tuple[Claim, ...]) -> bool:
    """Whether a budget would do to the call what only a door can: cap it, let it wait, send it to another model."""
    return any(
        claim.fallbacks or claim.at_limit is AtLimit.PAUSE or (claim.mode is Mode.STRICT and claim.votes)
        for claim in claims
    )


def as_expected(claims: tuple[Claim, ...]) -> tuple[Claim, ...]:
    """The claims as they hold for a traced call: by its expected cost, without a fallback."""
    return tuple(claim._replace(mode=Mode.EXPECTED, fallbacks=()) for claim in claims)


def lines(call: Call, need: Need, way: Way) -> tuple[list[Line], int, int]:
    """What is asked of each meter, and the least and the most output tokens to be granted."""
    if way is Way.AFTERWARDS:  # a hold of nothing names the meters; the whole charge comes on top, and is counted so
        return [line(claim, 0) for claim in call.claims], 0, 0
    if way is Way.DOOR and need.likely > 0:
        asked = [line(claim, need.base(claim.unit), need.rate(claim.unit)) for claim in call.claims]
        return [_known(call, each, claim) for each, claim in zip(asked, call.claims, strict=True)], 1, need.likely
    asked = [line_of(claim, need, stream=False, strict=False, first=0) for claim in call.claims]
    return [_known(call, each, claim) for each, claim in zip(asked, call.claims, strict=True)], 0, 0


def _known(call: Call, each: Line, claim: Claim) -> Line:
    """A span that names its model later asks for next to nothing now: but where nothing is left, not even that fits."""
    if call.model or claim.unit is not Unit.USD or claim.limit is None:
        return each
    return each._replace(base=max(1, each.base))
