"""Answers of OpenAI: the usage and the measure of complete chat completions and responses.

Reads objects of the SDK and decoded JSON alike. This file must never know a request, a budget or a price.
"""

from __future__ import annotations

from typing import Any

from shekel.usage import ModelUsage, Usage

from .base import Answer
from .body import Walk, get, integer, items, string

_TEXT_ONLY: dict[str, Any] = {"type": None}


def read_chat(answer: Any) -> Answer:
    """The facts of a complete chat completion."""
    usage = get(answer, "usage")
    counted = None if usage is None else read_chat_usage(usage, get(answer, "service_tier"))
    walk = Walk()
    finished = []
    for choice in items(get(answer, "choices")):
        reason = string(get(choice, "finish_reason"))
        if reason:
            finished.append(reason)
        message = get(choice, "message")
        _generated_message(walk, message)
        if not (counted and counted.reasoning):
            shown = get(message, "reasoning_content") or get(message, "reasoning")
            if shown is not None:
                walk.content(shown, _TEXT_ONLY, "reasoning")
    return Answer(
        usage=counted,
        id=string(get(answer, "id")),
        model=string(get(answer, "model")),
        finish_reasons=tuple(finished),
        text=walk.text,
    )


def read_chat_usage(usage: Any, tier: Any = None) -> Usage:
    """Usage of Chat Completions, from the SDK's object or a mapping."""
    sent, made = get(usage, "prompt_tokens_details"), get(usage, "completion_tokens_details")
    read, written = integer(get(usage, "prompt_tokens")), integer(get(usage, "completion_tokens"))
    if sent is None and made is None:
        return Usage(input=read, output=written, service_tier=string(tier))
    return Usage(
        input=read,
        output=written,
        cache_read=integer(get(sent, "cached_tokens")),
        cache_write=integer(get(sent, "cache_write_tokens")),
        reasoning=integer(get(made, "reasoning_tokens")),
        input_audio=integer(get(sent, "audio_tokens")),
        output_audio=integer(get(made, "audio_tokens")),
        input_image=integer(get(sent, "image_tokens")),
        output_image=integer(get(made, "image_tokens")),
        service_tier=string(tier),
    )


def read_response(response: Any) -> Answer:
    """The facts of a response object."""
    usage = get(response, "usage")
    status = string(get(response, "status"))
    reason = string(get(get(response, "incomplete_details"), "reason")) or status
    counted = None if usage is None else _response_usage(response, usage)
    walk = Walk()
    for item in items(get(response, "output")):
        _generated_item(walk, item, with_reasoning=not (counted and counted.reasoning))
    return Answer(
        usage=counted,
        id=string(get(response, "id")),
        model=string(get(response, "model")),
        finish_reasons=(reason,) if reason else (),
        text=walk.text,
        pending=usage is None and status in ("queued", "in_progress"),
        error=(string(get(get(response, "error"), "code")) or "failed") if status == "failed" else None,
    )


def _response_usage(response: Any, usage: Any) -> Usage:
    sent = get(usage, "input_tokens_details")
    tools = get(response, "tool_usage")
    output = items(get(response, "output"))
    kinds = [get(item, "type") for item in output]
    searches = get(get(tools, "web_search"), "num_requests")
    if type(searches) is not int:  # opening or searching within a page is not billed as a search
        searches = sum(get(i, "type") == "web_search_call" and _is_search(get(i, "action")) for i in output)
    return Usage(
        input=integer(get(usage, "input_tokens")),
        output=integer(get(usage, "output_tokens")),
        cache_read=integer(get(sent, "cached_tokens")),
        cache_write=integer(get(sent, "cache_write_tokens")),
        reasoning=integer(get(get(usage, "output_tokens_details"), "reasoning_tokens")),
        web_searches=searches,
        storage_searches=kinds.count("file_search_call"),
        code_executions=kinds.count("code_interpreter_call"),
        service_tier=string(get(response, "service_tier")),
        also=_images_made(response, get(tools, "image_gen")),
    )


def _is_search(action: Any) -> bool:
    return get(action, "type") in (None, "search")


def _images_made(response: Any, made: Any) -> tuple[ModelUsage, ...]:
    """What the image tool consumed: it has a model of its own, and its tokens are not in the response's."""
    sent, output = integer(get(made, "input_tokens")), integer(get(made, "output_tokens"))
    if not sent and not output:
        return ()
    tool = next((t for t in items(get(response, "tools")) if get(t, "type") == "image_generation"), None)
    usage = Usage(
        input=sent,
        output=output,
        cache_read=integer(get(made, "cached_tokens")),
        input_image=integer(get(get(made, "input_tokens_details"), "image_tokens")),
        output_image=integer(get(get(made, "output_tokens_details"), "image_tokens")),
    )
    return (ModelUsage(string(get(tool, "model")) or "gpt-image-1", usage),)  # the API's default model for the tool


def _generated_message(walk: Walk, message: Any) -> None:
    """What a chat message generated, without reasoning."""
    walk.content(get(message, "content"), _TEXT_ONLY, "content")
    if (refusal := get(message, "refusal")) is not None:
        walk.content(refusal, _TEXT_ONLY, "refusal")
    if (function := get(message, "function_call")) is not None:
        _called(walk, function)
    if (calls := get(message, "tool_calls")) is not None:
        for call in items(calls):
            _called(walk, get(call, "function"))
            _called(walk, get(call, "custom"))
    if (audio := get(message, "audio")) is not None:
        walk.content(get(audio, "transcript"), {}, "audio")


def _called(walk: Walk, call: Any) -> None:
    for name in ("name", "arguments", "input"):
        walk.content(get(call, name), {}, name)


def _generated_item(walk: Walk, item: Any, *, with_reasoning: bool) -> None:
    """What an output item generated: nothing that server tools brought; reasoning where usage does not split it."""
    kind = get(item, "type")
    if kind == "message":
        for part in items(get(item, "content")):
            walk.content(get(part, "text") or get(part, "refusal"), {}, "text")
    elif kind == "reasoning":
        if with_reasoning:
            for part in items(get(item, "content")) or items(get(item, "summary")):
                walk.content(get(part, "text"), {}, "text")
    elif isinstance(kind, str) and kind.endswith("_call"):
        for name in ("name", "arguments", "input", "code"):
            walk.content(get(item, name), _TEXT_ONLY, name)
