"""Options of a spec: what may stand after its limits, as `key=value`. What a value means; no grammar."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date
from difflib import get_close_matches
from typing import Any, Final

from .limits import Mode
from .windows import LONGEST, SHORTEST, duration
from .zones import find_zone, no_zone

AT_LIMIT: Final = ("raise", "warn", "shadow", "pause", "finish")
"""What a budget can do where a call does not fit."""

UNPRICED: Final = ("refuse", "allow")
"""What a budget can do with a model whose price nobody knows."""


def nearest(word: str, known: Mapping[str, Any]) -> str:
    """What to write instead of a word that is unknown: the nearest, or all there are."""
    near = get_close_matches(word.lower(), known, n=1)
    return f"did you mean {near[0]}?" if near else f"use {listed(known)}."


def listed(words: Mapping[str, Any]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}"


def _zone(value: str) -> str:
    if find_zone(value) is None:
        raise ValueError(no_zone(value))
    return value


def _date(value: str) -> date:
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    raise ValueError("is no date: write year, month and day, such as from=2026-01-31.")


def _idle(value: str) -> float:
    match = re.fullmatch(r"([0-9.]+)([A-Za-z]+)", value)
    seconds = None if match is None else duration(match[1], match[2])
    if seconds is None or not SHORTEST <= seconds <= LONGEST:
        raise ValueError("is no length of time: write a number and s, min, h or d, such as idle=30min.")
    return seconds


def _mode(value: str) -> Mode:
    try:
        return Mode(value.lower())
    except ValueError:
        raise ValueError(f"is no mode: {nearest(value, {str(each): each for each in Mode})}") from None


def _at_limit(value: str) -> str:
    if value.lower() not in AT_LIMIT:
        known = dict.fromkeys(AT_LIMIT)
        raise ValueError(f"says nothing that can be done at a limit: {nearest(value, known)}")
    return value.lower()


def _unpriced(value: str) -> str:
    known = dict.fromkeys(UNPRICED)
    if value.lower() not in known:
        raise ValueError(f"says nothing that can be done with a model without a price: {nearest(value, known)}")
    return value.lower()


def _shares(value: str) -> tuple[float, ...]:
    shares = []
    for word in value.split(","):
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(%?)\s*", word)
        share = -1.0 if match is None else float(match[1]) / (100 if match[2] else 1)
        if not 0 < share <= 1:
            raise ValueError("must be shares of the limit above 0 and at most 1, such as warn_at=0.5,0.8.")
        if share in shares:
            raise ValueError(f"names the share {share:g} twice: name each once.")
        shares.append(share)
    return tuple(sorted(shares))


def _name(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty: write a name, such as name=nightly, or leave it out.")
    return value.strip()


OPTIONS: Final[Mapping[str, Callable[[str], Any]]] = {
    "tz": _zone,
    "from": _date,
    "idle": _idle,
    "mode": _mode,
    "warn_at": _shares,
    "name": _name,
    "at_limit": _at_limit,
    "unpriced": _unpriced,
}
"""How the value of each option is read. What it raises says what is wrong, after the value was named."""
