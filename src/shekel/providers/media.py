"""Media inside request bodies: how large an image is, from the first bytes of its base64.

Knows the headers of PNG, JPEG, GIF and WebP, and no provider's formula: those stand in the endpoints. Never decodes a
whole image.
"""

from __future__ import annotations

import base64
import binascii
from typing import Literal

_HEAD = 65_536  # characters of base64 that are looked at: a JPEG may carry a profile before its size


def is_data_url(url: str) -> bool:
    """Whether a URL carries its content itself."""
    return url[:5].lower() == "data:"


def image_size(encoded: str) -> tuple[int, int] | None:
    """Width and height in pixels of a base64 image (or data URL); None if its header does not tell."""
    start = encoded.find(",") + 1 if is_data_url(encoded[:5]) else 0
    head = encoded[start : start + _HEAD]
    try:
        data = base64.b64decode(head[: len(head) // 4 * 4])
    except (binascii.Error, ValueError):
        return None
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _size(data, 16, 20, 4, "big")
    if data[:4] == b"GIF8":
        return _size(data, 6, 8, 2, "little")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    if data[:2] == b"\xff\xd8":
        return _jpeg(data)
    return None


def _size(data: bytes, width: int, height: int, size: int, order: Literal["big", "little"]) -> tuple[int, int] | None:
    w = int.from_bytes(data[width : width + size], order)
    h = int.from_bytes(data[height : height + size], order)
    return (w, h) if w and h else None


def _webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        size = _size(data, 26, 28, 2, "little")
        return None if size is None else (size[0] & 0x3FFF, size[1] & 0x3FFF)
    return None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a start of frame
            return _size(data, at + 7, at + 5, 2, "big")
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
