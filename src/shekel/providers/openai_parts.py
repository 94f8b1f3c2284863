"""Parts of OpenAI's messages: what of them is no text, what it may cost, and what nothing bounds.

For the walk over a body (`body.py`), by key. The numbers for images are in `openai_images.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .body import Walk, get
from .openai_images import image_bound, image_estimate

_AUDIO_PER_KILOBYTE = 1  # tokens per 1,000 characters of base64: speech at 10 tokens per second, compressed
_FILE_PAGE = 3_000  # tokens: a page's text and its image together; no number is published

# fmt: off
_PARTS = frozenset({
    "text", "image_url", "input_audio", "file", "refusal", "function", "custom",
    "message", "input_text", "output_text", "summary_text", "reasoning_text", "input_image", "input_file", "reasoning",
    "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output",
})
# fmt: on


def _part(walk: Walk, node: Mapping[str, Any], value: Any) -> bool:
    if value not in _PARTS:
        walk.open_ended(str(value))
    elif value == "reasoning" and get(node, "encrypted_content") is None:
        walk.open_ended("reasoning")  # known by its id only: the provider puts it back
    elif value == "input_image" and get(node, "image_url") is None:
        walk.open_ended("file_id")
    return False


def _image(walk: Walk, node: Mapping[str, Any], value: Any) -> bool:
    """`image_url`: a string (Responses), or {"url", "detail"} (Chat Completions)."""
    url = value if isinstance(value, str) else get(value, "url")
    detail = get(node, "detail") or get(value, "detail")
    walk.extra += image_estimate(walk.model, url if isinstance(url, str) else "", detail == "low")
    most = image_bound(walk.model)
    if not (isinstance(url, str) and url[:5].lower() == "data:"):
        walk.open_ended("url")
    elif most is None:
        walk.open_ended("image_url")
    else:
        walk.bound += most
    return False


def _audio(walk: Walk, node: Mapping[str, Any], value: Any) -> bool:
    data = get(value, "data")
    walk.extra += len(data) * _AUDIO_PER_KILOBYTE // 1000 if isinstance(data, str) else 0
    walk.open_ended("input_audio")
    return False


def _file(walk: Walk, node: Mapping[str, Any], value: Any) -> bool:
    walk.extra += _FILE_PAGE
    walk.open_ended("file_id" if get(value, "file_id") is not None else "file")
    return False


def _file_field(walk: Walk, node: Mapping[str, Any], value: Any) -> bool:
    walk.extra += _FILE_PAGE
    walk.open_ended("file_data")
    return False


def _by_id(walk: Walk, node: Mapping[str, Any], value: Any) -> bool:
    walk.open_ended("file_id")
    return False


def _url(walk: Walk, node: Mapping[str, Any], value: Any) -> bool:
    walk.extra += _FILE_PAGE
    walk.open_ended("url")
    return False


def _former_audio(walk: Walk, node: Mapping[str, Any], value: Any) -> bool:
    walk.open_ended("audio")
    return False


def _encrypted(walk: Walk, node: Mapping[str, Any], value: Any) -> bool:
    if isinstance(value, str):
        walk.bound += len(value)  # longer than the reasoning that it hides
    return False


SPECIAL: dict[str, Any] = {
    "type": _part,
    "role": None,
    "id": None,
    "status": None,
    "phase": None,
    "annotations": None,
    "logprobs": None,
    "prompt_cache_breakpoint": None,
    "image_url": _image,
    "input_audio": _audio,
    "file": _file,
    "file_data": _file_field,
    "file_id": _by_id,
    "file_url": _url,
    "audio": _former_audio,
    "encrypted_content": _encrypted,
}
