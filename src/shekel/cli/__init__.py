"""The command `shekel`. It parses arguments and hands over; each command is imported when it is asked for."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence

from ..vocabulary import TENANTS
from . import estimate as _estimate

INTERRUPTED = 130
"""The exit status of a program that Ctrl+C ended, as shells have it."""

_ELSEWHERE = {
    "models": "the prices are those of the package genai-prices, and `shekel estimate` asks for one of them",
    "tenants": TENANTS,
}
"""Commands of the `shekel` library, and what to use instead."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the arguments after the program's name; those of the process if None.

    Returns:
        the exit status: 0 if all went well, 1 if an export failed, 2 if something is missing, 130 after Ctrl+C; for
            `run` see there.

    Raises:
        SystemExit: by `--help` and `--version` (0) and by arguments that make no sense (2).
    """
    given = sys.argv[1:] if argv is None else list(argv)
    if given[:1] == ["run"]:  # what stands behind the script is the script's
        from . import run as running

        return running.main(given[1:])
    if given[:1] and given[0] in _ELSEWHERE:
        print(f"shekel: `shekel {given[0]}` is not here yet: {_ELSEWHERE[given[0]]}.", file=sys.stderr)
        return 2
    arguments = _parser().parse_args(given)
    if arguments.command == "estimate":
        return _estimate.estimate(arguments.model, arguments.input_tokens, arguments.output_tokens)
    if arguments.command != "demo":
        _parser().print_help()
        return 0
    from .demo import run

    try:
        return run(otlp=arguments.otlp, load=arguments.load)
    except KeyboardInterrupt:
        print()  # the cursor is in the middle of a line
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    from ..package import version

    parser = argparse.ArgumentParser(
        prog="shekel",
        description="What every call to a language model costs, and how spending stops at the limit.",
    )
    parser.add_argument("--version", action="version", version=f"shekel {version()}")
    commands = parser.add_subparsers(dest="command", metavar="command", title="commands")
    commands.add_parser("run", help="run a Python script as it is, under a budget", add_help=False)
    demo = commands.add_parser(
        "demo",
        help="see it work in about ten seconds: no key, no network, no money",
        description="Runs the real openai and anthropic SDKs against a stand-in provider on this machine, and shows "
        "what their calls cost while they run, and how budgets stop them. It needs no key and no network.",
    )
    demo.add_argument(
        "--otlp",
        metavar="ENDPOINT",
        help="also export the spans and metrics over OTLP/HTTP, such as http://localhost:4318 "
        "(default: where OTEL_EXPORTER_OTLP_ENDPOINT says; not exported if neither is given)",
    )
    demo.add_argument(
        "--load",
        metavar="SECONDS",
        type=_seconds,
        help="instead of the scenes: a service with many users for so many seconds (0: until it is stopped), exported "
        "while it runs, so that dashboards have something to show; needs an endpoint",
    )
    _estimate.add(commands)
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds, 0 or more, not {text!r}")
    return seconds
