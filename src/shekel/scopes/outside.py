"""Scope entries that came from outside, in baggage: whether they count, for this process and for this request.

OpenTelemetry's baggage does not say where an entry came from: a request's header, or other code of this process. So
whatever `shekel.scope` has not written itself is outside, and counts only as `trust` says. What this process says goes
before it. A signature is checked when its baggage is first seen here; the request it came with keeps its scope from
then on, however long it lasts. The same signature in a later request is checked anew.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from opentelemetry import baggage
from opentelemetry.context import Context

from .. import context, faults
from ..shown import shown
from . import keyring, signature
from .counts import Drop, drop
from .keyring import Keyring
from .signature import ENTRY, Seal
from .values import KEYS, MOST, TOKEN, is_key, problem_of

TRUST_VARIABLE = "SHEKEL_TRUST"

LIFETIME = 300
"""Seconds for which a signature is valid once it is sent. The clocks of two services must agree better than that."""

REMEMBERED = 1_024
"""How many requests' baggage is remembered, so that it is looked at once."""

LONGEST_HEADER = 8_192
"""The most bytes of baggage. Source: W3C Baggage, "Limits", and `W3CBaggagePropagator._MAX_HEADER_LENGTH`."""

_MEMBER = re.compile(rf"[ \t]*{TOKEN}[ \t]*=[\t\x20-\x21\x23-\x5b\x5d-\x7e]*")
"""One entry of the header. Source: W3C Baggage, "Header Content"."""

STANDARD = frozenset(KEYS.values())
_NONE: Mapping[str, str] = {}


class Trust(StrEnum):
    """What of the baggage from outside counts.

    NONE (default): nothing.
    SIGNED: what is signed with a key that is accepted here.
    ALL: every entry that a policy asks for, and `user.id`, `session.id`, `tenant.id`: for a service that only
        trusted ones can reach.
    """

    NONE = "none"
    SIGNED = "signed"
    ALL = "all"


