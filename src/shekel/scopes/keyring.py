"""The keys that sign baggage, and where they come from: the environment, a file, the program.

The first key signs, all are accepted. So a key is changed without a gap: add the new one behind the old in every
service, then put it first, then take the old one away. A key is named by a hash of it, which says nothing of the key.
No key is ever shown: not in a message, not in a `repr`.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from .. import faults

Secrets = str | bytes | Sequence[str | bytes]
KEY_VARIABLE = "SHEKEL_BAGGAGE_KEY"
FILE_VARIABLE = "SHEKEL_BAGGAGE_KEY_FILE"

LEAST = 32
"""The fewest bytes of a key: the length of what HMAC-SHA256 makes of it. Source: RFC 2104, section 3."""

REFRESH = 30.0
"""Seconds after which a file is looked at, or a function asked, again."""

_REMEDY = "Make one with `openssl rand -hex 32`."


class Key:
    """One key.

    Attributes:
        id: its name in signatures.
        secret: never shown.
    """

    __slots__ = ("id", "secret")

    def __init__(self, secret: bytes) -> None:
        self.secret = secret
        self.id = hmac.new(secret, b"shekel baggage key id", hashlib.sha256).hexdigest()[:8]

    def __repr__(self) -> str:
        return f"<Key {self.id}>"


class Keyring:
    """Keys that are accepted, and the one that signs, as they are now.

    Args:
        read: gives the secrets, the first to sign with; it is asked again every 30 seconds at most, in the thread that
            needs a key then, so it should be quick. What it raises later leaves the keys as they are.
        changed: says in a value whether it is worth to ask again.

    Raises:
        ValueError: there is no key, or one that is too short.
    """

    def __init__(
        self,
        read: Callable[[], Secrets],
        *,
        changed: Callable[[], object] = object,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._changed = changed
        self._clock = clock
        self._mark = changed()
        self._keys = _keys(read())
        self._looked = clock()

    @property
    def signing(self) -> Key:
        """The key that signs now."""
        self._refresh()
        return next(iter(self._keys.values()))

    def find(self, key_id: str) -> Key | None:
        """The accepted key of that name."""
        self._refresh()
        return self._keys.get(key_id)

    def _refresh(self) -> None:
        if self._clock() - self._looked < REFRESH:
            return
        self._looked = self._clock()  # first, so that others go on with the keys that are there
        try:
            mark = self._changed()
            if mark != self._mark:
                self._keys = _keys(self._read())
                self._mark = mark
        except Exception as error:
            faults.report("read the keys of baggage again", error)


def of_file(path: str | os.PathLike[str]) -> Keyring:
    """Keys of a file: one on each line, the first signs; empty lines and those that begin with # are left out.

    Raises:
        ValueError: it cannot be read, everybody may read it, or it holds no key that is long enough.
    """
    name = os.fspath(path)
    return Keyring(lambda: _lines(name), changed=lambda: _mark(name))


def of_program(given: Secrets | Callable[[], Secrets]) -> Keyring:
    """Keys that the program gives, or a function that gives them."""
    if callable(given):
        return Keyring(given)
    fixed = tuple(given) if isinstance(given, Iterable) and not isinstance(given, (str, bytes, Mapping)) else given
    return Keyring(lambda: fixed, changed=lambda: None)


def of_environment() -> Keyring | None:
    """The keys that the environment names, if it does.

    Raises:
        ValueError: both variables, or what is wrong with the one.
    """
    text, path = (os.environ.get(name, "").strip() for name in (KEY_VARIABLE, FILE_VARIABLE))
    if text and path:
        raise ValueError(f"{KEY_VARIABLE} and {FILE_VARIABLE} are both set: keep the one that holds.")
    if path:
        return of_file(path)
    return of_program([part.strip() for part in text.split(",") if part.strip()]) if text else None


def _keys(given: Secrets) -> dict[str, Key]:
    many: Iterable[str | bytes] = [given] if isinstance(given, (str, bytes)) else given
    if not isinstance(many, Iterable) or isinstance(many, Mapping):
        raise ValueError(f"keys of baggage must be a list of text or bytes, not a {type(many).__name__}. {_REMEDY}")
    keys: dict[str, Key] = {}
    for each in many:
        if not isinstance(each, (str, bytes)):
            raise ValueError(f"a key of baggage must be text or bytes, not a {type(each).__name__}. {_REMEDY}")
        secret = each.encode() if isinstance(each, str) else each
        if len(secret) < LEAST:
            raise ValueError(f"a key of baggage has {len(secret)} bytes, and {LEAST} are the least. {_REMEDY}")
        key = Key(secret)
        keys[key.id] = key
    if not keys:
        raise ValueError(f"there is no key of baggage. {_REMEDY}")
    return keys


def _mark(path: str) -> object:
    try:
        found = os.stat(path)
    except OSError as error:
        raise ValueError(f"the key file {path!r} cannot be read ({error.strerror}).") from None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ValueError(f"the key file {path!r} is no file.")
            if os.name == "posix" and found.st_mode & (stat.S_IROTH | stat.S_IWOTH):
                raise ValueError(
                    f"everybody may read or write the key file {path!r} (mode {stat.S_IMODE(found.st_mode):04o}): "
                    "chmod 0400 it, or set `defaultMode: 0400` where it is a mounted secret."
                )
            lines = [line.strip() for line in file]
    except OSError as error:
        raise ValueError(f"the key file {path!r} cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise ValueError(f"the key file {path!r} is no text.") from None
    return [line for line in lines if line and not line.startswith("#")]
