"""The stand-in's tokenizer: what it counts, generates and bills by.

Made up, but shaped like the real ones and deterministic, so that an estimate can be measured against a truth it did
not choose. **Never more than one token per UTF-8 byte.** By class of text:

- words: a leading space belongs to the word; a token is at most six bytes of it (English: about 4 bytes per token);
- digits: three to a token; ASCII punctuation: two to a token (JSON and tool schemas: about 3 bytes per token);
- white space: one run of the same character, at most eight, to a token;
- other two-byte letters (accents, Cyrillic, Greek, Hebrew, Arabic): two to a token;
- three-byte characters (Chinese, Japanese, Korean, symbols): one token, every third code point two;
- four-byte characters (emoji): two tokens, every third code point three.

Where a character takes several tokens, all but the last carry no text yet: a piece is then empty, as when a provider
holds back half a character. It knows no requests and no prices.
"""

from __future__ import annotations

import re

_WORD = 6
_TOKEN = re.compile(
    r" ?[A-Za-z]+"  # a word
    r"| ?[0-9]{1,3}"
    r"| ?[!-/:-@\[-`{-~]{1,2}"  # ASCII punctuation
    r"|\n{1,8}|\t{1,8}| {1,8}"
    r"|[\u0080-\u07ff]{1,2}"  # two bytes each in UTF-8
    r"|.",  # anything else, one character at a time
    re.DOTALL,
)


def pieces(text: str) -> list[str]:
    """Split a text into the stand-in's tokens; joined, they give the text again. A piece may be empty."""
    out: list[str] = []
    for match in _TOKEN.finditer(text):
        piece = match[0]
        if len(piece) == 1:
            code = ord(piece)
            if code >= 0x10000:
                out += [""] * (2 if code % 3 == 0 else 1)
            elif code >= 0x800 and code % 3 == 0:
                out.append("")
            out.append(piece)
        elif len(piece) > _WORD and piece[-1].isalpha():
            out += [piece[at : at + _WORD] for at in range(0, len(piece), _WORD)]
        else:
            out.append(piece)
    return out


def count(text: str) -> int:
    """How many tokens the stand-in says a text has.

    Args:
        text: any text.

    Returns:
        tokens: at least 0, at most one per UTF-8 byte.
    """
    return len(pieces(text))


def cut(tokens: list[str], at: int) -> list[str]:
    """The first `at` tokens. Half a character that would be left at the end becomes U+FFFD, as it does at providers."""
    if at >= len(tokens):
        return tokens
    kept = tokens[:at]
    if kept and not kept[-1]:
        kept[-1] = "\ufffd"
    return kept
