"""What a budget raises. Errors explain: they carry the numbers, survive pickling, and are nothing an SDK retries.

They never hold a prompt, a completion, a key or a header value. `part_errors.py` has those that name a part of a
program: a node, an agent, a tool.
"""

from __future__ import annotations

from typing import Any

from .public import sentence, with_text

COUNTERS = {
    "llm_calls": "calls",
    "input_tokens": "input tokens",
    "output_tokens": "output tokens",
    "tokens": "tokens",
    "tool_calls": "tool calls",
}
"""What `exceeded_counter` may say beside "usd", and how a sentence says it."""

_OTHER_NAMES = {"calls": "llm_calls"}


class BudgetExceededError(Exception):
    """A call was refused, or a stream was cut, because a budget has no room for it.

    Attributes:
        spent: what was settled on the limit when the decision was made: USD, or a count for a limit of calls or tokens.
        limit: the limit, in the same unit.
        model: the model that was asked for.
        tokens: {"input": …, "output": …} of the call as far as they are known.
        retry_after: seconds until the window frees room at the earliest; None where waiting does not help.
        window_spent: what was spent in the window that refused; None for a limit without a window.
        exceeded_counter: the dimension that refused: "usd", "llm_calls", "input_tokens", "output_tokens", "tokens" or
            "tool_calls"; None where nobody said.
        budget: the budget's name, None if it has none.
        scope: the scope that it limits, such as "user.id=alice"; None for a block of code.
        held: what open calls hold, in the unit of the limit.
        kept: what of the limit is kept for a last call (`last_call=`), so that this call may not spend it.
        needed: what this call would have held, in that unit.
        window_reset: Unix time in seconds at which the window starts anew; None without a window.
        reason: "exceeded", "cut", "unpriced", "unbounded", "stopped", "paused" (it waited for room in vain),
            "finished" (a stream that was let to its end went over the limit) or "busy" (a finaliser made the call in
            the middle of another decision of its thread).
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
        kept: float = 0.0,
        reason: str = "exceeded",
        detail: str | None = None,
    ) -> None:
        self.spent = spent
        self.limit = limit
        self.model = model
        self.tokens = tokens if tokens is not None else {"input": 0, "output": 0}
        self.retry_after = retry_after
        self.window_spent = window_spent
        self.exceeded_counter = None if exceeded_counter is None else counter_name(exceeded_counter)
        self.budget = budget
        self.scope = scope
        self.held = held
        self.needed = needed
        self.window_reset = window_reset
        self.kept = kept
        self.reason = reason
        self.detail = detail
        Exception.__init__(self, self._sentence())  # a subclass may have another base beside

    @property
    def public_message(self) -> str:
        """A sentence for an end user: no amounts, no model, no scope; `shekel.configure(public_message=…)` words it."""
        return sentence(self, self.reason)

    def _who(self) -> str:
        """What has the limit, as the sentence starts."""
        return who(self.budget, self.scope)

    def _state(self) -> str:
        """The limit, and what is used and held of it."""
        text = f"{self._who()} {self._used()}"
        if self.held:
            text += f" and {amount(self.held, self.exceeded_counter)} held by open calls"
        if self.kept:
            text += f", and keeps {amount(self.kept, self.exceeded_counter)} for a last call"
        return text

    def _used(self) -> str:
        return used_of(self.spent, self.limit, self.exceeded_counter)

    def _sentence(self) -> str:
        if self.detail:
            return f"{self._who()}: {self.detail}"
        call = "call" if self.model in ("", "unknown") else f"call to {self.model}"
        if self.reason == "stopped":
            return f"{self._who()} is stopped: a {call} was not sent. Its resume() lets calls pass again."
        if self.reason == "cut":
            text = f"the stream from {self.model} was cut, because nothing is left for more output."
        elif self.reason == "finished":
            text = f"the stream from {self.model} was let to its end and went over the limit."
        elif self.reason == "paused":
            text = f"a {call} waited for room, got none in time and was not sent."
        elif self.needed is not None and self.exceeded_counter != "llm_calls":
            text = f"a {call} that needs {amount(self.needed, self.exceeded_counter)} does not fit and was not sent."
        else:
            text = f"a {call} does not fit and was not sent."
        return f"{self._state()}: {text}{frees_room(self.retry_after)}"

    def __reduce__(self) -> tuple[Any, ...]:
        return (rebuild, (type(self), with_text(self), self.args))


class UnpricedModelError(BudgetExceededError):
    """A model without a known price was called under a money limit. The call was not sent."""


class UnboundedCallError(BudgetExceededError):
    """Under `mode="strict"`, a call whose cost nothing bounds. It was not sent; the message names the field."""


class BudgetPausedError(BudgetExceededError):
    """A call waited for room, as its budget asks for, and got none in time. It was not sent."""


class FallbackError(ValueError):
    """The fallback of a budget is a model of another provider than the one that is called."""

    @property
    def public_message(self) -> str:
        """A sentence for an end user: no amounts and no models."""
        return sentence(self, "unbounded")


def counter_name(name: str) -> str:
    """The name of a dimension in `exceeded_counter`: what the vocabulary calls it."""
    return _OTHER_NAMES.get(str(name), str(name))


def who(budget: str | None, scope: str | None) -> str:
    """A budget, as a sentence starts with it."""
    name = f"Budget {budget!r}" if budget else "The budget"
    return f"{name} for {scope}" if scope else name


def used_of(spent: float, limit: float, counter: str | None, *, part: bool = False) -> str:
    """How much of a limit is used: "of $5.00 has $4.99 spent", or "has 3 of 3 calls used".

    After the name of a part comes that of its budget, whose limit its cap is not: "has $0.99 of its cap of $1.00
    spent".
    """
    if counter in COUNTERS:
        return f"has {_count(spent)} of {_count(limit)} {COUNTERS[counter]} used"
    if part:
        return f"has {money(spent)} of its cap of {money(limit)} spent"
    return f"of {money(limit)} has {money(spent)} spent"


def amount(value: float, counter: str | None) -> str:
    """An amount in the unit of a dimension, without the unit's name where it is a count."""
    return _count(value) if counter in COUNTERS else money(value)


def frees_room(retry_after: float | None) -> str:
    """When waiting helps, as a sentence to append."""
    return "" if retry_after is None else f" The window frees room in {retry_after:.0f} s at the earliest."


def money(usd: float) -> str:
    """USD with enough digits to mean something: cents for dollars, more for small amounts."""
    if usd == 0 or abs(usd) >= 1:
        return f"${usd:.2f}"
    text = f"{usd:.6f}".rstrip("0")
    whole, _, digits = text.partition(".")
    return f"${whole}.{digits.ljust(2, '0')}"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def rebuild(cls: type[Exception], state: dict[str, Any], args: tuple[Any, ...]) -> Exception:
    """An error as it was pickled or copied, without running its constructor."""
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error
