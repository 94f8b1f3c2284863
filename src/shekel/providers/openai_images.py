"""Tokens of images in OpenAI's requests: the published formulas, by family of models.

Source: developers.openai.com/api/docs/guides/images-vision#calculating-costs. Two kinds: tiles of 512 pixels (a base
and a number per tile), and patches of 32 pixels (a multiplier, at most 1,536 patches). Where the documentation and
what is billed disagree, or the model is not listed, there is an estimate and no bound.
"""

from __future__ import annotations

from .media import image_size

# Base and tokens per tile; a dated or suffixed name belongs to the longest family that begins it.
_TILES = {
    "gpt-4o": (85, 170),
    "gpt-4.1": (85, 170),
    "gpt-4.5": (85, 170),
    "gpt-4-turbo": (85, 170),
    "gpt-4-vision": (85, 170),
    "gpt-4-1106-vision": (85, 170),
    "gpt-4o-mini": (2833, 5667),
    "chatgpt-4o": (85, 170),
    "o1": (75, 150),
    "o3": (75, 150),
    "gpt-5": (70, 140),
    "computer-use-preview": (65, 129),
}
_MOST_TILES = 8  # scaled to 2048 × 2048 and then to 768 on the short side: 4 × 2 tiles at most

# Multiplier per patch.
_PATCHES = {
    "gpt-4.1-mini": 1.62,
    "gpt-4.1-nano": 2.46,
    "o4-mini": 1.72,
    "gpt-5-mini": 1.62,
    "gpt-5-nano": 2.46,
}
_MOST_PATCHES = 1_536
_LATER = (1.2, 2_500)  # models that are not listed: as reported by users for 5.2 and later, an estimate only


def _family(model: str) -> str | None:
    found = [name for name in (*_TILES, *_PATCHES) if model == name or model.startswith(name + "-")]
    return max(found, key=len, default=None)


def image_bound(model: str) -> int | None:
    """The most tokens that one image can take; None for a model without a published formula."""
    family = _family(model)
    if family in _TILES:
        base, tile = _TILES[family]
        return base + _MOST_TILES * tile
    if family in _PATCHES:
        return -int(-_MOST_PATCHES * _PATCHES[family] // 1)
    return None


def image_estimate(model: str, url: str, low: bool) -> int:
    """The best estimate for one image, in tokens; for one whose size is unknown, that of 1024 × 1024 pixels."""
    width, height = image_size(url) or (1024, 1024)
    family = _family(model)
    if family in _TILES:
        base, tile = _TILES[family]
        return base if low else base + tile * _tiles(width, height)
    multiplier, most = (_PATCHES[family], _MOST_PATCHES) if family in _PATCHES else _LATER
    return round(multiplier * min(most, -(-width // 32) * -(-height // 32)))


def _tiles(width: int, height: int) -> int:
    scale = min(1.0, 2048 / max(width, height))
    scale = min(scale, 768 / min(width, height))
    return -int(-width * scale // 512) * -int(-height * scale // 512)
