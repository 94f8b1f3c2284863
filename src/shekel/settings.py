"""Settings: what `shekel.configure` and the environment say, put in force; and who needs the doors for it."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from . import faults
from .budgets import wiring
from .budgets.budget import Budget
from .budgets.making import from_spec
from .budgets.queues import wake_all
from .budgets.tracking import Tracking, tracks_of
from .policies.policy import Policy
from .policies.standing import row_of
from .policies.watch import EVERY
from .scopes.outside import outside
from .shown import shown

if TYPE_CHECKING:
    from .budgets.traced_gate import TracedGate
    from .ledgers.memory import MemoryLedger
    from .policies.environment import Environment
    from .policies.file import PlanOf, PolicyFile
    from .policies.following import Following
    from .policies.in_force import Policies
    from .pricing import Prices
    from .telemetry.teller import Teller

KEEP: Any = object()
"""Where None means something, this means: as it is."""

BUDGET_VARIABLE = "SHEKEL_BUDGET"
POLICIES_VARIABLE = "SHEKEL_POLICIES"

_LACKS = re.compile(r"(^|\+)\s*([^\s+]*\.)?[0-9]*\s*(/|\+|$)")
"""What a shell makes of "$5/day" in double quotes, as of "$50/day" and "$0.50/day": $5 and $0 are names there."""


class Parts(Protocol):
    """What is set: the parts of a runtime."""

    environment: Environment
    following: Following
    gate: TracedGate
    ledger: MemoryLedger
    lock: Any
    policies: Policies
    teller: Teller
    usage_hosts: frozenset[str]

    def prices(self) -> Prices: ...
    def acquire_doors(self) -> None: ...
    def release_doors(self) -> None: ...
    def forget(self, meters: Collection[Any]) -> None: ...


class Settings:
    """What holds for the whole process.

    Args:
        parts: what is set.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._environment: str | None = None
        self._policies_environment: str | None = None
        self._policies_hold_doors = False

    def set_policies(
        self,
        policies: Iterable[Policy] | str | os.PathLike[str] | None,
        plan_of: PlanOf | Mapping[str, PlanOf] | None,
        reload_seconds: float | None,
    ) -> None:
        """Follow a file, or put policies in force; `KEEP` or None, where nothing was given."""
        if isinstance(policies, (str, os.PathLike)):
            every = EVERY if reload_seconds is KEEP else reload_seconds
            self._parts.following.follow(Path(policies), plan_of, every)
        elif plan_of is not None or reload_seconds is not KEEP:
            given = "plan_of" if plan_of is not None else "reload_seconds"
            raise ValueError(f"{given} is for policies in a file: give policies='shekel.toml', too.")
        elif policies is not None:
            if not isinstance(policies, Iterable) or isinstance(policies, (bytes, Mapping)):
                raise ValueError(
                    f"policies must be a list of what per(...) makes, or the path of a policy file, not "
                    f"{shown(policies)}: write policies=[per('user.id', '$5/day')]."
                )
            with self._parts.lock:
                self._enforce(tuple(policies))
                self._parts.following.stop()

    def set_prices(self, prices: Mapping[str, Any], aliases: Mapping[str, str]) -> None:
        """Prices and aliases of the program's own, or of a file."""
        for model, price in prices.items():
            self._parts.prices().set(model, price)
        for name, target in aliases.items():
            self._parts.prices().alias(name, target)

    def _enforce(self, policies: tuple[Policy, ...]) -> None:
        """Put policies in force in place of those before."""
        self._parts.policies.set(policies)
        if policies and not self._policies_hold_doors:
            self._policies_hold_doors = True
            self._parts.acquire_doors()
        elif not policies and self._policies_hold_doors:
            self._policies_hold_doors = False
            self._parts.release_doors()
        if not policies:
            self._parts.forget({meter for meter in self._parts.ledger.meters() if row_of(meter) is not None})

    def adopt(self, found: PolicyFile) -> None:
        """Put in force what a file says."""
        self.set_prices(found.prices, found.aliases)
        self._enforce(found.policies)

    def track(self, given: Any) -> None:
        """See `shekel.configure(track=…)`."""
        tracks = tracks_of(given) if given else []
        before, self._parts.gate.tracking = self._parts.gate.tracking, Tracking(tracks) if tracks else None
        if before is None and tracks:
            self._parts.acquire_doors()
        elif before is not None and not tracks:
            self._parts.release_doors()

    def set_budget(self, budget: Budget | None) -> None:
        """The budget that every call of the process is charged to."""
        before, wiring.everywhere = wiring.everywhere, budget
        if budget is not None and before is None:
            self._parts.acquire_doors()
        elif budget is None and before is not None:
            self._parts.release_doors()
        wake_all()  # who waits for room on the former one need not, and the new one may be stopped

    def read_environment(self) -> None:
        """Take the budget that SHEKEL_BUDGET says and the policies of the file that SHEKEL_POLICIES names, unless the
        program has set some; and whom to trust.

        Raises:
            ValueError: it is no spec, the file makes no sense, or SHEKEL_TRUST and the keys of baggage make no sense.
        """
        outside.read_environment()
        file = os.environ.get(POLICIES_VARIABLE, "").strip()
        if file and self._policies_environment != file:
            if not self._parts.policies.in_force:
                self._parts.following.follow(Path(file))
            self._policies_environment = file
        text = os.environ.get(BUDGET_VARIABLE, "").strip()
        if not text and BUDGET_VARIABLE in os.environ:
            faults.warn_once(
                f"empty {BUDGET_VARIABLE}",
                "%s is empty and limits nothing: in a shell, write '$5' in single quotes, which keep the $.",
                BUDGET_VARIABLE,
            )
        if not text or self._environment == text:
            return
        try:
            budget = from_spec(text, source=BUDGET_VARIABLE)
        except ValueError as error:
            if not _LACKS.search(text):
                raise
            raise ValueError(f"{str(error)[:-1]} (in a shell in single quotes, which keep the $).") from None
        self._environment = text
        if budget.name is None:
            budget.name = BUDGET_VARIABLE
        if wiring.everywhere is None:
            self.set_budget(budget)
