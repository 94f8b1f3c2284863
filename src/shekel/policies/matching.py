"""Matching: to which calls a policy applies. Patterns over the scope and over what is called; no limits, no meters.

A pattern is a text in which `*`, `?` and `[…]` stand for others. A plain name of a model also stands for its dated
versions, as everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from typing import Any

from ..budgets.limits import check_model
from ..scopes.values import is_key
from ..shown import shown

MODEL, PROVIDER, ENVIRONMENT = "model", "provider", "environment"
"""Conditions that are not on the scope."""


@dataclass(frozen=True, slots=True)
class Match:
    """Conditions, all of which must hold. Make one with `match_of`.

    Attributes:
        scope: the scope keys with their patterns: a call whose scope lacks one of the keys does not match.
        models: patterns of the model's name, one of which must match; none for every model. They are not looked at
            here but go into the claim, as a fallback may change the model.
        provider: of `gen_ai.provider.name`; None for every provider.
        environment: of the deployment environment; None for every one.
    """

    scope: tuple[tuple[str, re.Pattern[str]], ...] = ()
    models: tuple[str, ...] = ()
    provider: re.Pattern[str] | None = None
    environment: re.Pattern[str] | None = None
    given: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False)

    @property
    def keys(self) -> frozenset[str]:
        """The scope keys that conditions are on."""
        return frozenset(key for key, _ in self.scope)

    def holds(self, scope: Mapping[str, str], provider: str | None, environment: str | None) -> bool:
        """Whether calls of that scope to that provider in that environment match. What is not known does not."""
        for key, pattern in self.scope:
            value = scope.get(key)
            if value is None or pattern.fullmatch(value) is None:
                return False
        for one, value in ((self.provider, provider), (self.environment, environment)):
            if one is not None and (value is None or one.fullmatch(value) is None):
                return False
        return True


EVERYTHING = Match()


def match_of(given: Any) -> Match:
    """The conditions that a caller gave: {"tenant.id": "acme", "model": ["gpt-4o*", "o3"], "environment": "prod*"}.

    Raises:
        ValueError: no mapping, an empty one, or a pattern that is none.
    """
    if given is None:
        return EVERYTHING
    if not isinstance(given, Mapping) or not given:
        raise ValueError(f"match must be conditions such as {{'tenant.id': 'acme'}}, not {shown(given)}.")
    every = {_key(key): _patterns(key, value) for key, value in given.items()}
    models = every.get(MODEL, ())
    for model in models:
        try:
            check_model(model)
        except ValueError as error:
            raise ValueError(f"match: {error}") from None
    return Match(
        tuple((key, _any_of(texts)) for key, texts in every.items() if key not in (MODEL, PROVIDER, ENVIRONMENT)),
        models,
        _any_of(every[PROVIDER]) if PROVIDER in every else None,
        _any_of(every[ENVIRONMENT]) if ENVIRONMENT in every else None,
        every,
    )


def _key(key: Any) -> str:
    if not isinstance(key, str) or not is_key(key):
        raise ValueError(
            f"match: a condition is on a scope key such as 'tenant.id', on 'model', 'provider' or 'environment', "
            f"not on {shown(key)}."
        )
    return key


def _patterns(key: str, value: Any) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else value
    good = isinstance(texts, Iterable) and not isinstance(texts, (bytes, Mapping))
    made = tuple(texts) if good else ()
    if not made or not all(isinstance(text, str) and text for text in made):
        raise ValueError(
            f"match: {shown(key)} must be a pattern such as 'acme' or 'acme-*', or a list of them, not {shown(value)}."
        )
    return made


def _any_of(texts: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(translate(text) for text in texts))
