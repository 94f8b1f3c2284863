"""What a budget raises. Errors explain: they carry the numbers, survive pickling, and are nothing an SDK retries.

They never hold a prompt, a completion, a key or a header value.
"""

from __future__ import annotations

from typing import Any


class BudgetExceededError(Exception):
    """A call was refused, or a stream was cut, because a budget has no room for it.

    Attributes:
        spent: USD settled on the budget when the decision was made.
        limit: the budget's limit in USD.
        model: the model that was asked for.
        tokens: {"input": …, "output": …} of the call as far as they are known.
        retry_after: seconds until the window frees room at the earliest; None where waiting does not help.
        window_spent: USD spent in the window that refused; None for a limit without a window.
        exceeded_counter: which dimension refused ("usd", …).
        budget: the budget's name, None if it has none.
        scope: the scope that it limits, such as "user.id=alice"; None for a block of code.
        held: USD that open calls hold.
        needed: USD that this call would have held.
        window_reset: Unix time in seconds at which the window starts anew; None without a window.
        reason: "exceeded", "cut", "unpriced" or "unbounded".
    """

    def __init__(
        self,
        spent: float,
        limit: float,
        model: str = "unknown",
        tokens: dict[str, int] | None = None,
        retry_after: float | None = None,
        window_spent: float | None = None,
        exceeded_counter: str | None = None,
        *,
        budget: str | None = None,
        scope: str | None = None,
        held: float = 0.0,
        needed: float | None = None,
        window_reset: float | None = None,
        reason: str = "exceeded",
        detail: str | None = None,
    ) -> None:
        self.spent = spent
        self.limit = limit
        self.model = model
        self.tokens = tokens if tokens is not None else {"input": 0, "output": 0}
        self.retry_after = retry_after
        self.window_spent = window_spent
        self.exceeded_counter = exceeded_counter
        self.budget = budget
        self.scope = scope
        self.held = held
        self.needed = needed
        self.window_reset = window_reset
        self.reason = reason
        self.detail = detail
        super().__init__(self._sentence())

    @property
    def public_message(self) -> str:
        """A sentence for an end user: it shows no amounts, no model and no other scope."""
        if self.reason == "cut":
            return "This answer was stopped because the usage limit is reached."
        return "The usage limit for this service is reached. Please try again later."

    def _sentence(self) -> str:
        name = f"Budget {self.budget!r}" if self.budget else "The budget"
        if self.scope:
            name += f" for {self.scope}"
        if self.detail:
            return f"{name}: {self.detail}"
        state = f"{name} of {_money(self.limit)} has {_money(self.spent)} spent"
        if self.held:
            state += f" and {_money(self.held)} held by open calls"
        if self.reason == "cut":
            text = f"{state}: the stream from {self.model} was cut, because nothing is left for more output."
        elif self.needed is not None:
            text = f"{state}: a call to {self.model} that needs {_money(self.needed)} does not fit and was not sent."
        else:
            text = f"{state}: a call to {self.model} does not fit and was not sent."
        if self.retry_after is not None:
            text += f" The window frees room in {self.retry_after:.0f} s at the earliest."
        return text

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), dict(self.__dict__), self.args))


class UnpricedModelError(BudgetExceededError):
    """A model without a known price was called under a money limit. The call was not sent."""


class UnboundedCallError(BudgetExceededError):
    """Under `mode="strict"`, a call whose cost nothing bounds. It was not sent; the message names the field."""


class FallbackError(ValueError):
    """The fallback of a budget is a model of another provider than the one that is called."""


def _money(usd: float) -> str:
    """USD with enough digits to mean something: cents for dollars, more for small amounts."""
    if usd == 0 or abs(usd) >= 1:
        return f"${usd:.2f}"
    text = f"{usd:.6f}".rstrip("0")
    whole, _, digits = text.partition(".")
    return f"${whole}.{digits.ljust(2, '0')}"


def _rebuild(cls: type[BudgetExceededError], state: dict[str, Any], args: tuple[Any, ...]) -> BudgetExceededError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error
