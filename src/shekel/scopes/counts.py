"""What did not become a scope, counted by reason: baggage that was dropped, resolvers that gave no answer.

Telemetry reads these sums (`shekel.baggage.dropped`, `shekel.scope.unresolved`); money does not depend on them.
"""

from __future__ import annotations

import threading
from collections import Counter
from enum import StrEnum


class Drop(StrEnum):
    """Why baggage from outside did not count.

    UNTRUSTED: a policy asks for the key, and nothing from outside is trusted.
    UNSIGNED: a policy asks for the key, and no signature of ours covers it.
    FORGED: the signature is not that of these entries.
    EXPIRED: the signature was too old when it was first seen here.
    UNKNOWN_KEY: it was made with a key that is not, or no more, accepted.
    OVERSIZED: it is longer than baggage, or a scope's value, may be.
    MALFORMED: it is no signature, or no value that a scope can have.
    """

    UNTRUSTED = "untrusted"
    UNSIGNED = "unsigned"
    FORGED = "forged"
    EXPIRED = "expired"
    UNKNOWN_KEY = "unknown_key"
    OVERSIZED = "oversized"
    MALFORMED = "malformed"


class Unresolved(StrEnum):
    """Why a resolver's request went on without the scope that it should have said.

    ERROR: it raised.
    TIMEOUT: it was given up.
    INVALID: what it returned is no scope.
    SLOW: it could not be interrupted, and came late; its answer was used all the same.
    """

    ERROR = "error"
    TIMEOUT = "timeout"
    INVALID = "invalid"
    SLOW = "slow"


lock = threading.RLock()

dropped: Counter[Drop] = Counter()
unresolved: Counter[Unresolved] = Counter()


def drop(reason: Drop) -> None:
    """Baggage from outside was dropped."""
    with lock:
        dropped[reason] += 1


def give_up(reason: Unresolved) -> None:
    """A resolver gave no answer, or a late one."""
    with lock:
        unresolved[reason] += 1
