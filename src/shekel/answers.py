"""What questions about a scope return. Facts: amounts in USD where the unit is "usd", else counts; Unix times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .budgets.errors import BudgetExceededError, FallbackError
from .budgets.limits import NANO, Unit
from .budgets.tracking import ModelUsage, Tracked

if TYPE_CHECKING:
    from .budgets.budget import Budget
    from .budgets.claims import Claim
    from .ledgers.base import Balance


@dataclass(frozen=True, slots=True)
class LimitUsage:
    """One limit, now.

    Attributes:
        budget: the budget's or policy's name.
        scope: the scope that has it, such as "user.id=ada"; None for a block of code.
        unit: what it counts: "usd", "calls", "tokens", "input_tokens", "output_tokens", "tool_calls".
        model: the model it is for; None for all.
        limit, used, held, remaining: the most, what is settled, what open calls hold, and what is left, at least 0.
        share: (used + held) / limit.
        window: seconds that it looks back, or after which it starts anew when idle; None for all time and for calendar
            periods.
        resets_at: when its calendar period ends; None for others.
        enforced: whether it refuses; False where it only warns or shadows.
    """

    budget: str | None
    scope: str | None
    unit: str
    model: str | None
    limit: float
    used: float
    held: float
    remaining: float
    share: float
    window: float | None
    resets_at: float | None
    enforced: bool

    @classmethod
    def of(cls, claim: Claim, balance: Balance) -> LimitUsage:
        """From a claim and what its meter shows."""
        by = NANO if claim.unit is Unit.USD else 1
        limit = claim.whole
        taken = balance.settled + balance.held
        return cls(
            claim.name,
            claim.scope,
            claim.unit.value,
            claim.model or (" ".join(claim.models) or None),
            limit / by,
            balance.settled / by,
            balance.held / by,
            max(0, limit - claim.kept - taken) / by,
            taken / limit if limit else 1.0,
            claim.window / 1_000_000 if claim.window and claim.resets_at is None else None,
            claim.resets_at,
            claim.votes,
        )


@dataclass(frozen=True, slots=True)
class PeriodUsage:
    """What was used, by model, over one stretch.

    Attributes:
        of: what kept it: the tracked keys, such as "user.id", or a budget's name.
        period: the calendar period, such as "month:2026-11-01"; None for a budget, which keeps it since it was made or
            reset.
        ends: when the period ends; None for a budget.
        spent: USD.
        by_model: the figures of each model.
    """

    of: str
    period: str | None
    ends: float | None
    spent: float
    by_model: Mapping[str, ModelUsage]

    @property
    def calls(self) -> int:
        return sum(each.calls for each in self.by_model.values())

    @property
    def input_tokens(self) -> int:
        return sum(each.input_tokens for each in self.by_model.values())

    @property
    def output_tokens(self) -> int:
        return sum(each.output_tokens for each in self.by_model.values())

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


def period_tracked(tracked: Tracked) -> PeriodUsage:
    """What is tracked of a scope."""
    spent = sum(each.cost for each in tracked.by_model.values())
    return PeriodUsage(", ".join(tracked.keys), tracked.period, tracked.ends, round(spent, 9), tracked.by_model)


def period_of_budget(budget: Budget) -> PeriodUsage:
    """What a budget's own books show."""
    data = budget.summary_data()
    by_model = {
        model: ModelUsage(row["calls"], row["cost"], row["input_tokens"], row["output_tokens"])
        for model, row in data["by_model"].items()
    }
    return PeriodUsage(budget.name or "budget", None, None, data["total_spent"], by_model)


