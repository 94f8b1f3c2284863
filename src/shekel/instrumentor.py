"""ShekelInstrumentor: puts the parts together and takes them apart. The face of every OpenTelemetry instrumentation."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from inspect import currentframe
from typing import Any, NoReturn

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

import shekel

from . import late
from .package import _instruments_any, warn_of_other
from .runtime import the_runtime

if getattr(shekel, "__distribution__", None) is None:  # the files of another `shekel` lie over ours
    warn_of_other()


class ShekelInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Meters every call of the `openai` and `anthropic` SDKs, and tells of it.

        ShekelInstrumentor().instrument()

    `instrument()` imports no SDK: each is wrapped when the program imports it. Its arguments are
    `tracer_provider`, `meter_provider` and `logger_provider`; without them the global providers are used, also where
    those are set later.
    """

    def instrumentation_dependencies(self) -> Collection[str]:
        """Those of the supported SDKs that are installed; both, if none is (so that the reason can be shown)."""
        installed = []
        for requirement in _instruments_any:
            try:
                version_of(requirement.split()[0])
            except PackageNotFoundError:
                continue
            installed.append(requirement.split()[0])
        return tuple(installed) or _instruments_any

    def instrument(self, **kwargs: Any) -> Any:
        """Begin to meter and to tell. Reads SHEKEL_BUDGET.

        Args:
            **kwargs: `tracer_provider`, `meter_provider`, `logger_provider`, and what `BaseInstrumentor.instrument`
                takes.

        Raises:
            ValueError: SHEKEL_BUDGET is no spec. Under `opentelemetry-instrument`, which would only log this, the
                program ends instead, with the sentence on stderr: a limit that nobody can read must not become none.
        """
        try:
            the_runtime().settings.read_environment()
        except ValueError as error:
            # Whoever skips the check of dependencies is an agent that has done it: what is raised is logged at most.
            if kwargs.get("skip_dep_check"):
                _end(f"shekel: {error} The program was not started.")
            raise
        return super().instrument(**kwargs)

    def _instrument(self, **kwargs: Any) -> None:
        runtime = the_runtime()
        runtime.teller.bind(*(kwargs.get(each) for each in ("tracer_provider", "meter_provider", "logger_provider")))
        runtime.acquire_doors()
        runtime.watch()

    def _uninstrument(self, **kwargs: Any) -> None:
        runtime = the_runtime()
        late.told()  # streams that were dropped before: who uninstruments is about to shut the providers down
        runtime.teller.unbind()
        runtime.release_doors()


def _end(sentence: str) -> NoReturn:
    """End the program with a sentence on stderr and the exit code 1.

    While Python itself starts, `SystemExit` is a "fatal error" with a long traceback. Nothing of the program has run
    then, so there is nothing that an exit at once could lose.
    """
    frame = currentframe()
    while frame is not None and frame.f_globals.get("__name__") not in ("sitecustomize", "site"):
        frame = frame.f_back
    if frame is None:
        raise SystemExit(sentence) from None
    print(sentence, file=sys.stderr, flush=True)
    os._exit(1)


__all__ = ["ShekelInstrumentor"]
