"""The scope that a question or a charge by hand is about: the one of the present context, or exactly the one named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry import baggage
from opentelemetry.context import Context

from .. import context
from ..shown import shown
from .values import as_entries


def asked(given: Mapping[str, Any] | None, named: Mapping[str, Any]) -> Context:
    """The context in which a call of that scope would be made here.

    The budgets around stay: a call made here would be charged to them, too.

    Args:
        given: scope entries by their keys ("user.id"), or as `shekel.scope` names them ("user_id").
        named: the same, as keyword arguments; those that are None are left out.

    Raises:
        ValueError: a key or a value that no scope can have.
    """
    here = context.current()
    if given is not None and not isinstance(given, Mapping):
        raise ValueError(f"a scope is a mapping such as {{'user.id': 'ada'}}, or user_id='ada', not {shown(given)}.")
    entries = as_entries({**(given or {}), **named})
    if given is None and not entries:
        return here
    return Context({**baggage.clear(here), context.SCOPE: entries})
