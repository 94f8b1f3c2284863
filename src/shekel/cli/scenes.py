"""The demo's scenes: what a program does, and what Shekel makes of it. Each is the code a user would write.

Prompts and answers were written for this file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from ..budgets.budget import Budget
from ..budgets.errors import BudgetExceededError
from ..budgets.making import budget
from ..testing import Reply
from .report import billed
from .screen import Growing, short, usd
from .stage import LINGER, Stage

BIG, SMALL, CLAUDE = "gpt-4.1", "gpt-4.1-mini", "claude-haiku-4-5"

_COIN = (
    "Before it was a coin, the shekel was a weight: some eleven grams of silver, laid on one side of a balance. "
    "Whoever paid with it watched the scale, not the clerk. The silver was counted while it was poured, and the "
    "pouring stopped when the pans were level. Nobody had to wait for a letter at the end of the month to learn what "
    "had been spent."
)
_RIVER = (
    "The ledger begins with the river. In spring the barges come down with grain, and each of them owes a small toll "
    "at the bridge. The keeper of the bridge writes the toll into a book, one line for each barge, and shuts the gate "
    "when the book is full. So it goes through the whole summer, until the water is low and the last barge has passed, "
    "and then the keeper adds up the lines, twice, by the light of a lamp."
)
_RULES = "\n".join(f"Rule {n}: answer in one short sentence, be kind, and name your source." for n in range(1, 75))
_ANSWERS = (
    "A ledger is a book in which every amount is written down once.",
    "A balance compares two weights, and says which is heavier.",
    "A toll is a small price for crossing a bridge.",
)
_CACHED = 1_024
"""Tokens of the long instructions that the provider has in its cache from the second call on."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One scene: its name in the span tree, its caption, why it matters, the line of code that makes it."""

    name: str
    title: str
    why: str
    code: str
    act: Callable[[Stage], None]

    def play(self, stage: Stage, number: str) -> None:
        stage.screen.heading(f"{number}  {self.title}")
        stage.screen.say(self.why, "dim")
        stage.screen.code(self.code)
        with stage.tracer.start_as_current_span(self.name):
            self.act(stage)
        stage.rest(0.4)


_BAR = 14


def _running(view: Growing, model: str, chunks: int, b: Budget) -> None:
    """The line below a stream: what it has cost so far."""
    share = b.spent / (b.limit or 1.0)
    bar = "#" * min(_BAR, round(share * _BAR))
    view.status(f"{model}  {chunks:>3} chunks  {usd(b.spent)}  [{bar:<{_BAR}}] {share:4.0%} of {short(b.limit or 0)}")


# 1. A stream with its running cost

_STREAM_LIMIT = 0.002


