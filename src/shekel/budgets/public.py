"""What an end user is told when a budget says no: a sentence without amounts, names or models, and the program's own.

`shekel.configure(public_message=…)` sets the text, for all errors or by reason; errors take it from here when they are
asked, and carry it along when they are pickled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .. import faults
from ..shown import shown

LIMIT = "The usage limit for this service is reached. Please try again later."
CUT = "This answer was stopped because the usage limit is reached."
STOPPED = "This service is switched off for now. Please try again later."
IMPOSSIBLE = "This request cannot be answered by this service."
LOOP = "This task was stopped because it repeated itself."

_SENTENCES = {
    "cut": CUT,
    "stopped": STOPPED,
    "unpriced": IMPOSSIBLE,
    "unbounded": IMPOSSIBLE,
    "busy": IMPOSSIBLE,
    "loop": LOOP,
}

REASONS = ("exceeded", "cut", "unpriced", "unbounded", "stopped", "paused", "finished", "busy", "loop", "tool")
"""What `error.reason` may say; then a tool that runs in a loop, and one that no budget has room for. "default" stands
for those that a mapping does not name."""

Text = str | Mapping[str, str] | Callable[[Exception], str]

_text: Text | None = None


def set_text(text: Any) -> None:
    """Use the program's own words from now on; None goes back to ours.

    Args:
        text: one sentence for every refusal; a mapping from the reason ("cut", "stopped", …, "default") to a sentence;
            or a function of the error that returns one.

    Raises:
        ValueError: it is none of these.
    """
    global _text
    if isinstance(text, Mapping):
        for reason, sentence in text.items():
            if reason not in (*REASONS, "default"):
                raise ValueError(
                    f"public_message has the reason {shown(reason)}: use {', '.join(REASONS)} or 'default'."
                )
            _checked(sentence)
        text = dict(text)
    elif text is not None and not callable(text):
        _checked(text)
    _text = text


def sentence(error: Exception, reason: str) -> str:
    """What an end user is told about an error."""
    carried = error.__dict__.get("_public")
    if isinstance(carried, str):  # it comes from another process, which may have had words of its own
        return carried
    text = _text
    ours = _SENTENCES.get(reason, LIMIT)
    if text is None:
        return ours
    if isinstance(text, str):
        return text
    if isinstance(text, Mapping):
        return text.get(reason) or text.get("default") or ours
    try:
        said = text(error)
    except Exception as problem:
        faults.report("asked for a public message", problem)
        return ours
    return said if isinstance(said, str) and said.strip() else ours


def with_text(error: Any) -> dict[str, Any]:
    """What is pickled of an error: its attributes, and the sentence where it is the program's own."""
    state = dict(error.__dict__)
    if _text is not None:
        state["_public"] = error.public_message
    return state


def _checked(text: Any) -> None:
    if not isinstance(text, str) or not text.strip():
        raise ValueError(
            "public_message must be a sentence, a mapping of them by reason, or a function of the error, "
            f"not {shown(text)}."
        )
