"""Shekel: what every call to a language model costs, told where teams look, and stopped at the limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import package as _package
from .budgets.asking import Allowance, Exceeded
from .budgets.budget import Budget
from .budgets.claims import AtLimit
from .budgets.errors import (
    BudgetExceededError,
    BudgetPausedError,
    FallbackError,
    UnboundedCallError,
    UnpricedModelError,
)
from .budgets.limits import Limit, Mode
from .budgets.making import budget, with_budget
from .budgets.part_errors import (
    AgentBudgetExceededError,
    AgentLoopError,
    BudgetConfigMismatchError,
    ChainBudgetExceededError,
    NodeBudgetExceededError,
    SessionBudgetExceededError,
    SpendVelocityExceededError,
    TaskBudgetExceededError,
    ToolBudgetExceededError,
    ToolSpendExceededError,
)
from .budgets.scope import scope
from .budgets.slots import LimitState
from .budgets.temporal import TemporalBudget
from .budgets.tools import tool
from .configuration import configure
from .control import assign_plan, reconcile
from .doors.scoped import scoped_client
from .policies.policy import Policy, per

# In place of the module of that name, which is found as before: `from shekel.usage import Usage`.
from .questions import affordable_tokens, check, remaining, usage
from .receipts import Receipt, call_of
from .scopes.scoped import scoped
from .vocabulary import NotHereYetError

if TYPE_CHECKING:
    from .answers import Affordable, LimitUsage, PeriodUsage, Remaining, ScopeUsage, Verdict
    from .budgets.tracking import ModelUsage
    from .doors.processor import ShekelSpanProcessor
    from .doors.sampler import ShekelSampler
    from .instrumentor import ShekelInstrumentor
    from .manual import record
    from .scopes.asgi import ScopeMiddleware
    from .scopes.wsgi import WsgiScopeMiddleware
    from .subscriptions import on_hard_limit, on_soft_limit, on_usage
    from .telemetry.events import LimitEvent, UsageEvent
    from .telemetry.listeners import Subscription
    from .wrapping import ameter, meter

__distribution__ = _package.DISTRIBUTION
__all__ = [
    "Affordable",
    "AgentBudgetExceededError",
    "AgentLoopError",
    "Allowance",
    "AtLimit",
    "Budget",
    "BudgetConfigMismatchError",
    "BudgetExceededError",
    "BudgetPausedError",
    "ChainBudgetExceededError",
    "Exceeded",
    "FallbackError",
    "Limit",
    "LimitEvent",
    "LimitState",
    "LimitUsage",
    "Mode",
    "ModelUsage",
    "NodeBudgetExceededError",
    "NotHereYetError",
    "PeriodUsage",
    "Policy",
    "Receipt",
    "Remaining",
    "ScopeMiddleware",
    "ScopeUsage",
    "SessionBudgetExceededError",
    "ShekelInstrumentor",
    "ShekelSampler",
    "ShekelSpanProcessor",
    "SpendVelocityExceededError",
    "Subscription",
    "TaskBudgetExceededError",
    "TemporalBudget",
    "ToolBudgetExceededError",
    "ToolSpendExceededError",
    "UnboundedCallError",
    "UnpricedModelError",
    "UsageEvent",
    "Verdict",
    "WsgiScopeMiddleware",
    "affordable_tokens",
    "ameter",
    "assign_plan",
    "budget",
    "call_of",
    "check",
    "configure",
    "meter",
    "on_hard_limit",
    "on_soft_limit",
    "on_usage",
    "per",
    "reconcile",
    "record",
    "remaining",
    "scope",
    "scoped",
    "scoped_client",
    "tool",
    "usage",
    "with_budget",
]

_package.warn_of_other()

# The OpenTelemetry SDK and its instrumentation base are heavy: they are imported when these names are first used.
_LAZY = {
    "ScopeMiddleware": "scopes.asgi",
    "ShekelInstrumentor": "instrumentor",
    "ShekelSampler": "doors.sampler",
    "ShekelSpanProcessor": "doors.processor",
    "WsgiScopeMiddleware": "scopes.wsgi",
    "LimitEvent": "telemetry.events",
    "Subscription": "telemetry.listeners",
    "UsageEvent": "telemetry.events",
    "Affordable": "answers",
    "LimitUsage": "answers",
    "ModelUsage": "budgets.tracking",
    "PeriodUsage": "answers",
    "Remaining": "answers",
    "ScopeUsage": "answers",
    "Verdict": "answers",
    "ameter": "wrapping",
    "meter": "wrapping",
    "on_hard_limit": "subscriptions",
    "record": "manual",
    "on_soft_limit": "subscriptions",
    "on_usage": "subscriptions",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _package.version()
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    from . import vocabulary

    if name in vocabulary.NAMES:
        return getattr(vocabulary, name)
    raise AttributeError(f"module 'shekel' has no attribute {name!r}")
