"""Endpoints: what one API's requests, answers and stream chunks look like.

One small class per API, all of this shape, so that the next one writes itself. An endpoint turns what the API says
into facts (`Request`, `Answer`, `StreamReader`). It knows no budgets, no prices, no spans, and imports no SDK: it
reads attributes or mapping keys of whatever object it is given, and takes missing fields for None.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from dataclasses import field
from typing import Any, Protocol

from shekel.estimation import Rates, Text
from shekel.facts import fact
from shekel.usage import Usage

WHOLE = 1 << 62
"""As the least cap: none can be written, so a hold is for all that the model can generate, or there is none."""


@fact
class Request:
    """The facts of one request, read from its body.

    Attributes:
        model: the model asked for ("" if the body names none).
        stream: whether the answer is to be streamed.
        cap: the most output tokens per choice that the caller allows; None if the caller set no cap.
        cap_field: the body's field that such a cap is written to; "" where the API takes no cap.
        min_cap: the least cap that the API accepts, in tokens (with Anthropic thinking: above its budget).
        choices: how many choices are generated (`n`), at least 1.
        text: all text, schemas and names sent, measured for the estimate of the input.
        extra_input: tokens of input that are not text: images, files, the provider's own prompt for tools; best
            estimate from published formulas.
        input_bound: the most input tokens that the request can be billed for; None if nothing bounds them.
        unbounded: the field that makes the input unbounded ("previous_response_id", "file_id", ...); None if bounded.
        service_tier: the tier asked for.
        speed: Anthropic's `speed` asked for.
        background: whether the answer comes later, by retrieval.
        wants_usage: for chat streams, whether the caller itself asked for the usage chunk, or explicitly refused it
            (True, False); None where the caller said nothing.
        attributes: span attributes of the request (`gen_ai.request.*`), never content.
        fixed: whether the body must be sent as it is: neither a cap nor another model can be written to it.
    """

    model: str
    stream: bool = False
    cap: int | None = None
    cap_field: str = "max_tokens"
    min_cap: int = 1
    choices: int = 1
    text: Text = field(default_factory=Text)
    extra_input: int = 0
    input_bound: int | None = None
    unbounded: str | None = None
    service_tier: str | None = None
    speed: str | None = None
    background: bool = False
    wants_usage: bool | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    fixed: bool = False


@fact
class Answer:
    """The facts of one complete answer.

    Attributes:
        usage: what the provider says was consumed; None if it says nothing.
        id: the answer's id.
        model: the model that answered.
        finish_reasons: why each choice ended.
        text: what was generated, measured: to estimate the output where `usage` is None, to learn from it where not.
            Shown reasoning is in it only where `usage` does not count reasoning apart, so that `usage.output -
            usage.reasoning` and `text` always speak of the same.
        error: the provider's code of the error that the answer itself reports ("server_error"); never its message.
        pending: whether the work goes on in the background and the usage comes later.
    """

    usage: Usage | None = None
    id: str | None = None
    model: str | None = None
    finish_reasons: tuple[str, ...] = ()
    text: Text = field(default_factory=Text)
    pending: bool = False
    error: str | None = None


class Watch(Protocol):
    """What a door does with a stream that a reader hands on. Entered before the first chunk, left at any end."""

    def __enter__(self) -> None: ...
    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None: ...

    def feed(self, chunk: Any) -> bool:
        """The reader's `feed`, whatever it raises."""
        ...

    def look(self, chunk: Any) -> bool:
        """Look at a chunk that needs attention. True if it is kept from the program. Raises what ends the stream."""
        ...

    async def look_async(self, chunk: Any) -> bool:
        """`look`, where closing a connection takes an event loop."""
        ...


class StreamReader(Protocol):
    """Reads the chunks of one stream as they pass. `hand_on` is the hot path: no call and no allocation per chunk.

    Attributes:
        units: output received so far, shown reasoning included, estimated, in thousandths of a token.
        limit: a chunk needs attention when `units` is over it; the call sets it to what it holds money for.
        terminal: whether the event that ends this kind of stream was seen (finish_reason of all choices / `[DONE]`
            is not visible for chat, so: a finish_reason; `response.completed|incomplete|failed`; `message_stop`).
    """

    units: int
    limit: int
    terminal: bool

    def hand_on(self, chunks: Iterator[Any], watch: Watch) -> Generator[Any, None, None]:
        """Hand on every chunk, counted, and let `watch` look where it must. The first item is None, before any."""
        ...

    def hand_on_async(self, chunks: AsyncIterator[Any], watch: Watch) -> AsyncGenerator[Any, None]:
        """`hand_on` for an async stream."""
        ...

    def feed(self, chunk: Any) -> bool:
        """Count one chunk. Returns True if the caller must look: the limit is passed, or `is_usage_only` may hold."""
        ...

    def is_usage_only(self, chunk: Any) -> bool:
        """Whether the chunk is the extra one that `include_usage` brings (`choices` empty, `usage` set)."""
        ...

    def answer(self) -> Answer:
        """What is known so far; `usage` is None until the provider has said it."""
        ...

    def input_tokens(self) -> int | None:
        """Input tokens (inclusive) if the provider has said them at the start of the stream (Anthropic), else None."""
        ...


class Api(Protocol):
    """What every billable call says of the API that is called.

    Attributes:
        name: "chat.completions", "responses", "messages"; "span" where only a span shows the call.
        provider: the `gen_ai.provider.name` value.
        operation: the `gen_ai.operation.name` value.
    """

    @property
    def name(self) -> str: ...
    @property
    def provider(self) -> str: ...
    @property
    def operation(self) -> str: ...


class Endpoint(Api, Protocol):
    """One billable API, whose requests and answers pass through a door."""

    def read_request(self, body: Mapping[str, Any]) -> Request:
        """The facts of a request body (sentinels such as `Omit` and `NotGiven` count as absent)."""
        ...

    def read_answer(self, answer: Any) -> Answer:
        """The facts of a complete answer: the SDK's parsed object, or the decoded JSON."""
        ...

    def reader(self, request: Request, rates: Rates) -> StreamReader:
        """A reader for the chunks of one stream. `rates` turns text into tokens."""
        ...

    def with_usage(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of the body that asks the provider for the usage of a stream. Nothing nested is shared and changed."""
        ...

    def with_cap(self, body: Mapping[str, Any], cap: int) -> dict[str, Any]:
        """A copy of the body whose output is capped at `cap` tokens per choice."""
        ...


def __getattr__(name: str) -> Any:
    if name in ("ADAPTER_REGISTRY", "ProviderAdapter"):  # the vocabulary keeps them here
        from .. import vocabulary

        return getattr(vocabulary, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
