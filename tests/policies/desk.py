"""A desk at which calls are admitted and end: the real gate, ledger, prices and policies, without HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shekel import BudgetExceededError, context, scope
from shekel.budgets.around import BudgetsOfContext
from shekel.budgets.gate import Gate
from shekel.call import Call
from shekel.estimation import Estimator
from shekel.ledgers.base import Balance
from shekel.ledgers.memory import REMEMBERED, MemoryLedger
from shekel.policies.in_force import Policies
from shekel.policies.policy import Policy
from shekel.pricing import Prices
from shekel.providers import find_endpoint
from shekel.providers.base import Answer, Endpoint
from shekel.settlement import Outcome
from shekel.testing import Clock
from shekel.usage import Usage

PRICES = Prices()
MODEL = "gpt-4o-mini"
IN, OUT = 150, 600
"""Nano-dollars of a token of that model."""


class Told:
    """A teller that keeps the events of calls."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def finished(self, call: Any, cost: Any) -> None:
        return

    def event(self, call: Any, name: str, attributes: Any) -> None:
        self.events.append((name, dict(attributes)))


class Desk:
    """See above.

    Args:
        *policies: those in force.
        environment: the deployment environment.
        remember: how many finished calls the ledger keeps.
    """

    def __init__(self, *policies: Policy, environment: str | None = None, remember: int = REMEMBERED) -> None:
        self.clock = Clock()
        self.ledger = MemoryLedger(remember=remember)
        self.told = Told()
        self.overruns: list[tuple[str | None, int, str]] = []
        self.policies = Policies(lambda: environment)
        self.policies.set(policies)
        self.gate = Gate(
            self.ledger,
            lambda: PRICES,
            Estimator(),
            (BudgetsOfContext(), self.policies),
            clock=lambda: int(self.clock() * 1_000_000),
            overran=lambda claim, nano, cause: self.overruns.append((claim.name, nano, cause)),
        )
        endpoint = find_endpoint("openai", "post", "/chat/completions")
        assert endpoint is not None
        self.endpoint: Endpoint = endpoint

    def call(
        self, *, model: str = MODEL, cap: int | None = 100, stream: bool = False, provider: str = "openai"
    ) -> Call:
        """A call that is not decided yet."""
        body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": stream}
        if cap is not None:
            body["max_tokens"] = cap
        return Call(
            self.endpoint,
            self.endpoint.read_request(body),
            gate=self.gate,
            teller=self.told,
            now=self.clock,
            wall=self.clock,
            provider=provider,
            host="api.openai.com",
            body=body,
        )

    def admit(self, who: dict[str, str], **what: Any) -> Call:
        """Admit a call of that scope.

        Raises:
            BudgetExceededError: it was refused.
        """
        call = self.call(**what)
        with scope(**who):
            self.gate.admit(call, context.current())
        if call.refusal is not None:
            call.finish(Outcome.REFUSED)
            raise call.refusal
        return call

    def end(self, call: Call, *, tokens: int = 100) -> int:
        """End a call with so many tokens in and out. Returns its cost in nano-dollars."""
        assert call.finish(Outcome.COMPLETE, answer=Answer(usage=Usage(input=tokens, output=tokens)))
        assert call.cost is not None
        return call.cost.spent

    def ask(self, who: dict[str, str], *, tokens: int = 100, **what: Any) -> int:
        """A whole call: its cost in nano-dollars."""
        return self.end(self.admit(who, **what), tokens=tokens)

    def passes(self, who: dict[str, str], **what: Any) -> bool:
        """Whether a call is let through."""
        try:
            self.ask(who, **what)
        except BudgetExceededError:
            return False
        return True

    def spent(self, who: dict[str, str], name: str | None = None, **what: Any) -> list[int]:
        """What is settled on each meter of a scope, in the policies' order."""
        return [balance.settled for balance in self.balances(who, name, **what)]

    def balances(self, who: dict[str, str], name: str | None = None, **what: Any) -> Sequence[Balance]:
        with scope(**who):
            claims = self.policies.claims(context.current(), self.clock(), **what)
        now = int(self.clock() * 1_000_000)
        return [self.ledger.read(claim.meter, now) for claim in claims if name in (None, claim.name)]
