"""Limits from keyword arguments: numbers, specs or limits, each under the name of what it limits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..shown import shown
from .limits import Limit, Unit, agree, check_model, count, money, written
from .spec import parse_limit, parse_spec
from .windows import Sliding, Window

_PLAIN = re.compile(r"\s*[-+]?[0-9_.]+\s*")
_FIELDS = {
    Unit.USD: "max_usd",
    Unit.CALLS: "max_llm_calls",
    Unit.TOOL_CALLS: "max_tool_calls",
    Unit.INPUT: "max_input_tokens",
    Unit.OUTPUT: "max_output_tokens",
    Unit.TOKENS: "max_tokens",
}


def as_limit(value: Any, field: str) -> Limit:
    """One limit from what a caller gave: a `Limit`, a spec such as "$5/day", or an amount in USD.

    Args:
        value: that.
        field: what a message calls it.

    Raises:
        ValueError: it is none, or more than one.
    """
    if isinstance(value, Limit):
        return value
    if isinstance(value, str) and not _PLAIN.fullmatch(value):
        return parse_limit(value, field)
    return Limit(money(value, field))


def limits_of(
    *,
    max_usd: Any = None,
    max_llm_calls: Any = None,
    max_tool_calls: Any = None,
    max_input_tokens: Any = None,
    max_output_tokens: Any = None,
    max_tokens: Any = None,
    window_seconds: float | None = None,
    models: Mapping[str, Any] | None = None,
) -> tuple[Limit, ...]:
    """The limits that keyword arguments say.

    Args:
        max_usd: in USD; a number, a `Limit`, or a spec of limits in USD such as "$5/day" or "$1/hr + $5/day".
        max_llm_calls: calls; a whole number, a `Limit`, or a spec such as "100 calls/hr". So the others:
        max_tool_calls: calls of tools.
        max_input_tokens: tokens sent.
        max_output_tokens: tokens received.
        max_tokens: tokens sent and received together.
        window_seconds: the sliding window, in seconds, of those limits that have no window of their own.
        models: limits by the name of the model, or a pattern of names such as "gpt-4o*": an amount in USD, a `Limit`,
            or a spec.

    Raises:
        ValueError: a value of the wrong kind, sign, size or unit, or two that limit the same. The message names the
            argument, the value and the remedy. 0 is refused: it would stop everything, or nothing.
    """
    window = None
    if window_seconds is not None:
        try:
            window = Sliding(window_seconds)
        except ValueError:
            raise ValueError(
                f"window_seconds must be seconds from 0.001 to 100 years, not {shown(window_seconds)}: "
                "give a number such as 3600, or leave it out for a limit in all."
            ) from None
    given = (max_usd, max_llm_calls, max_tool_calls, max_input_tokens, max_output_tokens, max_tokens)
    limits = [
        limit
        for (unit, field), value in zip(_FIELDS.items(), given, strict=True)
        if value is not None
        for limit in _limits(value, field, unit)
    ]
    limits += _by_model(models)
    if window is not None:
        if not limits:
            raise ValueError(f"window_seconds={shown(window_seconds)} has nothing to limit: give max_usd, too.")
        limits = [_within(limit, window, window_seconds) for limit in limits]
    return agree(limits, "the budget")


def further(value: Any) -> tuple[Limit, ...]:
    """The limits of `limits=`, which are made already; None for none.

    Raises:
        ValueError: anything but `Limit`s.
    """
    if value is None:
        return ()
    remedy = "give them as [Limit(5_000_000_000)] for $5, or a spec such as '$5/day' in place of max_usd"
    if not isinstance(value, Iterable) or isinstance(value, (str, bytes, Mapping)):
        raise ValueError(f"limits must be a list of Limits, not {shown(value)}: {remedy}.")
    limits = tuple(value)
    for each in limits:
        if not isinstance(each, Limit):
            raise ValueError(f"limits must be a list of Limits, not {shown(each)} in it: {remedy}.")
    return limits


def limits_in(value: Any, field: str) -> tuple[Limit, ...]:
    """The limits of any unit that one value says: an amount in USD, a `Limit`, or a spec.

    Raises:
        ValueError: it says none, or has options for a budget as a whole.
    """
    return _limits(value, field, None)


def _limits(value: Any, field: str, unit: Unit | None) -> tuple[Limit, ...]:
    if isinstance(value, Limit):
        limits: tuple[Limit, ...] = (value,)
    elif isinstance(value, str) and not _PLAIN.fullmatch(value):
        spec = parse_spec(value, field)
        if spec.options:
            option = next(iter(spec.options))
            raise ValueError(
                f"{field}: {option}= in {shown(value)} is no part of a limit: give it as {option}=… beside."
            )
        limits = spec.limits
    elif unit is None or unit is Unit.USD:
        return (Limit(money(value, field)),)
    elif isinstance(value, str):
        name = unit.replace("_", " ")
        raise ValueError(f"{field}: {shown(value)} is a text: give a whole number, or a spec such as '100 {name}/hr'.")
    else:
        return (Limit(count(value, field, unit), unit),)
    for limit in limits:
        if unit is not None and limit.unit is not unit:
            raise ValueError(
                f"{field} limits {unit.replace('_', ' ')}, and {shown(written(limit))} does not: give it as "
                f"{_FIELDS[limit.unit]}={shown(written(limit))}."
            )
    return limits


def _by_model(models: Any) -> list[Limit]:
    if models is None:
        return []
    if not isinstance(models, Mapping) or not models:
        raise ValueError(f"models must be limits by model, such as {{'gpt-4o': '$5/day'}}, not {shown(models)}.")
    limits = []
    for model, value in models.items():
        field = f"models[{shown(model)}]"
        try:
            check_model(model)
        except ValueError as error:
            raise ValueError(f"models: {error}") from None
        if value is None:
            raise ValueError(f"{field} must be a limit such as '$5/day' or 5, not None: leave it out for no limit.")
        for limit in _limits(value, field, None):
            if limit.model is not None:
                raise ValueError(
                    f"{field} names a model of its own in {shown(written(limit))}: "
                    f"leave {shown(f'on {limit.model}')} out."
                )
            if limit.unit is Unit.TOOL_CALLS:
                raise ValueError(
                    f"{field} cannot be {shown(written(limit))}, as tool calls have no model: use max_tool_calls."
                )
            limits.append(replace(limit, model=model))
    return limits


def _within(limit: Limit, window: Window, seconds: Any) -> Limit:
    if limit.window is not None:
        raise ValueError(
            f"{shown(written(limit))} has a window of its own beside window_seconds={shown(seconds)}: "
            "leave one of them out."
        )
    return replace(limit, window=window)
