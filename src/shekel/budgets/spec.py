"""The spec language: limits and options as one line of text, for code, the environment and files alike.

    SPEC     LIMIT ( "+" LIMIT )*  OPTION*
    LIMIT    AMOUNT  [ "/" PERIOD ]  [ "on" MODEL ]              "per" may stand for "/"
    AMOUNT   $5  $0.50  100 calls  10 tool calls  200k tokens  1M input tokens  50k output tokens
    PERIOD   s  30s  min  5min  hr  24h  7d    the last so many seconds, minutes, hours or days
             day  week  month  year            of the calendar, in UTC unless tz= says where; "hr" too, where it does
                                               (what should slide beside it is written with a number: 60min)
             session                           until nothing happened for idle= (30min unless told)
    MODEL    gpt-4o  gpt-4o*
    OPTION   tz=Europe/Berlin  from=2026-01-31  idle=30min  mode=strict  warn_at=0.5,0.8  name=nightly  at_limit=warn
             unpriced=allow

Text that is no spec is answered with one sentence: the word, the text around it, and what to write instead.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ..shown import shown
from .limits import Limit, Unit
from .reader import Reader
from .windows import Sliding


@dataclass(frozen=True, slots=True)
class Spec:
    """What a spec says.

    Attributes:
        limits: at least one.
        options: those for the budget itself: `mode` (a `Mode`), `warn_at` (shares of the limit, rising), `name`,
            `at_limit` and `unpriced` (their names), each only if it was given. What concerns windows is in the limits.
    """

    limits: tuple[Limit, ...]
    options: dict[str, Any]


def parse_spec(text: str, source: str | None = None) -> Spec:
    """Read a spec, such as "$5/hr + 100 calls/hr", or "$20/month tz=Europe/Berlin warn_at=0.8".

    Args:
        text: the spec.
        source: where it was found, for the message of an error: "SHEKEL_BUDGET", "max_usd", a file's name and line.

    Raises:
        ValueError: it is none. One sentence names the source, the word, and what to write instead.
    """
    if not isinstance(text, str):
        raise ValueError(f"{source or 'a spec'} must be a text such as '$5/day', not {shown(text)}.")
    limits, options = Reader(text, source).read()
    return Spec(limits, options)


def parse_limit(text: str, source: str | None = None) -> Limit:
    """The one limit that a spec says.

    Raises:
        ValueError: the text is no spec, says several limits, or has options for a budget as a whole.
    """
    spec = parse_spec(text, source)
    start = f"{source}: " if source else ""
    if len(spec.limits) > 1:
        raise ValueError(f"{start}{shown(text)} says {len(spec.limits)} limits where one is asked for: give one.")
    if spec.options:
        raise ValueError(f"{start}{next(iter(spec.options))}= in {shown(text)} is no part of a limit: leave it out.")
    return spec.limits[0]


def parse_velocity(text: str, field: str = "max_velocity") -> Limit:
    """The rate that a text such as "$1/min" or "$0.10/30s" says: a limit in USD on a sliding window.

    Raises:
        ValueError: it says none.
    """
    remedy = "write dollars per time, such as '$1/min' or '$0.10/30s'"
    if not isinstance(text, str):
        raise ValueError(f"{field} must be a rate, not {shown(text)}: {remedy}.")
    # A bare "m" is a month to some; where only rates are asked for, it is a minute.
    limit = parse_limit(re.sub(r"/\s*m\s*\Z", "/min", text, flags=re.I), field)
    if limit.unit is not Unit.USD or not isinstance(limit.window, Sliding) or limit.model is not None:
        raise ValueError(f"{field} must be a rate in USD, not {shown(text)}: {remedy}.")
    return limit