@dataclass(frozen=True, slots=True)
class ScopeUsage:
    """What a scope has used.

    `spent`, `calls`, `tokens` and `by_model` are those of the first of `periods`. Where none is kept, `spent`, `calls`
    and `tokens` are the most that a limit of that unit for all models shows, in its own window, else None.

    Attributes:
        scope: its entries.
        limits: every limit that it has, those that only warn included.
        periods: what is tracked of it, the most special keys first; then the budgets around, innermost first.
    """

    scope: Mapping[str, str]
    limits: tuple[LimitUsage, ...]
    periods: tuple[PeriodUsage, ...]

    @property
    def spent(self) -> float | None:
        return self.periods[0].spent if self.periods else self._most("usd")

    @property
    def calls(self) -> float | None:
        return self.periods[0].calls if self.periods else self._most("calls")

    @property
    def tokens(self) -> float | None:
        return self.periods[0].tokens if self.periods else self._most("tokens")

    @property
    def by_model(self) -> Mapping[str, ModelUsage]:
        return self.periods[0].by_model if self.periods else {}

    @property
    def held(self) -> float:
        """USD that open calls hold, on the limit in USD on which they hold most."""
        return max((each.held for each in self.limits if each.unit == "usd"), default=0.0)

    def _most(self, unit: str) -> float | None:
        return max((each.used for each in self.limits if each.unit == unit and each.model is None), default=None)


@dataclass(frozen=True, slots=True)
class Remaining:
    """What is left to a scope. A dimension that no limit for all models counts is None; see `limits` for single models.

    Attributes:
        scope: its entries.
        limits: every limit that can refuse.
    """

    scope: Mapping[str, str]
    limits: tuple[LimitUsage, ...]

    @property
    def usd(self) -> float | None:
        return self._least("usd")

    @property
    def calls(self) -> float | None:
        return self._least("calls")

    @property
    def tokens(self) -> float | None:
        return self._least("tokens")

    @property
    def input_tokens(self) -> float | None:
        return self._least("input_tokens")

    @property
    def output_tokens(self) -> float | None:
        return self._least("output_tokens")

    @property
    def tool_calls(self) -> float | None:
        return self._least("tool_calls")

    @property
    def by_model(self) -> Mapping[str, tuple[LimitUsage, ...]]:
        """The limits that are for one model, or for a pattern of models."""
        models: dict[str, tuple[LimitUsage, ...]] = {}
        for each in self.limits:
            if each.model is not None:
                models[each.model] = (*models.get(each.model, ()), each)
        return models

    @property
    def tightest(self) -> LimitUsage | None:
        """The limit of which the greatest share is taken; None without a limit."""
        return max(self.limits, key=lambda each: each.share, default=None)

    def _least(self, unit: str) -> float | None:
        return _smallest(each.remaining for each in self.limits if each.unit == unit and each.model is None)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What would become of a call. True if it would be admitted.

    Attributes:
        admitted: whether it would.
        reason: the error's reason ("exceeded", "unpriced", "unbounded", "stopped", …), "waiting" behind others that
            wait for room, or "fallback" for a fallback of another provider; None if admitted.
        model: the model that would be called: a fallback, where one takes over.
        fallback_from: the model that was asked for then.
        cap: the output cap that a strict budget would write into the request.
        error: what the call would raise.
    """

    admitted: bool
    reason: str | None
    model: str | None
    fallback_from: str | None
    cap: int | None
    error: BudgetExceededError | FallbackError | ValueError | None

    def __bool__(self) -> bool:
        return self.admitted

    @property
    def message(self) -> str | None:
        """Why not, for whoever runs the program."""
        return None if self.error is None else str(self.error)

    @property
    def public_message(self) -> str | None:
        """Why not, for an end user."""
        message: str | None = getattr(self.error, "public_message", None)
        return message


@dataclass(frozen=True, slots=True)
class Affordable:
    """How many output tokens a scope can still buy.

    Attributes:
        tokens: for each choice; None where nothing bounds them.
        by: what bounds them: the "strict" or the "expected" arithmetic of a limit, the "model" or a cap in the
            "request"; or why there are none: "unpriced", "unbounded", "stopped"; None where nothing does.
        budget, scope, unit: the limit that bounds them.
    """

    tokens: int | None
    by: str | None = None
    budget: str | None = None
    scope: str | None = None
    unit: str | None = None


def _smallest(amounts: Iterable[float]) -> float | None:
    return min(amounts, default=None)
