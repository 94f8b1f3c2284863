"""`shekel.otel.ShekelMeter`, at the place where the vocabulary keeps it."""

from __future__ import annotations

from .vocabulary import ShekelMeter

__all__ = ["ShekelMeter"]
