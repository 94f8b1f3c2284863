"""Estimation: tokens of texts that nobody counted for us.

UTF-8 bytes tell more about tokens than characters do, and the width of a character in UTF-8 tells its script: one
byte for Latin letters and code, two for Cyrillic, Greek, Arabic and Hebrew, three for CJK and Indic scripts, four for
emoji. So a text is measured once, as four byte counts (`Text`), and tokens are those counts times four rates
(`Rates`). The rates start from priors and are learnt from finished calls, per model and dominant script
(`Estimator`).

This file must never know a provider, a price or a budget, fetch or load a tokenizer, keep any text, or take a lock:
a finaliser may observe a call while the same thread is in the middle of an estimate.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import ceil

from .facts import fact

_ASCII = bytes(range(0x80))
_NOT_LEADS = bytes(range(0xC0))  # ASCII and continuation bytes
_LEADS_OF_TWO = bytes(range(0xC0, 0xE0))
_LEADS_OF_THREE = bytes(range(0xE0, 0xF0))
_FEW = 8
"""Characters, of a chunk of a stream, that are sooner counted one by one than encoded."""


@fact
class Text:
    """How long a text is: bytes of UTF-8, by the width of the encoded character.

    Attributes:
        one, two, three, four: bytes of all characters that take so many bytes (so `two` is even).
    """

    one: int = 0
    two: int = 0
    three: int = 0
    four: int = 0

    @property
    def bytes(self) -> int:
        """Bytes of UTF-8 in all."""
        return self.one + self.two + self.three + self.four

    @property
    def script(self) -> int:
        """The dominant script, as the width (1 to 4) that most bytes belong to."""
        widths = (self.one, self.two, self.three, self.four)
        return widths.index(max(widths)) + 1

    def __add__(self, other: Text) -> Text:
        return Text(self.one + other.one, self.two + other.two, self.three + other.three, self.four + other.four)


NOTHING = Text()


def widths(text: str) -> tuple[int, int, int, int]:
    """The counts of `Text` without the object, for those who sum them up. Never raises."""
    if text.isascii():
        return len(text), 0, 0, 0
    if len(text) <= _FEW:
        one = two = three = four = 0
        for character in text:
            if character < "\x80":
                one += 1
            elif character < "\u0800":
                two += 2
            elif character < "\U00010000":
                three += 3
            else:
                four += 4
        return one, two, three, four
    encoded = text.encode("utf-8", "surrogatepass")
    leads = encoded.translate(None, _NOT_LEADS)
    without_two = leads.translate(None, _LEADS_OF_TWO)
    fours = len(without_two.translate(None, _LEADS_OF_THREE))
    two = 2 * (len(leads) - len(without_two))
    three = 3 * (len(without_two) - fours)
    four = 4 * fours
    return len(encoded) - two - three - four, two, three, four


def measure(text: str) -> Text:
    """How long a text is. Lone surrogates count three bytes, as `surrogatepass` encodes them. Never raises."""
    return Text(*widths(text))


@dataclass(frozen=True, slots=True)
class Rates:
    """Thousandths of a token per byte, for each width of character."""

    one: int
    two: int
    three: int
    four: int

    def units(self, text: Text) -> int:
        """A text's length in thousandths of a token."""
        return text.one * self.one + text.two * self.two + text.three * self.three + text.four * self.four

    def scaled(self, factors: tuple[float, float, float, float]) -> Rates:
        """These rates, each times its factor; at least one thousandth."""
        one, two, three, four = factors
        return Rates(
            max(1, round(self.one * one)),
            max(1, round(self.two * two)),
            max(1, round(self.three * three)),
            max(1, round(self.four * four)),
        )


INPUT_PRIOR = Rates(one=270, two=540, three=500, four=750)
"""What a model that nobody has called yet is taken to count for input.

Measured with OpenAI's two public vocabularies (cl100k_base, o200k_base) on the message catalogues of 150 languages, as
estimate / truth: English prose and Python 1.1 to 1.2; other languages in Latin letters 0.65 to 1.1; the other scripts
0.53 (Armenian, Oriya and Ethiopic in the older vocabulary) to above 2 (Russian and Hindi in the newer one). So no
script is below the truth by more than a factor of two; only text that is no language at all (base64, 0.37; UUIDs,
0.42) is.
"""

OUTPUT_PRIOR = Rates(one=250, two=300, three=350, four=600)
"""The same for output, as a best estimate: nearer to the newer vocabularies, which models that generate today use."""

EXPECTED_OUTPUT = 1024
"""Output tokens per choice that a call is expected to bring while its model is unknown (fewer than `ENOUGH` calls)."""

ENOUGH = 8
"""Calls of a model before what was learnt replaces what was assumed."""

_WINDOW = 64  # calls that are remembered per model and script
_MODELS = 256  # models that are remembered
_LEAST_INPUT = 256  # bytes; a shorter text says more about fixed overheads than about its rate
_LEAST_OUTPUT = 64
_MOST_WRONG = 8.0  # an observation further from the prior than this was not explained by its text
_PRIOR_UNITS = 200_000  # the prior weighs as much as 200 observed tokens of output


