"""How many input tokens a request has, by the stand-in's tokenizer and the providers' known overheads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .tokens import count

# OpenAI's cookbook, "How to count tokens with tiktoken": 3 per message and its role, 3 that prime the answer, 1 per
# name; tools: 7 for each function and 12 once, and the schema (gpt-4o).
_OPENAI_MESSAGE, _OPENAI_ANSWER, _OPENAI_NAME, _OPENAI_TOOL, _OPENAI_TOOLS = 3, 3, 1, 7, 12
# OpenAI, "Images and vision": an image at low detail is 85 tokens (gpt-4o). The stand-in takes it for any image.
_IMAGE = 85
# The stand-in's own figures: a short user message costs 7 tokens beside its text.
_ANTHROPIC_MESSAGE, _ANTHROPIC_ANSWER = 3, 4
# Anthropic, "Tool use: pricing", system prompt tokens by model for tool_choice (auto or none, any or tool).
_ANTHROPIC_TOOLS = (
    ("claude-3-opus", 530, 281),
    ("claude-3-sonnet", 159, 235),
    ("claude-3-haiku", 264, 340),
    ("claude-3-5-haiku", 264, 340),
)
_ANTHROPIC_TOOLS_DEFAULT = (346, 313)

# What a message carries beside its content: not text that the model reads, or not counted as text.
_NOT_TEXT = frozenset({"type", "id", "call_id", "tool_call_id", "tool_use_id", "cache_control", "signature", "status"})
_BINARY = frozenset({"image", "image_url", "input_image", "document", "file", "input_file", "input_audio"})


def openai(body: Mapping[str, Any]) -> int:
    """Input tokens of a Chat Completions or Responses request."""
    total = _OPENAI_ANSWER
    messages = body.get("messages", body.get("input"))
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    for message in messages or []:
        total += _OPENAI_MESSAGE + _content(message)
        if isinstance(message, Mapping) and "name" in message and "role" in message:
            total += _OPENAI_NAME
    if body.get("instructions"):
        total += _OPENAI_MESSAGE + 1 + count(body["instructions"])
    if tools := body.get("tools"):
        total += _OPENAI_TOOLS + sum(_OPENAI_TOOL + count(_json(tool.get("function", tool))) for tool in tools)
    for asked in (body.get("response_format"), (body.get("text") or {}).get("format")):
        if asked and asked.get("type") == "json_schema":
            total += count(_json(asked))
    return total


def anthropic(body: Mapping[str, Any]) -> int:
    """Input tokens of a Messages request."""
    total = _ANTHROPIC_ANSWER
    for message in body.get("messages") or []:
        total += _ANTHROPIC_MESSAGE + _content({k: v for k, v in message.items() if k != "role"})
    total += _content(body.get("system") or [])
    if tools := body.get("tools"):
        choice = (body.get("tool_choice") or {}).get("type", "auto")
        total += _tool_prompt(str(body.get("model")), forced=choice in ("any", "tool"))
        total += sum(count(_json(tool)) for tool in tools)
    if schema := anthropic_schema(body):
        total += count(_json(schema))
    return total


def anthropic_schema(body: Mapping[str, Any]) -> Any:
    """The JSON schema that a Messages request asks the answer to have; None if it asks for none."""
    asked = (body.get("output_config") or {}).get("format") or body.get("output_format") or {}
    return asked.get("schema")


def _tool_prompt(model: str, *, forced: bool) -> int:
    for prefix, auto, must in _ANTHROPIC_TOOLS:
        if model.startswith(prefix):
            return must if forced else auto
    return _ANTHROPIC_TOOLS_DEFAULT[1 if forced else 0]


def _content(value: Any) -> int:
    """Tokens of every text in a message or a part of one."""
    if isinstance(value, str):
        return count(value)
    if isinstance(value, list):
        return sum(_content(item) for item in value)
    if not isinstance(value, Mapping):
        return 0
    if value.get("type") in _BINARY:
        return _IMAGE
    total = 0
    for key, item in value.items():
        if key in ("input", "arguments") and not isinstance(item, str):
            total += count(_json(item))
        elif key not in _NOT_TEXT:
            total += _content(item)
    return total


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
