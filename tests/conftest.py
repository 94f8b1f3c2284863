"""What every test has in common: an environment that says nothing to the SDKs and to OpenTelemetry."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep keys, hosts and telemetry settings of the machine out of the tests."""
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "ANTHROPIC_", "OTEL_")):
            monkeypatch.delenv(name)


def pytest_report_header() -> str:
    """Say whether the recorded traffic is there, as many tests are skipped where it is not."""
    directory = os.environ.get("SHEKEL_REPLAY")
    return f"recorded traffic: {directory or 'none (set SHEKEL_REPLAY)'}"
