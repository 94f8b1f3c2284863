"""Dialects: how the spans of other instrumentations say what was asked of a model, and what it answered.

One small class per vocabulary, all of this shape, so that the next one writes itself; `DIALECTS` in `__init__` lists
them. A dialect turns attributes into the same facts that an endpoint reads from a request (`Request`, `Answer`). It
knows no budgets, no prices and no SDK, changes no span, and takes a missing or odd attribute for None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ..providers.base import Answer, Request


class Seen(NamedTuple):
    """What a span shows at some moment.

    Attributes:
        scope: the name of its instrumentation scope.
        name: the span's name.
        attributes: its attributes now.
    """

    scope: str
    name: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """What an inference span says was asked for.

    Attributes:
        operation: the convention's name of the operation ("chat", "embeddings", ...).
        provider: the `gen_ai.provider.name` value, or what the vocabulary has in its place; "" if it says none.
        request: the facts of the request; its model is "" where the span does not say it yet.
        host, port: the server, where the span names one.
    """

    operation: str
    provider: str
    request: Request
    host: str | None = None
    port: int | None = None


class Dialect(Protocol):
    """One vocabulary of attributes."""

    @property
    def name(self) -> str: ...

    def asked(self, seen: Seen) -> Asked | None:
        """What the span asks for; None where it is no inference, so far as it says now.

        Sums on agent, workflow and tool spans are no inference.
        """
        ...

    def may_become(self, seen: Seen) -> bool:
        """Whether a span that is no inference yet may turn out to be one when its attributes are set later.

        Asked once for each span of the program that starts: by name and scope only, and quickly.
        """
        ...

    def answered(self, seen: Seen) -> Answer:
        """What the span says of the answer; without `usage` where it does not say what was consumed."""
        ...


@dataclass(frozen=True, slots=True)
class SpanApi:
    """The API of a call that only a span shows."""

    provider: str
    operation: str
    name: str = "span"


def text(value: Any) -> str | None:
    """A text attribute; None if it is none, or empty."""
    return value if isinstance(value, str) and value else None


def count(value: Any) -> int | None:
    """A count; None if it is none. Some instrumentations write counts as floats or as text."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return max(0, value)
    if isinstance(value, float) and value.is_integer():
        return max(0, int(value))
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    return None
