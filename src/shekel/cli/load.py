"""`shekel demo --load`: a small service under load, so that cost views have something to show.

Many users of three tenants ask for answers, plain and streamed, from three models of two providers; some leave in the
middle of a stream, some reach their own daily limit, and now and then an agent runs away until its budget stops it. It
goes to the stand-in provider on this machine: no key, no network, no money. Prompts were written for this file.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from itertools import count

import anthropic
import httpx2
import openai
from opentelemetry.trace import SpanKind, Tracer

from ..budgets.errors import BudgetExceededError
from ..budgets.making import budget
from ..budgets.scope import scope
from ..configuration import configure
from ..instrumentor import ShekelInstrumentor
from ..policies.policy import per
from ..testing import Bill, FakeProvider, Reply, RequestSeen
from .exporting import Exporting

BIG, SMALL, CLAUDE = "gpt-4.1", "gpt-4.1-mini", "claude-haiku-4-5"
TENANTS = ("acme", "globex", "initech")

APP_LIMIT = "$500/day"
USER_LIMIT = "$5/day"
AGENT_LIMIT = 0.02
"""What one run of the agent may cost, in USD."""

_KEY = "no-key-needed"
_TIMEOUT = 30.0
_RULES = "\n".join(f"Rule {n}: answer in one short paragraph, be kind, and name your source." for n in range(1, 60))
_QUESTIONS = (
    "What is a balance good for?",
    "How was silver weighed before there were coins?",
    "Why does a bridge need a toll?",
    "Who reads the ledger at the end of the year?",
)
_SAY_EVERY = 10.0
"""Seconds between two lines of output."""

_PAGE = 600.0
"""Seconds that a bill covers: longer than any call, which is put on the bill that it began under."""

NANO = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Tally:
    """What a load did. USD where the name says so.

    Attributes:
        sessions: how many requests of users, and runs of the agent.
        ended: calls by how they ended for the program: "answered", "left", "refused", "cut", "failed".
        spent_usd: what the budget around everything has spent, by Shekel's count.
        by_model: the same by model.
        billed_usd: what the stand-in bills.
    """

    sessions: int
    ended: dict[str, int]
    spent_usd: float
    by_model: dict[str, float]
    billed_usd: Decimal


@dataclass(frozen=True, slots=True)
class Shape:
    """How much of what.

    Attributes:
        seconds: for how long; 0 until it is stopped.
        users: how many different users ask.
        rate: sessions a second.
        agent_every: every how many sessions the agent runs away.
        pace: seconds per generated token.
        seed: of the choices; what runs at the same time still ends in any order.
    """

    seconds: float
    users: int = 40
    rate: float = 4.0
    agent_every: int = 50
    pace: float = 0.003
    seed: int = 20


def run(otlp: str, shape: Shape, say: Callable[[str], None] = print) -> Tally:
    """Run a load and export its telemetry.

    Args:
        otlp: the base URL of an OTLP/HTTP receiver.
        shape: how much of what.
        say: told a line now and then.

    Returns:
        what was done, when everything is exported.
    """
    instrumentor = ShekelInstrumentor()
    try:
        with Exporting(otlp) as telemetry, FakeProvider(pace=shape.pace) as provider:
            instrumentor.instrument(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider)
            configure(policies=[per("user.id", USER_LIMIT, name="per-user")])
            try:
                service = _Service(provider, telemetry.tracer_provider.get_tracer("shekel.demo"), shape)
                return asyncio.run(service.serve(say))
            finally:
                instrumentor.uninstrument()
    finally:
        configure(policies=[])  # after the last export: what is in force no more is shown no more


class _Service:
    """The service: its clients, its budgets, what happened so far."""

    def __init__(self, provider: FakeProvider, tracer: Tracer, shape: Shape) -> None:
        self._provider = provider
        self._tracer = tracer
        self._shape = shape
        self._random = random.Random(shape.seed)
        provider.decide = _Replies(random.Random(shape.seed + 1), shape.pace)
        self._openai = openai.AsyncOpenAI(
            api_key=_KEY,
            base_url=provider.openai_url,
            http_client=httpx2.AsyncClient(trust_env=False, timeout=_TIMEOUT),
        )
        self._anthropic = anthropic.AsyncAnthropic(
            api_key=_KEY,
            base_url=provider.anthropic_url,
            http_client=httpx2.AsyncClient(trust_env=False, timeout=_TIMEOUT),
            open_telemetry=False,
        )
        self._whole = budget(APP_LIMIT, name="app")
        self._agent = budget(AGENT_LIMIT, name="agent")  # for one run after the other, so that its gauges stay
        self._billed, self._earlier = 0, provider.bill
        self._sessions = 0
        self._ended = dict.fromkeys(("answered", "left", "refused", "cut", "failed"), 0)

    async def serve(self, say: Callable[[str], None]) -> Tally:
        """Serve until the time is over or somebody stops it; then let what is open end."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError, RuntimeError, ValueError):  # not in this thread, not on this system
                loop.add_signal_handler(sign, stop.set)
        async with self._openai, self._anthropic, self._whole:
            await self._sessions_until(stop, say)
        await asyncio.to_thread(self._provider.wait_idle)
        tally = self._tally()
        say(_line(tally))
        return tally

    async def _sessions_until(self, stop: asyncio.Event, say: Callable[[str], None]) -> None:
        started = said = turned = time.monotonic()
        async with asyncio.TaskGroup() as running:
            for number in count(1):
                now = time.monotonic()
                if stop.is_set() or 0 < self._shape.seconds <= now - started:
                    return
                if now - said >= _SAY_EVERY:
                    said = now
                    say(_line(self._tally()))
                if now - turned >= _PAGE:
                    turned = now
                    self._turn_page()
                if number % self._shape.agent_every == 0:
                    running.create_task(self._run_away())
                else:
                    running.create_task(self._session())
                self._sessions += 1
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), 1 / self._shape.rate)

    async def _session(self) -> None:
        # Few users ask much and many ask little, as everywhere.
        user = min(int(self._random.paretovariate(0.8)), self._shape.users)
        question = self._random.choice(_QUESTIONS)
        leaves = self._random.random() < 0.06
        kind = self._random.choices((self._chat, self._answer, self._claude), (5, 3, 2))[0]
        with (
            scope(user_id=f"user-{user:03}", session_id=f"s-{self._sessions:06}", tenant_id=TENANTS[user % 3]),
            self._tracer.start_as_current_span(f"POST /{kind.__name__.strip('_')}", kind=SpanKind.SERVER),
        ):
            await self._counted(lambda: kind(question, leaves))

    async def _chat(self, question: str, leaves: bool) -> str:
        stream = await self._openai.chat.completions.create(
            model=SMALL,
            messages=[{"role": "user", "content": question}],
            max_completion_tokens=400,
            stream=True,
        )
        async with stream:
            seen = 0
            async for _ in stream:
                seen += 1
                if leaves and seen == 12:
                    return "left"
        return "answered"

    async def _answer(self, question: str, leaves: bool) -> str:
        await self._openai.responses.create(model=BIG, instructions=_RULES, input=question, max_output_tokens=300)
        return "answered"

    async def _claude(self, question: str, leaves: bool) -> str:
        async with self._anthropic.messages.stream(
            model=CLAUDE, max_tokens=400, messages=[{"role": "user", "content": question}]
        ) as stream:
            seen = 0
            async for _ in stream.text_stream:
                seen += 1
                if leaves and seen == 12:
                    return "left"
        return "answered"

    async def _run_away(self) -> None:
        """One run of an agent that reads its own answers, until its budget stops it."""
        self._agent.reset()
        with (
            scope(session_id=f"s-{self._sessions:06}", tenant_id=TENANTS[0]),
            self._tracer.start_as_current_span("agent", kind=SpanKind.SERVER),
        ):
            async with self._agent:
                words = "Plan the harvest, then check the plan, then check the check."
                for _ in range(100):  # the budget ends it long before
                    if not await self._counted(lambda words=words: self._step(words)):  # type: ignore[misc]
                        return
                    words += " And once more, with every step written out, and with a reason for each of them." * 8

    async def _step(self, words: str) -> str:
        stream = await self._openai.chat.completions.create(
            model=BIG, messages=[{"role": "user", "content": words}], stream=True
        )
        async with stream:
            async for _ in stream:
                pass
        return "answered"

    async def _counted(self, ask: Callable[[], Awaitable[str]]) -> bool:
        """Ask, and count how it ended; whether it went well."""
        try:
            ended = await ask()
        except BudgetExceededError as error:
            ended = "cut" if error.reason == "cut" else "refused"
        except (openai.OpenAIError, anthropic.AnthropicError):
            ended = "failed"
        self._ended[ended] += 1
        return ended in ("answered", "left")

    def _turn_page(self) -> None:
        """Begin a new bill, and keep of the one before the last only its sum: a bill has every attempt."""
        if self._earlier is not self._provider.bill:
            self._billed += self._earlier.total
        self._earlier, self._provider.bill = self._provider.bill, Bill()

    def _tally(self) -> Tally:
        now = self._provider.bill
        billed = self._billed + now.total + (0 if self._earlier is now else self._earlier.total)
        return Tally(
            self._sessions,
            dict(self._ended),
            self._whole.spent,
            {model: row["cost"] for model, row in self._whole.summary_data()["by_model"].items()},
            Decimal(billed) / NANO,
        )


class _Replies:
    """What the stand-in answers: lengths that differ, prompts it has in its cache, a failure now and then."""

    def __init__(self, chosen: random.Random, pace: float) -> None:
        self._random = chosen
        self._pace = pace

    def __call__(self, seen: RequestSeen) -> Reply:
        if self._random.random() < 0.02:
            return Reply(status=500)  # the SDK tries again
        cached = 512 if seen.endpoint == "responses" and self._random.random() < 0.7 else 0
        runs_away = seen.endpoint == "chat.completions" and seen.body["model"] == BIG
        return Reply(
            output_tokens=800 if runs_away else self._random.randint(30, 240),
            cached_tokens=cached,
            delay=self._random.uniform(0.02, 0.3),
            pace=self._pace,
        )


def _line(tally: Tally) -> str:
    ended = ", ".join(f"{number} {how}" for how, number in tally.ended.items() if number)
    return (
        f"{tally.sessions} sessions; calls: {ended or 'none yet'}; spent ${tally.spent_usd:.4f}, "
        f"the provider bills ${tally.billed_usd:.4f}"
    )
