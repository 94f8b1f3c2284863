"""What a scope entry may be: a key that baggage can carry, and a value that reaches another service unchanged.

W3C baggage percent-encodes UTF-8, so values may be in any script. What it does not carry faithfully is refused here,
where the program can see it: a value that arrives as another one would be somebody else's budget.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..telemetry import names

KEYS = {"user_id": names.USER_ID, "session_id": names.SESSION_ID, "tenant_id": names.TENANT_ID}
"""Arguments that stand for a key of the semantic conventions."""

MOST = 256
"""The most characters of a key or a value. In UTF-8, percent-encoded, that is at most 3,072 bytes, below the 4,096 that
OpenTelemetry's propagator lets one entry have."""

RESERVED = "shekel."
"""What keys must not start with: those names are Shekel's own."""

TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
"""A key. Source: W3C Baggage, `key = token`, and RFC 7230, `token`."""

_TOKEN = re.compile(TOKEN)


def as_entries(given: Mapping[str, Any]) -> dict[str, str]:
    """Scope entries by their keys in the baggage; those that are None are left out.

    Raises:
        ValueError: a key or a value that no entry can have; the message names the key and the remedy.
    """
    entries: dict[str, str] = {}
    for key, value in given.items():
        if value is None:
            continue
        name, text = KEYS.get(key) or _key(key), as_value(key, value)
        if entries.setdefault(name, text) != text:
            raise ValueError(f"{name} is given twice, as {key} and by another name, with two values: keep one of them.")
    return entries


def as_value(key: str, value: Any) -> str:
    """A value as text.

    Raises:
        ValueError: it is none; the message names the key and the remedy, and never shows the value.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"{key} must be a text or a whole number, not {_kind(value)}: give str(…) of what you mean.")
    text = str(value)
    problem = problem_of(text)
    if problem is not None:
        raise ValueError(f"{key} {problem}")
    return text


def problem_of(text: str) -> str | None:
    """Why a text can be no value, as the rest of a sentence; None if it can."""
    if not text:
        return "must not be empty: leave it out, or give None, where nobody is known."
    if len(text) > MOST:
        return f"has {len(text)} characters, and at most {MOST} are allowed: give an id, or a hash of it."
    if text != text.strip():
        return "starts or ends with white space, which baggage does not keep: strip it."
    if not text.isprintable():
        return "holds characters that cannot be printed, such as line ends: remove them, or give a hash of it."
    return None


def is_key(key: str) -> bool:
    """Whether it can be the key of an entry."""
    return len(key) <= MOST and _TOKEN.fullmatch(key) is not None and not key.startswith(RESERVED)


def _key(key: str) -> str:
    if key.startswith(RESERVED):
        raise ValueError(f"{key[:MOST]!r} is a name of Shekel's own: choose a scope key that starts otherwise.")
    if not is_key(key):
        raise ValueError(
            f"{key[:MOST]!r} can be no scope key: use ASCII letters, digits and dots, such as 'team.id', "
            f"{MOST} at most."
        )
    return key


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}"
