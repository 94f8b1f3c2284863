"""The runtime: the parts of one process, put together. Ledger, prices, estimates, policies, gate, teller, doors.

There is one (`the_runtime()`), made at the first use. It holds no rules: it says only who works with whom, counts who
needs the doors, and finishes what is open when the interpreter exits.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.context import Context
from wrapt import register_post_import_hook

from . import deliveries, enclosing, faults, late, locks
from .budgets import budget as budgets
from .budgets import presence, tools, wiring
from .budgets.around import BudgetsOfContext
from .budgets.claims import Claim
from .budgets.scope import entries
from .budgets.traced_gate import TracedGate
from .call import Call, open_calls
from .call import forked as call_ids_forked
from .doors.seams import SDKS
from .doors.stainless import Door
from .estimation import Estimator
from .ledgers.memory import MemoryLedger
from .package import version
from .policies.environment import Environment
from .policies.following import Following
from .policies.in_force import Policies
from .scopes import counts
from .scopes.outside import outside
from .settings import Settings
from .settlement import Outcome
from .telemetry import listeners, providers
from .telemetry.metrics import BudgetRow, scope_keys
from .telemetry.teller import Teller

if TYPE_CHECKING:
    from .pricing import Prices

NANO = 1_000_000_000


class Runtime:
    """The parts of one process. Use `the_runtime()`."""

    def __init__(self) -> None:
        self.ledger = MemoryLedger()
        locks.watched.append(self.ledger.inside)
        self.estimator = Estimator()
        self.environment = Environment(lambda: self.teller.provider())
        self.policies = Policies(self.environment)
        self._prices: Prices | None = None
        self.usage_hosts = frozenset(
            host.strip() for host in os.environ.get("SHEKEL_INCLUDE_USAGE_HOSTS", "").split(",") if host.strip()
        )
        self.gate = TracedGate(
            self.ledger,
            self.prices,
            self.estimator,
            (BudgetsOfContext(), self.policies),
            overran=self._overran,
            violated=self._violated,
            shadowed=self._shadowed,
        )
        self.teller = Teller(self._rows, version())
        self.gate.tool_refused = lambda error, here: self.teller.tool_refused(error, here, entries(here))
        self.teller.metric_scopes = scope_keys(os.environ.get("SHEKEL_METRIC_SCOPES", "").split(","))
        self.traced_seen = False
        """Whether a span of somebody else has stood for a call: until then doors need not look for one."""
        self.doors = tuple(Door(sdk, self) for sdk in SDKS)
        outside.asked = self._asked
        self._users = 0
        self._hooked = False
        self.lock = threading.RLock()
        self.settings = Settings(self)
        self.following = Following(self.policies, self.lock, self.settings.adopt)
        locks.at_fork[:0] = [self.lock]
        locks.watched.append(self.lock._is_owned)  # type: ignore[attr-defined]
        locks.at_fork += [self.ledger.lock, faults.lock, outside.lock, counts.lock]
        self._processors: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
        self._seen: tuple[Any, Any, Any] = (None, None, None)

    def prices(self) -> Prices:
        """The price list, loaded when it is first needed."""
        if self._prices is None:
            from .pricing import Prices

            made = Prices()
            with self.lock:
                if self._prices is None:
                    self._prices = made
                    locks.at_fork.insert(1, made.lock)
        return self._prices

    # The doors: `instrument()` is one user of them, each listener and each block in force another

    def acquire_doors(self) -> None:
        """Somebody needs to see calls from now on."""
        with self.lock:
            self._users += 1
        self.open_doors()

    def release_doors(self) -> None:
        """Somebody needs them no more; the last one takes them off."""
        with self.lock:
            self._users = max(0, self._users - 1)
        self.close_doors()

    def open_doors(self) -> None:
        """Put the doors in place, and put back what somebody else took off."""
        if enclosing.wanted:
            self.watch_provider()
        imported = [(door, door.sdk.imported()) for door in self.doors]  # outside the lock: it may wait for a thread
        with self.lock:
            if not any(door.is_in_place for door in self.doors):
                providers.tell_of_new(self.watch)
            for door, module in imported:
                if not self._hooked:
                    register_post_import_hook(_hook(self, door), door.sdk.module)
                elif module is not None:
                    _install(door, module)
            self._hooked = True

    def close_doors(self) -> None:
        """Take the doors off, unless somebody needs them."""
        with self.lock:
            if not self.wanted:
                for door in self.doors:
                    door.remove()

    def has_door(self, sdk: str | None) -> bool:
        """Whether the calls of an SDK pass a door now."""
        return sdk is not None and any(door.sdk.name == sdk and door.is_in_place for door in self.doors)

    @property
    def wanted(self) -> bool:
        """Whether anybody needs the doors."""
        return self._users > 0 or len(presence.in_force) > 0

    def watch(self) -> None:
        """A tracer provider is in use, or a new one is: calls that others trace there are to be seen from now on."""
        try:
            if self.wanted:
                self.watch_provider()
        except Exception as error:
            faults.report("looked for tracer providers", error)

    # Telemetry

    def telling(self) -> bool:
        """Whether spans and metrics are wanted."""
        return self.teller.bound

    def asked_for(self, call: Call) -> bool:
        """Whether anybody asks what a call costs: else it only passes the doors of others' blocks, as it is."""
        return bool(call.claims) or self._users > 0

    def watch_provider(self, other: Any = None) -> None:
        """Have our processor on the tracer providers in use, once on each.

        Args:
            other: a provider that a client uses for spans of its own.
        """
        now = own, common, _ = self.teller.provider(), trace.get_tracer_provider(), other
        seen = self._seen
        if own is seen[0] and common is seen[1] and other is seen[2]:
            return
        with self.lock:
            for provider in now:
                add = getattr(provider, "add_span_processor", None)
                if add is None or provider in self._processors:
                    continue
                from .doors.processor import ShekelSpanProcessor, end_first

                processor = ShekelSpanProcessor(self)
                self._processors[provider] = processor
                add(processor)
                end_first(provider)
            self._seen = now
        finish_before_providers()

    def scope_of(self, here: Context) -> Mapping[str, str]:
        """The scope entries that count in a context."""
        return entries(here)

    def _asked(self) -> frozenset[str]:
        """The scope keys that policies and metrics ask for."""
        metrics = self.teller.metric_scopes
        return self.policies.keys.union(metrics) if metrics else self.policies.keys

    def _rows(self) -> Iterable[BudgetRow]:
        return [
            (name, balance.settled / NANO, limit / NANO, balance.held / NANO, self.ledger.kind)
            for name, balance, limit in self.gate.gauges.rows()
        ]

    def forget(self, meters: Collection[Any]) -> None:
        """The budget of these meters is gone: they go from the ledger and from what gauges show."""
        for meter in meters:
            self.ledger.forget(meter)
        self.gate.gauges.forget(meters)

    def relimited(self, claim: Claim) -> None:
        """A limit was changed: gauges show it at once."""
        self.gate.gauges.relimited(claim)

    def _overran(self, claim: Claim, nano: int, cause: str) -> None:
        self.teller.overran(claim.name, nano, cause)

    def _shadowed(self, claim: Claim, decision: str) -> None:
        self.teller.shadowed(claim.name, decision)

    def _violated(self, call: Call) -> None:
        self.teller.violated(call.model)

    # Listeners

    def listened(self) -> None:
        """Somebody listens from now on: calls are seen, and thresholds watched where they are listened for."""
        self.acquire_doors()
        self._watch()

    def unlistened(self) -> None:
        """Somebody listens no more."""
        self._watch()
        self.release_doors()

    def _watch(self) -> None:
        listened = bool(listeners.of(listeners.SOFT))
        self.gate.watching = self.teller.watching if listened else None
        self.gate.watched = self.teller.watched if listened else None


