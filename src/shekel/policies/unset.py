"""Unset keys: says once that a policy is on a key that no call has."""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry import baggage
from opentelemetry.context import Context

from .. import faults
from ..scopes.values import KEYS

CALLS = 1_000
"""Calls after which a key that none of them had is said to be missing."""


class UnsetKeys:
    """The keys of policies that no call has had yet.

    Args:
        keys: with the name of a policy that is on each.
    """

    def __init__(self, keys: Mapping[str, str]) -> None:
        self.keys = dict(keys)
        self._calls = 0

    def seen(self, scope: Mapping[str, str], here: Context) -> bool:
        """A call was made with that scope, in that context. Returns whether there is still something to look for."""
        self._calls += 1
        for key, policy in list(self.keys.items()):
            if key in scope:
                self.keys.pop(key, None)
            elif baggage.get_baggage(key, here) is not None:
                self.keys.pop(key, None)  # who does not trust it has said so
            elif KEYS.get(key) in scope:
                self.keys.pop(key, None)
                faults.warn_once(
                    f"unset {key}",
                    "The policy %r is on %r, and charges no call: scope(%s=…) sets %r. Correct the policy's key.",
                    policy,
                    key,
                    key,
                    KEYS[key],
                )
            elif self._calls >= CALLS:
                self.keys.pop(key, None)
                faults.warn_once(
                    f"unset {key}",
                    "The policy %r is on %r, and none of the first %d calls had it in its scope: they were not charged "
                    "to it. Set it with shekel.scope(...), or correct the key.",
                    policy,
                    key,
                    CALLS,
                )
        return bool(self.keys)
