"""Budgets: a limit on a block of code, kept over as many blocks as it is entered.

A budget is a meter with a limit, and the bookkeeping that its owner reads: what was spent, what open streams cost so
far, how much may still exceed the limit. It knows no SDK and no wire: calls find it through the context.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Self

from opentelemetry.context import Context

from .. import context, faults, late
from ..call import Call
from ..ledgers.base import Ledger
from ..settlement import Cost, Outcome
from ..telemetry import names
from .arguments import fallback_of, price_of, share
from .claims import Claim
from .keywords import as_limit
from .limits import NANO, Limit, Mode, as_mode

KEPT_CALLS = 1_000
"""How many of its last calls a budget keeps for `summary_data`; totals go on."""

_entered: ContextVar[tuple[tuple[Budget, Token[Context]], ...]] = ContextVar("shekel-entered", default=())
_numbers = itertools.count(1)

activated: list[Callable[[], None]] = []
"""Run when a block is entered: what makes calls visible is put in place (the doors know it; budgets do not)."""

deactivated: list[Callable[[], None]] = []


def _no_ledger() -> Ledger:
    raise RuntimeError("no ledger: the parts were not put together")


ledger: Callable[[], Ledger] = _no_ledger
"""The ledger of this process; set where the parts are put together."""


def _forget_nothing(meters: list[Any]) -> None:
    return


forget: Callable[[list[Any]], None] = _forget_nothing
"""Called with the meters of a budget that is gone."""


class _Meter:
    """A meter in memory belongs to its budget object: two budgets of one name are two meters."""

    __slots__ = ("label",)

    def __init__(self, label: str) -> None:
        self.label = label

    def __repr__(self) -> str:
        return f"<meter {self.label}>"


class Budget:
    """A limit in USD for a block of code. Make one with `budget(...)`.

    Use it with `with` or `async with`, as often as you like: spending accumulates. Calls made inside the block are
    charged to it, and to every budget around it; a stream belongs to the blocks it was opened in, wherever it is
    consumed.

    Args:
        max_usd: the limit in USD, above 0; a number, or a spec such as "$5" or "$5/day". None only counts.
        name: what messages, spans and metrics call it.
        mode: "sliced" (default), "strict" or "expected"; see `Mode`.
        fallback: {"at_pct": share, "model": name}: from this share of the limit on (0 < share ≤ 1), calls go to that
            model, which must be one of the same provider.
        on_fallback: called with (spent, limit, model) when the fallback takes over, once.
        warn_at: a share of the limit (0 < share ≤ 1) at which to warn, once.
        on_warn: called with (spent, limit) then; without it, `warnings.warn`.
        price_per_1k_tokens: {"input": USD, "output": USD}: a price for every model called in the block.
        unpriced: "refuse" (default) or "allow": what happens to a model without a known price.

    Raises:
        ValueError: an argument that makes no sense; the message names it, the value and the remedy.
    """

    def __init__(
        self,
        max_usd: float | str | Limit | None = None,
        *,
        name: str | None = None,
        mode: str | Mode = Mode.SLICED,
        fallback: dict[str, Any] | None = None,
        on_fallback: Callable[[float, float, str], object] | None = None,
        warn_at: float | None = None,
        on_warn: Callable[[float, float], object] | None = None,
        price_per_1k_tokens: dict[str, float] | None = None,
        unpriced: str = "refuse",
    ) -> None:
        if name is not None and (not isinstance(name, str) or not name.strip()):
            raise ValueError(f"name must be a text that is not empty, not {name!r}: leave it out for no name.")
        if unpriced not in ("refuse", "allow"):
            raise ValueError(f"unpriced must be 'refuse' or 'allow', not {unpriced!r}.")
        self.name = name
        self.mode = as_mode(mode)
        self._limit = None if max_usd is None else as_limit(max_usd, "max_usd")
        self.fallback = fallback
        self._fallback = fallback_of(fallback)
        self._warn_at = None if warn_at is None else share(warn_at, "warn_at")
        self._on_warn = on_warn
        self._on_fallback = on_fallback
        self._price = price_of(price_per_1k_tokens)
        self.price_override = price_per_1k_tokens
        self._allow_unpriced = unpriced == "allow"
        self._base_meter = _Meter(name or f"budget {next(_numbers)}")
        self._meters: dict[str | None, Any] = {None: self._base_meter}
        self._open: dict[str, tuple[Call, int]] = {}
        self._residual: float = 0
        self._peak: float = 0
        self._calls: deque[dict[str, Any]] = deque(maxlen=KEPT_CALLS)
        self._by_model: dict[str, dict[str, Any]] = {}
        self._count = 0
        self._total = 0
        self._fallback_total = 0
        self._depth = 0
        self._warned: dict[str | None, object] = {}
        self._books = threading.Lock()
        """Held over the additions below only: never over a callback, the ledger or I/O."""
        self._switched_at: int | None = None

    # The block

    def __enter__(self) -> Self:
        for activate in activated:
            activate()
        here = context.current()
        stack: tuple[Budget, ...] = here.get(context.BUDGETS, ())  # type: ignore[assignment]
        token = context.attach(Context({**here, context.BUDGETS: (*stack, self)}))
        _entered.set((*_entered.get(), (self, token)))
        self._depth += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        entries = _entered.get()
        for index in range(len(entries) - 1, -1, -1):
            if entries[index][0] is self:
                context.detach(entries[index][1])
                _entered.set(entries[:index] + entries[index + 1 :])
                break
        self._depth -= 1
        for deactivate in deactivated:
            deactivate()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    # What it shows

    @property
    def limit(self) -> float | None:
        """The limit in USD; None if it only counts."""
        return None if self._limit is None else self._limit.usd

    @property
    def spent(self) -> float:
        """USD spent in the current window, with the running estimates of open streams."""
        late.flush()
        running = sum(call.running() for call, _ in list(self._open.values()))
        return (ledger().read(self._meter()).settled + running) / NANO

    @property
    def held(self) -> float:
        """USD that open calls hold."""
        late.flush()
        return ledger().read(self._meter()).held / NANO

    @property
    def remaining(self) -> float | None:
        """USD that new calls can still hold: limit − settled − held, at least 0; None without a limit."""
        if self._limit is None:
            return None
        late.flush()
        balance = ledger().read(self._meter())
        return max(0, self._limit.nano - balance.settled - balance.held) / NANO

    @property
    def exposure(self) -> float:
        """USD by which spending may exceed the limit at worst, now: what open calls can cost beyond their holds, and
        what ended calls whose usage nobody reported can have cost beyond their estimate. `inf` where nothing bounds a
        call; 0 in strict mode."""
        late.flush()
        return self._exposure() / NANO

    @property
    def peak_exposure(self) -> float:
        """The greatest finite `exposure` in USD since the budget was made: the bound on its overspending."""
        return self._peak / NANO

    @property
    def calls_used(self) -> int:
        """Calls that were charged: all that ended, but those that were refused or never reached the provider."""
        late.flush()
        return self._count

    @property
    def model_switched(self) -> bool:
        """Whether the fallback has taken over."""
        return self._switched_at is not None

    @property
    def switched_at_usd(self) -> float | None:
        """USD spent when the fallback took over; None if it has not."""
        return None if self._switched_at is None else self._switched_at / NANO

    @property
    def fallback_spent(self) -> float:
        """USD spent on the fallback model."""
        return self._fallback_total / NANO

    def summary_data(self) -> dict[str, Any]:
        """Everything as plain data: totals since the budget was made, and its last 1,000 calls, in USD and tokens."""
        late.flush()
        return {
            "total_spent": self._total / NANO,
            "limit": self.limit,
            "calls_used": self._count,
            "calls_limit": None,
            "model_switched": self.model_switched,
            "switched_at_usd": self.switched_at_usd,
            "fallback_model": None if self._fallback is None else self._fallback.model,
            "fallback_spent": self.fallback_spent,
            "total_calls": self._count,
            "calls": [dict(call) for call in self._calls],
            "by_model": {model: dict(row) for model, row in self._by_model.items()},
        }

    def reset(self) -> None:
        """Forget what was spent. Open calls keep their holds.

        Raises:
            RuntimeError: inside one of its own blocks.
        """
        if self._depth:
            raise RuntimeError("a budget cannot be reset inside its own block: leave the block first.")
        late.flush()
        for meter in self._meters.values():
            ledger().reset(meter)
        self._calls.clear()
        self._by_model.clear()
        self._warned.clear()
        self._count = self._total = self._fallback_total = 0
        self._residual = self._peak = 0
        self._switched_at = None

    def __repr__(self) -> str:
        limit = "no limit" if self._limit is None else f"${self._limit.usd:g}"
        return f"<Budget {self.name or ''} {limit} {self.mode}>".replace("  ", " ")

    # What calls do with it (`Account`)

    def claim(self, now: float) -> Claim:
        """What a call at the Unix time `now` is charged to."""
        window, resets_at = (None, None) if self._limit is None else self._limit.place(now)
        return Claim(
            meter=self._meter(window),
            limit=None if self._limit is None else self._limit.nano,
            mode=self.mode,
            name=self.name,
            resets_at=resets_at,
            account=self,
            fallback=self._fallback,
            price=self._price() if self._price is not None else None,
            allow_unpriced=self._allow_unpriced,
        )

    def call_opened(self, call: Call, index: int) -> None:
        with self._books:
            self._open[call.id] = (call, index)
            exposure = self._exposure()
            if self._peak < exposure < math.inf:
                self._peak = exposure

    def call_settled(self, call: Call, cost: Cost, amount: int) -> None:
        with self._books:
            self._book(call, cost, amount)

    def _book(self, call: Call, cost: Cost, amount: int) -> None:
        self._open.pop(call.id, None)
        self._residual += math.inf if cost.committed is None else max(0, cost.committed - amount)
        usage = cost.usage
        if call.outcome is Outcome.FAILED and amount == 0 and usage is None:
            return
        self._count += 1
        self._total += amount
        model = (call.answer.model if call.answer is not None else None) or call.model
        fell_back = call.fallback_from is not None
        if fell_back:
            self._fallback_total += amount
        self._calls.append(
            {
                "model": model,
                "cost": amount / NANO,
                "input_tokens": usage.input if usage is not None else 0,
                "output_tokens": usage.output if usage is not None else 0,
                "fallback": fell_back,
                "estimated": cost.estimated,
                "outcome": str(call.outcome),
            }
        )
        row = self._by_model.setdefault(model, {"calls": 0, "cost": 0.0, "input_tokens": 0, "output_tokens": 0})
        row["calls"] += 1
        row["cost"] += amount / NANO
        row["input_tokens"] += usage.input if usage is not None else 0
        row["output_tokens"] += usage.output if usage is not None else 0

    def after_settlement(self, call: Call) -> None:
        """Warn if the threshold is passed. Called outside any lock, after the ledger has settled."""
        if self._warn_at is None or self._limit is None:
            return
        window, _ = self._limit.place(call.started_wall)
        settled = ledger().read(self._meter(window)).settled
        if settled < self._warn_at * self._limit.nano:
            return
        mine = object()
        if self._warned.setdefault(window, mine) is not mine:  # one step: however many threads cross the threshold
            return
        spent, limit = settled / NANO, self._limit.usd
        told = {names.BUDGET_LIMIT_USD: limit, names.BUDGET_SPENT_USD: spent}
        call.teller.event(
            call, names.EVENT_WARNING, told if self.name is None else {names.BUDGET_NAME: self.name, **told}
        )
        if self._on_warn is not None:
            _call_back("called on_warn", self._on_warn, spent, limit)
        else:
            warnings.warn(
                f"budget {self.name or ''} has spent ${spent:.4f} of ${limit:.2f}".replace("  ", " "), stacklevel=2
            )

    def switched(self, call: Call, model: str, spent: int) -> None:
        with self._books:
            if self._switched_at is not None:
                return
            self._switched_at = spent
        if self._on_fallback is not None and self._limit is not None:
            _call_back("called on_fallback", self._on_fallback, spent / NANO, self._limit.usd, model)

    def _exposure(self) -> float:
        return self._residual + sum(call.exposed(index) for call, index in list(self._open.values()))

    def _meter(self, window: str | None = None) -> Any:
        if window is None and self._limit is not None and self._limit.window is not None:
            window, _ = self._limit.place(time.time())
        meter = self._meters.get(window)
        if meter is None:
            meter = self._meters.setdefault(window, _Meter(f"{self._base_meter.label} {window}"))
        return meter

    def __del__(self) -> None:
        try:
            meters = list(self._meters.values())
        except AttributeError:  # it was refused while it was being made
            return
        late.put(lambda: forget(meters))


class BudgetsOfContext:
    """The payer for the blocks around a call."""

    def claims(self, here: Context, now: float) -> Iterable[Claim]:
        stack: tuple[Budget, ...] = here.get(context.BUDGETS, ())  # type: ignore[assignment]
        return [each.claim(now) for each in stack]


def _call_back(place: str, function: Callable[..., object], *args: object) -> None:
    try:
        function(*args)
    except Exception as error:
        faults.report(place, error)