class Outside:
    """What is trusted, and what was seen. There is one for the process: `outside`.

    Attributes:
        trust: what counts.
        keys: signs, and says what is signed; None where there are no keys.
        lifetime: of signatures made here, in seconds.
        asked: the keys that policies, and the like, ask for.
        clock: seconds since the epoch.
    """

    def __init__(self) -> None:
        self.trust = Trust.NONE
        self.keys: Keyring | None = None
        self.lifetime = LIFETIME
        self.asked: Callable[[], frozenset[str]] = frozenset
        self.clock: Callable[[], float] = time.time
        self.lock = threading.RLock()
        self._environment_read = False
        # By identity: a request's baggage is an object of its own, and kept here it stays the only one of its id.
        self._seen: dict[int, tuple[object, frozenset[str], Mapping[str, str]]] = {}
        self._checked: dict[int, tuple[str, Mapping[str, str] | Drop]] = {}

    # Configuration

    def configure(self, trust: Any = None, keys: Any = None, lifetime: Any = None, *, no_keys: bool = False) -> None:
        """See `shekel.configure`. None leaves a setting as it is.

        Raises:
            ValueError: a setting that makes no sense; nothing is changed then.
        """
        self.read_environment()
        if trust is keys is lifetime is None and not no_keys:
            return
        chosen = self.trust if trust is None else as_trust(trust, "trust")
        ring = None if no_keys else self.keys if keys is None else keyring.of_program(keys)
        seconds = self.lifetime if lifetime is None else _as_lifetime(lifetime)
        _need_key(chosen, ring)
        with self.lock:
            self.trust, self.keys, self.lifetime = chosen, ring, seconds
            self._seen, self._checked = {}, {}

    def read_environment(self) -> None:
        """Take trust and keys from the environment, once.

        Raises:
            ValueError: they make no sense, or the key file cannot be used.
        """
        if self._environment_read:
            return
        text = os.environ.get(TRUST_VARIABLE, "").strip()
        chosen = as_trust(text, TRUST_VARIABLE) if text else self.trust
        ring = keyring.of_environment()
        _need_key(chosen, ring)
        self.trust, self.keys = chosen, ring
        self._environment_read = True

    def _ready(self) -> None:
        """For a program that sets scopes, and neither configures nor instruments."""
        try:
            self.read_environment()
        except ValueError as error:
            faults.warn_once("baggage keys", "No baggage is signed, and none from outside is trusted: %s", error)
            self._environment_read = True

    # What counts

    def entries(self, here: Context, own: Mapping[str, str]) -> Mapping[str, str]:
        """The entries of a context that came from outside and count.

        Args:
            own: those that this process has set, which go before them.
        """
        carried: Any = here.get(context.BAGGAGE)
        if not carried or carried is here.get(context.LOOKED):
            return _NONE
        asked = self.asked()
        known = self._seen.get(id(carried))
        if known is not None and known[0] is carried and known[1] == asked:
            return known[2]
        try:
            found = self._look(carried, own, asked)
        except Exception as error:
            faults.report("looked at baggage", error)
            found = _NONE
        self._remember(self._seen, carried, (carried, asked, found))
        return found

    def _look(self, carried: Mapping[str, object], own: Mapping[str, str], asked: frozenset[str]) -> Mapping[str, str]:
        if self.trust is Trust.ALL:
            return _all(carried, asked)
        trusted: Mapping[str, str] = _NONE
        seal = carried.get(ENTRY)
        if self.trust is Trust.SIGNED and isinstance(seal, str) and not isinstance(seal, Seal):
            result = self._check(seal, carried)
            if isinstance(result, Drop):
                drop(result)
            else:
                trusted = result
        left_out = [key for key in asked & carried.keys() if key not in trusted and own.get(key) != carried[key]]
        if left_out:
            if self.trust is Trust.NONE:
                drop(Drop.UNTRUSTED)
            elif seal is None or isinstance(seal, Seal) or trusted:
                drop(Drop.UNSIGNED)
            for key in left_out:
                if key not in own:
                    self._warn(key)
        return trusted

    def _check(self, seal: str, carried: Mapping[str, object]) -> Mapping[str, str] | Drop:
        known = self._checked.get(id(seal))
        if known is not None and known[0] is seal:
            covered = known[1]
            if isinstance(covered, Drop) or all(carried.get(key) == value for key, value in covered.items()):
                return covered
            return Drop.FORGED  # other code of this process has changed an entry since
        covered = self._verify(seal, carried)
        self._remember(self._checked, seal, (seal, covered))
        return covered

    def _verify(self, seal: str, carried: Mapping[str, object]) -> Mapping[str, str] | Drop:
        if len(seal) > signature.LONGEST:
            return Drop.OVERSIZED
        read = signature.read(seal)
        if read is None:
            return Drop.MALFORMED
        key = None if self.keys is None else self.keys.find(read.key_id)
        if key is None:
            return Drop.UNKNOWN_KEY
        entries: dict[str, str] = {}
        for name in read.keys:
            value = carried.get(name)
            if not isinstance(value, str) or not is_key(name):
                return Drop.FORGED
            entries[name] = value
        if not signature.genuine(read, entries, key):
            return Drop.FORGED
        if read.expires <= self.clock():
            return Drop.EXPIRED
        if any(problem_of(value) for value in entries.values()):
            return Drop.MALFORMED
        return entries

    def _remember(self, where: dict[int, Any], thing: object, found: tuple[Any, ...]) -> None:
        with self.lock:
            while len(where) >= REMEMBERED:
                del where[next(iter(where))]
            where[id(thing)] = found

    def _warn(self, key: str) -> None:
        faults.warn_once(
            f"untrusted {key}",
            "A policy asks for %s, which stands only in baggage from outside%s: it counts for nobody. Set it with "
            'shekel.scope, or say with shekel.configure(trust=…) what counts: "signed", or "all" where only trusted '
            "services can send it. This is said once.",
            key,
            ", and is not validly signed" if self.trust is Trust.SIGNED else "",
        )

    def header(self, text: str | None) -> None:
        """A request's baggage header: OpenTelemetry drops what is too long or malformed before anybody sees it."""
        if not text:
            return
        if len(text) > LONGEST_HEADER:
            drop(Drop.OVERSIZED)
        elif any(member.strip(" \t") and not _MEMBER.fullmatch(member) for member in text.split(",")):
            drop(Drop.MALFORMED)

    # What is sent on

    def adopted(self, here: Context, own: Mapping[str, str]) -> Mapping[str, str]:
        """Signed entries from outside that a scope takes over, and so signs anew.

        Args:
            own: those of this process, with the ones that the scope is about to set.
        """
        if not self._environment_read:
            self._ready()
        found = self.entries(here, own)
        return found if self.trust is Trust.SIGNED else _NONE

    def sealed(self, here: Context, own: Mapping[str, str], before: Context) -> Context:
        """The context with a signature in its baggage for what this process vouches for; without keys, as it is.

        Args:
            own: what the scope consists of.
            before: the context in which the scope was entered.
        """
        ring = self.keys
        carried = baggage.get_all(here)
        if ring is not None:
            others = self.named(before) - STANDARD - {ENTRY}
            if others:
                here = Context({**here, context.NAMED: others})
            covered = {key: value for key, value in own.items() if carried.get(key) == value}
            if covered:
                here = baggage.set_baggage(ENTRY, Seal(lambda: self._sign(ring, covered)), here)
            elif ENTRY in carried:
                here = baggage.remove_baggage(ENTRY, here)
        made = here.get(context.BAGGAGE)
        if made and made is not before.get(context.BAGGAGE) and self.trust is not Trust.ALL:
            here = Context({**here, context.LOOKED: made})
        return here

    def _sign(self, ring: Keyring, covered: Mapping[str, str]) -> str:
        try:
            return signature.sign(covered, ring.signing, int(self.clock()) + self.lifetime)
        except Exception as error:
            faults.report("signed baggage", error)
            return "unsigned"

    def named(self, here: Context) -> frozenset[str]:
        """The keys of baggage that are about who pays, whether they count here or not."""
        before: frozenset[str] = here.get(context.NAMED, STANDARD)  # type: ignore[assignment]
        seal = baggage.get_baggage(ENTRY, here)
        if seal is None:
            return before if before is STANDARD else STANDARD | before
        read = None if isinstance(seal, Seal) or not isinstance(seal, str) else signature.read(seal)
        return STANDARD.union(before, (ENTRY,), () if read is None else read.keys)


