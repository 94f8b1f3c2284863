"""The most output tokens that a model can generate in one answer, as its provider documents it.

The price list does not say it. It bounds what a request without a cap can cost; it knows nothing else. A model that
is not named here falls back to its context window, which is larger: the bound is then loose, but it holds.
"""

from __future__ import annotations

from collections.abc import Mapping

# By the price list's model id. Where a beta header raises the maximum, the raised one stands here.
# Sources: each model's page, "Max output tokens" at https://platform.openai.com/docs/models/<model>
# and "Max output" at https://platform.claude.com/docs/en/about-claude/models/overview.
_MAX_OUTPUT: Mapping[str, int] = {
    "gpt-3.5-turbo": 4_096,
    "gpt-4-turbo": 4_096,
    "gpt-4o-2024-05-13": 4_096,
    "gpt-4o": 16_384,
    "gpt-4o-mini": 16_384,
    "gpt-4.1": 32_768,
    "gpt-4.1-mini": 32_768,
    "gpt-4.1-nano": 32_768,
    "gpt-5": 128_000,
    "gpt-5-mini": 128_000,
    "gpt-5-nano": 128_000,
    "gpt-5.1": 128_000,
    "gpt-5.2": 128_000,
    "gpt-5.4": 128_000,
    "o1": 100_000,
    "o3": 100_000,
    "o3-mini": 100_000,
    "o3-pro": 100_000,
    "o4-mini": 100_000,
    "claude-3-haiku": 4_096,
    "claude-3-opus-latest": 4_096,
    "claude-3-5-haiku-latest": 8_192,
    "claude-3-5-sonnet": 8_192,
    "claude-3-7-sonnet-latest": 128_000,  # with the header output-128k-2025-02-19; 64,000 without
    "claude-opus-4-0": 32_000,
    "claude-opus-4-1": 32_000,
    "claude-opus-4-5": 64_000,
    "claude-opus-4-6": 128_000,
    "claude-opus-4-7": 128_000,
    "claude-opus-4-8": 128_000,
    "claude-opus-5-5": 128_000,
    "claude-sonnet-4-0": 64_000,
    "claude-sonnet-4-5": 64_000,
    "claude-sonnet-4-6": 128_000,
    "claude-sonnet-5": 128_000,
    "claude-haiku-4-5": 64_000,
    "claude-fable-5-1": 128_000,
}


def max_output_of(model_id: str, context_window: int | None) -> int | None:
    """The documented maximum output of a model in tokens, reasoning included.

    Args:
        model_id: the model's id in the price list.
        context_window: the model's window in tokens by the price list; stands in where nothing better is known.

    Returns:
        tokens; None if nobody says.
    """
    return _MAX_OUTPUT.get(model_id, context_window)
