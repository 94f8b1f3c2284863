"""Which span of another instrumentation stands for a call that comes through a door, and which calls have passed one.

A span carries its record, under `MARK`. Some spans are never made current: those that wait for a door are found by the
thread or task that they were started in.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextvars import ContextVar
from typing import TYPE_CHECKING
from weakref import ref

from opentelemetry import trace
from opentelemetry.context import Context

if TYPE_CHECKING:
    from ..call import Call

MARK = "_shekel_traced"
"""The attribute of a span that holds the record of the inference that it is, or that it is in."""

_MOST_WAITING = 8
_MOST_PASSED = 256

_started: ContextVar[tuple[ref[Standing], ...]] = ContextVar("shekel-started", default=())
"""The spans that instrumentations of an SDK started in this thread or task, the last first."""

_passed: dict[str, float] = {}
"""When a call of each model last passed a door, while spans of others are seen; the last models only."""


class Standing(ABC):
    """The record of one span of somebody else, as far as the search for it goes.

    Attributes:
        number: rises with each record.
        scope: the name of the instrumentation that started the span.
        sdk: the SDK whose door sees the call too, if one does.
    """

    __slots__ = ("__weakref__", "number", "scope", "sdk")

    number: int
    scope: str
    sdk: str | None

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether the span has not ended."""

    @property
    @abstractmethod
    def is_taken(self) -> bool:
        """Whether another call stands for this one, or the span has ended."""

    @property
    @abstractmethod
    def model(self) -> str:
        """The model that the span names by now; "" if it names none."""

    @abstractmethod
    def take(self, call: Call | None = None) -> Call | None:
        """Another call stands for this one from now on: that of a door, or of a span inside.

        The first to come takes over what is held. A door's call gets the span, too: it tells on it, and starts none.

        Args:
            call: the door's; None where it is a span's.

        Returns:
            the call whose hold is to be taken over, by its id, and released then; None if there is none.
        """


def enclosing(here: Context) -> Standing | None:
    """The open inference span that a context is in, if a processor of ours has seen it."""
    record = getattr(trace.get_current_span(here), MARK, None)
    return record if isinstance(record, Standing) and record.is_open else None


def standing_for(call: Call, here: Context) -> Standing | None:
    """The span that stands for a call which has come through a door: the last that was started around it.

    Several instrumentations of one SDK may have started one each. They are all taken, the last gets the call.
    """
    record = enclosing(here)
    sdk = call.endpoint.provider
    there = [each for each in _waiting() if each.sdk == sdk and each.model in ("", call.model)]
    newest = max(there, key=lambda each: each.number, default=record)
    if record is None or (newest is not None and newest.number > record.number):
        record = newest
    scopes = set() if record is None else {record.scope}
    for each in there:
        if each is not record and each.scope not in scopes:
            scopes.add(each.scope)
            each.take()
    return record


def wait(record: Standing) -> None:
    """A call will come through the door of an SDK, in this thread or task: it is to find this record."""
    _started.set((ref(record), *map(ref, _waiting()[: _MOST_WAITING - 1])))


def passes(call: Call) -> None:
    """A call passes a door: spans that tell of it later are not charged too."""
    _passed.pop(call.model, None)
    _passed[call.model] = time.perf_counter()
    if len(_passed) > _MOST_PASSED:
        _passed.pop(next(iter(_passed)), None)


def passed_since(model: str, began: float) -> bool:
    """Whether a call of a model has passed a door since a time of `perf_counter`."""
    return _passed.get(model, 0.0) >= began


def _waiting() -> list[Standing]:
    """The open spans of SDKs that were started here and that no call has taken, the last first."""
    records = (record() for record in _started.get())
    return [record for record in records if record is not None and record.is_open and not record.is_taken]
