"""`RedisBackend` and `AsyncRedisBackend`, at the place where the vocabulary keeps them."""

from __future__ import annotations

from ..vocabulary import AsyncRedisBackend, RedisBackend

__all__ = ["AsyncRedisBackend", "RedisBackend"]
