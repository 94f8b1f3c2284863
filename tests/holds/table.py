"""One row of the table of limits: many callers on one budget, measured on the provider's own bill.

`python -m tests.holds.table` prints the whole table.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from shekel import BudgetExceededError, budget
from shekel.runtime import the_runtime
from shekel.testing import FakeProvider, Reply

from .callers import Callers
from .clients import sync_client
from .requests import KINDS, OUTPUT, request

MODES = ("strict", "sliced", "expected")
NANO = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Case:
    """What is tried.

    Attributes:
        who: "threads" (32) or "tasks" (50).
        kind: what they ask, of `KINDS`.
        stream: whether the answers are streamed.
        mode: of the budget.
        worth: how many calls' worth the limit is, by the provider's bill for one.
    """

    who: str
    kind: str
    stream: bool
    mode: str
    worth: int = 10

    def __str__(self) -> str:
        return f"{self.who}-{self.kind}-{'stream' if self.stream else 'plain'}-{self.mode}-{self.worth}"

    @property
    def callers(self) -> int:
        return 32 if self.who == "threads" else 50


CASES = [Case(*each) for each in itertools.product(("threads", "tasks"), KINDS, (False, True), MODES, (10, 1))]


@dataclass(frozen=True, slots=True)
class Row:
    """What came of it; money in nano-dollars.

    Attributes:
        case: what was tried.
        limit: of the budget.
        billed: by the provider.
        exposure: the most that was stated to be overspent.
        admitted: calls that the provider has seen.
        finished: of these, those that came to their end; the others were cut.
        refusals: what the others were told.
        full: what one call holds where there is room, from the ledger.
        least: what one call holds at least, as the refusals say; None if nobody was refused.
        at_once: whether everybody was decided on before the first answer came.
        spent, held: what the budget says in the end.
    """

    case: Case
    limit: int
    billed: int
    exposure: float
    admitted: int
    finished: int
    refusals: tuple[BudgetExceededError, ...]
    full: int
    least: int | None
    at_once: bool
    spent: int
    held: float

    @property
    def over(self) -> int:
        return max(0, self.billed - self.limit)

    @property
    def fit(self) -> int:
        """How many holds fit into the limit at once. Under `strict` the last one may take what is left, a smaller cap:
        from the least that makes sense up to a whole one."""
        whole, rest = divmod(self.limit, self.full)
        return whole + (self.least is not None and self.least < self.full and rest >= self.least)


def worth(provider: FakeProvider, case: Case) -> int:
    """What one call of this kind costs, from the provider's bill."""
    with sync_client(provider.openai_url) as client:
        answer = client.chat.completions.create(**request(case.kind, case.stream))
        if case.stream:
            list(answer)
    provider.wait_idle()
    cost = provider.bill.total
    provider.bill.clear()
    return cost


def hold(provider: FakeProvider, case: Case) -> int:
    """What one such call holds where there is room, as the ledger shows it while the provider works."""
    seen: list[float] = []
    probe = budget(max_usd=1_000, mode=case.mode)

    def decide(_: object) -> None:
        seen.append(probe.held)

    provider.decide = decide
    with sync_client(provider.openai_url) as client, probe:
        answer = client.chat.completions.create(**request(case.kind, case.stream))
        if case.stream:
            list(answer)
    provider.wait_idle()
    provider.decide = None
    provider.bill.clear()
    return round(seen[0] * NANO)


def forget_what_was_learnt() -> None:
    """What finished calls taught the estimates must not depend on the order of the cases."""
    the_runtime().estimator.__init__()  # type: ignore[misc]


def teach(provider: FakeProvider, case: Case, calls: int) -> None:
    """Let the estimates know nothing but so many answers of this kind."""
    forget_what_was_learnt()
    with budget(), sync_client(provider.openai_url) as client:
        for _ in range(calls):
            client.chat.completions.create(**request(case.kind))
    provider.wait_idle()
    provider.bill.clear()


def run(case: Case, reply: Reply | None = None, *, taught: int = 0, delay: float = 0.15) -> Row:
    """Let all callers at one budget, at once. They are decided on while the first answers are still on their way; on a
    machine too slow for that, it is tried again with slower answers.

    Args:
        case: what to try.
        reply: the answers, where they are not what was learnt.
        taught: how many answers the estimates know beforehand.
        delay: seconds before an answer begins.
    """
    with FakeProvider() as provider:
        provider.default = Reply(output_tokens=OUTPUT)
        limit = worth(provider, case) * case.worth
        teach(provider, case, taught)
        full = hold(provider, case)
        teach(provider, case, taught)
        provider.default = replace(reply or Reply(output_tokens=OUTPUT, pace=0.001), delay=delay)
        counted = budget(max_usd=limit / NANO, name=str(case), mode=case.mode)
        everyone = Callers(provider, counted, case.callers, request(case.kind, case.stream))
        before = len(provider.requests)
        everyone.go(case.who)
        provider.wait_idle()
        row = Row(
            case=case,
            limit=limit,
            billed=provider.bill.total,
            exposure=counted.peak_exposure * NANO,
            admitted=len(provider.requests) - before,
            finished=everyone.finished,
            refusals=tuple(everyone.refused),
            full=full,
            least=min((round((e.needed or 0) * NANO) for e in everyone.refused), default=None),
            at_once=everyone.last_decision < everyone.first_answer,
            spent=round(counted.spent * NANO),
            held=counted.held,
        )
    return row if row.at_once or delay > 4 else run(case, reply, taught=taught, delay=delay * 4)


def sequential(case: Case) -> Row:
    """One caller after the other, until one is refused or cut."""
    with FakeProvider() as provider:
        provider.default = Reply(output_tokens=OUTPUT)
        limit = worth(provider, case) * case.worth
        forget_what_was_learnt()
        counted = budget(max_usd=limit / NANO, name=str(case), mode=case.mode)
        alone = Callers(provider, counted, 1, request(case.kind, case.stream))
        while not alone.refused and not alone.cut and alone.finished < 10 * case.worth:
            alone.go("threads")
        provider.wait_idle()
        return Row(
            case=case,
            limit=limit,
            billed=provider.bill.total,
            exposure=counted.peak_exposure * NANO,
            admitted=alone.finished + len(alone.cut),
            finished=alone.finished,
            refusals=tuple(alone.refused),
            full=0,
            least=None,
            at_once=False,
            spent=round(counted.spent * NANO),
            held=counted.held,
        )


def lines(rows: Iterable[Row]) -> Iterator[str]:
    """The table as text."""
    yield f"{'case':36} {'callers':>7} {'admitted':>8} {'limit':>10} {'billed':>10} {'over':>8} {'exposure':>12}"
    for row in rows:
        yield (
            f"{row.case!s:36} {row.case.callers:7} {row.admitted:8} {row.limit:10} {row.billed:10} {row.over:8} "
            f"{row.exposure:12.0f}"
        )


if __name__ == "__main__":
    print("Money in nano-dollars; the bill is the provider's. The last number is how many calls' worth the limit is.")
    for line in lines(run(case) for case in CASES):
        print(line, flush=True)
    print("One after the other, output at its cap:")
    for mode, stream, kind in itertools.product(MODES, (False, True), ("short", *KINDS)):
        row = sequential(Case("one", kind, stream, mode))
        print(f"{row.case!s:36} used {100 * row.billed / row.limit:5.1f} %  over {row.over}", flush=True)
