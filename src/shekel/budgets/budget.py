"""Budgets: a limit on a block of code, kept over as many blocks as it is entered.

A budget is a few meters with limits, and the bookkeeping that its owner reads: what was spent, what open streams cost
so far, how much may still exceed the limit. It knows no SDK and no wire: calls find it through the context.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from opentelemetry.context import Context

from .. import context, enclosing, late, locks
from ..shown import shown
from . import wiring
from .arguments import callback_of, fallbacks_of, flag_of, price_of, seconds_of, shares_of, tool_prices_of
from .asking import Allowance, Exceeded
from .books import Books
from .claims import AtLimit, Claim
from .family import Family
from .inside import inside
from .keywords import further, limits_of
from .known_names import KnownNames
from .limits import Limit, Mode, Unit, agree, as_mode, money
from .loops import LoopGuard
from .parts import Parts
from .presence import Block
from .queues import Queue
from .slots import Slot
from .steering import Steering
from .thresholds import Thresholds
from .velocity import velocities

P = ParamSpec("P")
R = TypeVar("R")

_entered: ContextVar[tuple[Block, ...]] = ContextVar("shekel-entered", default=())
"""The blocks entered in this context."""
_numbers = itertools.count(1)
made: weakref.WeakSet[Budget] = weakref.WeakSet()
"""Every budget there is: a forked child has to set them right."""


class Budget(Steering, KnownNames):
    """Limits for a block of code. Make one with `budget(...)`.

    Use it with `with` or `async with`, as often as you like: spending accumulates. Calls made inside the block are
    charged to it, and to every budget around it; a stream belongs to the blocks it was opened in, wherever it is
    consumed.

    Args:
        max_usd: the limit in USD, above 0; a number, or a spec such as "$5", "$5/day" or "$5/hr + 100 calls/hr".
            None only counts.
        name: what messages, spans and metrics call it.
        mode: "sliced" (default), "strict" or "expected"; see `Mode`.
        at_limit: "raise" (default), "warn", "shadow", "pause" or "finish": what happens where a call does not fit;
            see `AtLimit`.
        limits: further limits: a list of `Limit`s.
        max_wait: seconds that a call waits at most with at_limit="pause".
        fallback: {"at_pct": share, "model": name}, or a list of them with rising shares: from that share of the limit
            on (0 < share ≤ 1), or where the model asked for does not fit, calls go to that model, which must be one of
            the same provider. A plain name means from 0.8 on.
        on_fallback: called with (spent, limit, model) when a fallback takes over, once. May be async, as `on_warn`.
        warn_at: a share of the limit (0 < share ≤ 1) at which to warn, or several; each once per window.
        on_warn: called with (spent, limit) then; without it, `warnings.warn`. An async one is run by the thread's event
            loop, else by one of Shekel's own.
        on_exceed: called with an `Exceeded` before a call is refused, for each limit that lacks room; it may grant an
            amount (a number, True for what is lacking, or an `Allowance` that says who and why), or return None. Of a
            count, a fraction is the next whole one. May be async for async clients.
        last_call: USD of the limit that are kept for calls inside `with b.last_call():`.
        price_per_1k_tokens: {"input": USD, "output": USD}: a price for every model called in the block.
        unpriced: "refuse" (default) or "allow": what happens to a model without a known price under a limit in USD.
        max_llm_calls: the most calls.
        max_tool_calls: the most runs of tools (see `tool`).
        tool_prices: {"tool": USD per run}; they go before the prices that `@tool` names.
        warn_only: the same as at_limit="warn".
        loop_guard: whether to stop a tool that runs more often than this within a time, with `AgentLoopError`:
        loop_guard_max_calls: so often, at least once.
        loop_guard_window_seconds: within the last so many seconds; 0 for all time.
        max_input_tokens: the most input tokens.
        max_output_tokens: the most output tokens.
        max_tokens: the most tokens, input and output together.
        window_seconds: the limits count within a sliding window of so many seconds.
        models: {"model": limit}: limits for calls of one model, in USD or as a spec.
        max_velocity: a rate, such as "$1/min"; a call that would go over it raises `SpendVelocityExceededError`.
        warn_velocity: a lower rate at which to warn, each time it is reached anew.

    Raises:
        ValueError: an argument that makes no sense; the message names it, the value and the remedy.
    """

    def __init__(
        self,
        max_usd: float | str | Limit | None = None,
        warn_at: float | Iterable[float] | None = None,
        on_warn: Callable[[float, float], object] | None = None,
        price_per_1k_tokens: dict[str, float] | None = None,
        fallback: Any = None,
        on_fallback: Callable[[float, float, str], object] | None = None,
        name: str | None = None,
        max_llm_calls: int | None = None,
        max_tool_calls: int | None = None,
        tool_prices: Mapping[str, float] | None = None,
        warn_only: bool = False,
        loop_guard: bool = False,
        loop_guard_max_calls: int = 5,
        loop_guard_window_seconds: float = 60.0,
        max_velocity: str | None = None,
        warn_velocity: str | None = None,
        *,
        mode: str | Mode | None = None,
        at_limit: str | AtLimit = AtLimit.RAISE,
        max_wait: float = 60.0,
        limits: Iterable[Limit] = (),
        on_exceed: Callable[[Exceeded], Any] | None = None,
        last_call: float | None = None,
        unpriced: str = "refuse",
        max_input_tokens: int | None = None,
        max_output_tokens: int | None = None,
        max_tokens: int | None = None,
        window_seconds: float | None = None,
        models: Mapping[str, Any] | None = None,
    ) -> None:
        if name is not None and (not isinstance(name, str) or not name.strip()):
            raise ValueError(f"name must be a text that is not empty, not {shown(name)}: leave it out for no name.")
        if unpriced not in ("refuse", "allow"):
            raise ValueError(f"unpriced must be 'refuse' or 'allow', not {shown(unpriced)}.")
        self.name = name
        self.mode = wiring.default_mode if mode is None else as_mode(mode)
        self.at_limit = _at_limit(at_limit)
        if flag_of(warn_only, "warn_only"):
            if self.at_limit not in (AtLimit.RAISE, AtLimit.WARN):
                raise ValueError(f"warn_only=True and at_limit={str(self.at_limit)!r} contradict each other: keep one.")
            self.at_limit = AtLimit.WARN
        self.warn_only = self.at_limit is AtLimit.WARN
        self.max_wait = seconds_of(max_wait, "max_wait")
        self._number = next(_numbers)
        label = name or f"budget {self._number}"
        every = limits_of(
            max_usd=max_usd,
            max_llm_calls=max_llm_calls,
            max_tool_calls=max_tool_calls,
            max_input_tokens=max_input_tokens,
            max_output_tokens=max_output_tokens,
            max_tokens=max_tokens,
            window_seconds=window_seconds,
            models=models,
        )
        every = agree((*every, *further(limits)), "the budget")
        money_first = sorted(every, key=lambda limit: (limit.unit is not Unit.USD, limit.model is not None))
        self._slots = [Slot(limit, label) for limit in money_first]
        if not self._slots or self._slots[0].unit is not Unit.USD or self._slots[0].model is not None:
            self._slots.insert(0, Slot(None, label))
        rate, slower = velocities(max_velocity, warn_velocity)
        if rate is not None:
            agree((*every, rate), "the budget")
            self._slots.append(Slot(rate, label, rate_of=max_velocity))
        if slower is not None:
            self._slots.append(Slot(slower, label, at_limit=AtLimit.WARN, rate_of=warn_velocity))
        self._reserve = 0 if last_call is None else money(last_call, "last_call")
        first = self._slots[0].limit
        if self._reserve and (first is None or self._reserve >= first.amount):
            raise ValueError(
                f"last_call={shown(last_call)} must be less than the limit in USD, a part of which it keeps."
            )
        self.fallback = fallback
        self._fallbacks = fallbacks_of(fallback)
        if self._fallbacks and not every:
            raise ValueError(f"fallback={shown(fallback)} has no limit whose share it waits for: give max_usd, too.")
        self.on_exceed = callback_of(on_exceed, "on_exceed")
        self._on_fallback = callback_of(on_fallback, "on_fallback")
        if on_fallback is not None and not self._fallbacks:
            raise ValueError("on_fallback has no fallback to tell of: give fallback, too.")
        shares = shares_of(warn_at)
        if self.at_limit is AtLimit.WARN:
            shares = (*shares, 1.0) if 1.0 not in shares else shares
        self._thresholds = Thresholds(shares, callback_of(on_warn, "on_warn"))
        self._rates = Thresholds((1.0,), on_warn)
        self._prices = tool_prices_of(tool_prices)
        self.tool_prices = tool_prices
        self.loop_guard = flag_of(loop_guard, "loop_guard")
        self.loop_guard_max_calls = loop_guard_max_calls
        self.loop_guard_window_seconds = loop_guard_window_seconds
        guard = LoopGuard(loop_guard_max_calls, loop_guard_window_seconds)  # what makes no sense is said also if unused
        self.loops = guard if loop_guard else None
        if self.loops is not None or self._prices or any(slot.unit is Unit.TOOL_CALLS for slot in self._slots):
            enclosing.want()
        self.parts = Parts()
        self.family = Family()
        self._price = price_of(price_per_1k_tokens)
        self.price_override = price_per_1k_tokens
        self._allow_unpriced = unpriced == "allow"
        self._warns = bool(shares) or slower is not None
        self.queue = Queue()
        self._books = Books()
        self._made: dict[bool, tuple[float, tuple[Claim, ...]]] = {}
        self._depth = 0
        self._stopped = False
        self._allowances: list[Allowance] = []
        self.myself = weakref.ref(self)
        made.add(self)

    # The block

    def __enter__(self) -> Self:
        here = context.current()
        stack: tuple[Budget, ...] = here.get(context.BUDGETS, ())  # type: ignore[assignment]
        parent = None
        if self not in stack:
            parent = stack[-1] if stack else None
            if parent is not None:
                parent.family.adopt(parent, self)
            self.family.parent = parent
        _entered.set((*_entered.get(), Block(self, here, parent)))
        with locks.books:
            self._depth += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with locks.books:
            if not self._depth:
                return
            self._depth -= 1
        entries = _entered.get()
        parent = self.family.parent  # what is known where a block is left in another context than it was entered in
        for index in range(len(entries) - 1, -1, -1):
            block = entries[index]
            if block.budget is self:
                parent = block.parent
                _entered.set(entries[:index] + entries[index + 1 :])
                block.leave()
                break
        if parent is not None:
            parent.family.leave(self)

    @property
    def entered(self) -> bool:
        """Whether a block of it is open now."""
        return self._depth > 0

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    @contextmanager
    def last_call(self) -> Any:
        """A block whose calls may also spend what `last_call=` has kept back: `with b.last_call(): ...`.

        They do not stand behind those that wait (at_limit="pause"), which wait for the rest.
        """
        here = context.current()
        opened = context.last_calls(here)
        token = context.attach(Context({**here, context.LAST_CALL: opened | {id(self)}}))
        try:
            yield self
        finally:
            context.detach(token)

    def bind(self, function: Callable[P, R]) -> Callable[P, R]:
        """A function whose calls are charged here, in whatever thread, executor or task it runs.

        The budgets and the scope around `bind` go with it. For threads that start without a context:
        `executor.submit(b.bind(work), item)`. Also for async functions and generators.

        Raises:
            TypeError: it is no function.
        """
        around = context.current()

        @contextmanager
        def block(*args: Any, **kwargs: Any) -> Iterator[None]:
            token = context.attach(around)
            try:
                with self:
                    yield
            finally:
                context.detach(token)

        return inside(function, block)

    def run(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function inside the block, and return what it returns (for an async one, its coroutine)."""
        return self.bind(function)(*args, **kwargs)

    def __repr__(self) -> str:
        limits = " + ".join(str(slot.limit) for slot in self._slots if slot.limit is not None) or "no limit"
        return f"<Budget {self.name or ''} {limits} {self.mode}>".replace("  ", " ")

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            f"a {type(self).__name__} cannot be copied or pickled, as a copy would allow its limits again: use this "
            "object in all threads and tasks, or make a new one with budget(...)."
        )

    def forked(self) -> None:
        """In a child process: what the parent had open, and who waits there, is the parent's."""
        self._books.open.clear()
        self.queue.forked()
        self.family.forked()

    def __del__(self) -> None:
        try:
            meters = [*(meter for slot in self._slots for meter in slot.meters()), *self._other_meters()]
            late.put(lambda: wiring.forget(meters))
        except (AttributeError, TypeError):  # it was refused while it was made; or Python ends, and modules are empty
            return


def _at_limit(value: Any) -> AtLimit:
    if not isinstance(value, str) or value not in set(AtLimit):
        raise ValueError(f"at_limit must be 'raise', 'warn', 'shadow', 'pause' or 'finish', not {shown(value)}.")
    return AtLimit(value)