def _hook(runtime: Runtime, door: Door) -> Any:
    def imported(module: Any) -> None:
        if runtime.wanted:
            _install(door, module)

    return imported


def _install(door: Door, module: Any) -> None:
    try:
        door.install(module)
    except Exception as error:
        door.remove()
        faults.report(f"wrapped {door.sdk.name}", error)


def finish_open_calls() -> None:
    """At exit: end what is open, so that its span and its cost are told before the providers shut down."""
    late.finish()
    for call in list(open_calls.values()):
        try:
            call.finish(Outcome.DROPPED)
        except Exception as error:
            faults.report("finished a call at exit", error)
    deliveries.drain()


def _after_fork() -> None:
    """In a child: what the parent has open is the parent's, and the meters are from now on the child's own."""
    runtime = _made
    if runtime is None:
        return
    call_ids_forked()
    runtime.ledger.forked()
    for budget in list(budgets.made):
        budget.forked()
    runtime.gate.forked = True
    runtime.following.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def finish_before_providers() -> None:
    """Exit handlers run last in, first out: be in after the providers that were just seen."""
    atexit.unregister(finish_open_calls)
    atexit.register(finish_open_calls)


_made: Runtime | None = None
_making = threading.Lock()


def the_runtime() -> Runtime:
    """The one runtime of this process."""
    global _made
    if _made is None:
        with _making:
            if _made is None:
                _made = Runtime()
                finish_before_providers()
    return _made


wiring.ledger = lambda: the_runtime().ledger
wiring.forget = lambda meters: the_runtime().forget(meters)
tools.charge = lambda name, price, here, counts: the_runtime().gate.admit_tool(name, price, here, counts=counts)
tools.tell = lambda name, here: the_runtime().teller.tool(name, here)
wiring.overran = lambda claim, nano, cause: the_runtime()._overran(claim, nano, cause)
wiring.watch = lambda: the_runtime().watch_provider()
wiring.warned = lambda claim, used, share, call: the_runtime().teller.warned(claim, used, share, call)
wiring.relimited = lambda claim: the_runtime().relimited(claim)
wiring.activated.append(lambda: the_runtime().open_doors())
wiring.deactivated.append(lambda: the_runtime().close_doors())
