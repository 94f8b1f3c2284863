"""Policies: a budget for each value of some scope keys, such as one per user.

A policy has no object per user: only a meter in the ledger, which exists while it holds something.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.context import Context

from . import wiring
from .claims import Claim
from .keywords import as_limit
from .limits import Limit, Mode, as_mode
from .scope import entries

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Policy:
    """A limit for each combination of values of some scope keys. Make one with `per`.

    Attributes:
        keys: the baggage keys; a call whose scope lacks one of them is not charged.
        limit: how much each may spend.
        mode: how open calls hold.
        name: what messages, spans and metrics call it.
        allow_unpriced: whether models without a known price pass uncounted.
    """

    keys: tuple[str, ...]
    limit: Limit
    mode: Mode = Mode.SLICED
    name: str = ""
    allow_unpriced: bool = False
    number: int = field(default_factory=lambda: next(_numbers))

    def claim(self, scope: Mapping[str, str], now: float) -> Claim | None:
        """What a call of that scope is charged to at the Unix time `now`."""
        values = tuple([scope.get(key) for key in self.keys])
        if None in values:
            return None
        limit = self.limit
        window = limit.window
        span = limit.place(now)
        return Claim(
            meter=("policy", self.number, values, span.key),
            limit=limit.amount,
            mode=self.mode,
            name=self.name,
            scope=", ".join(f"{key}={value}" for key, value in zip(self.keys, values, strict=True)),
            resets_at=span.ends,
            allow_unpriced=self.allow_unpriced,
            unit=limit.unit,
            window=0 if window is None else window.length_us,
            slides=window is not None and window.slides,
            until=span.until,
            model=limit.model,
        )


def per(
    *keys_and_limit: Any, mode: str | Mode | None = None, name: str | None = None, unpriced: str = "refuse"
) -> Policy:
    """A budget for each value of a scope key: `per("user.id", "$5/day")`, `per("tenant.id", "user.id", "$1")`.

    Args:
        *keys_and_limit: one or more baggage keys, then the limit: a spec, or an amount in USD.
        mode: as for `budget`.
        name: what messages, spans and metrics call it; "per user.id" if not given.
        unpriced: "refuse" (default) or "allow".

    Raises:
        ValueError: no key, a key that is no text, or a limit that is none.
    """
    *keys, limit = keys_and_limit or (None,)
    if not keys:
        raise ValueError("per() takes a scope key and a limit: per('user.id', '$5/day').")
    for key in keys:
        if not isinstance(key, str) or not key.strip():
            raise ValueError(f"a scope key must be a text such as 'user.id', not {key!r}.")
    if unpriced not in ("refuse", "allow"):
        raise ValueError(f"unpriced must be 'refuse' or 'allow', not {unpriced!r}.")
    return Policy(
        tuple(keys),
        as_limit(limit, "the limit"),
        wiring.default_mode if mode is None else as_mode(mode),
        name or f"per {' and '.join(keys)}",
        unpriced == "allow",
    )


class Policies:
    """The payer for scopes: the policies that are in force."""

    def __init__(self) -> None:
        self._policies: tuple[Policy, ...] = ()
        self.keys: frozenset[str] = frozenset()

    def set(self, policies: Sequence[Policy]) -> None:
        """Put policies in force, in place of those before. A policy object that stays keeps its meters."""
        for policy in policies:
            if not isinstance(policy, Policy):
                raise ValueError(f"policies must be made with per(...), not {policy!r}.")
        self._policies = tuple(policies)
        self.keys = frozenset(key for policy in policies for key in policy.keys)

    def claims(self, here: Context, now: float) -> Iterable[Claim]:
        """What a call made in this context is charged to."""
        return self.claims_of(entries(here), now) if self._policies else ()

    def claims_of(self, scope: Mapping[str, str], now: float) -> list[Claim]:
        """What a call of that scope is charged to at the Unix time `now`."""
        if not scope:
            return []
        return [claim for policy in self._policies if (claim := policy.claim(scope, now)) is not None]