def _stream(stage: Stage) -> None:
    stage.provider.reply(Reply(text=_COIN, pace=stage.pace))
    seen: list[float] = []
    with budget(max_usd=_STREAM_LIMIT, name="stream") as b:
        stream = stage.openai.chat.completions.create(
            model=BIG, messages=[{"role": "user", "content": "What was a shekel?"}], stream=True
        )
        with stage.screen.growing() as view:
            for count, chunk in enumerate(stream, 1):
                view.add(chunk.choices[0].delta.content or "")
                _running(view, BIG, count, b)
                seen.append(b.spent)
    call = stage.last_call()
    steps = [seen[len(seen) * n // 4] for n in (1, 2, 3)]
    stage.screen.fact("while it ran", " ... ".join(usd(step) for step in steps) + f" ... {usd(seen[-1])}")
    stage.screen.fact("when it ended", f"{usd(b.spent)}, by the provider's count: {call.input} in, {call.output} out")


# 2. A fallback

_FALLBACK_LIMIT, _FALLBACK_AT = 0.01, 0.4


def _fallback(stage: Stage) -> None:
    cached = (0, _CACHED, 0)  # another model has a cache of its own
    for text, part in zip(_ANSWERS, cached, strict=True):
        stage.provider.reply(Reply(text=text, cached_tokens=part, pace=stage.pace))
    switching = {"at_pct": _FALLBACK_AT, "model": SMALL}
    quietly = lambda spent, limit, model: None  # noqa: E731 - the scene tells it in its own words
    with budget(max_usd=_FALLBACK_LIMIT, fallback=switching, on_fallback=quietly, name="support-bot") as b:
        for question in ("What is a ledger?", "What is a balance?", "What is a toll?"):
            stage.openai.responses.create(model=BIG, instructions=_RULES, input=question, max_output_tokens=80)
            call = stage.last_call()
            stage.screen.fact(
                question,
                f"{call.model:<13}{usd(call.cost)} {b.spent / _FALLBACK_LIMIT:5.0%} of {short(_FALLBACK_LIMIT)} spent",
                "yellow" if call.model != call.asked else "",
            )
    if b.switched_at_usd is not None:
        stage.screen.fact("switched", f"from {BIG} to {SMALL}, when {usd(b.switched_at_usd)} were spent")


# 3. A cut, and 4. a refusal, under one budget

_CUT_LIMIT = 0.0004


def _cut(stage: Stage) -> None:
    stage.provider.reply(Reply(text=_RIVER, pace=stage.pace, keep_generating=True, linger=LINGER))
    with budget(max_usd=_CUT_LIMIT, name="alice") as b:
        _story(stage, b)
    stage.provider.wait_idle()
    call = stage.last_call()
    bill = billed(call, stage.provider.bill)
    stage.screen.fact("charged", f"{usd(b.spent)}, with what was probably still under way", "yellow")
    stage.screen.fact("provider's bill", f"{usd(bill or 0.0)}; open streams: {stage.provider.open_streams}")


def _story(stage: Stage, b: Budget) -> None:
    count = 0
    try:
        with (
            stage.screen.growing() as view,
            stage.anthropic.messages.stream(
                model=CLAUDE, max_tokens=300, messages=[{"role": "user", "content": "Tell me a long story."}]
            ) as stream,
        ):
            for count, text in enumerate(stream.text_stream, 1):
                view.add(text)
                _running(view, CLAUDE, count, b)
    except BudgetExceededError as error:
        stage.screen.fact(type(error).__name__, str(error), "red")


def _refuse(stage: Stage) -> None:
    before = len(stage.provider.requests)
    with budget(max_usd=_CUT_LIMIT, name="bob"):
        try:
            stage.openai.chat.completions.create(
                model=BIG, messages=[{"role": "user", "content": "A very long report, please."}], max_tokens=400
            )
        except BudgetExceededError as error:
            stage.screen.fact(type(error).__name__, str(error), "red")
            stage.screen.fact("for your user", error.public_message)
    stage.screen.fact("sent", f"{len(stage.provider.requests) - before} requests")


# 5. An interrupted stream

_INTERRUPTED_AFTER = 40


def _interrupt(stage: Stage) -> None:
    stage.provider.reply(Reply(text=_RIVER, pace=stage.pace, keep_generating=True, linger=LINGER))
    with budget(max_usd=0.01, name="impatient") as b:
        stream = stage.openai.chat.completions.create(
            model=BIG,
            messages=[{"role": "user", "content": "Tell me a long story."}],
            max_completion_tokens=300,
            stream=True,
        )
        with stage.screen.growing() as view:
            for count, chunk in enumerate(stream, 1):
                view.add(chunk.choices[0].delta.content or "")
                _running(view, BIG, count, b)
                if count == _INTERRUPTED_AFTER:
                    break
        stream.close()
    stage.provider.wait_idle()
    call = stage.last_call()
    bill = billed(call, stage.provider.bill)
    stage.screen.fact("at least", f"{usd(call.low)}, what was received")
    stage.screen.fact("charged", f"{usd(call.cost)}, with what was probably under way", "yellow")
    stage.screen.fact("at most", f"{usd(call.most)}, had the provider gone on to the cap")
    stage.screen.fact("provider's bill", usd(bill or 0.0))


# 6. Both SDKs at once, async

_BOTH_LIMIT = 0.004


def _both(stage: Stage) -> None:
    asyncio.run(_both_async(stage))


async def _both_async(stage: Stage) -> None:
    same = Reply(output_tokens=48, pace=stage.pace)
    stage.provider.reply(same, same)
    one, two = stage.async_clients()
    counts = {SMALL: 0, CLAUDE: 0}
    async with one, two, budget(max_usd=_BOTH_LIMIT, name="both") as b:
        with stage.screen.growing() as view:

            def tick(model: str) -> None:
                counts[model] += 1
                chunks = ", ".join(f"{name} {count}" for name, count in counts.items())
                view.status(f"chunks: {chunks}   {usd(b.spent)} so far, together")

            async def ask_openai() -> None:
                async for _ in await one.chat.completions.create(
                    model=SMALL, messages=[{"role": "user", "content": "Hello."}], stream=True
                ):
                    tick(SMALL)

            async def ask_anthropic() -> None:
                async for _ in await two.messages.create(
                    model=CLAUDE, max_tokens=200, messages=[{"role": "user", "content": "Hello."}], stream=True
                ):
                    tick(CLAUDE)

            await asyncio.gather(ask_openai(), ask_anthropic())
        stage.screen.fact("together", f"{usd(b.spent)} of {short(_BOTH_LIMIT)} in {b.calls_used} calls")


SCENES = (
    Scene(
        "stream",
        "A stream, and what it costs while it runs",
        "The cost is known with every chunk, not when the invoice comes.",
        f"with budget(max_usd={_STREAM_LIMIT}) as b: ...          # b.spent, at any moment",
        _stream,
    ),
    Scene(
        "fallback",
        "A budget that switches to a cheaper model",
        "The service goes on, for less. The code that calls the SDK does not change.",
        f'budget(max_usd={_FALLBACK_LIMIT}, fallback={{"at_pct": {_FALLBACK_AT}, "model": "{SMALL}"}})',
        _fallback,
    ),
    Scene(
        "cut",
        "A stream that is cut in the middle",
        "When the money ends, so does the stream: the connection is closed, the provider stops. What is "
        'under way by then is still billed; mode="strict" keeps even that below the limit.',
        f'with budget(max_usd={_CUT_LIMIT}, name="alice"): ...',
        _cut,
    ),
    Scene(
        "refusal",
        "A call that is refused before it is sent",
        "What does not fit is never sent, so it costs nothing.",
        f'with budget(max_usd={_CUT_LIMIT}, name="bob"): ...',
        _refuse,
    ),
    Scene(
        "interruption",
        "A stream that its reader leaves",
        "The provider bills what it generated, but tells nobody. Shekel says what it can have been.",
        f"if count == {_INTERRUPTED_AFTER}: break",
        _interrupt,
    ),
    Scene(
        "both SDKs",
        "Two async streams of two providers, one budget",
        "Whatever runs at the same time is counted together.",
        f"async with budget(max_usd={_BOTH_LIMIT}) as b: await asyncio.gather(...)",
        _both,
    ),
)
