"""Appraisal: what calls will probably take, and what a usage costs: prices and estimates, as a call asks for them.

It decides nothing and knows no meters: the gate holds by what is said here, and settlement charges by it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .. import faults
from ..call import Call
from ..estimation import Estimator, Text
from ..providers.base import Answer, StreamReader
from ..usage import Usage

if TYPE_CHECKING:
    from ..pricing import Prices, Quote


class Appraisal:
    """Prices and estimates for calls.

    Args:
        prices: the price list, made when it is first needed.
        estimator: estimates of tokens.
    """

    def __init__(self, prices: Callable[[], Prices], estimator: Estimator) -> None:
        self.prices = prices
        self.estimator = estimator

    def estimate_input(self, call: Call) -> None:
        """Say how many input tokens the call will probably take."""
        request = call.request
        call.input_tokens = self.estimator.input_tokens(request.model, request.text) + request.extra_input

    def quote(self, call: Call, model: str) -> Quote | None:
        """The price of a model for this request, at the time it started; None if nobody says one."""
        if call.override is not None:
            return call.override
        request = call.request
        return self.prices().quote(
            call.provider,
            model,
            host=call.host,
            service_tier=request.service_tier,
            speed=request.speed,
            at=call.started_wall,
        )

    def price(self, call: Call, model: str | None, usage: Usage) -> tuple[Quote, int] | None:
        """The price of a usage: by the model that answered, else the one asked for. None if neither has one."""
        prices = self.prices()
        quote = call.override
        if quote is None and model:
            quote = prices.quote(
                call.provider,
                model,
                host=call.host,
                service_tier=usage.service_tier or call.request.service_tier,
                speed=usage.speed or call.request.speed,
                at=call.started_wall,
            )
        if quote is None:
            quote = call.quote
        if quote is None:
            return None
        return quote, prices.cost(quote, usage, provider=call.provider, at=call.started_wall)

    def output_tokens(self, call: Call, reader: StreamReader) -> int:
        """Output tokens of a stream that the provider has not counted, rounded up."""
        return -(-reader.units // 1000)

    def expected_output(self, call: Call) -> int:
        """Output tokens of all choices that a call of this model will hardly exceed, by what is learnt of it."""
        likely = self.estimator.expected_output(call.model)
        cap = call.request.cap
        return call.request.choices * (likely if cap is None else min(cap, likely))

    def text_tokens(self, call: Call, text: Text) -> int:
        """Output tokens of a whole text that the provider has not counted."""
        return self.estimator.output_tokens(call.model, text)

    def learn(self, call: Call, answer: Answer) -> None:
        """Let the estimates learn from an answer whose usage the provider has counted."""
        usage = answer.usage
        if usage is None:
            return
        try:
            model = call.model
            request = call.request
            if request.unbounded is None:
                self.estimator.observe_input(model, request.text, usage.input - request.extra_input)
            self.estimator.observe_output(
                model, answer.text, output=usage.output, reasoning=usage.reasoning, choices=request.choices
            )
        except Exception as error:
            faults.report("learnt from an answer", error)
