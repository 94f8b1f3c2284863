"""`shekel.configure`: what holds for the whole process."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

from .budgets import wiring
from .budgets.budget import Budget
from .budgets.keywords import limits_in
from .budgets.limits import Mode, as_mode
from .budgets.making import from_spec, is_number
from .budgets.public import Text, set_text
from .policies.policy import Policy
from .runtime import the_runtime
from .scopes.keyring import Secrets
from .scopes.outside import outside
from .settings import KEEP
from .shown import shown
from .telemetry.metrics import scope_keys

if TYPE_CHECKING:
    from .policies.file import PlanOf

_HOST = re.compile(r"[^\s/@?#*]+")


def configure(
    *,
    budget: Budget | str | float | None = KEEP,
    mode: str | Mode | None = None,
    policies: Sequence[Policy] | str | PathLike[str] | None = None,
    plan_of: PlanOf | Mapping[str, PlanOf] | None = None,
    reload_seconds: float | None = KEEP,
    environment: str | None = KEEP,
    prices: Mapping[str, Any] | None = None,
    aliases: Mapping[str, str] | None = None,
    include_usage_hosts: Iterable[str] | None = None,
    metric_scopes: Iterable[str] | None = None,
    public_message: Text | None = KEEP,
    trust: Literal["none", "signed", "all"] | None = None,
    baggage_keys: Secrets | Callable[[], Secrets] | None = KEEP,
    baggage_lifetime: float | None = None,
    traced_in_strict: str | None = None,
    track: Mapping[Any, str] | Iterable[str] | None = KEEP,
) -> None:
    """Set what holds for the whole process. What is not given stays as it is.

    Args:
        budget: a budget, or a spec such as "$5/day", that every call of this process is charged to, in whatever thread
            or task it is made; None ends it. In the environment: SHEKEL_BUDGET, read by `instrument()`.
        mode: how budgets that are made from now on hold money, where they name no mode: "sliced", "strict" or
            "expected".
        policies: budgets per value of a scope key, made with `per`, or the path of a policy file; they replace those
            before, and one of the same name, keys and window keeps what was spent. An empty list ends them. In the
            environment: SHEKEL_POLICIES, the path of a file, read by `instrument()`.
        plan_of: for policies in a file: the function that says who has which plan (see `per`), for those that have no
            table of their own; or functions by the policy's name.
        reload_seconds: how often to look whether that file has changed (1); None for never.
        environment: the deployment environment of this process, for policies with `match={"environment": …}`. In the
            environment: SHEKEL_ENVIRONMENT, else the resource attribute `deployment.environment.name`.
        prices: {"model": {"input": 1.5, "output": 6.0}} in USD per million tokens, with "cache_read" and "cache_write"
            where they differ; or {"model": "free"}. They go before the price list.
        aliases: {"name": "model"}: price the first like the second.
        include_usage_hosts: further hosts ("host" or "host:port") that accept `stream_options.include_usage`, such as
            a proxy of yours; without it a chat stream of theirs is charged by estimate. In the environment:
            SHEKEL_INCLUDE_USAGE_HOSTS, separated by commas.
        metric_scopes: scope keys ("tenant.id") whose values go on `shekel.cost`, `shekel.tokens` and `shekel.calls`;
            without it they are on spans only. Each value is a series of its own, and the OpenTelemetry SDK adds up
            what goes beyond 2,000 series of a metric: name keys of few values. In the environment:
            SHEKEL_METRIC_SCOPES, separated by commas.
        public_message: what `error.public_message` says: a sentence; or {"cut": …, "stopped": …, "default": …} by the
            error's reason ("loop" and "tool" for tools); or a function of the error. None: Shekel's own sentences.
        trust: which scope entries count that came in baggage, from a request's headers or other code: "none" (at
            first), those "signed" by a service with one of the keys, or "all". In the environment: SHEKEL_TRUST.
        baggage_keys: sign what this process sends on, and say what is signed: keys of at least 32 bytes or
            characters, or a function that returns them and is asked again every 30 seconds at most. The first signs,
            all are accepted. None ends it. In the environment: SHEKEL_BAGGAGE_KEY_FILE, one on each line, or
            SHEKEL_BAGGAGE_KEY, separated by commas.
        baggage_lifetime: seconds for which a signature is valid once it is sent (300).
        traced_in_strict: what a budget in strict mode does with calls that only the span of another instrumentation
            shows, whose cost nothing bounds: "refuse" (default), or "expect": hold what they probably cost.
        track: scope keys for which `shekel.usage` tells what each value has used, by model: {"user.id": "month"}, or
            with several keys {("tenant.id", "user.id"): "day"}; a calendar period, also with `tz=`. In the memory of
            this process, for each value that made a call in this period or the one before. None ends it.

    Raises:
        ValueError: something that makes no sense; the message names it, the value and the remedy.
    """
    runtime = the_runtime()
    hosts = None if include_usage_hosts is None else _hosts(include_usage_hosts)
    for field, table in (("prices", prices), ("aliases", aliases)):
        if table is not None and not isinstance(table, Mapping):
            example = '{"house-model": "free"}' if field == "prices" else '{"our-deployment": "gpt-4o-mini"}'
            raise ValueError(f"{field} must be a mapping such as {example}, not {shown(table)}.")
    if environment is not KEEP and environment is not None:
        if not isinstance(environment, str) or not environment.strip():
            raise ValueError(
                f"environment must be a text such as 'production', not {shown(environment)}: give None for none."
            )
        environment = environment.strip()
    if track is not KEEP:
        runtime.settings.track(track)
    if traced_in_strict is not None:
        runtime.gate.set_traced_in_strict(traced_in_strict)
    if public_message is not KEEP:
        set_text(public_message)
    keys = None if metric_scopes is None else scope_keys(metric_scopes)
    signing = None if baggage_keys is KEEP else baggage_keys
    outside.configure(trust, signing, baggage_lifetime, no_keys=baggage_keys is None)
    if mode is not None:
        wiring.default_mode = as_mode(mode)
    if budget is not KEEP:
        runtime.settings.set_budget(budget if budget is None or isinstance(budget, Budget) else _budget(budget))
    if environment is not KEEP:
        runtime.environment.given = environment
    runtime.settings.set_policies(policies, plan_of, reload_seconds)
    runtime.settings.set_prices(prices or {}, aliases or {})
    if hosts is not None:
        runtime.usage_hosts = hosts
    if keys is not None:
        runtime.teller.metric_scopes = keys


def _budget(value: Any) -> Budget:
    """A budget from what says its limits."""
    if isinstance(value, str) and not is_number(value):
        return from_spec(value, source="budget")
    return Budget(limits=limits_in(value, "budget"))


def _hosts(given: Any) -> frozenset[str]:
    """Hosts, perhaps with a port.

    Raises:
        ValueError: one text instead of several, or what is none, such as a URL.
    """
    remedy = "give names, with the port where there is one, such as ['llm.example.com', 'localhost:8080']"
    if not isinstance(given, Iterable) or isinstance(given, (str, bytes, Mapping)):
        raise ValueError(f"include_usage_hosts must be a list of hosts, not {_public(given)}: {remedy}.")
    hosts = tuple(given)
    for host in hosts:
        if not isinstance(host, str) or not _HOST.fullmatch(host):
            raise ValueError(f"include_usage_hosts must be a list of hosts, not {_public(host)} in it: {remedy}.")
    return frozenset(host.lower() for host in hosts)


def _public(value: Any) -> str:
    """What a message shows of a URL: neither who calls it nor what follows its path, which may be a key."""
    return shown(re.split(r"[?#]", value)[0].rpartition("@")[2] if isinstance(value, str) else value)
