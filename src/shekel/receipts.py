"""Receipts: what an answer cost, for a line of code that wants to print it: `shekel.call_of(response)`.

The program's object stays the SDK's own: nothing is hung on it. A receipt is found by the object's identity for as
long as the object lives, and holds numbers only, no request and no text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from weakref import ref

from .usage import Usage

if TYPE_CHECKING:
    from .call import Call
    from .settlement import Cost

NANO = 1_000_000_000

_WAYS = ("response", "http_response", "_response", "_raw_stream", "_iterator", "_stream", "_AsyncMessageStream__stream")
"""Where the SDKs' helpers keep the stream or the HTTP response that they wrap."""

_DEEP = 4


class Receipt:
    """One call, as far as it is known. Ask again when a stream has ended: then it is complete.

    Attributes:
        id: the call's id, which `shekel.reconcile` takes.
    """

    __slots__ = ("__weakref__", "_budget", "_call", "_cost", "_outcome", "id", "model")

    def __init__(self, call: Call) -> None:
        self.id = call.id
        self.model: str = call.model
        """The model that was asked for (the fallback, where one took over); the one that answered, once known."""
        self._call: ref[Call] | None = ref(call)
        self._cost: Cost | None = None
        self._outcome: str | None = None
        name = next((claim.name for claim in reversed(call.claims) if claim.name is not None), None)
        self._budget = name

    def close(self, call: Call, cost: Cost) -> None:
        """The call has ended."""
        self._cost = cost
        self._outcome = None if call.outcome is None else call.outcome.value
        if call.answer is not None and call.answer.model:
            self.model = call.answer.model
        self._call = None

    @property
    def ended(self) -> bool:
        """Whether the call has ended, and its cost is final."""
        return self._cost is not None

    @property
    def outcome(self) -> str | None:
        """How it ended: "complete", "cut", "closed", …; None while it is open."""
        return self._outcome

    @property
    def usage(self) -> Usage | None:
        """What was consumed; None while that is unknown."""
        return None if self._cost is None else self._cost.usage

    @property
    def cost(self) -> float | None:
        """USD: what the call cost, or what an open stream has cost so far; None where the price is unknown. It is what
        was known when the call ended: `shekel.reconcile` corrects budgets and policies, not receipts."""
        cost = self._cost
        if cost is not None:
            return cost.spent / NANO if cost.priced else None
        call = None if self._call is None else self._call()
        return None if call is None or call.quote is None else call.running() / NANO

    @property
    def estimated(self) -> bool:
        """Whether `cost` is an estimate: the provider did not tell the usage, or not yet."""
        return self._cost is None or self._cost.estimated

    @property
    def budget(self) -> str | None:
        """The name of the innermost named budget that it was charged to."""
        return self._budget

    def __repr__(self) -> str:
        cost = self.cost
        money = "cost unknown" if cost is None else f"${cost:.6f}{' (estimated)' if self.estimated else ''}"
        return f"<call {self.id} {self.model} {money}>"


_known: dict[int, tuple[ref[Any], Receipt]] = {}


def issue(call: Call, thing: Any) -> None:
    """Let `call_of` find the call by an object that the program will have. An object that cannot be watched is left."""
    receipt = call.receipt
    if receipt is None:
        receipt = call.receipt = Receipt(call)
        if call.cost is not None:
            receipt.close(call, call.cost)
    key = id(thing)
    try:
        # The callback may run in any lock, so it takes none: removing a key of a dict is one step.
        _known[key] = (ref(thing, lambda gone: _drop(key, gone)), receipt)
    except TypeError:
        return


def _drop(key: int, gone: ref[Any]) -> None:
    known = _known.get(key)
    if known is not None and known[0] is gone:
        _known.pop(key, None)


def call_of(response_or_stream: Any) -> Receipt:
    """The call that a response or a stream of an SDK belongs to: its id, usage and cost.

        response = client.chat.completions.create(...)
        print(shekel.call_of(response).cost)

    Args:
        response_or_stream: what a method of the SDK returned: an answer, a stream, the object of a `stream()` helper,
            or a raw response.

    Returns:
        a receipt; for a stream that is still open it shows the cost so far, and the final one later.

    Raises:
        LookupError: Shekel did not see the call.
    """
    for thing in _inside(response_or_stream, _DEEP):
        known = _known.get(id(thing))
        if known is not None and known[0]() is thing:
            return known[1]
    raise LookupError(
        f"no call is known for this {type(response_or_stream).__name__}: it must be what the SDK returned, from a call "
        "made inside a budget, or after instrument()."
    )


def _inside(thing: Any, deep: int) -> Iterator[Any]:
    """The object, and what it wraps."""
    yield thing
    if deep == 0:
        return
    own = getattr(thing, "__dict__", None)
    if not isinstance(own, dict):
        return
    for name in list(own):
        if name in _WAYS or name.endswith(("__raw_stream", "__stream", "_response")):
            yield from _inside(own[name], deep - 1)
