"""What a message shows of a value that somebody gave."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

LONGEST = 80
"""Characters of a value in a message."""


def shown(value: Any) -> str:
    """What a message shows of a value: on one line, and not all of a long one."""
    try:
        text = repr(str(value) if isinstance(value, StrEnum) else value)
    except Exception:  # Python refuses to write very long integers; a class may refuse anything
        return f"a value of type {type(value).__name__}"
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ..."
