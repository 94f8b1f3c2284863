"""Where the scenes play: the stand-in provider, clients of the real SDKs, and the demo's own OpenTelemetry."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

import anthropic
import httpx2
import openai

from ..instrumentor import ShekelInstrumentor
from ..testing import FakeProvider
from .recording import CallSeen, Recording
from .screen import Screen

_PACE = 0.014
"""Seconds per token on a terminal: about the speed of a large model."""

_PACE_PIPED = 0.008
"""When nobody watches."""

LINGER = 0.06
"""Seconds for which the stand-in goes on generating when a client has left: as over a real network."""

_TIMEOUT = 30.0
"""Seconds without a byte after which a call fails: nothing in the demo is slower."""

_KEY = "no-key-needed"


class Stage:
    """Set up on entering, taken down on leaving; global providers and the environment stay as they are."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.pace = _PACE_PIPED if screen.plain else _PACE
        self.recording = Recording()
        self.provider = FakeProvider(pace=self.pace)
        self._instrumentor = ShekelInstrumentor()
        self._was_instrumented = False

    def __enter__(self) -> Self:
        self._was_instrumented = self._instrumentor.is_instrumented_by_opentelemetry
        if self._was_instrumented:  # the demo's calls are to go to the demo's providers
            self._instrumentor.uninstrument()
        self._instrumentor.instrument(
            tracer_provider=self.recording.tracer_provider, meter_provider=self.recording.meter_provider
        )
        self.tracer = self.recording.tracer_provider.get_tracer("shekel.demo")
        self.provider.start()
        # `trust_env=False`: a proxy for the outside world must not get calls to this machine (the SDKs' own default
        # clients would use it all the same). `open_telemetry=False`: Anthropic's own spans depend on the environment.
        self.openai = openai.OpenAI(
            api_key=_KEY,
            base_url=self.provider.openai_url,
            http_client=httpx2.Client(trust_env=False, timeout=_TIMEOUT),
        )
        self.anthropic = anthropic.Anthropic(
            api_key=_KEY,
            base_url=self.provider.anthropic_url,
            http_client=httpx2.Client(trust_env=False, timeout=_TIMEOUT),
            open_telemetry=False,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.openai.close()
        self.anthropic.close()
        self._instrumentor.uninstrument()
        if self._was_instrumented:
            self._instrumentor.instrument()
        self.provider.close()
        self.recording.shutdown()

    def async_clients(self) -> tuple[openai.AsyncOpenAI, anthropic.AsyncAnthropic]:
        """Clients for one event loop."""
        return (
            openai.AsyncOpenAI(
                api_key=_KEY,
                base_url=self.provider.openai_url,
                http_client=httpx2.AsyncClient(trust_env=False, timeout=_TIMEOUT),
            ),
            anthropic.AsyncAnthropic(
                api_key=_KEY,
                base_url=self.provider.anthropic_url,
                http_client=httpx2.AsyncClient(trust_env=False, timeout=_TIMEOUT),
                open_telemetry=False,
            ),
        )

    def introduction(self) -> str:
        return (
            f"The real SDKs, openai {openai.__version__} and anthropic {anthropic.__version__}, call a stand-in "
            "provider on this machine: no key, no network, no money. It keeps a bill of its own, which is laid "
            "beside Shekel's numbers at the end."
        )

    def last_call(self) -> CallSeen:
        """The call that started last."""
        return self.recording.calls()[-1]

    def rest(self, seconds: float) -> None:
        """Time to read, where somebody reads."""
        if not self.screen.plain:
            time.sleep(seconds)
