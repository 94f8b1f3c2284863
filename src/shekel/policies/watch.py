"""The watch over a policy file: sees that it has changed, and has it put in force, whole or not at all.

A daemon thread looks at the file's time, number and size, and reads it once they have stood still from one look to the
next: a half-written file is not taken for a short one. A file that is gone, that cannot be read or makes no sense
changes nothing; it is logged once for each content, and counted (`shekel.errors`). A policy file that anybody may write
is used, but is said once: whoever writes it decides about limits.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Generic, TypeVar

from .. import faults, threads
from ..shown import shown

EVERY = 1.0
"""Seconds between two looks, where nobody said how many."""

SETTLES = 2.0
"""Seconds for which a file's time may stand still although it is written: as coarse as file systems get."""

T = TypeVar("T")

PLACE = "read the policy file"


def seconds(value: object) -> float | None:
    """The seconds between two looks that a caller gave; None for none.

    Raises:
        ValueError: they are none.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.001 <= value <= 86_400:
        raise ValueError(f"reload_seconds must be from 0.001 to 86400, or None for never, not {shown(value)}.")
    return float(value)


class PolicyWatch(Generic[T]):
    """Watches one file.

    Args:
        path: of the file.
        read: makes something of its text, or raises ValueError.
        apply: puts that in force; called for what comes after `first`.
        every: seconds between two looks; None never looks again.

    Attributes:
        first: what was made of the text that the file has now.

    Raises:
        ValueError: the file cannot be read, or `read` says so.
    """

    def __init__(
        self, path: Path, read: Callable[[str], T], apply: Callable[[T], None], every: float | None = EVERY
    ) -> None:
        self.path = path
        self._make = read
        self._apply = apply
        self._every = every
        self._seen: object = None
        self._unsettled = False
        self._stop = threading.Event()
        text = self._read()
        self.first = read(text)
        self._known = _digest(text)

    def start(self) -> None:
        """Look from now on, also after `stop`."""
        if self._every is not None:
            self._stop.set()
            self._stop = threading.Event()
            threads.start("shekel-policies", self._run, self._stop)

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()

    def forked(self) -> None:
        """In a child, the thread is gone: `start` begins anew."""
        self._stop = threading.Event()

    def look(self) -> None:
        """Look once. Never raises."""
        try:
            try:
                status = os.stat(self.path)
                now: object = (status.st_mtime_ns, status.st_ino, status.st_dev, status.st_size)
                young = abs(time.time() - status.st_mtime) < SETTLES
            except OSError as error:
                now, young = type(error), False
            if now != self._seen:
                self._seen, self._unsettled = now, True
                return
            if self._unsettled:
                self._unsettled = young
                self._take()
        except Exception as error:
            faults.report("looked at the policy file", error)

    def _take(self) -> None:
        """Read the file, and have it put in force if it says something new."""
        try:
            text = self._read()
        except ValueError as error:
            self._broken(_digest(str(error)), error)
            return
        known = _digest(text)
        if known == self._known:
            return
        try:
            self._apply(self._make(text))
        except ValueError as error:
            self._broken(known, error)
            return
        self._known = known
        faults.logger.info("The policy file %s has changed and is in force.", self.path)

    def _broken(self, content: bytes, error: ValueError) -> None:
        if content == self._known:
            return
        self._known = content
        faults.tell(PLACE, "The policy file changed nothing, what was in force stays: %s", error)

    def _read(self) -> str:
        try:
            with open(self.path, "rb") as file:
                if os.name == "posix" and os.fstat(file.fileno()).st_mode & stat.S_IWOTH:
                    faults.warn_once(
                        f"rights of {self.path}",
                        "Anybody on this machine may write the policy file %s, and so decide about limits: take that "
                        "right away with chmod o-w.",
                        self.path,
                    )
                return file.read().decode()
        except UnicodeDecodeError:
            raise ValueError(f"{self.path} is no UTF-8 text: save it as one.") from None
        except OSError as error:
            raise ValueError(
                f"the policy file {self.path} cannot be read ({error.strerror}): correct its path or its rights."
            ) from None

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(self._every):
            self.look()


def _digest(text: str) -> bytes:
    return sha256(text.encode()).digest()
