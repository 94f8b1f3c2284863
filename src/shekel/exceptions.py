"""Every error of Shekel, at the place where the vocabulary of the `shekel` library keeps them."""

from __future__ import annotations

from .budgets.errors import (
    BudgetExceededError,
    BudgetPausedError,
    FallbackError,
    UnboundedCallError,
    UnpricedModelError,
)
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
from .vocabulary import NotHereYetError

__all__ = [
    "AgentBudgetExceededError",
    "AgentLoopError",
    "BudgetConfigMismatchError",
    "BudgetExceededError",
    "BudgetPausedError",
    "ChainBudgetExceededError",
    "FallbackError",
    "NodeBudgetExceededError",
    "NotHereYetError",
    "SessionBudgetExceededError",
    "SpendVelocityExceededError",
    "TaskBudgetExceededError",
    "ToolBudgetExceededError",
    "ToolSpendExceededError",
    "UnboundedCallError",
    "UnpricedModelError",
]
