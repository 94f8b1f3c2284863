"""ShekelInstrumentor: puts the parts together and takes them apart. The face of every OpenTelemetry instrumentation."""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

import shekel

from .package import _instruments_any, warn_of_other
from .runtime import the_runtime

if getattr(shekel, "__distribution__", None) is None:  # the files of another `shekel` lie over ours
    warn_of_other()


class ShekelInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Meters every call of the `openai` and `anthropic` SDKs, and tells of it.

        ShekelInstrumentor().instrument()

    `instrument()` imports no SDK: each is wrapped when the program imports it. Its arguments are
    `tracer_provider` and `meter_provider`; without them the global providers are used, also where those are
    set later.
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

    def _instrument(self, **kwargs: Any) -> None:
        runtime = the_runtime()
        try:
            runtime.read_environment()
        except ValueError as error:
            # A limit that nobody can read must not become no limit, and what is raised here would only be logged and
            # would end every other instrumentation: the program does not start.
            raise SystemExit(f"shekel: {error}") from None
        runtime.teller.bind(kwargs.get("tracer_provider"), kwargs.get("meter_provider"))
        runtime.acquire_doors()

    def _uninstrument(self, **kwargs: Any) -> None:
        runtime = the_runtime()
        runtime.teller.unbind()
        runtime.release_doors()


__all__ = ["ShekelInstrumentor"]
