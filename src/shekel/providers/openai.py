"""OpenAI Chat Completions and Responses: the endpoints, and what their requests say.

Requests stand here; what the parts of a message are in `openai_parts.py`, answers in `openai_answers.py`, streams in
`openai_stream.py`. This file must never know a budget or a price, and imports no SDK.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from shekel.estimation import Rates, Text
from shekel.telemetry import names

from .base import WHOLE, Answer, Request
from .body import SCALARS, Walk, cap_of, get, given, integer, items, string, unknown
from .openai_answers import read_chat, read_chat_usage, read_response
from .openai_parts import SPECIAL
from .openai_stream import ChatReader, ResponseReader

ATTRIBUTES = {
    "model": names.REQUEST_MODEL,
    "max_tokens": names.REQUEST_MAX_TOKENS,
    "max_completion_tokens": names.REQUEST_MAX_TOKENS,
    "max_output_tokens": names.REQUEST_MAX_TOKENS,
    "temperature": names.REQUEST_TEMPERATURE,
    "top_p": names.REQUEST_TOP_P,
    "frequency_penalty": names.REQUEST_FREQUENCY_PENALTY,
    "presence_penalty": names.REQUEST_PRESENCE_PENALTY,
    "seed": names.REQUEST_SEED,
    "stream": names.REQUEST_STREAM,
    "service_tier": names.OPENAI_REQUEST_SERVICE_TIER,
}

# Tokens of structure: 3 per message and 3 to prime the answer, about 12 per function and 12 to end the list.
# Source: developers.openai.com/cookbook/examples/how_to_count_tokens_with_tiktoken.
_PER_MESSAGE = 3
_PRIMER = 3
_PER_TOOL = 12

# The same for the bound, where the published numbers are examples and not promises: several times as much.
_BASE = 64
_PER_MAPPING = 16
_PER_ENTRY = 6  # each key or value of JSON: quotes, colon, comma, two of white space
_TOOLS_BOUND = 128
_PER_TOOL_BOUND = 64
_FORMAT_BOUND = 64

# fmt: off
# Fields that add nothing to the input but what is counted here. Any other field is a mode that we do not know.
_SAME = frozenset({
    "model", "stream", "stream_options", "temperature", "top_p", "top_logprobs", "tools", "tool_choice",
    "parallel_tool_calls", "service_tier", "store", "metadata", "user", "safety_identifier", "prompt_cache_key",
    "prompt_cache_options", "prompt_cache_retention", "moderation",
})
_CHAT = _SAME | {
    "messages", "functions", "function_call", "response_format", "max_tokens", "max_completion_tokens", "n", "seed",
    "stop", "frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "reasoning_effort", "verbosity",
    "modalities", "audio", "prediction",
}
_RESPONSES = _SAME | {
    "input", "instructions", "text", "max_output_tokens", "include", "reasoning", "truncation", "background",
}
# fmt: on


def _tools(walk: Walk, tools: Any) -> None:
    """Functions and custom tools, in the form of either API. All others run at the provider or bring its prompts."""
    offered = items(tools)
    if not offered:
        if not isinstance(tools, list | tuple):
            walk.open_ended("tools")
        return
    walk.extra += _PER_TOOL
    walk.bound += _TOOLS_BOUND
    for tool in offered:
        kind = get(tool, "type") or "function"
        if kind not in ("function", "custom") or get(tool, "defer_loading"):
            walk.open_ended(str(kind))
        definition = get(tool, str(kind)) or tool
        walk.schema(
            {k: get(definition, k) for k in ("name", "description", "parameters", "format") if get(definition, k)},
            "tools",
        )
        walk.extra += _PER_TOOL
        walk.bound += _PER_TOOL_BOUND


def _attributes(body: Mapping[str, Any], choices: int = 1) -> dict[str, Any]:
    found = {ATTRIBUTES[k]: v for k, v in body.items() if k in ATTRIBUTES and type(v) in SCALARS}
    if choices != 1:
        found[names.REQUEST_CHOICE_COUNT] = choices
    return found


class _OpenAI(ABC):
    """What both APIs share: a request is read without ever raising."""

    provider = "openai"
    operation = "chat"

    def read_request(self, body: Mapping[str, Any]) -> Request:
        """The facts of a request body. Never raises."""
        try:
            return self._read_request(given(body))
        except Exception:
            return Request(model=str(get(body, "model") or ""), stream=get(body, "stream") is True, unbounded="body")

    @abstractmethod
    def _read_request(self, body: dict[str, Any]) -> Request: ...

    @staticmethod
    def _walk(model: str) -> Walk:
        walk = Walk(model)
        walk.bound = _BASE
        walk.extra = _PRIMER
        if "search" in model or "deep-research" in model:  # these read the web without being told to
            walk.open_ended("model")
        return walk

    @staticmethod
    def _close(walk: Walk, body: dict[str, Any], known: frozenset[str]) -> tuple[Text, int | None]:
        for field in unknown(body, known):
            walk.open_ended(field)
        walk.bound += _PER_ENTRY * walk.entries + _PER_MAPPING * walk.mappings
        text = walk.text
        return text, None if walk.unbounded is not None else text.bytes + walk.bound


class ChatCompletions(_OpenAI):
    """`POST /chat/completions`, of OpenAI, Azure, or a host that speaks the same."""

    name = "chat.completions"

    def _read_request(self, body: dict[str, Any]) -> Request:
        model = str(body.get("model", ""))
        walk = self._walk(model)
        messages = body.get("messages")
        walk.content(messages, SPECIAL, "messages")
        walk.extra += _PER_MESSAGE * (len(messages) if isinstance(messages, list | tuple) else 0)
        if "tools" in body:
            _tools(walk, body["tools"])
        if "functions" in body:
            _tools(walk, body["functions"])
        schema = get(body.get("response_format"), "json_schema")
        if schema is not None:
            walk.schema(schema, "response_format")
            walk.bound += _FORMAT_BOUND
        text, bound = self._close(walk, body, _CHAT)
        choices = max(1, integer(body.get("n")))
        field = self._cap_field(body)
        asked = get(body.get("stream_options"), "include_usage")
        return Request(
            model=model,
            stream=body.get("stream") is True,
            cap=cap_of(body.get(field)),
            cap_field=field,
            choices=choices,
            text=text,
            extra_input=walk.extra,
            input_bound=bound,
            unbounded=walk.unbounded,
            service_tier=string(body.get("service_tier")),
            wants_usage=None if asked is None else bool(asked),
            attributes=_attributes(body, choices),
        )

    @staticmethod
    def _cap_field(body: Mapping[str, Any]) -> str:
        """The field for a cap: the caller's own, else `max_completion_tokens`.

        Reasoning models refuse `max_tokens`, and it is deprecated for the others. Only models that predate the new
        field get the old one: hosts that still serve them alone may not know the new one.
        """
        if body.get("max_completion_tokens") is not None:
            return "max_completion_tokens"
        model = str(body.get("model", ""))
        old = model.startswith(("gpt-3.5", "gpt-4-", "gpt-35")) or model == "gpt-4"
        return "max_tokens" if old or body.get("max_tokens") is not None else "max_completion_tokens"

    def read_answer(self, answer: Any) -> Answer:
        """The facts of a complete chat completion."""
        return read_chat(answer)

    def reader(self, request: Request, rates: Rates) -> ChatReader:
        """A reader for the chunks of one stream."""
        return ChatReader(rates, request.choices, read_chat_usage)

    def with_usage(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of the body that asks for the usage chunk."""
        options = given(body).get("stream_options")
        options = dict(options) if isinstance(options, Mapping) else {}
        return {**body, "stream_options": {**options, "include_usage": True}}

    def with_cap(self, body: Mapping[str, Any], cap: int) -> dict[str, Any]:
        """A copy of the body whose output, reasoning included, is capped per choice."""
        return {**body, self._cap_field(given(body)): cap}


