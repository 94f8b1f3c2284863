"""The app of `app.py` as a child process: told what to do, asked what it has spent, ended as programs end or killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from shekel.testing import FakeProvider, Reply, RequestSeen

SCRIPT = Path(__file__).with_name("app.py")


def answers(seen: RequestSeen) -> Reply | None:
    """Long and slow answers of the model whose streams are left and cut, so that they are caught on the way."""
    body = seen.body if isinstance(seen.body, dict) else {}
    return Reply(output_tokens=4_000, pace=0.001) if body.get("model") == "gpt-4.1-nano" else None


class App:
    """A running app. Used in a `with` block, it ends as programs do: what it has told is flushed.

    Args:
        provider: whom it calls.
        otlp: base URL of the OTLP/HTTP receiver.
        tells: "both", "traces" or "metrics".
        service: its service.name.
        **environment: more variables.
    """

    def __init__(
        self, provider: FakeProvider, otlp: str, tells: str = "both", service: str = "app", **environment: str
    ) -> None:
        variables = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "PYTHONPATH") if name in os.environ},
            "OPENAI_BASE_URL": provider.openai_url,
            "ANTHROPIC_BASE_URL": provider.anthropic_url,
            "OPENAI_API_KEY": "test",
            "ANTHROPIC_API_KEY": "test",
            "SHEKEL_INCLUDE_USAGE_HOSTS": provider.host,
            "OTEL_SERVICE_NAME": service,
            "OTEL_EXPORTER_OTLP_ENDPOINT": otlp,
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            **environment,
        }
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), tells],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=variables,
        )
        self._line()

    def do(self, what: str, **arguments: Any) -> Any:
        """Have it do something, and return its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
        self.process.stdin.flush()
        return self._line()["answer"]

    def _line(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            _, said = self.process.communicate()
            raise AssertionError(f"the app ended with {self.process.returncode}:\n{said[-3000:]}")
        return json.loads(line)

    def end(self) -> str:
        """Let it end, and return what it said on standard error."""
        _, said = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, said[-3000:]
        return said

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            if kind is None:
                self.end()
            else:
                self.kill()
