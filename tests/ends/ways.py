"""Five ways to stream: what each calls, and how its stream is opened and left. Written once for sync and async."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from replay.clients import Clients
from replay.drive import settled

PROMPT = [{"role": "user", "content": "Tell me about the weights of the ancients."}]
CHAT = {"model": "gpt-4o-mini", "messages": PROMPT}
RESPONSES = {"model": "gpt-4o-mini", "input": PROMPT}
MESSAGES = {"model": "claude-sonnet-4-5", "max_tokens": 1000, "messages": PROMPT}


@dataclass(frozen=True, slots=True)
class Way:
    """One way to stream.

    Attributes:
        call: makes the call; returns a stream, a coroutine of one, or (helpers) a manager of one.
        managed: whether it returns a manager, whose `with` opens the stream.
    """

    name: str
    call: Callable[[Clients], Any]
    managed: bool = False

    async def open(self, clients: Clients) -> tuple[Any, Any]:
        """The stream, and what a `with` statement takes: the manager, or the stream itself."""
        made = await settled(self.call(clients))
        if not self.managed:
            return made, made
        enter = getattr(made, "__aenter__", None) or made.__enter__
        return await settled(enter()), made


WAYS = (
    Way("chat.create", lambda clients: clients.openai.chat.completions.create(**CHAT, stream=True)),
    Way("responses.create", lambda clients: clients.openai.responses.create(**RESPONSES, stream=True)),
    Way("messages.create", lambda clients: clients.anthropic.messages.create(**MESSAGES, stream=True)),
    Way("messages.stream", lambda clients: clients.anthropic.messages.stream(**MESSAGES), managed=True),
    Way("chat.stream", lambda clients: clients.openai.chat.completions.stream(**CHAT), managed=True),
)
