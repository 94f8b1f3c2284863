"""Slices: how a stream takes its output from the meters, piece by piece, until there is no more.

The first slice is part of the admission; each further one is an extension of the hold, in one step of the ledger. A
budget that finishes lets the stream go on without room, and a shadow stops counting where it would have cut.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from .. import late, locks
from ..call import Call
from ..ledgers.base import Grant, Ledger, Line, Refusal
from . import refusals
from .claims import AtLimit, Claim
from .holds import LEAST_SLICE, SLICE, Need, line, with_failed
from .limits import Mode

if TYPE_CHECKING:
    from collections.abc import Iterable


class Slices:
    """The slices of all streams.

    Args:
        ledger: where the meters live.
        tell_shadows: told which shadow groups would have cut a stream.
    """

    def __init__(self, ledger: Ledger, tell_shadows: Callable[[Call, Iterable[Hashable], str], None]) -> None:
        self._ledger = ledger
        self._tell_shadows = tell_shadows

    def size(self, call: Call, need: Need, used: int, now: int) -> int:
        """Output tokens to ask for next: a slice, smaller where the room of the tightest meter is shared by many."""
        want = SLICE
        for claim in call.claims:
            rate = need.rate(claim.unit)
            if claim.mode is Mode.SLICED and rate > 0 and self._spares(call, claim):
                assert claim.limit is not None
                balance = self._ledger.read(claim.meter, now)
                room = claim.limit - balance.settled - balance.held
                share = room // (max(1, balance.holds + (used == 0)) * rate)
                want = max(LEAST_SLICE, min(want, share))
        return min(want, need.rest(used))

    def _spares(self, call: Call, claim: Claim) -> bool:
        """Whether a stream has to spare the room of a meter for others. A shadow is spared as if it enforced."""
        if claim.limit is None or claim.at_limit is AtLimit.WARN:
            return False
        return claim.meter not in call.overdrawn and (claim.shadow is None or claim.shadow not in call.left_out)

    def extend(self, call: Call, tokens: int) -> bool:
        """Hold for more output of a stream that has produced `tokens`. False: there is no more, see `call.cut`."""
        need = call.need
        held = call.held_lines
        reach = call.reach()
        if reach is None or need is None or held is None or need.is_whole(reach):
            return True
        if locks.inside():  # a finaliser reads a stream in the middle of a step: the next chunk asks again
            return True
        now = call.moment()
        self._see_limits(call, now / 1_000_000)
        done = max(tokens, reach)
        least = tokens + need.least(tokens) if tokens >= reach else reach + 1
        want = max(least, done + self.size(call, need, done, now))
        known = None if call.reader is None else call.reader.input_tokens()
        asked, before = (call.claims, known, call.left_out), call.asked
        lines = held
        if before is None or before[0] is not asked[0] or before[1] != known or before[2] is not asked[2]:
            lines = self._lines(call, need, held, known)
        answer = self._extend(call, least, want, lines, now)
        if isinstance(answer, Refusal) and late.flush():
            answer = self._extend(call, least, want, lines, now)
        while isinstance(answer, Refusal):
            claim = refusals.claim_of(call, answer)
            if claim is None or claim.at_limit is not AtLimit.FINISH:
                call.cut = refusals.exceeded(call, answer, cut=True)
                return False
            call.overdrawn = {**call.overdrawn, claim.meter: call.held(call.claims.index(claim))}
            answer = self._extend(call, least, want, lines, now)
        if answer.left_out:
            self._freeze(call, held, frozenset(answer.left_out))
            lines = [
                before._replace(base=call.frozen.get(before.meter, 0), rate=0) if now.shadow in call.left_out else now
                for before, now in zip(held, lines, strict=True)
            ]
        call.granted = max(call.granted or 0, answer.tokens)
        call.short = dict(answer.short)
        call.held_lines, call.asked = lines, asked
        return True

    @staticmethod
    def _lines(call: Call, need: Need, held: list[Line], known: int | None) -> list[Line]:
        """What the stream takes of each meter, in all; the same for each slice, while nothing else is known."""
        input_rate = 0 if call.quote is None else call.quote.input_rate
        return [
            line(claim, need.base(claim.unit, known, input_rate), need.rate(claim.unit))
            if claim.mode is Mode.SLICED and each.shadow not in call.left_out
            else line(claim, each.base, each.rate)
            for claim, each in zip(call.claims, held, strict=True)
        ]

    @staticmethod
    def _see_limits(call: Call, now: float) -> None:
        """Take the limits of now: one that was changed in use holds for open streams too, in the period they began."""
        for claim in call.claims:
            if claim.first and claim.account is not None:
                # All claims of a budget are made anew where anything about it changes.
                if claim.account.claims(now, last_call=claim.last_call)[0] is not claim:
                    break
            elif claim.row is not None and claim.row.limit_of(claim.meter) != claim.limit:
                break
        else:
            return
        present = [_limit_of(claim, now) for claim in call.claims]
        if present != [claim.limit for claim in call.claims]:
            call.claims = tuple(c._replace(limit=limit) for c, limit in zip(call.claims, present, strict=True))

    def _extend(self, call: Call, least: int, want: int, lines: list[Line], now: int) -> Grant | Refusal:
        asked = with_failed(call, lines)
        if call.overdrawn:  # the stream may end: its budget counts it, and refuses nothing of it
            asked = [each._replace(limit=None) if each.meter in call.overdrawn else each for each in asked]
        if call.left_out:
            asked = [each for each in asked if each.shadow not in call.left_out]
        return self._ledger.extend(call.id, least, want, asked, now)

    def _freeze(self, call: Call, held: list[Line], groups: frozenset[Hashable]) -> None:
        """Shadow budgets would have cut the stream here: they count no more of it."""
        for index, (claim, each) in enumerate(zip(call.claims, held, strict=True)):
            if each.shadow in groups:
                call.frozen[claim.meter] = call.held(index)
        call.left_out |= groups
        self._tell_shadows(call, groups, "would_cut")


def _limit_of(claim: Claim, now: float) -> int | None:
    """What a claim's limit is now, in the period in which its call was admitted."""
    if claim.row is not None:
        return claim.row.limit_of(claim.meter)
    return claim.limit if claim.account is None else claim.account.limit_of(claim, now)
