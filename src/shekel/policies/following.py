"""Following a file of policies: they are in force now, and again whenever it changes, until something else is said.

It may name policies, plans and prices; what putting them in force means, the runtime says.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .in_force import Policies
from .watch import EVERY, PolicyWatch, seconds

if TYPE_CHECKING:
    import threading

    from .file import PolicyFile


class Following:
    """The file that is followed, if any. One for a process.

    Args:
        policies: those in force, which a forked child asks to start the watch again.
        lock: held while what is in force changes.
        enforce: puts what a file says in force; raises ValueError if it cannot.
    """

    def __init__(self, policies: Policies, lock: threading.RLock, enforce: Callable[[PolicyFile], None]) -> None:
        self._policies = policies
        self._lock = lock
        self._enforce = enforce
        self.watch: PolicyWatch[PolicyFile] | None = None

    def follow(self, path: Path, plan_of: Any = None, every: float | None = EVERY) -> None:
        """Put the policies of a file in force, now and whenever it changes.

        Args:
            path: the file.
            plan_of: functions that say the plan of a value, see `shekel.configure`.
            every: seconds between two looks at it; None: it is read once.

        Raises:
            OSError: the file cannot be read.
            ValueError: it makes no sense; what was in force stays so.
        """
        from . import file

        mine: list[PolicyWatch[PolicyFile]] = []

        def apply(found: PolicyFile) -> None:
            with self._lock:
                if self.watch is mine[0]:  # else the program has configured something else meanwhile
                    self._enforce(found)

        path = path.absolute()
        watch = PolicyWatch(path, lambda text: file.read(text, path.name, plan_of), apply, seconds(every))
        mine.append(watch)
        with self._lock:
            before = self.watch
            self._replace(watch)
            try:
                apply(watch.first)
            except ValueError:
                self._replace(before)
                raise

    def stop(self) -> None:
        """Follow no file any more. What is in force stays so."""
        with self._lock:
            self._replace(None)

    def forked(self) -> None:
        """In a child: the file is watched again from the first call on."""
        if self.watch is not None:
            self.watch.forked()
            self._policies.before_calls = self._again

    def _again(self) -> None:
        with self._lock:
            if self._policies.before_calls is not None and self.watch is not None:
                self.watch.start()
            self._policies.before_calls = None

    def _replace(self, watch: PolicyWatch[PolicyFile] | None) -> None:
        before, self.watch = self.watch, watch
        if before is not None:
            before.stop()
        self._policies.before_calls = None
        if watch is not None:
            watch.start()
