"""Anthropic Messages: its requests, answers and usage.

Usage is made inclusive here (`input_tokens` leaves out what was read from or written to a cache). Streams are in
`anthropic_stream.py`. This file must never know a budget or a price, and imports no SDK.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shekel.estimation import Rates, Text
from shekel.telemetry import names
from shekel.usage import ModelUsage, Usage

from .anthropic_stream import MessageReader
from .base import Answer, Request
from .body import SCALARS, Walk, cap_of, get, given, integer, items, string, unknown
from .media import image_size

ATTRIBUTES = {
    "model": names.REQUEST_MODEL,
    "max_tokens": names.REQUEST_MAX_TOKENS,
    "temperature": names.REQUEST_TEMPERATURE,
    "top_p": names.REQUEST_TOP_P,
    "top_k": names.REQUEST_TOP_K,
    "stream": names.REQUEST_STREAM,
}

# The prompt that Anthropic adds where tools are offered, in tokens: (tool_choice auto or none, any or tool).
# Source: platform.claude.com/docs/en/agents-and-tools/tool-use/overview#pricing, and its older revisions for models
# that it no longer lists. The first name that begins the model's counts.
_TOOL_PROMPTS: tuple[tuple[str, int, int], ...] = (
    ("claude-opus-5", 286, 406),
    ("claude-opus-4-8", 290, 410),
    ("claude-opus-4-7", 675, 804),
    ("claude-opus-4-6", 497, 589),
    ("claude-opus-4-5", 496, 588),
    ("claude-opus-4", 313, 315),
    ("claude-sonnet-5", 354, 474),
    ("claude-sonnet-4-6", 497, 589),
    ("claude-sonnet-4-5", 496, 588),
    ("claude-sonnet-4", 313, 315),
    ("claude-haiku-4-5", 496, 588),
    ("claude-3-7-sonnet", 346, 313),
    ("claude-3-5-sonnet-20240620", 294, 261),
    ("claude-3-5-sonnet", 346, 313),
    ("claude-3-5-haiku", 264, 355),
    ("claude-3-opus", 530, 281),
    ("claude-3-sonnet", 159, 235),
    ("claude-3-haiku", 264, 340),
)
_UNLISTED_PROMPT = (346, 804)  # for models that are not listed: an estimate, and the largest number of the list
_PROMPT_SLACK = 64  # the list was revised by up to 33 tokens for the same model; for the bound
# A structured output brings a prompt of its own ("input token count will be slightly higher"), without a number:
# 150 is the mean of recorded requests, and as much as for the longest prompt for tools is allowed in the bound.
_FORMAT_PROMPT = 150
_FORMAT_PROMPT_BOUND = 804

# Tools that run at the caller but whose definition is Anthropic's, in tokens. Source: the pages of the tools
# (bash 244 to 325, by model; text editor 700; computer use 735 and 466 to 499 for its prompt).
_CLIENT_TOOLS: tuple[tuple[str, int], ...] = (("bash_", 325), ("text_editor_", 700), ("computer_", 735 + 499))

# An image takes ⌈width / 28⌉ × ⌈height / 28⌉ tokens after it was scaled down to fit.
# Source: platform.claude.com/docs/en/build-with-claude/vision.
_PATCH = 28
_IMAGE_MOST = 1_600  # 1568 px on the long edge, "~1,600 tokens" in older revisions of that page
_IMAGE_MOST_LATER = 4_784  # 2576 px on the long edge, from Opus 4.7
_SMALLER_IMAGES = (
    "claude-3", "claude-opus-4-0", "claude-opus-4-1", "claude-opus-4-2", "claude-opus-4-5", "claude-opus-4-6",
    "claude-sonnet-4", "claude-haiku-4",
)  # fmt: skip

_PDF_PAGE = 3_000  # tokens of text per page, the upper end of the documented 1,500 to 3,000 (PDF support)

_PER_TOOL = 30  # tokens around each definition, the mean of recorded requests

# What else Anthropic adds, in tokens, without a published number: the means of recorded requests.
_PRIMER = 4
_THINKING = {"enabled": 29, "adaptive": 17}
_TASK_BUDGET = 40

_BASE = 128  # tokens of structure that a request may have beside its messages, the above included, for the bound
_PER_MAPPING = 16  # the same for each message and block (their role, type, ids and delimiters)
_PER_ENTRY = 6  # the same for each key or value of JSON: quotes, colon, comma, two of white space

# fmt: off
# Fields that add nothing to the input but what is counted here. Any other field is a mode that we do not know.
_KNOWN = frozenset({
    "messages", "model", "max_tokens", "system", "tools", "tool_choice", "thinking", "stream", "temperature", "top_p",
    "top_k", "stop_sequences", "metadata", "service_tier", "cache_control", "output_config", "output_format",
    "inference_geo", "speed", "betas", "context_management",
})
_BLOCKS = frozenset({
    "text", "image", "document", "tool_use", "tool_result", "thinking", "redacted_thinking", "message",
})
# fmt: on


def _block(walk: Walk, node: Mapping[str, Any], value: Any) -> bool:
    if value not in _BLOCKS:
        walk.open_ended(str(value))
    return False


def _source(walk: Walk, node: Mapping[str, Any], value: Any) -> bool:
    """The source of an image or a document: {"type": "base64" | "url" | "file" | "text" | "content", ...}."""
    kind = get(value, "type")
    if kind in ("text", "content"):
        if kind == "text":
            walk.content(get(value, "data"), {}, "source")
        else:
            walk.content(get(value, "content"), SPECIAL, "source")
        return False
    data = get(value, "data")
    most = _IMAGE_MOST if walk.model.startswith(_SMALLER_IMAGES) else _IMAGE_MOST_LATER
    if get(node, "type") == "image":
        size = image_size(data) if kind == "base64" and isinstance(data, str) else None
        walk.extra += most if size is None else min(most, -(-size[0] // _PATCH) * -(-size[1] // _PATCH))
        walk.bound += most
    else:
        walk.extra += _PDF_PAGE
        walk.open_ended("document")
    if kind != "base64" or not isinstance(data, str):
        walk.open_ended({"url": "url", "file": "file_id"}.get(str(kind), "source"))
    return False


def _encrypted(walk: Walk, node: Mapping[str, Any], value: Any) -> bool:
    """Encrypted reasoning: longer than what it hides, and it is not text."""
    if isinstance(value, str):
        walk.bound += len(value)
    else:
        walk.open_ended("signature")
    return False


def _arguments(walk: Walk, node: Mapping[str, Any], value: Any) -> bool:
    walk.schema(value, "input")
    return False


def _unbounded(field: str) -> Any:
    def handle(walk: Walk, node: Mapping[str, Any], value: Any) -> bool:
        walk.open_ended(field)
        return False

    return handle


def _citations(walk: Walk, node: Mapping[str, Any], value: Any) -> bool:
    if get(value, "enabled"):  # documents are cut into chunks, each with an index: no number is published
        walk.open_ended("citations")
    return False


SPECIAL: dict[str, Any] = {
    "type": _block,
    "role": None,
    "cache_control": None,
    "source": _source,
    "signature": _encrypted,
    "data": _encrypted,  # of redacted_thinking
    "input": _arguments,
    "file_id": _unbounded("file_id"),
    "encrypted_content": _unbounded("encrypted_content"),
    "citations": _citations,
}


class Messages:
    """`POST /v1/messages`, beta or not."""

    name = "messages"
    provider = "anthropic"
    operation = "chat"

    def read_request(self, body: Mapping[str, Any]) -> Request:
        """The facts of a request body. Never raises."""
        try:
            return self._read_request(given(body))
        except Exception:
            return Request(model=str(get(body, "model") or ""), stream=get(body, "stream") is True, unbounded="body")

    def _read_request(self, body: dict[str, Any]) -> Request:
        model = str(body.get("model", ""))
        walk = Walk(model)
        walk.bound = _BASE
        walk.content(body.get("messages"), SPECIAL, "messages")
        walk.content(body.get("system"), SPECIAL, "system")
        walk.extra += 3 * walk.mappings
        walk.bound += _PER_MAPPING * walk.mappings
        if "tools" in body:
            self._tools(walk, body["tools"], body.get("tool_choice"))
        output = body.get("output_config")
        schema = get(output, "format") or body.get("output_format")
        if schema is not None:
            walk.schema(schema, "output_config.format")
            walk.extra += _FORMAT_PROMPT
            walk.bound += _FORMAT_PROMPT_BOUND
        for edit in items(get(body.get("context_management"), "edits")):
            if not str(get(edit, "type")).startswith("clear_"):  # clearing only makes the input smaller
                walk.open_ended("context_management")
        for field in unknown(body, _KNOWN):
            walk.open_ended(field)
        walk.bound += _PER_ENTRY * walk.entries
        text = walk.text
        thinking = body.get("thinking")
        walk.extra += _PRIMER + _THINKING.get(str(get(thinking, "type")), 0)
        if get(output, "task_budget") is not None:
            walk.extra += _TASK_BUDGET
        attributes = {ATTRIBUTES[k]: v for k, v in body.items() if k in ATTRIBUTES and type(v) in SCALARS}
        return Request(
            model=model,
            stream=body.get("stream") is True,
            cap=cap_of(body.get("max_tokens")),
            cap_field="max_tokens",
            min_cap=1 + integer(get(thinking, "budget_tokens")),
            text=text,
            extra_input=walk.extra,
            input_bound=None if walk.unbounded is not None else text.bytes + walk.bound,
            unbounded=walk.unbounded,
            service_tier=string(body.get("service_tier")),
            speed=string(body.get("speed")),
            attributes=attributes,
        )

    @staticmethod
    def _tools(walk: Walk, tools: Any, choice: Any) -> None:
        forced = get(choice, "type") in ("any", "tool")
        offered = 0
        for tool in items(tools):
            offered += 1
            kind = get(tool, "type") or "custom"
            if kind == "custom":
                walk.schema({k: get(tool, k) for k in ("name", "description", "input_schema") if get(tool, k)}, "tools")
                walk.bound += _PER_MAPPING
                if get(tool, "input_examples") is not None:
                    walk.schema(get(tool, "input_examples"), "tools")
                continue
            for prefix, tokens in _CLIENT_TOOLS:
                if str(kind).startswith(prefix):
                    walk.extra += tokens
                    walk.bound += 2 * tokens  # the numbers are those of Claude 4: room for later tokenizers
                    break
            else:
                walk.open_ended(str(kind))
        if not offered and not isinstance(tools, list | tuple):
            walk.open_ended("tools")
        if offered:
            estimate, most = _UNLISTED_PROMPT
            for prefix, auto, force in _TOOL_PROMPTS:
                if walk.model.startswith(prefix):
                    estimate, most = force if forced else auto, max(auto, force)
                    break
            walk.extra += estimate + _PER_TOOL * offered
            walk.bound += most + _PROMPT_SLACK

    def read_answer(self, answer: Any) -> Answer:
        """The facts of a complete message."""
        usage = get(answer, "usage")
        counted = None if usage is None else read_usage(usage)
        stop = string(get(answer, "stop_reason"))
        return Answer(
            usage=counted,
            id=string(get(answer, "id")),
            model=string(get(answer, "model")),
            finish_reasons=(stop,) if stop else (),
            text=_generated(answer, with_thinking=not (counted and counted.reasoning)),
        )

    def reader(self, request: Request, rates: Rates) -> MessageReader:
        """A reader for the events of one stream."""
        return MessageReader(rates, read_usage)

    def with_usage(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of the body: these streams always carry usage."""
        return dict(body)

    def with_cap(self, body: Mapping[str, Any], cap: int) -> dict[str, Any]:
        """A copy of the body whose output, thinking included, is capped."""
        return {**body, "max_tokens": cap}


