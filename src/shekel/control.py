"""What a program may do by hand, for the whole process: correct the cost of a call, assign a plan."""

from __future__ import annotations

from decimal import Decimal

from . import late
from .budgets.limits import cost as nanos
from .runtime import the_runtime

NANO = 1_000_000_000


def reconcile(call_id: str, cost: float | Decimal) -> float:
    """Set the true cost of a call that has ended, up or down, on every budget and policy that it was charged to.

    For background work that was read later, or an invoice that says otherwise. It is charged to the window in which
    the call was charged; where that is over, only what a budget shows of its whole life changes (`summary_data`,
    `spent_direct`, `spent_by_children`, `fallback_spent`). A budget that was reset since shows nothing of it. The
    receipt, `call_of(...)`, goes on showing what was known when the call ended.

    Args:
        call_id: the id that `call_of(...)` or a budget's `summary_data()["calls"]` gives.
        cost: what the call has cost in all, in USD; at least 0.

    Returns:
        by how many USD the charge has changed: where budgets were charged differently, that of the innermost. 0 where
        all of them were reset since.

    Raises:
        ValueError: the cost is no amount.
        LookupError: no call of that id is remembered: the last 10,000 under a budget or a policy are.
    """
    late.flush()
    runtime = the_runtime()
    nano = nanos(cost, "cost", "give the whole cost in USD, at least 0, such as 0.0125")
    gate = runtime.gate
    return gate.corrections.reconcile(call_id, nano, gate.clock(), gate.tracking) / NANO


def assign_plan(value: str | int, plan: str | None, *, policy: str | None = None) -> None:
    """Give a value of a scope key a plan, from its next call on, whatever a table or a function says.

    What was spent stays: every call counts in the windows of all plans. It holds for this process, also when policies
    are read anew, until it is taken back or the policies are ended.

    Args:
        value: of the scope key that the policy chooses plans by, such as a user's id, as for `scope`.
        plan: the plan's name; None takes back what was assigned, and has the function asked anew.
        policy: the policy's name, where several have plans.

    Raises:
        LookupError: no policy, or more than one, is meant.
        ValueError: the plan is not there, or no scope can have the value.
    """
    the_runtime().policies.assign(value, plan, policy)
