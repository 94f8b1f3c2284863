"""Streamed: what only a call has whose answer is a stream. It is looked at now and then, and holds more as it goes on.

The reader counts each chunk and asks for a look only where its limit is passed: at the first chunk, now and then by the
clock, and where what is held is nearly used up.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, cast

from .providers.base import StreamReader

if TYPE_CHECKING:
    from .budgets.errors import BudgetExceededError
    from .budgets.holds import Need
    from .call import Call, Gate
    from .pricing import Quote

LEAST_LOOK, MOST_LOOK = 4_000, 64_000
"""Thousandths of a token after which a stream is looked at again: at 4 tokens, 8, 16, ... and from 64 on every 64."""

NO_LIMIT = 1 << 62
"""A reader's limit that is never reached."""


class Streamed:
    """The stream of a call; a `Call` is made on top of it.

    Attributes:
        reader: reads the stream; None while there is none.
        first_chunk: when the first chunk came, by the call's steady clock, in seconds.
        last_look: when the stream was last looked at, and its units then. A clock for each chunk would cost a fifth of
            it.
        cut: why it was cut, once it was.
        halted: set where a budget was stopped: the stream is cut at its next chunk.
    """

    __slots__ = ("_paid", "cut", "first_chunk", "halted", "last_look", "reader")

    # The call's own:
    now: Callable[[], float]
    gate: Gate
    quote: Quote | None
    need: Need | None
    granted: int | None
    short: dict[Hashable, int]
    input_tokens: int

    def __init__(self) -> None:
        self.reader: StreamReader | None = None
        self.first_chunk: float | None = None
        self.last_look: tuple[float, int] | None = None
        self.halted: BudgetExceededError | None = None
        self.cut: BudgetExceededError | None = None
        self._paid = NO_LIMIT
        """Units at which more is to be held."""

    def streaming(self, reader: StreamReader) -> None:
        """The answer is a stream that `reader` reads."""
        self.reader = reader
        reader.limit = -1  # the first chunk is looked at

    def begun(self) -> None:
        """The first chunk has come."""
        self.first_chunk = self.now()
        if self.reader is not None:
            self._paid = self._paid_units()
            self.reader.limit = min(self._paid, LEAST_LOOK)
            if self.halted is not None:  # looked at last: it may be set while this runs
                self.reader.limit = -1

    def more(self) -> bool:
        """The reader went over its limit: look at the clock, and hold more where what is held is nearly used up.

        Returns False if there is no more: the stream is to be cut.
        """
        reader = self.reader
        if reader is None:
            return True
        units = reader.units
        self.last_look = (self.now(), units)
        if units > self._paid and not self._hold_more(units):
            return False
        reader.limit = min(self._paid, units + max(LEAST_LOOK, min(units, MOST_LOOK)))
        if self.halted is not None:  # looked at last: it may be set while this runs
            self.cut = self.halted
            return False
        return True

    def _hold_more(self, units: int) -> bool:
        if self.gate.extend(cast("Call", self), -(-units // 1000)):
            self._paid = self._paid_units()
            return True
        if self.granted is not None and units <= self.granted * 1000:
            self._paid = self.granted * 1000  # what is held is paid for: let it be used up
            return True
        return False

    def _paid_units(self) -> int:
        """Units at which more is asked for: a quarter of a slice before the held output is used up."""
        held = self.reach()
        if held is None or (self.need is not None and self.need.is_whole(held)):
            return NO_LIMIT
        return max(held * 1000 - 64_000, held * 750)

    def reach(self) -> int | None:
        """Output tokens for which everybody holds, the shadow that holds for the fewest too; None where not counted."""
        return min(self.short.values()) if self.short and self.granted is not None else self.granted

    def running(self) -> int:
        """The estimated cost so far of an open stream, in nano-dollars."""
        reader, quote = self.reader, self.quote
        if reader is None or quote is None or self.first_chunk is None:
            return 0
        known = reader.input_tokens()
        tokens = self.input_tokens if known is None else known
        return tokens * quote.input_rate + reader.units * quote.output_rate // 1000

    def halt(self, error: BudgetExceededError) -> None:
        """Cut the stream before its next chunk, whatever it holds. From any thread."""
        self.halted = error
        if self.reader is not None:
            self.reader.limit = -1
