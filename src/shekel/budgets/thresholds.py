"""Thresholds: when a budget warns, once per threshold and window, however many threads cross it at once."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .. import faults
from .limits import NANO, Unit

if TYPE_CHECKING:
    from .claims import Claim


class Thresholds:
    """What has been warned of.

    Args:
        shares: shares of a limit, above 0 and at most 1, in rising order.
        on_warn: called with (used, limit): USD for a limit in USD, counts for others; None for `warnings.warn`.
    """

    def __init__(self, shares: tuple[float, ...], on_warn: Callable[[float, float], object] | None) -> None:
        self.shares = shares
        self._on_warn = on_warn
        self._lock = threading.Lock()
        self._warned: dict[tuple[int, float], Any] = {}

    def crossed(self, number: int, claim: Claim, used: int) -> list[float]:
        """The thresholds of the limit of that number that were just crossed; each is named once per window.

        A sliding window has no end, so there a threshold counts again once the use has fallen below it.
        """
        limit = claim.limit
        if limit is None:
            return []
        found = []
        for share in self.shares:
            # 80 % of 2 calls is 1.6: the second call is the first that has used so much.
            least = -(-int(share * 1_000_000) * limit // 1_000_000)
            key = (number, share)
            if used < least:
                if claim.slides and key in self._warned:
                    with self._lock:
                        self._warned.pop(key, None)
                continue
            with self._lock:
                if self._warned.get(key, _NEVER) != claim.meter:
                    self._warned[key] = claim.meter
                    found.append(share)
        return found

    def tell(self, name: str | None, claim: Claim, used: int) -> None:
        """Warn. Called outside any lock; an error of the callback is reported and goes no further."""
        scale = NANO if claim.unit is Unit.USD else 1
        spent, limit = used / scale, (claim.limit or 0) / scale
        if self._on_warn is not None:
            call_back("called on_warn", self._on_warn, spent, limit)
            return
        label = f"budget {name}" if name else "budget"
        if claim.unit is Unit.USD:
            text = f"{label} has spent ${spent:.4f} of ${limit:.2f}"
        else:
            text = f"{label} has used {used} of {claim.limit} {claim.unit.value.replace('_', ' ')}"
        warnings.warn(text, stacklevel=2)

    def forget(self) -> None:
        """Warn anew: the budget was reset."""
        with self._lock:
            self._warned.clear()


_NEVER = object()


def call_back(place: str, function: Callable[..., object], *args: object) -> object:
    """Call what the program gave; an error of it is reported and counted, and masks nothing."""
    try:
        return function(*args)
    except Exception as error:
        faults.report(place, error)
        return None


def rising(shares: Iterable[float]) -> tuple[float, ...]:
    """Shares in rising order, each once."""
    return tuple(sorted(set(shares)))
