"""Tracking: what each value of some scope keys has used in the present calendar period, by model. Kept on request only.

Policies know what they limit, and no more. `shekel.configure(track={"user.id": "month"})` keeps calls, tokens and cost
for each user and model of the present period, and of the one before, into which a call that began there still ends.
When a period begins, the one before last goes as a whole: who is idle costs nothing from then on. It decides nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import locks
from ..scopes.values import is_key
from ..shown import shown
from .amounts import happened
from .limits import NANO
from .spec import parse_limit
from .windows import Calendar

if TYPE_CHECKING:
    from ..call import Call
    from ..settlement import Cost

REMEMBERED = 10_000
"""Calls whose cost can still be corrected."""

DEFAULT = "month"


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """What calls of one model have used.

    Attributes:
        calls: how many.
        cost: USD; calls without a known price add nothing.
        input_tokens, output_tokens: as the provider counts them, else by estimate.
    """

    calls: int = 0
    cost: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens


class _Row:
    """One value in one period: by model, [calls, nano-dollars, input, output]."""

    __slots__ = ("models",)

    def __init__(self) -> None:
        self.models: dict[str, list[int]] = {}


@dataclass(frozen=True, slots=True)
class Tracked:
    """What one value of the tracked keys has used in the present period.

    Attributes:
        keys: the scope keys that are tracked together.
        period: the period's name, such as "month:2026-11-01".
        ends: Unix time in seconds at which it ends.
        by_model: the figures by model.
    """

    keys: tuple[str, ...]
    period: str
    ends: float
    by_model: Mapping[str, ModelUsage]


class _Track:
    """One set of keys, and its two periods."""

    def __init__(self, keys: tuple[str, ...], window: Calendar) -> None:
        self.keys = keys
        self.window = window
        self.periods: OrderedDict[str, dict[tuple[str, ...], _Row]] = OrderedDict()

    def rows(self, period: str) -> dict[tuple[str, ...], _Row] | None:
        """The table of a period; None for one that is gone."""
        rows = self.periods.get(period)
        if rows is None:
            if len(self.periods) == 2 and period < max(self.periods):
                return None
            rows = self.periods[period] = {}
            while len(self.periods) > 2:
                del self.periods[min(self.periods)]
        return rows


class Tracking:
    """What is tracked.

    Args:
        tracks: scope keys, and the calendar period of each; see `tracks_of`.
    """

    def __init__(self, tracks: Iterable[tuple[tuple[str, ...], Calendar]]) -> None:
        self._tracks = [_Track(keys, window) for keys, window in tracks]
        self._last: OrderedDict[str, tuple[int, list[list[int]]]] = OrderedDict()

    def settled(self, call: Call, cost: Cost) -> None:
        """A call has ended."""
        scope = call.scope
        if not scope or not happened(call, cost):
            return
        nano = cost.spent if cost.priced else 0
        usage = cost.usage
        answered = None if call.answer is None else call.answer.model
        added = (1, nano, 0, 0) if usage is None else (1, nano, usage.input, usage.output)
        figures: list[list[int]] = []
        for track in self._tracks:
            value = tuple([scope[key] for key in track.keys if key in scope])
            if len(value) != len(track.keys):
                continue
            period = track.window.at(call.started_wall).key or ""
            with locks.books:
                rows = track.rows(period)
                if rows is None:
                    continue
                row = rows.get(value) or rows.setdefault(value, _Row())
                sums = row.models.setdefault(answered or call.model, [0, 0, 0, 0])
                for index, each in enumerate(added):
                    sums[index] += each
            figures.append(sums)
        if figures:
            with locks.books:
                self._last[call.id] = (nano, figures)
                if len(self._last) > REMEMBERED:
                    self._last.popitem(last=False)

    def corrected(self, call_id: str, nano: int) -> None:
        """The cost of a call turned out to be another one."""
        with locks.books:
            known = self._last.get(call_id)
            if known is not None:
                for sums in known[1]:
                    sums[1] += nano - known[0]
                self._last[call_id] = (nano, known[1])

    def of(self, scope: Mapping[str, str], now: float) -> list[Tracked]:
        """What a scope has used in the present periods: the tracked keys that it has, those with most keys first."""
        found = []
        for track in self._tracks:
            value = tuple([scope[key] for key in track.keys if key in scope])
            if len(value) != len(track.keys):
                continue
            span = track.window.at(now)
            with locks.books:
                row = track.periods.get(span.key or "", {}).get(value)
                models = {} if row is None else {model: tuple(sums) for model, sums in row.models.items()}
            by_model = {
                model: ModelUsage(calls, spent / NANO, tokens_in, tokens_out)
                for model, (calls, spent, tokens_in, tokens_out) in models.items()
            }
            found.append(Tracked(track.keys, span.key or "", span.ends or 0.0, by_model))
        return sorted(found, key=lambda each: -len(each.keys))

    def __len__(self) -> int:
        """How many values are kept, over all periods."""
        return sum(len(rows) for track in self._tracks for rows in track.periods.values())


def tracks_of(given: Any) -> list[tuple[tuple[str, ...], Calendar]]:
    """What `track=` says: scope keys with a calendar period, or a list of keys, each by the month.

    Raises:
        ValueError: a key that is no text, or a period that is none of the calendar.
    """
    remedy = "give {'user.id': 'month'}, or a list of scope keys"
    if isinstance(given, str) or not isinstance(given, (Mapping, list, tuple, set, frozenset)):
        raise ValueError(f"track must name scope keys, not {shown(given)}: {remedy}.")
    pairs = given.items() if isinstance(given, Mapping) else [(each, DEFAULT) for each in given]
    tracks = []
    for key, period in pairs:
        keys = key if isinstance(key, tuple) else (key,)
        if not keys or not all(isinstance(each, str) and is_key(each) for each in keys):
            raise ValueError(f"track: {shown(key)} is no scope key: {remedy}.")
        if not isinstance(period, str):
            raise ValueError(f"track: {shown(period)} is no period: {remedy}.")
        window = parse_limit(f"$1/{period}", "track").window
        if not isinstance(window, Calendar):
            raise ValueError(f"track: {shown(period)} is no period of the calendar: give day, week, month or year.")
        tracks.append((keys, window))
    return tracks
