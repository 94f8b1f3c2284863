"""The signature of scope entries: one entry of the baggage, by which a service knows what another of ours has written.

    shekel.signature = 1.<key id>.<expiry>.<HMAC-SHA256>.<key>:<key>:…

It covers this format's name, the key id, the expiry (seconds since the epoch) and exactly the entries named, keys and
values. So nothing can be added, left out, exchanged or joined from two signatures. It says who pays, and nothing else:
a limit is never read from baggage. There is no field that chooses the algorithm.

Whoever can read the baggage can send it again until it expires, as with any bearer token. That is why it lives shortly
and is made when it is sent: in the baggage of this process stands a text that signs itself each time it is written out.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from .keyring import Key
from .values import MOST

ENTRY = "shekel.signature"
"""Its key in the baggage."""

LONGEST = 4_096
"""The most characters of it. Source: `W3CBaggagePropagator._MAX_PAIR_LENGTH`."""

_FORM = re.compile(r"1\.([0-9a-f]{8})\.([0-9]{1,12})\.([A-Za-z0-9_-]{43})\.([\x21-\x7e]+)")


class Signature(NamedTuple):
    """What a text says that has the form of a signature."""

    key_id: str
    expires: int
    mac: bytes
    keys: tuple[str, ...]


def sign(entries: Mapping[str, str], key: Key, expires: int) -> str:
    """The signature of entries.

    Args:
        entries: what it covers.
        key: signs.
        expires: until when it is valid, in seconds since the epoch.
    """
    mac = base64.urlsafe_b64encode(_mac(entries, key, expires)).rstrip(b"=").decode()
    return f"1.{key.id}.{expires}.{mac}.{':'.join(sorted(entries))}"


def read(text: str) -> Signature | None:
    """What a signature says; None if it is none. Nothing of it is proven."""
    found = _FORM.fullmatch(text) if len(text) <= LONGEST else None
    if found is None:
        return None
    keys = tuple(found[4].split(":"))
    if any(not key or len(key) > MOST for key in keys):
        return None
    return Signature(found[1], int(found[2]), base64.urlsafe_b64decode(found[3] + "="), keys)


def genuine(signature: Signature, entries: Mapping[str, str], key: Key) -> bool:
    """Whether that key has signed exactly these entries, until then. The comparison takes the same time always."""
    return hmac.compare_digest(_mac(entries, key, signature.expires), signature.mac)


def _mac(entries: Mapping[str, str], key: Key, expires: int) -> bytes:
    # JSON keeps apart what is joined: no two sets of entries have one form.
    covered = json.dumps(["shekel baggage 1", key.id, expires, sorted(entries.items())], separators=(",", ":"))
    return hmac.new(key.secret, covered.encode(), hashlib.sha256).digest()


class Seal(str):
    """A text in the baggage that is a fresh signature whenever a propagator writes it out (`str(value)`).

    So a scope may last longer than a signature. Whoever only looks, such as a span processor that copies baggage to
    attributes, sees that there is one. A text that came from another process is never of this type.
    """

    __slots__ = ("_sign",)
    _sign: Callable[[], str]

    def __new__(cls, sign: Callable[[], str]) -> Seal:
        seal = super().__new__(cls, "signed when it is sent")
        seal._sign = sign
        return seal

    def __str__(self) -> str:
        return self._sign()

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str.__str__(self),)
