"""`AdapterRegistry`, at the place where the vocabulary keeps it."""

from __future__ import annotations

from ..vocabulary import AdapterRegistry

__all__ = ["AdapterRegistry"]
