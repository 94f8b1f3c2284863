"""Usage: what one billable call consumed, in one shape for every API.

The counts are **inclusive**: `input` holds cache reads and cache writes, `output` holds reasoning. What providers
count differently ends in their endpoint; nothing downstream knows it. Usage knows no price and no provider.
"""

from __future__ import annotations

from dataclasses import dataclass

from .facts import fact


@fact
class Usage:
    """What a call consumed, in tokens unless said otherwise.

    Attributes:
        input: all input tokens, cache reads and writes included.
        output: all output tokens, reasoning included.
        cache_read: input tokens that were read from a cache.
        cache_write: input tokens that were written to a cache, whatever their lifetime.
        cache_write_1h: of `cache_write`, those kept for one hour (dearer at Anthropic).
        reasoning: of `output`, the tokens of hidden or shown reasoning.
        input_audio, output_audio, cache_read_audio, input_image, output_image: of `input`, `output`, `cache_read`.
        web_searches, storage_searches, code_executions: server tool calls, in calls.
        service_tier: the tier that the provider says it billed ("default", "flex", "priority", "batch", ...).
        speed: Anthropic's `speed` ("standard", "fast"), where it was sent.
        also: passes that the provider bills beside these totals, each with its own model
            (Anthropic's compaction and advisor iterations, OpenAI's image tool).
    """

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    reasoning: int = 0
    input_audio: int = 0
    output_audio: int = 0
    cache_read_audio: int = 0
    input_image: int = 0
    output_image: int = 0
    web_searches: int = 0
    storage_searches: int = 0
    code_executions: int = 0
    service_tier: str | None = None
    speed: str | None = None
    also: tuple[ModelUsage, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """Usage of a pass that another model made within the same call.

    Attributes:
        model: the model that the provider names for the pass; None if it is the call's own.
        usage: what the pass consumed.
    """

    model: str | None
    usage: Usage
