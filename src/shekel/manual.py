"""Spending by hand: `shekel.record`, for what no SDK shows, such as a service that is billed elsewhere.

An entry is a call that has ended when it begins: it goes the way of every call, from its claims to its event, but asks
nobody and holds nothing, because the money is spent.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from opentelemetry.context import Context

from . import context as ctx
from . import late, locks
from .budgets.limits import cost as nanos
from .budgets.scope import entries
from .call import Call, Manual
from .providers.base import Answer, Request
from .quotes import Quote
from .runtime import Runtime, the_runtime
from .scopes.asked import asked
from .settlement import Cost, Outcome
from .shown import shown
from .telemetry.events import UsageEvent, usage_event
from .usage import Usage

NANO = 1_000_000_000

REMEMBERED = 100_000
"""Idempotency keys that are remembered, in the memory of this process; beyond, the oldest is forgotten."""

LONGEST = 200
"""Characters of an idempotency key."""


@dataclass(frozen=True, slots=True)
class _Api:
    provider: str
    name: str = "record"
    operation: str = "record"


class Entry(Call):
    """One entry made by hand."""

    __slots__ = ("manual",)


class _Keys:
    """Idempotency keys that were used."""

    def __init__(self) -> None:
        self._used: OrderedDict[str, None] = OrderedDict()

    def take(self, key: str) -> bool:
        """Whether the key is new; then it is used from now on."""
        with locks.books:
            if key in self._used:
                return False
            self._used[key] = None
            if len(self._used) > REMEMBERED:
                self._used.popitem(last=False)
            return True

    def give_back(self, key: str) -> None:
        """What it was taken for was not done."""
        with locks.books:
            self._used.pop(key, None)


_keys = _Keys()


def record(
    cost: float | Decimal | None = None,
    scope: Mapping[str, Any] | None = None,
    *,
    input_tokens: int = 0,
    output_tokens: int = 0,
    model: str | None = None,
    provider: str | None = None,
    tool_calls: Mapping[str, int] | Iterable[str] | None = None,
    idempotency_key: str | None = None,
    description: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    user_id: str | int | None = None,
    session_id: str | int | None = None,
    tenant_id: str | int | None = None,
    **others: str | int | None,
) -> UsageEvent | None:
    """Charge spending that no SDK shows, to every budget and policy that a call made here in that scope is charged to.

    It is never refused: the money is spent. What it carries over a limit is counted (`shekel.budget.overrun`, cause
    "record"), and the next call is refused. It counts as one call.

    Args:
        cost: what was spent, in USD, at least 0; None to price the tokens by the model.
        scope: scope entries by key, such as {"user.id": "ada"}; or as keyword arguments. Without any: the scope of the
            present context.
        input_tokens: all input tokens.
        output_tokens: all output tokens.
        model: the model that was used.
        provider: its `gen_ai.provider.name`; worked out from the model if not given.
        tool_calls: names of tools that ran, or how often each; told in the event, and counted on no limit.
        idempotency_key: a name for this spending, at most 200 characters: the same one again charges nothing. The last
            100,000 keys of this process are remembered.
        description: told in the event.
        metadata: told in the event.
        user_id, session_id, tenant_id, **others: as for `shekel.scope`.

    Returns:
        the event that `on_usage` gets, with `source="manual"`; None where the key was used before.

    Raises:
        ValueError: neither a cost nor tokens of a model with a known price, or an argument that makes no sense. Nothing
            is charged.
    """
    runtime = the_runtime()
    here = asked(scope, {"user_id": user_id, "session_id": session_id, "tenant_id": tenant_id, **others})
    usage = Usage(input=_count(input_tokens, "input_tokens"), output=_count(output_tokens, "output_tokens"))
    for name, text in (("model", model), ("provider", provider), ("description", description)):
        if text is not None and (not isinstance(text, str) or not text.strip()):
            raise ValueError(f"{name} must be a text that is not empty, not {shown(text)}: leave it out for none.")
    nano = None if cost is None else _nano(cost)
    if nano is None and not (usage.input or usage.output):
        raise ValueError("record() needs a cost in USD, or input_tokens or output_tokens and their model.")
    if nano is None and model is None:
        raise ValueError("tokens without a cost need their model, which says the price: give model=, or cost=.")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise ValueError(f"metadata must be a mapping, not {shown(metadata)}.")
    manual = Manual(description, dict(metadata or {}), _tools(tool_calls), nano is not None)
    call = _entry(runtime, here, model, provider, manual)
    if nano is None:
        runtime.gate.price_by_hand(call, here)
        if call.quote is None and call.override is None:
            raise ValueError(
                f"no price is known for {model!r}: give cost= in USD, or the model's price with shekel.configure("
                f"prices={{{model!r}: {{'input': …, 'output': …}}}})."
            )
    else:
        runtime.gate.price_by_hand(call, here, _fixed(nano, model or "record"))
    key = None if idempotency_key is None else _key(idempotency_key)
    if key is not None and not _keys.take(key):
        return None
    try:
        return _charge(runtime, call, here, usage)
    except BaseException:
        if call.is_open:
            runtime.gate.release(call)
            if key is not None:
                _keys.give_back(key)
        raise


def _entry(runtime: Runtime, here: Context, model: str | None, provider: str | None, manual: Manual) -> Entry:
    if provider is None and model is not None:
        from .pricing import provider_of

        provider = provider_of(model)
    call = Entry(
        _Api(provider or "unknown"),
        Request(model=model or ""),
        gate=runtime.gate,
        teller=runtime.teller,
        now=time.perf_counter,
        wall=time.time,
    )
    call.manual = manual
    call.scope = entries(here)
    call.told = not ctx.suppressed(here)
    call.traced = True  # nobody called a model here: no time, and no histogram of tokens
    return call


def _charge(runtime: Runtime, call: Entry, here: Context, usage: Usage) -> UsageEvent:
    late.flush()
    runtime.gate.charge(call)
    if runtime.telling():
        runtime.teller.start(call, Context({**here, ctx.CALL: call}), call.scope)
    call.finish(Outcome.COMPLETE, answer=Answer(usage=usage, model=call.model or None))
    return usage_event(call, call.cost or Cost())


def _fixed(nano: int, name: str) -> Quote:
    """The price of what costs so much, whatever it is."""
    return Quote(name, "record", 0, 0, 0, 0, None, None, lambda usage: Fraction(nano))


def _nano(cost: Any) -> int:
    remedy = "give USD, at least 0, such as 0.0125"
    nano = nanos(cost, "cost", remedy)
    if nano > NANO * NANO:
        raise ValueError(f"cost must be at most a billion, not {shown(cost)}: {remedy}.")
    return nano


def _count(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        raise ValueError(f"{name} must be a whole number of tokens, at least 0, not {shown(value)}.")
    return value


def _tools(given: Any) -> Mapping[str, int]:
    if given is None:
        return {}
    wrong = f"tool_calls must be names, or a mapping from names to counts, not {shown(given)}."
    if isinstance(given, str):
        raise ValueError(wrong)
    try:
        counted = dict(given) if isinstance(given, Mapping) else dict(Counter(given))
    except TypeError:
        raise ValueError(wrong) from None
    for name, count in counted.items():
        if not isinstance(name, str) or isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise ValueError(wrong)
    return counted


def _key(key: Any) -> str:
    if not isinstance(key, str) or not key.strip() or len(key) > LONGEST:
        raise ValueError(f"idempotency_key must be a text of at most {LONGEST} characters, not {shown(key)}.")
    return key
