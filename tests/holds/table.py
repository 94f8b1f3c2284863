"""One row of the table of limits: many callers on one budget, measured on the provider's own bill.

`python -m tests.holds.table` prints the whole table.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import openai

from shekel import Budget, BudgetExceededError, budget
from shekel.runtime import the_runtime
from shekel.testing import FakeProvider, Reply

MODEL = "gpt-4o-mini"
OUTPUT = 64
"""Output tokens of every answer, and the cap of the capped calls: an answer at its cap."""

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": f"look_up_{noun}",
            "description": f"Look up the {noun} of an order, by its number, in the warehouse of the region.",
            "parameters": {
                "type": "object",
                "properties": {
                    "number": {"type": "string", "description": "The order's number, eight digits."},
                    "region": {"type": "string", "enum": ["north", "south", "east", "west"]},
                },
                "required": ["number"],
            },
        },
    }
    for noun in ("status", "price", "weight", "address")
]

PROMPTS: dict[str, dict[str, Any]] = {
    "short": {"messages": [{"role": "user", "content": "Hello, who are you?"}]},
    "english": {"messages": [{"role": "user", "content": "Tell me, in a few words, how a lock keeper works. " * 4}]},
    "chinese": {
        "messages": [{"role": "user", "content": "请用几句话告诉我，运河上的船闸管理员每天都做些什么工作。" * 4}]
    },
    "tools": {"messages": [{"role": "user", "content": "Where is order 12345678?"}], "tools": TOOLS},
}


@dataclass(frozen=True, slots=True)
class Case:
    """What is tried."""

    who: str
    prompt: str
    capped: bool
    stream: bool
    mode: str

    def __str__(self) -> str:
        return "-".join(
            (
                self.who,
                self.prompt,
                "capped" if self.capped else "uncapped",
                "stream" if self.stream else "plain",
                self.mode,
            )
        )


CASES = [
    Case(*each)
    for each in itertools.product(
        ("threads", "tasks"), ("english", "chinese", "tools"), (True, False), (False, True), ("strict", "sliced")
    )
]


@dataclass(frozen=True, slots=True)
class Row:
    """What came of it; money in nano-dollars."""

    case: Case
    callers: int
    limit: int
    admitted: int
    finished: int
    billed: int
    exposure: float
    spent: int
    held: float
    refusals: tuple[BudgetExceededError, ...]
    hold: int
    """What one call needs at least, as the refusals say."""

    @property
    def over(self) -> int:
        return max(0, self.billed - self.limit)


def body(case: Case) -> dict[str, Any]:
    """The request of a case."""
    made: dict[str, Any] = {"model": MODEL, **PROMPTS[case.prompt]}
    if case.capped:
        made["max_completion_tokens"] = OUTPUT
    if case.stream:
        made["stream"] = True
    return made


def worth(provider: FakeProvider, case: Case) -> int:
    """What one call of this kind costs, from the provider's bill."""
    with openai.OpenAI(base_url=provider.openai_url, api_key="test", max_retries=0) as client:
        answer = client.chat.completions.create(**body(case))
        if case.stream:
            list(answer)
    provider.wait_idle()
    cost = provider.bill.total
    provider.bill.clear()
    return cost


def run(case: Case, callers: int | None = None, calls_worth: int = 10) -> Row:
    """Let many callers at one budget of so many calls' worth, all at once."""
    callers = callers or (32 if case.who == "threads" else 50)
    # What finished calls taught the estimates must not depend on the order of the cases.
    the_runtime().estimator.__init__()  # type: ignore[misc]
    with FakeProvider() as provider:
        provider.default = Reply(output_tokens=OUTPUT)
        limit = worth(provider, case) * calls_worth
        provider.default = Reply(output_tokens=OUTPUT, delay=0.25, pace=0.001)
        counted = budget(max_usd=limit / 1e9, name=str(case), mode=case.mode)
        everyone = Everyone(case, provider, counted, callers)
        everyone.go()
        provider.wait_idle()
        return Row(
            case=case,
            callers=callers,
            limit=limit,
            admitted=callers - len(everyone.refused),
            finished=everyone.finished,
            billed=provider.bill.total,
            exposure=counted.peak_exposure * 1e9,
            spent=round(counted.spent * 1e9),
            held=counted.held,
            refusals=tuple(everyone.refused),
            hold=min((round((e.needed or 0) * 1e9) for e in everyone.refused), default=0),
        )


