"""The reader of specs: one pass from left to right, which knows at each word what may stand there. `spec.py` has the
grammar."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NoReturn

from ..shown import shown
from .limits import EXACT, MOST, NANO, Limit, Unit, agree, check_model
from .options import OPTIONS, nearest
from .windows import IDLE, LONGEST, SHORTEST, Calendar, Session, Sliding, Window, duration

_UNITS = {
    "calls": Unit.CALLS, "call": Unit.CALLS, "llm calls": Unit.CALLS, "llm call": Unit.CALLS,
    "tokens": Unit.TOKENS, "token": Unit.TOKENS, "total tokens": Unit.TOKENS,
    "input tokens": Unit.INPUT, "input token": Unit.INPUT,
    "output tokens": Unit.OUTPUT, "output token": Unit.OUTPUT,
    "tool calls": Unit.TOOL_CALLS, "tool call": Unit.TOOL_CALLS, "tools": Unit.TOOL_CALLS, "tool": Unit.TOOL_CALLS,
    "usd": Unit.USD, "dollars": Unit.USD, "dollar": Unit.USD,
}  # fmt: skip
_UNIT_NAMES = dict.fromkeys(("calls", "tool calls", "tokens", "input tokens", "output tokens", "usd"))
_SCALES = {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000}

_CALENDAR = {
    "day": "day", "d": "day", "daily": "day",
    "week": "week", "w": "week", "weekly": "week",
    "month": "month", "mo": "month", "monthly": "month",
    "year": "year", "y": "year", "yr": "year", "yearly": "year",
}  # fmt: skip
_HOURS = ("hr", "h", "hour", "hourly")
_PERIOD_NAMES = dict.fromkeys(("s", "30s", "min", "5min", "hr", "24h", "day", "week", "month", "session"))

_AMOUNT = re.compile(r"(?P<dollar>\$?)\s*(?P<number>[0-9.,_]*[0-9][0-9._]*)(?P<scale>(?:[kmb](?![a-z_]))?)", re.I)
_NUMBER = re.compile(r"[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?|[0-9][0-9_]*(\.[0-9]*)?|\.[0-9]+")
_LETTERS = r"[A-Za-z][A-Za-z_-]*(?![\w=-])"
_UNIT_WORDS = re.compile(rf"\s*(?P<first>{_LETTERS})(?:[ \t]+(?P<second>{_LETTERS}))?")
_SLASH = re.compile(r"\s*(?:/|\bper(?![\w=]))\s*", re.I)
_PERIOD = re.compile(r"(?P<count>[0-9][0-9.]*|\.[0-9]+)?[ \t]*(?P<word>[^\s+]*)")
_ON = re.compile(r"\s*\bon(?![\w=])\s*", re.I)
_OPTION = re.compile(r"(?P<key>[A-Za-z_][\w-]*)=(?P<value>\"[^\"]*\"|'[^']*'|\S*)")
_WORD = re.compile(r"[^\s+]+|\+")
_TAIL = re.compile(r"[^\s+/$=,;&][^\s/]*")
"""What may stick to a number that is none, as in "1e6"."""
_OTHER_MONEY = "€£¥￥₹₪¢₩₽"


@dataclass(slots=True)
class _Found:
    """A limit as it was read, before the options say in which zone."""

    amount: int
    unit: Unit
    period: tuple[str, str] | None
    model: str | None
    text: str


class Reader:
    """Reads from left to right; `at` is where."""

    def __init__(self, text: str, source: str | None) -> None:
        self.text = text
        self.source = source
        self.at = 0

    def read(self) -> tuple[tuple[Limit, ...], dict[str, Any]]:
        """The limits, and the options that are not theirs."""
        found = [self.limit()]
        while (word := self.peek()) == "+":
            self.at += 1
            found.append(self.limit())
        options: dict[str, tuple[str, Any]] = {}
        while word is not None:
            self.option(options)
            word = self.peek()
        given = {key: value for key, (_, value) in options.items()}
        tz, first, idle = (given.pop(key, None) for key in ("tz", "from", "idle"))
        limits = [
            self.checked(each, None if each.period is None else self.window(*each.period, tz, first, idle))
            for each in found
        ]
        windows = [limit.window for limit in limits]
        calendars = [window for window in windows if isinstance(window, Calendar)]
        if tz is not None and not calendars:
            self.wrong(options["tz"][0], "needs a period of the calendar: use /hr, /day, /week, /month or /year.")
        if first is not None and all(window.period == "hour" for window in calendars):
            self.wrong(options["from"][0], "needs a period of the calendar: use /day, /week, /month or /year.")
        if idle is not None and not any(isinstance(window, Session) for window in windows):
            self.wrong(options["idle"][0], "is only for sessions: write /session after an amount, or leave it out.")
        return agree(limits, self.source or shown(self.text)), given

    # A limit

    def limit(self) -> _Found:
        word = self.peek()
        start = self.at
        match = _AMOUNT.match(self.text, self.at)
        if match is None:
            self.no_amount(word)
        self.at = match.end()
        unit = self.unit(match)
        amount = self.amount(match, unit)
        period = self.period()
        model = self.model()
        text = " ".join(self.text[start : self.at].split())
        self.after_limit(text)
        return _Found(amount, unit, period, model, text)

    def no_amount(self, word: str | None) -> NoReturn:
        if word is None:
            before = self.text.strip()
            if before:
                self.wrong(before[-1], "stands at the end: write another limit after it, or leave it out.")
            self.wrong(self.text, "is empty: write a limit, such as '$5/day'.")
        if word == "+":
            self.wrong(word, "has no limit before it: write one, such as '$5', or leave it out.")
        if _OPTION.match(self.text, self.at):
            self.wrong(word, "comes before a limit: write the limits first, such as '$5/day', and then the options.")
        bare = word.lower().lstrip("$-−")
        if bare in ("nan", "inf", "infinity", "unlimited", "none", "null"):
            self.wrong(word, "is no amount: write a number above 0, such as '$5', or leave the limit out.")
        if word[:1] in "-−" or word[:2] in ("$-", "$−"):
            self.wrong(word, "is below 0: write an amount above 0, such as '$5'.")
        if word[:1] in _OTHER_MONEY:
            self.wrong(word, "is not in US dollars: write the amount in them, such as '$5'.")
        if word[:1] in "\"'":
            self.wrong(word, "is in quotes: write the limit without them, such as $5/day.")
        self.wrong(word, "has no amount: write a number first, such as '$5/day' or '100 calls/hr'.")

    def unit(self, match: re.Match[str]) -> Unit:
        words = _UNIT_WORDS.match(self.text, self.at)
        unit, end = None, self.at
        if words is not None:
            for last in ("second", "first"):
                if words[last] is not None:
                    said = " ".join(re.split(r"[\s_-]+", self.text[words.start("first") : words.end(last)])).lower()
                    if said in _UNITS:
                        unit, end = _UNITS[said], words.end(last)
                        break
        said = amount = match[0].strip()
        # Too long to be shown a second time, or nothing: an example will do.
        if len(amount) > 40 or not amount.strip("$0.,_ "):
            amount = "$5" if match["dollar"] else "5"
        if match["dollar"]:
            if unit is not None:
                second = self.text[self.at : end].strip()
                self.wrong(second, f"is a second unit: write '{amount}', or '{amount[1:].strip()} {second}'.")
            return Unit.USD
        if unit is None:
            word = words["first"] if words is not None else None
            if word is None:
                self.no_unit(said)
            if word is None or word.lower() in ("per", "on") or self.is_period(word):
                self.wrong(said, f"has no unit: write '${amount}', '{amount} calls' or '{amount} tokens'.")
            self.wrong(word, f"is no unit: {nearest(word, _UNIT_NAMES)}")
        self.at = end
        return unit

    def no_unit(self, said: str) -> None:
        """Say what a number is that goes on with what is neither a unit nor a period, such as 1e6 and 5€."""
        tail = _TAIL.match(self.text, self.at)
        word = self.peek() if tail is None else said + tail[0]
        sign = word if tail is None else tail[0]
        if word and sign and sign[0] in _OTHER_MONEY:
            self.wrong(word, "is not in US dollars: write the amount in them, such as '$5'.")
        if tail is not None:
            self.wrong(word, "is no number: write it like 1000, 1,000 or 0.50, and its unit behind it.")

    def amount(self, match: re.Match[str], unit: Unit) -> int:
        number, said = match["number"], match[0].strip()
        if not _NUMBER.fullmatch(number) or number.endswith("_"):
            self.wrong(said, "is no number: write it like 1000, 1,000 or 0.50.")
        plain = Decimal(number.replace(",", "").replace("_", ""))
        if not plain:
            self.wrong(said, "is nothing: write an amount above 0, or leave the limit out.")
        value = EXACT.multiply(plain, _SCALES[match["scale"].lower()] * (NANO if unit is Unit.USD else 1))
        if value > MOST:
            self.wrong(said, "is too large: write a smaller amount, or leave the limit out.")
        amount = int(value)
        if unit is Unit.USD:
            if not amount:
                self.wrong(said, "is below a nano-dollar: write a larger amount.")
        elif amount != value:
            self.wrong(said, f"is no whole number: write whole {unit.replace('_', ' ')}, such as 10.")
        return amount

    def period(self) -> tuple[str, str] | None:
        slash = _SLASH.match(self.text, self.at)
        if slash is None:
            word = self.peek()
            if word is None or not self.is_period(word):
                return None
            slash = re.compile(r"\s*").match(self.text, self.at)  # "$5 hr", as the shekel library has it
            assert slash is not None
        match = _PERIOD.match(self.text, slash.end())
        assert match is not None
        if (not match["word"] and not match["count"]) or "=" in match["word"]:
            self.wrong(slash[0].strip(), f"has no period after it: use {', '.join(_PERIOD_NAMES)}, or leave it out.")
        self.at = match.end()
        return match["count"] or "", match["word"]

    def is_period(self, word: str) -> bool:
        match = _PERIOD.fullmatch(word)
        if match is None:
            return False
        said = match["word"].lower()
        if match["count"]:
            return duration(match["count"], said) is not None
        return said != "m" and (duration("1", said) is not None or said in _CALENDAR or said in (*_HOURS, "session"))

    def model(self) -> str | None:
        on = _ON.match(self.text, self.at)
        if on is None:
            return None
        match = re.compile(r"\S*").match(self.text, on.end())
        assert match is not None
        if not match[0] or "=" in match[0]:
            self.wrong(on[0].strip(), "has no model after it: write one, such as 'on gpt-4o'.")
        try:
            check_model(match[0])
        except ValueError:
            self.wrong(match[0], "is no name of a model: write one, such as 'on gpt-4o' or 'on gpt-4o*'.")
        self.at = match.end()
        return match[0]

    def after_limit(self, limit: str) -> None:
        """Only "+" and options may follow a limit."""
        word = self.peek()
        if word is None or word == "+" or _OPTION.match(self.text, self.at):
            return
        if word[0] in "$0123456789" or word.lower() in ("and", "or", "plus", ",", ";", "&"):
            self.wrong(word, f"follows {shown(limit)}: put ' + ' between two limits.")
        if word[0] == "/" or word.lower() in ("per", "on"):
            self.wrong(
                word,
                f"follows {shown(limit)}: a limit has one period and then one model, so write another after ' + '.",
            )
        if word.lower() in OPTIONS:
            self.wrong(word, f"has no value: write it as {word.lower()}=value, without spaces.")
        self.wrong(
            word, f"follows {shown(limit)}: only ' + ' and another limit, or an option such as mode=strict, can."
        )

    # Windows

    def window(self, count: str, word: str, tz: str | None, first: Any, idle: float | None) -> Window:
        said, name = count + word, word.lower()
        if not count:
            if name == "session":
                return Session(IDLE if idle is None else idle)
            if name in _HOURS and (tz is not None or name == "hourly"):
                return Calendar("hour", tz or "UTC")
            if name in _CALENDAR:
                return Calendar(_CALENDAR[name], tz or "UTC", first)
            if name == "m":
                self.wrong(said, "can be minute or month: write min or month.")
        elif _CALENDAR.get(name) in ("month", "year") or name in ("months", "years"):
            self.wrong(said, "has no fixed length: write days, such as /30d, or one month, such as /month.")
        elif name == "session":
            self.wrong(said, "is no period: write session without a number.")
        if "/" in said:
            self.wrong(said, "is more than one period: give one, and another limit after ' + '.")
        seconds = duration(count or "1", word)
        if seconds is None:
            self.wrong(said, f"is no period: {nearest(word, _PERIOD_NAMES)}")
        if _CALENDAR.get(name) in ("day", "week") and float(count) == 1:
            self.wrong(said, "can be of the calendar or not: write day or week, or 24h or 7d for the last so many.")
        if not SHORTEST <= seconds <= LONGEST:
            self.wrong(said, "is no time to limit: write one from 0.001s to 100 years, or none.")
        return Sliding(seconds)

    def checked(self, found: _Found, window: Window | None) -> Limit:
        if found.model is not None and found.period is None:
            model, slash, period = found.model.rpartition("/")
            if slash and self.is_period(period):
                self.wrong(found.model, f"names no model: write the period first, such as '/{period} on {model}'.")
        if found.unit is Unit.TOOL_CALLS and found.model is not None:
            self.wrong(found.model, "cannot limit tool calls, which have no model: leave it out.")
        return Limit(found.amount, found.unit, window, found.model, found.text)

    # Options

    def option(self, options: dict[str, tuple[str, Any]]) -> None:
        word = self.peek()
        assert word is not None
        match = _OPTION.match(self.text, self.at)
        if match is None:
            if word == "+":
                self.wrong(word, "comes after an option: write all limits first, and then the options.")
            self.wrong(word, "is no option: write key=value, such as mode=strict.")
        key, value = match["key"].lower().replace("-", "_"), match["value"]
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        if key not in OPTIONS:
            self.wrong(match["key"], f"is no option: {nearest(key, OPTIONS)}")
        if key in options:
            self.wrong(match[0], f"gives {key}= a second time: leave one out.")
        if not value:
            self.wrong(match[0], f"has no value: write one after {key}=, or leave it out.")
        try:
            options[key] = match[0], OPTIONS[key](value)
        except ValueError as problem:
            self.wrong(value, str(problem))
        self.at = match.end()

    # Words

    def peek(self) -> str | None:
        """The next word; None at the end."""
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        match = _OPTION.match(self.text, self.at) or _WORD.match(self.text, self.at)
        return None if match is None else match[0]

    def wrong(self, word: str | None, problem: str) -> NoReturn:
        start = f"{self.source}: " if self.source else ""
        word = word or ""
        where = "" if word.strip() == self.text.strip() else f" in {shown(self.text)}"
        raise ValueError(f"{start}{shown(word)}{where} {problem}") from None
