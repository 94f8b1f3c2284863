"""Where the vocabulary keeps adapters for other services."""

from __future__ import annotations

from ..vocabulary import AdapterRegistry, LangfuseAdapter, ObservabilityAdapter

__all__ = ["AdapterRegistry", "LangfuseAdapter", "ObservabilityAdapter"]
