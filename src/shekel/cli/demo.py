"""`shekel demo`: the scenes in their order, and at the end the calls, the provider's bill beside them, and the spans.

Every number on the screen is measured in the run. It never changes the program's environment or its global providers.
"""

from __future__ import annotations

import os
import sys
import time
from importlib.util import find_spec

from ..package import DISTRIBUTION, version

_NEEDED = ("rich", "openai", "anthropic", "opentelemetry.exporter.otlp.proto.http")


def run(*, otlp: str | None = None, load: float | None = None) -> int:
    """Run the demo on standard output.

    Args:
        otlp: the base URL of an OTLP/HTTP receiver to export to; None for OTEL_EXPORTER_OTLP_ENDPOINT, if set.
        load: run a load for so many seconds (0: until it is stopped) instead of the scenes.

    Returns:
        0; 1 if an export was asked for and failed; 2 if the demo cannot run here.
    """
    missing = [name for name in _NEEDED if not _installed(name)]
    if missing:
        print(
            f'The demo needs more than Shekel itself ({", ".join(missing)}): pip install "{DISTRIBUTION}[demo]"',
            file=sys.stderr,
        )
        return 2
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        print("The demo shows spans, but OTEL_SDK_DISABLED is true: unset it and run again.", file=sys.stderr)
        return 2
    try:
        return _run(otlp) if load is None else _load(otlp, load)
    except BrokenPipeError:
        # Whoever read us (`| head`) has seen enough. What is left in the buffer must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _load(otlp: str | None, seconds: float) -> int:
    where = otlp or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if not where:
        print(
            "A load is for dashboards, and needs to know where they get their data: "
            "shekel demo --otlp http://localhost:4318 --load 60",
            file=sys.stderr,
        )
        return 2
    from . import load

    shape = load.Shape(seconds)
    print(
        f"{shape.users} users, {shape.rate:g} sessions a second, "
        f"{f'for {seconds:g} s' if seconds else 'until Ctrl+C'}; exported over OTLP/HTTP to {where}",
        flush=True,
    )
    load.run(where, shape, say=lambda line: print(line, flush=True))
    return 0


def _run(otlp: str | None) -> int:
    from .screen import Screen

    started = time.monotonic()
    screen = Screen()
    screen.title(
        f"Shekel {version()}",
        "What calls to language models cost, and how spending stops at the limit.",
    )
    with screen.busy("Loading the openai and anthropic SDKs, starting the stand-in provider"):
        from rich.padding import Padding

        from .report import bill_table, check_totals, span_tree
        from .scenes import SCENES
        from .stage import Stage
    with Stage(screen) as stage:
        screen.say(stage.introduction())
        with stage.tracer.start_as_current_span("shekel demo"):
            for number, scene in enumerate(SCENES, 1):
                scene.play(stage, f"{number}/{len(SCENES)}")
        stage.provider.wait_idle()
        calls, bill = stage.recording.calls(), stage.provider.bill.attempts
        screen.heading("What Shekel counted, beside the provider's own bill")
        screen.show(bill_table(calls, bill))
        screen.say(check_totals(calls, bill, stage.recording.metric_total("shekel.cost")))
        screen.heading("The same calls as OpenTelemetry spans")
        screen.show(Padding(span_tree(stage.recording.spans()), (0, 0, 0, 2)))
        sent = stage.recording.export(otlp)
    screen.heading("In your own program")
    screen.code("from shekel import ShekelInstrumentor, budget")
    screen.code("ShekelInstrumentor().instrument()       # every call: a span with its cost")
    screen.code("with budget(max_usd=0.50) as b: ...     # and a limit, wherever you want one")
    screen.say(sent.sentence)
    screen.say(f"{len(calls)} calls, {len(bill)} of them sent, in {time.monotonic() - started:.1f} s.")
    return 0 if sent.ok else 1


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # a package that it lies in is missing
        return False
