"""The code blocks of the page that Shekel's vocabulary comes from: where they stand, and how deep each line is.

The page is read at test time from the folder that SHEKEL_ORIGIN names; nothing of it is kept here but numbers. Its
indentation was lost, so each block has one digit per line: the depth. The page's digest says if it is another page.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

PAGE = "streaming-with-shekel.txt"
DIGEST = "ad1f28d5db1f8b33004e2595740206d87c13fa68f08d47ed1bce601c0a466bf4"


@dataclass(frozen=True, slots=True)
class Block:
    """A block of the page: its first line, counted from 1, the depth of each of its lines, and how many calls it
    makes."""

    first: int
    depths: str
    calls: int

    def source(self) -> str:
        """Its code, indented again and otherwise as it stands on the page."""
        lines = page()[self.first - 1 : self.first - 1 + len(self.depths)]
        assert len(lines) == len(self.depths)
        return "".join(f"{'    ' * int(depth)}{line}\n" for depth, line in zip(self.depths, lines, strict=True))


OPENAI = Block(5, "0000122211220", calls=1)
ANTHROPIC = Block(22, "000012221230", calls=1)
LOW_LIMIT = Block(36, "0012333223201", calls=1)
FALLBACK = Block(53, "01122211211122211212", calls=2)
ASYNC_OPENAI = Block(76, "00012333223310", calls=1)
ASYNC_ANTHROPIC = Block(91, "000011233323410", calls=1)
SEVERAL = Block(108, "01222112233322320", calls=3)
PROGRESS = Block(127, "0001123332223320", calls=5)
RUNNING = Block(145, "0001233322310000", calls=3)
TOKENS = Block(163, "012221111222000000", calls=1)
INTERRUPTION = Block(183, "00011001233322301", calls=1)
REUSE = Block(204, "00012", calls=3)
TIMEOUT = Block(210, "000122211", calls=1)
BUFFER = Block(220, "0001222111223312", calls=1)
ERRORS = Block(237, "001234443334442122122", calls=1)

ALL = {name.lower(): block for name, block in list(globals().items()) if isinstance(block, Block)}


def path() -> Path | None:
    """Where the page is; None if it is not there."""
    folder = os.environ.get("SHEKEL_ORIGIN")
    found = Path(folder) / PAGE if folder else None
    return found if found is not None and found.is_file() else None


def page() -> list[str]:
    """The page's lines."""
    found = path()
    assert found is not None
    text = found.read_bytes()
    assert hashlib.sha256(text).hexdigest() == DIGEST, f"{found} is another page: count its lines and depths again"
    return text.decode().splitlines()
