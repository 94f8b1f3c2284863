"""The most output tokens that a model can generate in one answer, as its provider documents it.

The price list does not say it. It bounds what a request without a cap can cost; it knows nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

_MAX_OUTPUT: Mapping[str, int] = {}


def max_output_of(model_id: str, context_window: int | None) -> int | None:
    """The documented maximum output of a model in tokens, reasoning included.

    Args:
        model_id: the model's id in the price list.
        context_window: tokens of input that the model takes, by the price list; stands in where we know nothing
            better, because an answer fits into the context.

    Returns:
        tokens; None if nobody says.
    """
    return _MAX_OUTPUT.get(model_id, context_window)