def _all(carried: Mapping[str, object], asked: frozenset[str]) -> Mapping[str, str]:
    trusted: dict[str, str] = {}
    for key in (asked | STANDARD) & carried.keys():
        value = carried[key]
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        # OpenTelemetry leaves an entry's W3C properties, "ada;limit=9", in its value: that is nobody's name.
        if not isinstance(value, str) or ";" in value or problem_of(value) is not None:
            drop(Drop.OVERSIZED if isinstance(value, str) and len(value) > MOST else Drop.MALFORMED)
        else:
            trusted[key] = value
    return trusted


outside = Outside()
"""What this process trusts."""


def as_trust(given: Any, what: str) -> Trust:
    """A trust by its name.

    Raises:
        ValueError: there is none of that name.
    """
    try:
        return Trust(given)
    except ValueError:
        raise ValueError(f"{what} must be 'none', 'signed' or 'all', not {shown(given)}.") from None


def _as_lifetime(given: Any) -> int:
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 1 <= given <= 86_400:
        raise ValueError(f"baggage_lifetime must be from 1 to 86,400 seconds, not {shown(given)}.")
    return int(given)


def _need_key(trust: Trust, ring: Keyring | None) -> None:
    if trust is Trust.SIGNED and ring is None:
        raise ValueError(
            f"trust='signed' needs a key: {keyring.FILE_VARIABLE} names a file of keys, {keyring.KEY_VARIABLE} holds "
            "some, or give configure(baggage_keys=…)."
        )
