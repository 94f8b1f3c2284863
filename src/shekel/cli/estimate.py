"""`shekel estimate`: what a call of so many tokens costs, by the price list. It makes none."""

from __future__ import annotations

import argparse
import sys
import time

from ..shown import shown

UNKNOWN = 2


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Put the command on the command line."""
    made = commands.add_parser("estimate", help="what a call of so many tokens costs, by the price list")
    made.add_argument("--model", metavar="NAME", required=True, help="the model's name")
    made.add_argument("--input-tokens", metavar="N", type=_tokens, required=True, help="tokens sent")
    made.add_argument("--output-tokens", metavar="N", type=_tokens, required=True, help="tokens received")


def estimate(model: str, input_tokens: int, output_tokens: int) -> int:
    """Print what it costs in USD.

    Returns:
        the exit status: 0, or 2 where nobody prices the model.
    """
    from ..pricing import Prices, provider_of, usd
    from ..usage import Usage

    quote = Prices().quote(provider_of(model) or "openai", model, at=time.time())
    if quote is None:
        print(
            f"shekel: no price is known for {shown(model)}: give a model's name as the provider has it.",
            file=sys.stderr,
        )
        return UNKNOWN
    print(f"Estimated cost: ${usd(quote.cost(Usage(input=input_tokens, output=output_tokens))):.6f}")
    return 0


def _tokens(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a number of tokens, at least 0, not {text!r}")
    return int(text)
