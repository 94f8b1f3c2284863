"""What all stream readers share: counting the text that passes.

Text that takes a reader's short way is counted in `units` alone; all the rest is counted here, by width. Both add up
to the measure of what was received. Knows no API, and keeps no text.
"""

from __future__ import annotations

from typing import Any

from shekel.estimation import Rates, Text, widths
from shekel.usage import Usage


class Counting:
    """Counts of one stream; a reader of an API is made on top of it.

    Attributes:
        units, limit, terminal: see `StreamReader`.
    """

    __slots__ = ("_four", "_id", "_model", "_one", "_other_units", "_rate", "_rates", "_thought", "_three", "_two",
        "limit", "terminal", "units")  # fmt: skip

    def __init__(self, rates: Rates) -> None:
        self.units = 0
        self.limit = 0
        self.terminal = False
        self._rate = rates.one
        self._rates = rates
        self._one = self._two = self._three = self._four = 0
        self._thought = (0, 0, 0, 0)
        self._other_units = 0
        self._id: str | None = None
        self._model: str | None = None

    def _count(self, text: Any, reasoning: bool = False) -> None:
        """Count generated text that did not take the short way; whatever is not text counts nothing."""
        if type(text) is not str or not text:
            return
        one, two, three, four = widths(text)
        rates = self._rates
        units = one * rates.one + two * rates.two + three * rates.three + four * rates.four
        if reasoning:
            before = self._thought
            self._thought = (before[0] + one, before[1] + two, before[2] + three, before[3] + four)
        else:
            self._one += one
            self._two += two
            self._three += three
            self._four += four
        self._other_units += units
        self.units += units

    def _add_units(self, units: int) -> None:
        """Count output that is no text: what surrounds a tool call, audio."""
        self._other_units += units
        self.units += units

    def _text(self, usage: Usage | None) -> Text:
        """What was received; shown reasoning only where the usage does not split it from the rest."""
        short = (self.units - self._other_units) // self._rate
        text = Text(self._one + short, self._two, self._three, self._four)
        return text if usage and usage.reasoning else text + Text(*self._thought)
