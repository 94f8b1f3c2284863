"""What the demo's output looks like: a terminal with colour and text that grows, or plain lines when piped.

Plain means no escape code at all: where standard output is no terminal, where NO_COLOR is set, on a dumb terminal.
It knows nothing of calls and money but how to write an amount.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from io import TextIOWrapper
from shutil import get_terminal_size
from textwrap import fill, wrap
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

_FRAME = 0.04
"""Seconds between two pictures of growing text: 25 a second."""

_LABEL = 20
"""The column of labels: the longest is the name of an exception."""

_WIDEST = 100
"""Longer lines are hard to read, however wide the terminal is."""


def usd(amount: float) -> str:
    """USD as the demo shows amounts: seven decimals, which is exact for prices in tenths of a dollar per million."""
    return f"${amount:.7f}"


def short(amount: float) -> str:
    """A round amount of USD, such as a limit, without its last zeros."""
    return f"${amount:.7f}".rstrip("0").rstrip(".")


class Screen:
    """Standard output as the demo uses it."""

    def __init__(self) -> None:
        # Rich would honour FORCE_COLOR and others; the rule here is one: a terminal that nobody asked to be plain.
        self.plain = not sys.stdout.isatty() or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
        if isinstance(sys.stdout, TextIOWrapper):
            with suppress(ValueError, OSError):
                sys.stdout.reconfigure(errors="replace")
        self.width = min(get_terminal_size().columns, _WIDEST) if sys.stdout.isatty() else 80
        self.console = Console(
            force_terminal=not self.plain,
            color_system=None if self.plain else "auto",
            no_color=self.plain,
            width=self.width,
            highlight=False,
            markup=False,
            emoji=False,
        )

    def show(self, what: Any) -> None:
        """Print anything that rich can draw."""
        if not self.plain:
            self.console.print(what, no_wrap=isinstance(what, Text), overflow="ignore", crop=False)
            return
        with self.console.capture() as captured:
            self.console.print(what, no_wrap=isinstance(what, Text), overflow="ignore", crop=False)
        # Rich fills lines up with blanks, which nobody wants in a file.
        sys.stdout.write("\n".join(line.rstrip() for line in captured.get().split("\n")))
        sys.stdout.flush()

    def title(self, name: str, text: str) -> None:
        self.show(Text(name, "bold cyan").append(f"\n  {text}", "bold"))

    def heading(self, text: str) -> None:
        self.show(Text(f"\n{text}", "bold cyan"))

    def say(self, text: str, style: str = "") -> None:
        """A paragraph, indented and wrapped."""
        self.show(Text(fill(text, self.width - 2, initial_indent="  ", subsequent_indent="  "), style))

    def code(self, text: str) -> None:
        """A line of the program."""
        self.show(Text(f"  {text}", "green"))

    def fact(self, label: str, value: str, style: str = "") -> None:
        """A labelled result; one line, or wrapped under the value."""
        lines = wrap(value, self.width - _LABEL - 3) or [""]
        text = Text(f"  {label:<{_LABEL}}", "dim").append(lines[0], style or "not dim")
        for line in lines[1:]:
            text.append(f"\n{'':{_LABEL + 2}}{line}", style or "not dim")
        self.show(text)

    @contextmanager
    def busy(self, text: str) -> Iterator[None]:
        """Say that something takes a while, as long as it does."""
        with nullcontext() if self.plain else self.console.status(text):
            yield

    @contextmanager
    def growing(self, status_style: str = "yellow") -> Iterator[Growing]:
        """Text that grows, with a line of status below it that changes."""
        view = Growing(self, status_style)
        with view:
            yield view


class Growing:
    """A text that grows, and a status line below it. Use `Screen.growing()`."""

    def __init__(self, screen: Screen, status_style: str) -> None:
        self._screen = screen
        self._style = status_style
        self._text = ""
        self._status = ""
        self._drawn = 0.0
        self._printed = 0
        self._live: Live | None = None

    def __enter__(self) -> Growing:
        if not self._screen.plain:
            self._live = Live(
                console=self._screen.console, auto_refresh=False, transient=False, vertical_overflow="visible"
            )
            self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live is not None:
            self._draw()
            self._live.__exit__(*error)
        else:
            self._print_whole_lines(last=True)
            self._screen.show(Text(f"  {self._status}"))

    def add(self, text: str) -> None:
        """More text."""
        self._text += text
        if self._live is None:
            self._print_whole_lines()

    def status(self, text: str) -> None:
        """What the line below says from now on."""
        self._status = text
        if self._live is not None and time.monotonic() - self._drawn > _FRAME:
            self._draw()

    def _lines(self) -> list[str]:
        width = self._screen.width - 6
        return [line for part in self._text.split("\n") for line in (wrap(part, width) or [""])]

    def _draw(self) -> None:
        assert self._live is not None
        self._drawn = time.monotonic()
        picture = Text(no_wrap=True, overflow="crop")
        for line in self._lines() if self._text else []:
            picture.append("  │ ", "dim").append(f"{line}\n")
        self._live.update(picture.append(f"  {self._status}", self._style), refresh=True)

    def _print_whole_lines(self, *, last: bool = False) -> None:
        """When piped: a line is written when the next one has begun, so that it still comes while it streams."""
        lines = self._lines() if self._text else []
        ready = lines if last else lines[:-1]
        for line in ready[self._printed :]:
            self._screen.show(Text(f"  | {line}".rstrip()))
        self._printed = max(self._printed, len(ready))