class Responses(_OpenAI):
    """`POST /responses`, beta or not."""

    name = "responses"

    def _read_request(self, body: dict[str, Any]) -> Request:
        model = str(body.get("model", ""))
        walk = self._walk(model)
        sent = body.get("input")
        walk.content(sent, SPECIAL, "input")
        walk.extra += _PER_MESSAGE * (len(sent) if isinstance(sent, list | tuple) else 1)
        if "instructions" in body:
            walk.content(body["instructions"], SPECIAL, "instructions")
            walk.extra += _PER_MESSAGE
        if "tools" in body:
            _tools(walk, body["tools"])
        schema = get(body.get("text"), "format")
        if get(schema, "schema") is not None:
            walk.schema({k: get(schema, k) for k in ("name", "description", "schema")}, "text.format")
            walk.bound += _FORMAT_BOUND
        reasoning = body.get("reasoning")
        if get(reasoning, "mode") not in (None, "standard"):  # "pro" runs passes of its own
            walk.open_ended("reasoning.mode")
        text, bound = self._close(walk, body, _RESPONSES)
        return Request(
            model=model,
            stream=body.get("stream") is True,
            cap=cap_of(body.get("max_output_tokens")),
            cap_field="max_output_tokens",
            min_cap=16,  # the API refuses less: "integer below minimum value. Expected a value >= 16"
            text=text,
            extra_input=walk.extra,
            input_bound=bound,
            unbounded=walk.unbounded,
            service_tier=string(body.get("service_tier")),
            background=body.get("background") is True,
            attributes=_attributes(body),
        )

    def read_answer(self, answer: Any) -> Answer:
        """The facts of a response, complete, incomplete or still under way."""
        return read_response(answer)

    def reader(self, request: Request, rates: Rates) -> ResponseReader:
        """A reader for the events of one stream."""
        return ResponseReader(rates, read_response)

    def with_usage(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of the body: these streams always carry usage."""
        return dict(body)

    def with_cap(self, body: Mapping[str, Any], cap: int) -> dict[str, Any]:
        """A copy of the body whose output, reasoning included, is capped."""
        return {**body, "max_output_tokens": cap}


class Compact(Responses):
    """`POST /responses/compact`: a conversation in, a shorter one out; it has no cap and no stream."""

    name = "responses.compact"

    def _read_request(self, body: dict[str, Any]) -> Request:
        return replace(super()._read_request(body), cap=None, cap_field="", min_cap=WHOLE)

    def with_cap(self, body: Mapping[str, Any], cap: int) -> dict[str, Any]:
        """A copy of the body: this API takes no cap."""
        return dict(body)
