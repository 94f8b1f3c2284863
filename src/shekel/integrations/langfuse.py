"""`LangfuseAdapter`, at the place where the vocabulary keeps it."""

from __future__ import annotations

from ..vocabulary import LangfuseAdapter

__all__ = ["LangfuseAdapter"]