class _Recent:
    """The last numbers seen, and their 95th percentile, computed when it is asked for and something is new."""

    __slots__ = ("_computed", "_percentile", "_values", "seen")

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=_WINDOW)
        self._percentile = 0.0
        self._computed = 0
        self.seen = 0

    def add(self, value: float) -> None:
        self._values.append(value)
        self.seen += 1

    def percentile(self) -> float:
        seen = self.seen
        if seen != self._computed:
            try:
                ordered = sorted(self._values)
            except RuntimeError:  # another thread added meanwhile: the former answer is good enough
                return self._percentile
            self._percentile = ordered[-(-len(ordered) * 95 // 100) - 1]  # nearest rank
            self._computed = seen
        return self._percentile


class _Ratio:
    """How many times the prior the outputs of one script take: the ratio of the sums over the last calls.

    The prior weighs as much as `_PRIOR_UNITS`, so that few calls move it little.
    """

    __slots__ = ("_computed", "_pairs", "_ratio", "seen")

    def __init__(self) -> None:
        self._pairs: deque[tuple[int, int]] = deque(maxlen=_WINDOW)
        self._ratio = 1.0
        self._computed = 0
        self.seen = 0

    def add(self, tokens: int, units: int) -> None:
        self._pairs.append((tokens, units))
        self.seen += 1

    def ratio(self) -> float:
        seen = self.seen
        if seen != self._computed:
            tokens, units = 0, _PRIOR_UNITS
            try:
                for one_tokens, one_units in self._pairs:
                    tokens += one_tokens
                    units += one_units
            except RuntimeError:  # another thread added meanwhile: the former answer is good enough
                return self._ratio
            self._ratio = (1000 * tokens + _PRIOR_UNITS) / units
            self._computed = seen
        return self._ratio


class _Learnt:
    """What is known of one model."""

    __slots__ = ("_rates", "_rates_seen", "inputs", "lengths", "outputs", "outputs_seen")

    def __init__(self) -> None:
        self.inputs = (_Recent(), _Recent(), _Recent(), _Recent())
        self.outputs = (_Ratio(), _Ratio(), _Ratio(), _Ratio())
        self.lengths = _Recent()
        self.outputs_seen = 0
        self._rates = OUTPUT_PRIOR
        self._rates_seen = 0

    def rates(self) -> Rates:
        seen = self.outputs_seen
        if seen != self._rates_seen:
            one, two, three, four = self.outputs
            self._rates = OUTPUT_PRIOR.scaled((one.ratio(), two.ratio(), three.ratio(), four.ratio()))
            self._rates_seen = seen
        return self._rates


class Estimator:
    """Learns from finished calls how many tokens a text is, per model and dominant script.

    What is learnt is a factor on the prior: for a text of one script that is exactly its tokens per byte, and a mixed
    text keeps the proportions of its parts. Memory is bounded (256 models, 64 calls each and script). Threads may use
    it at the same time: a race loses at most an observation.
    """

    __slots__ = ("_models",)

    def __init__(self) -> None:
        self._models: dict[str, _Learnt] = {}

    def rates(self, model: str) -> Rates:
        """The best estimate for the output of a model, for readers of its streams."""
        learnt = self._models.get(model)
        return OUTPUT_PRIOR if learnt is None else learnt.rates()

    def input_tokens(self, model: str, text: Text) -> int:
        """A careful estimate of input, in tokens: at the 95th percentile of what the model took for such texts.

        Fewer than eight calls can only raise the prior, not lower it.
        """
        factor = 1.0
        learnt = self._models.get(model)
        if learnt is not None:
            recent = learnt.inputs[text.script - 1]
            if recent.seen >= ENOUGH:
                factor = recent.percentile()
            elif recent.seen:
                factor = max(1.0, recent.percentile())
        # A float factor must not turn what is exactly n tokens into n + 1.
        return max(0, ceil(INPUT_PRIOR.units(text) * factor / 1000 - 1e-6))

    def output_tokens(self, model: str, text: Text) -> int:
        """The best estimate of visible output, in tokens; at least one for a text that is not empty."""
        return -(-self.rates(model).units(text) // 1000)

    def expected_output(self, model: str) -> int:
        """How many output tokens per choice, reasoning included, a call of this model will hardly exceed.

        The 95th percentile over its last 64 calls with usage; `EXPECTED_OUTPUT` before there are eight.
        """
        learnt = self._models.get(model)
        if learnt is None or learnt.lengths.seen < ENOUGH:
            return EXPECTED_OUTPUT
        return int(learnt.lengths.percentile())

    def observe_input(self, model: str, text: Text, tokens: int) -> None:
        """Learn from the input of a call whose tokens its text explains.

        Args:
            model: the model asked for.
            text: all text that was sent.
            tokens: the provider's count, without what is not text (`Request.extra_input`). Do not call this for
                requests with images, files or server tools, or whose conversation is kept by the provider.
        """
        size = text.bytes
        if size < _LEAST_INPUT or tokens <= 0:
            return
        factor = 1000 * tokens / INPUT_PRIOR.units(text)
        if 1 / _MOST_WRONG < factor < _MOST_WRONG:
            self._learnt(model).inputs[text.script - 1].add(factor)

    def observe_output(self, model: str, text: Text, *, output: int, reasoning: int = 0, choices: int = 1) -> None:
        """Learn from the output of a finished call.

        Args:
            model: the model asked for.
            text: what was generated, without the reasoning that `reasoning` counts.
            output: the provider's count of all output tokens, of all choices, reasoning included.
            reasoning: of `output`, the tokens of reasoning.
            choices: how many choices were generated.
        """
        if output <= 0:
            return
        learnt = self._learnt(model)
        learnt.lengths.add(-(-output // max(1, choices)))
        visible = output - reasoning
        units = OUTPUT_PRIOR.units(text)
        if text.bytes >= _LEAST_OUTPUT and 1 / _MOST_WRONG < 1000 * visible / units < _MOST_WRONG:
            learnt.outputs[text.script - 1].add(visible, units)
            learnt.outputs_seen += 1

    def _learnt(self, model: str) -> _Learnt:
        models = self._models
        learnt = models.get(model)
        if learnt is None:
            learnt = models.setdefault(model, _Learnt())
            while len(models) > _MODELS:
                try:
                    del models[next(iter(models))]
                except (KeyError, RuntimeError, StopIteration):  # another thread dropped it
                    break
        return learnt
