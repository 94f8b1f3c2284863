"""The code blocks of the two pages that users come from: where they stand, and how deep each line is.

The pages are read at test time from the folder that SHEKEL_ORIGIN names; nothing of them is kept here but numbers.
Their indentation was lost, so each block has one digit per line: the depth. A page's digest says if it is another one.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Page:
    """A page: its file, and the SHA-256 of what it holds."""

    file: str
    digest: str

    def path(self) -> Path | None:
        """Where it is; None if it is not there."""
        folder = os.environ.get("SHEKEL_ORIGIN")
        found = Path(folder) / self.file if folder else None
        return found if found is not None and found.is_file() else None

    def lines(self) -> list[str]:
        """Its lines."""
        found = self.path()
        assert found is not None
        text = found.read_bytes()
        assert hashlib.sha256(text).hexdigest() == self.digest, f"{found} is another page: count its lines again"
        return text.decode().splitlines()

    @property
    def absent(self) -> str:
        """Why its tests are skipped where it is not there."""
        return f"set SHEKEL_ORIGIN to the folder that holds {self.file}"


SHEKEL = Page("streaming-with-shekel.txt", "ad1f28d5db1f8b33004e2595740206d87c13fa68f08d47ed1bce601c0a466bf4")
PAYGENT = Page("streaming-with-paygent.txt", "928cde75d380c210612d427dfceeb1e173e81a69b1c5f80175459fbcb16b5573")


@dataclass(frozen=True, slots=True)
class Block:
    """A block of a page: its first line, counted from 1, the depth of each of its lines, and how many calls it
    makes."""

    first: int
    depths: str
    calls: int
    page: Page = SHEKEL

    def source(self) -> str:
        """Its code, indented again and otherwise as it stands on the page."""
        lines = self.page.lines()[self.first - 1 : self.first - 1 + len(self.depths)]
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
"""Those of Shekel's page."""

PAYGENT_SYNC = Block(13, "000001222211231", calls=1, page=PAYGENT)
PAYGENT_ASYNC = Block(43, "0000123333223420", calls=1, page=PAYGENT)
PAYGENT_FASTAPI = Block(63, "0000000001234555544563231", calls=1, page=PAYGENT)
PAYGENT_WRAP = Block(92, "012222111001", calls=1, page=PAYGENT)