class Everyone:
    """The callers of one case, started together."""

    def __init__(self, case: Case, provider: FakeProvider, counted: Budget, callers: int) -> None:
        self.case = case
        self.provider = provider
        self.budget = counted
        self.callers = callers
        self.refused: list[BudgetExceededError] = []
        self.cut: list[BudgetExceededError] = []
        self.finished = 0

    def go(self) -> None:
        if self.case.who == "threads":
            self._threads()
        else:
            asyncio.run(self._tasks())

    def _threads(self) -> None:
        start = threading.Barrier(self.callers)
        with openai.OpenAI(base_url=self.provider.openai_url, api_key="test", max_retries=0) as client:

            def call() -> None:
                start.wait()
                with self.budget:
                    try:
                        answer = client.chat.completions.create(**body(self.case))
                    except BudgetExceededError as error:
                        self.refused.append(error)
                        return
                    try:
                        if self.case.stream:
                            for _ in answer:
                                pass
                        self.finished += 1
                    except BudgetExceededError as error:
                        self.cut.append(error)

            threads = [threading.Thread(target=call) for _ in range(self.callers)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    async def _tasks(self) -> None:
        async with openai.AsyncOpenAI(base_url=self.provider.openai_url, api_key="test", max_retries=0) as client:

            async def call() -> None:
                async with self.budget:
                    try:
                        answer: Any = await client.chat.completions.create(**body(self.case))
                    except BudgetExceededError as error:
                        self.refused.append(error)
                        return
                    try:
                        if self.case.stream:
                            async for _ in answer:
                                pass
                        self.finished += 1
                    except BudgetExceededError as error:
                        self.cut.append(error)

            await asyncio.gather(*(call() for _ in range(self.callers)))


def sequential(case: Case, calls_worth: int = 10) -> Row:
    """One caller after the other, until one is refused."""
    the_runtime().estimator.__init__()  # type: ignore[misc]
    with FakeProvider() as provider:
        provider.default = Reply(output_tokens=OUTPUT)
        limit = worth(provider, case) * calls_worth
        counted = budget(max_usd=limit / 1e9, name=str(case), mode=case.mode)
        finished = 0
        refused: list[BudgetExceededError] = []
        with openai.OpenAI(base_url=provider.openai_url, api_key="test", max_retries=0) as client, counted:
            while not refused and finished < 10 * calls_worth:
                try:
                    answer = client.chat.completions.create(**body(case))
                    if case.stream:
                        list(answer)
                    finished += 1
                except BudgetExceededError as error:
                    refused.append(error)
        provider.wait_idle()
        return Row(
            case,
            1,
            limit,
            finished,
            finished,
            provider.bill.total,
            counted.peak_exposure * 1e9,
            round(counted.spent * 1e9),
            counted.held,
            tuple(refused),
            0,
        )


def lines(rows: Iterator[Row]) -> Iterator[str]:
    """The table as text."""
    yield f"{'case':44} {'callers':>7} {'admitted':>8} {'limit':>10} {'billed':>10} {'over':>8} {'exposure':>12}"
    for row in rows:
        yield (
            f"{row.case!s:44} {row.callers:7} {row.admitted:8} {row.limit:10} {row.billed:10} {row.over:8} "
            f"{row.exposure:12.0f}"
        )


if __name__ == "__main__":
    print("Money in nano-dollars; budgets of ten calls' worth; the bill is the provider's.")
    for line in lines(run(case) for case in CASES):
        print(line, flush=True)
    print("One after the other, output at its cap:")
    for mode in ("strict", "sliced"):
        for stream in (False, True):
            for prompt in PROMPTS:
                row = sequential(Case("one", prompt, True, stream, mode))
                print(f"{row.case!s:44} used {100 * row.billed / row.limit:5.1f} %  over {row.over}", flush=True)
