"""Questions about a scope: what it has used, what is left, whether a call would be admitted, how much output it buys.

They answer for the policies of the scope, and for the budgets around the place where they are asked, as a call made
there would find them. They hold nothing and count nothing. `answers.py` has what they return.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from opentelemetry.context import Context

from . import late
from .answers import Affordable, LimitUsage, Remaining, ScopeUsage, Verdict, period_of_budget, period_tracked
from .budgets import refusals
from .budgets.around import around, patient
from .budgets.claims import Claim
from .budgets.errors import BudgetExceededError, FallbackError
from .budgets.holds import need_of
from .budgets.limits import Mode, Unit
from .budgets.rehearsal import Rehearsal
from .budgets.scope import entries
from .budgets.waiting import stands_behind
from .call import Call
from .doors.client import destination
from .providers import endpoint_named
from .runtime import Runtime, the_runtime
from .scopes.asked import asked
from .shown import shown

RETRIES = 2
"""How often the SDKs try again by default, where no client is given to say so."""

APIS = ("chat.completions", "responses", "messages")


def usage(
    scope: Mapping[str, Any] | None = None,
    /,
    *,
    user_id: str | int | None = None,
    session_id: str | int | None = None,
    tenant_id: str | int | None = None,
    **others: str | int | None,
) -> ScopeUsage:
    """What a scope has used, on every limit that it has, and by model where that is kept.

    By model: for the keys that `shekel.configure(track={"user.id": "month"})` names, in the present period; and of the
    budgets around the place where it is asked.

    Args:
        scope: scope entries by key, such as {"user.id": "ada"}; or as keyword arguments, as of `shekel.scope`: exactly
            these. Without any: the scope of the present context.

    Raises:
        ValueError: a scope that makes no sense.
    """
    late.flush()
    runtime = the_runtime()
    here = asked(scope, {"user_id": user_id, "session_id": session_id, "tenant_id": tenant_id, **others})
    scoped = entries(here)
    now = time.time()
    tracked = [] if runtime.gate.tracking is None else runtime.gate.tracking.of(scoped, now)
    periods = [period_tracked(each) for each in tracked]
    periods += [period_of_budget(budget) for budget in reversed(around(here))]
    return ScopeUsage(dict(scoped), _limits(runtime, here, now), tuple(periods))


def remaining(
    scope: Mapping[str, Any] | None = None,
    /,
    *,
    user_id: str | int | None = None,
    session_id: str | int | None = None,
    tenant_id: str | int | None = None,
    **others: str | int | None,
) -> Remaining:
    """What is left to a scope, in every dimension that is limited, and which limit is the tightest.

    Args: as of `usage`.

    Raises:
        ValueError: a scope that makes no sense.
    """
    late.flush()
    runtime = the_runtime()
    here = asked(scope, {"user_id": user_id, "session_id": session_id, "tenant_id": tenant_id, **others})
    return Remaining(dict(entries(here)), tuple(each for each in _limits(runtime, here, time.time()) if each.enforced))


def check(
    scope: Mapping[str, Any] | None = None,
    /,
    *,
    model: str | None = None,
    messages: Any = None,
    request: Mapping[str, Any] | None = None,
    stream: bool = False,
    api: str | None = None,
    client: Any = None,
    user_id: str | int | None = None,
    session_id: str | int | None = None,
    tenant_id: str | int | None = None,
    **others: str | int | None,
) -> Verdict:
    """Whether a call would be admitted now. It is worked out by the very rules of calls, and nothing is held.

        if not shekel.check(user_id="ada", model="gpt-4o", messages=messages, request={"max_tokens": 500}): ...

    Another call may come in between, so an answer is no promise: the call itself decides. A budget that waits
    (`at_limit="pause"`) or asks (`on_exceed`) may admit later what is refused here.

    Args:
        scope: scope entries by key; or as keyword arguments, as of `usage`.
        model: the model; without one, whether there is any room left at all.
        messages: the messages (for the Responses API, the input).
        request: other fields of the request: {"max_tokens": 500, "tools": […], "n": 2}.
        stream: whether the answer would be streamed.
        api: "chat.completions", "responses" or "messages"; by the model if not given.
        client: the SDK's client that would be used: its host may have prices of its own, and its retries count in
            strict mode. Without one: the provider's own host, and two retries.

    Returns:
        a verdict, which is true if the call would be admitted; its `error` is what the call would raise.

    Raises:
        ValueError: a scope, or an `api`, that makes no sense.
    """
    runtime = the_runtime()
    here = asked(scope, {"user_id": user_id, "session_id": session_id, "tenant_id": tenant_id, **others})
    late.flush()
    if model is None:
        return _any_room(runtime, here)
    call = _call(runtime, here, model, messages, request, stream, api, client)
    Rehearsal(runtime.gate).admit(call, here)
    refusal = call.refusal
    if refusal is None:
        for budget in patient(here):
            if stands_behind(call, budget, here):
                return Verdict(False, "waiting", call.model, call.fallback_from, None, None)
        return Verdict(True, None, call.model, call.fallback_from, call.cap, None)
    reason = refusal.reason if isinstance(refusal, BudgetExceededError) else "fallback"
    return Verdict(False, reason, call.model, call.fallback_from, None, refusal)


def affordable_tokens(
    scope: Mapping[str, Any] | None = None,
    /,
    *,
    model: str,
    messages: Any = None,
    request: Mapping[str, Any] | None = None,
    api: str | None = None,
    client: Any = None,
    user_id: str | int | None = None,
    session_id: str | int | None = None,
    tenant_id: str | int | None = None,
    **others: str | int | None,
) -> Affordable:
    """How many output tokens, for each choice, the limits of a scope still buy, once the prompt is paid for.

    Limits in strict mode are reckoned by its bounds: every byte of the prompt a token, at the dearest rates, for all
    attempts that the client may make. Others by the estimate of the prompt and the ordinary rates. The answer says by
    which. Also bounded by the model's documented maximum output, and by a cap that `request` has.

    Args: as of `check`.

    Returns:
        the number, and what bounds it; `tokens` is None where nothing does.

    Raises:
        ValueError: a scope, or an `api`, that makes no sense.
    """
    runtime = the_runtime()
    here = asked(scope, {"user_id": user_id, "session_id": session_id, "tenant_id": tenant_id, **others})
    late.flush()
    call = _call(runtime, here, model, messages, request, False, api, client)
    gate = runtime.gate
    gate.price_by_hand(call, here)
    gate.estimate_input(call)
    need = need_of(call, call.quote, gate.expected_output(call))
    caps = [cap for cap in (call.request.cap, None if call.quote is None else call.quote.max_output) if cap is not None]
    found = Affordable(min(caps), "model" if call.request.cap != min(caps) else "request") if caps else Affordable(None)
    for claim in call.claims:
        if not claim.votes or claim.limit is None:
            continue
        if claim.stopped:
            return Affordable(0, "stopped", claim.name, claim.scope, claim.unit.value)
        strict = claim.mode is Mode.STRICT
        arithmetic = "strict" if strict else "expected"
        if claim.unit is Unit.USD and call.quote is None:
            if claim.allow_unpriced:
                continue
            return Affordable(0, "unpriced", claim.name, claim.scope, claim.unit.value)
        if strict and claim.counts_output and refusals.unbounded(call, claim, gate.ledger, need) is not None:
            return Affordable(0, "unbounded", claim.name, claim.scope, claim.unit.value)
        base, rate = (
            need.strict(claim.unit) if strict else (need.base(claim.unit), need.rate(claim.unit) * need.choices)
        )
        balance = gate.ledger.read(claim.meter, call.moment())
        room = claim.limit - balance.settled - balance.held - base
        tokens = -1 if room < 0 else room // rate if rate else None
        if tokens is not None and tokens < call.request.min_cap:
            tokens = 0
        if tokens is not None and (found.tokens is None or tokens < found.tokens):
            found = Affordable(tokens, arithmetic, claim.name, claim.scope, claim.unit.value)
    return found


def _call(
    runtime: Runtime,
    here: Context,
    model: Any,
    messages: Any,
    request: Mapping[str, Any] | None,
    stream: bool,
    api: str | None,
    client: Any,
) -> Call:
    """A call that is not made: what the door would make of that request."""
    if not isinstance(model, str) or not model.strip():
        raise ValueError(f"model must be the name of a model, not {shown(model)}.")
    if request is not None and not isinstance(request, Mapping):
        raise ValueError(f"request must be a mapping of the request's other fields, not {shown(request)}.")
    if api is None:
        from .pricing import provider_of

        module = type(client).__module__.partition(".")[0]
        theirs = module == "anthropic" or (client is None and provider_of(model) == "anthropic")
        api = "messages" if theirs else "chat.completions"
    endpoint = endpoint_named(api)
    if api not in APIS or endpoint is None:
        raise ValueError(f"api must be one of {', '.join(APIS)}, not {shown(api)}.")
    body: dict[str, Any] = {"model": model, **(request or {})}
    if messages is not None:
        body["input" if api == "responses" else "messages"] = messages
    if stream:
        body["stream"] = True
    provider, host, port = (endpoint.provider, None, None) if client is None else destination(client, endpoint.provider)
    retries = RETRIES if client is None else client.max_retries
    call = Call(
        endpoint,
        endpoint.read_request(body),
        gate=runtime.gate,
        teller=runtime.teller,
        now=time.perf_counter,
        wall=time.time,
        provider=provider,
        host=host,
        port=port,
        attempts=1 + max(0, retries),
        body=body,
    )
    call.scope = entries(here)
    return call


def _claims(runtime: Runtime, here: Context, now: float) -> list[Claim]:
    found = {claim.meter: claim for payer in runtime.gate.payers for claim in payer.claims(here, now)}
    return list(found.values())


def _limits(runtime: Runtime, here: Context, now: float) -> tuple[LimitUsage, ...]:
    moment = int(now * 1_000_000)
    return tuple(
        LimitUsage.of(claim, runtime.ledger.read(claim.meter, moment))
        for claim in _claims(runtime, here, now)
        if claim.limit is not None
    )


def _any_room(runtime: Runtime, here: Context) -> Verdict:
    """Whether anything is left, whatever is called: on limits of calls, money and tokens for all models."""
    now = time.time()
    for claim in _claims(runtime, here, now):
        special = not claim.votes or claim.unit is Unit.TOOL_CALLS or claim.model or claim.models
        if special and not claim.stopped:
            continue
        balance = runtime.ledger.read(claim.meter, int(now * 1_000_000))
        if not claim.stopped and balance.settled + balance.held < (claim.limit or 0):
            continue
        by = refusals.scale(claim.unit)
        error = BudgetExceededError(
            balance.settled / by,
            claim.whole / by,
            budget=claim.name,
            scope=claim.scope,
            held=balance.held / by,
            kept=claim.kept / by,
            exceeded_counter=refusals.COUNTERS.get(claim.unit, claim.unit.value),
            window_reset=claim.resets_at,
            retry_after=None if claim.resets_at is None else max(0.0, claim.resets_at - now),
            reason="stopped" if claim.stopped else "exceeded",
        )
        return Verdict(False, error.reason, None, None, None, error)
    return Verdict(True, None, None, None, None, None)


__all__ = ["FallbackError", "affordable_tokens", "check", "remaining", "usage"]
