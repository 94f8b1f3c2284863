"""What the callers ask: short and long, in scripts that count differently, with tools, without a cap, four at once."""

from __future__ import annotations

from typing import Any

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

_ENGLISH = "Tell me, in a few words, how a lock keeper works. " * 4
_CAP = {"max_completion_tokens": OUTPUT}


def _says(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


SHORT = {**_says("Hello, who are you?"), **_CAP}

KINDS: dict[str, dict[str, Any]] = {
    "english": {**_says(_ENGLISH), **_CAP},
    "chinese": {**_says("请用几句话告诉我，运河上的船闸管理员每天都做些什么工作。" * 4), **_CAP},
    "emoji": {**_says("🚢🔒💧🌊👩‍🔧🛶⛵️🐟 " * 10), **_CAP},
    "tools": {**_says("Where is order 12345678?"), "tools": TOOLS, **_CAP},
    "uncapped": _says(_ENGLISH),
    "four": {**_says(_ENGLISH), **_CAP, "n": 4},
}


def request(kind: str, stream: bool = False) -> dict[str, Any]:
    """The arguments of a call."""
    made = {"model": MODEL, **(SHORT if kind == "short" else KINDS[kind])}
    return {**made, "stream": True} if stream else made
