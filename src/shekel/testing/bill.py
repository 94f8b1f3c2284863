"""The stand-in's bill: what a provider would charge, attempt by attempt, at list price.

It is the truth that Shekel's own counters are measured against, so it shares nothing with them: its prices come
straight from `genai_prices`, and it counts what was generated, not what was read.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Decimal
from typing import overload

NANO = Decimal(1_000_000_000)


class Outcome(enum.StrEnum):
    """How an attempt ended, as the provider sees it."""

    COMPLETE = "complete"
    DISCONNECTED = "disconnected"  # the client closed before the end
    DROPPED = "dropped"  # we reset the connection
    EOF = "eof"  # we ended the body early
    ERROR_EVENT = "error_event"  # we sent an error in the middle of the stream
    ERROR = "error"  # an HTTP error after the work had begun
    REJECTED = "rejected"  # an HTTP error before any work
    CLOSED = "closed"  # the stand-in was shut down


@dataclass(frozen=True, slots=True)
class Attempt:
    """One HTTP attempt and what it costs. Tokens are inclusive, as generated.

    Attributes:
        id: the request id that was sent to the client.
        endpoint: "chat.completions", "responses", "messages", or the path of an unknown one.
        model: the model that served it.
        input_tokens: all input, cache reads and writes included.
        output_tokens: all output of all choices, reasoning included.
        reasoning_tokens: of the output.
        cached_tokens, cache_write_tokens, cache_write_1h_tokens: of the input.
        cost: nano-dollars at list price, rounded up; None if the price list does not know the model.
        status: the HTTP status; 0 if the connection ended before one was sent.
        outcome: how it ended.
        stream: whether a stream was asked for.
        started: when the request was complete; `ended`: when generation ended. `time.monotonic()` seconds.
        closed_at: when the client's connection was seen closed, if it was.
        service_tier: the tier that was billed.
        speed: Anthropic's speed that was billed.
    """

    id: str
    endpoint: str
    model: str | None
    input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    cache_write_1h_tokens: int
    cost: int | None
    status: int
    outcome: Outcome
    stream: bool
    started: float
    ended: float
    closed_at: float | None
    service_tier: str | None = None
    speed: str | None = None


def list_price(
    provider: str,
    model: str,
    *,
    input: int,
    output: int,
    cached: int = 0,
    cache_write: int = 0,
    cache_write_1h: int = 0,
    tier: str | None = None,
    speed: str | None = None,
) -> int | None:
    """What so many tokens cost at list price.

    Args:
        provider: "openai" or "anthropic".
        model: the model that served the call.
        input: input tokens, cache included; `cached`, `cache_write`, `cache_write_1h` are parts of it.
        output: output tokens, reasoning included.
        tier, speed: what the price may depend on.

    Returns:
        nano-dollars, rounded up; None if `genai_prices` does not know the model.
    """
    from genai_prices import Usage, calc_price

    usage = Usage(
        input_tokens=input,
        output_tokens=output,
        cache_read_tokens=cached,
        cache_write_tokens=cache_write,
        cache_write_1h_tokens=cache_write_1h,
    )
    context = {key: value for key, value in (("service_tier", tier), ("speed", speed)) if value is not None}
    try:
        price = calc_price(usage, model, provider_id=provider, price_context=context or None)
    except LookupError:
        return None
    return int((price.total_price * NANO).to_integral_value(rounding=ROUND_CEILING))


class Bill(Sequence[Attempt]):
    """All attempts that have ended, oldest first. Thread-safe; a sequence of `Attempt`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._attempts: list[Attempt] = []
        self._place: dict[str, int] = {}

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The attempts so far."""
        with self._lock:
            return tuple(self._attempts)

    @property
    def total(self) -> int:
        """The sum in nano-dollars, without the attempts that are in `unpriced`."""
        return sum(attempt.cost or 0 for attempt in self.attempts)

    @property
    def usd(self) -> Decimal:
        """The sum in US dollars, exact, without the attempts that are in `unpriced`."""
        return self.total / NANO

    @property
    def unpriced(self) -> tuple[Attempt, ...]:
        """Attempts whose model the price list does not know: what they cost is unknown, not nothing."""
        return tuple(attempt for attempt in self.attempts if attempt.cost is None)

    def clear(self) -> None:
        """Forget everything so far."""
        with self._lock:
            self._attempts.clear()
            self._place.clear()

    def _add(self, attempt: Attempt) -> None:
        with self._lock:
            self._place[attempt.id] = len(self._attempts)
            self._attempts.append(attempt)

    def _mark_closed(self, id: str, when: float) -> None:
        with self._lock:
            if (at := self._place.get(id)) is not None:
                self._attempts[at] = replace(self._attempts[at], closed_at=when)

    @overload
    def __getitem__(self, index: int) -> Attempt: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Attempt, ...]: ...
    def __getitem__(self, index: int | slice) -> Attempt | tuple[Attempt, ...]:
        return self.attempts[index]

    def __len__(self) -> int:
        with self._lock:
            return len(self._attempts)

    def __iter__(self) -> Iterator[Attempt]:
        return iter(self.attempts)

    def __repr__(self) -> str:
        return f"<Bill of {len(self)} attempts, {self.usd} USD>"
