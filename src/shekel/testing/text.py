"""What the stand-in says: texts from word lists, by script, the same for the same seed.

All words here were written for this file; nothing was recorded from a model. It knows tokens, nothing else.
"""

from __future__ import annotations

import random

from .tokens import cut, pieces


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ENGLISH = _words(
    "the a one every this another old quiet small bright late early river market bridge harbour window garden coin "
    "ledger purse baker sailor keeper teacher engine lantern letter answer question reason measure balance limit "
    "counts weighs carries finds keeps spends saves gives remembers turns opens closes waits and but while because "
    "with without under over before after slowly often twice never always almost simply together"
)
_CHINESE = _words(
    "钱 账本 预算 今天 市场 河流 桥梁 窗户 花园 老师 船长 回答 问题 每天 慢慢 花费 节省 记得 打开 关闭 等待 因为 "
    "但是 已经 我们 他们 一个 小小 明亮 安静 早晨 晚上 数字 平衡 限制 之前 之后 一起 永远 几乎"
)
_EMOJI = _words("🎉 🚀 💰 🌊 🏦 🪙 📈 📉 🔥 🌱 🐙 🦊 🍋 🍞 🎈 🧮 ⚖ 🌉 🕰 🧭 👩‍🚀 🏳️‍🌈 👨‍👩‍👧 🧑🏽‍🍳")
_NAMES = _words("total cost limit spent rate tokens ledger meter window scope hold share price count amount")

SCRIPTS = ("english", "chinese", "emoji", "code", "mixed")
"""The scripts that `Reply.script` knows."""


def write(script: str, tokens: int, seed: int) -> tuple[str, ...]:
    """A text of exactly so many tokens.

    Args:
        script: one of `SCRIPTS`.
        tokens: how long, in tokens of the stand-in's tokenizer.
        seed: the same seed gives the same text.

    Returns:
        the tokens of the text.
    """
    chance = random.Random(seed)
    text = ""
    out: list[str] = []
    while len(out) < tokens:
        # Split as a whole, so that whoever splits the text again counts the same.
        for _ in range(1 + (tokens - len(out)) // 16):
            text += _sentence(chance.choice(SCRIPTS[:4]) if script == "mixed" else script, chance)
        out = pieces(text)
    return tuple(cut(out, tokens))


def _sentence(script: str, chance: random.Random) -> str:
    if script == "chinese":
        return "".join(chance.choices(_CHINESE, k=chance.randint(5, 12))) + chance.choice("。，！？")
    if script == "emoji":
        return "".join(chance.choices(_EMOJI, k=chance.randint(3, 8)))
    if script == "code":
        name, other, third = chance.choices(_NAMES, k=3)
        return (
            f"def {name}_of({other}, {third}=None):\n"
            f"    if {other}['{third}'] >= {chance.randint(2, 9999)}:\n"
            f"        return [{other}.{name}(x) for x in {third}]\n"
            f"    return {{'{name}': {other}, \"ok\": True}}\n\n"
        )
    words = " ".join(chance.choices(_ENGLISH, k=chance.randint(6, 14)))
    return words.capitalize() + chance.choice((". ", ". ", ", so it goes. ", "! ", "?\n\n"))