def read_usage(usage: Any) -> Usage:
    """Inclusive usage, from the SDK's object or a mapping."""
    created = get(usage, "cache_creation")
    five, hour = integer(get(created, "ephemeral_5m_input_tokens")), integer(get(created, "ephemeral_1h_input_tokens"))
    read, written = integer(get(usage, "cache_read_input_tokens")), get(usage, "cache_creation_input_tokens")
    write = five + hour if type(written) is not int else written
    # In streams the split is known from the start only, while the total may grow: where all that was split had one
    # hour, so has the rest.
    hour = write if hour and not five else min(hour, write)
    servers = get(usage, "server_tool_use")
    return Usage(
        input=integer(get(usage, "input_tokens")) + read + write,
        output=integer(get(usage, "output_tokens")),
        cache_read=read,
        cache_write=write,
        cache_write_1h=hour,
        reasoning=integer(get(get(usage, "output_tokens_details"), "thinking_tokens")),
        web_searches=integer(get(servers, "web_search_requests")),
        code_executions=integer(get(servers, "code_execution_requests")),
        service_tier=string(get(usage, "service_tier")),
        speed=string(get(usage, "speed")),
        also=tuple(
            ModelUsage(string(get(one, "model")), read_usage(one))
            for one in items(get(usage, "iterations"))
            # Message passes (and that of a fallback that served the turn) are in the totals; these two are not.
            if get(one, "type") in ("compaction", "advisor_message")
        ),
    )


def _generated(answer: Any, *, with_thinking: bool) -> Text:
    """What a message generated, without what server tools brought; thinking only where the usage does not split it."""
    walk = Walk()
    for block in items(get(answer, "content")):
        kind = get(block, "type")
        if kind == "text":
            walk.content(get(block, "text"), {}, "text")
        elif kind in ("tool_use", "server_tool_use", "mcp_tool_use"):
            walk.content(get(block, "name"), {}, "name")
            walk.schema(get(block, "input"), "input")
        elif kind == "thinking" and with_thinking:
            walk.content(get(block, "thinking"), {}, "thinking")
    return walk.text
