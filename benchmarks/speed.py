"""How fast the machine is: a fixed piece of Python, timed beside what is measured.

On a shared machine the same work takes up to twice as long from one minute to the next, because what runs on the other
half of a core, or beside it, is not ours. So benchmarks tell two numbers: what was measured, and the same **at full
speed**: each round scaled by how long the fixed piece took in that round and in the fastest moments so far.
"""

from __future__ import annotations

import gc
import time

_FIRST = 300
"""Samples that are taken before anything is measured; half a second."""


class _Node:
    def __init__(self, number: int) -> None:
        self.number = number
        self.text = f"word {number}"

    def __getattr__(self, name: str) -> int:
        raise AttributeError(name)


_NODES = [_Node(number) for number in range(50)]


def _work() -> int:
    """Attributes, calls, numbers, texts and dictionaries."""
    total = 0
    seen: dict[str, int] = {}
    for _ in range(60):
        for node in _NODES:
            text = node.text
            if text.isascii():
                total += len(text) * 3
            seen[text] = node.number
    return total


class Speed:
    """Samples of the machine's speed; the fastest are those of the fastest twentieth."""

    def __init__(self) -> None:
        self._samples = sorted(self._time() for _ in range(_FIRST))

    @staticmethod
    def _time() -> float:
        collects = gc.isenabled()
        gc.disable()
        start = time.thread_time()
        _work()
        took = time.thread_time() - start
        if collects:
            gc.enable()
        return took

    def share(self) -> float:
        """How fast the machine is now, beside its fastest moments so far: at most about 1."""
        took = self._time()
        self._samples.append(took)
        self._samples.sort()
        return self._samples[len(self._samples) // 20] / took
