"""What every test has in common: an environment that says nothing to the SDKs and to OpenTelemetry."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable, Iterator

import anthropic
import openai
import pytest
from hypothesis import HealthCheck, settings

from shekel.budgets import presence
from shekel.runtime import the_runtime
from shekel.testing import Clock, FakeProvider

# How fast a machine draws examples and runs them is no property of what is tested.
settings.register_profile("any machine", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep keys, hosts and telemetry settings of the machine out of the tests."""
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "ANTHROPIC_", "OTEL_")):
            monkeypatch.delenv(name)


@pytest.fixture
def nothing_in_force() -> Callable[[], None]:
    """The SDKs are untouched: what others still keep of earlier tests, as in log records, is forgotten.

    Returns what waits until that is so again, and no context has a block of this test.
    """

    def wait() -> None:
        deadline = time.monotonic() + 30
        gc.collect()
        while the_runtime().wanted:
            assert time.monotonic() < deadline, "somebody keeps a context, or an instrumentation"
            time.sleep(0.005)
            gc.collect()
        the_runtime().close_doors()

    gc.collect()
    presence.in_force.clear()
    the_runtime().close_doors()
    assert not the_runtime().wanted, "an earlier test has left an instrumentation, or a listener"
    return wait


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of the process, which goes on when it is told to."""
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    monkeypatch.setattr(time, "time_ns", lambda: int(clock() * 1e9))
    return clock


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    """The stand-in for the providers."""
    with FakeProvider() as provider:
        yield provider


@pytest.fixture
def client(provider: FakeProvider) -> Iterator[openai.OpenAI]:
    """A client of its that tries once."""
    with openai.OpenAI(base_url=provider.openai_url, api_key="test", max_retries=0) as client:
        yield client


@pytest.fixture
def claude(provider: FakeProvider) -> Iterator[anthropic.Anthropic]:
    """The same for the other SDK."""
    with anthropic.Anthropic(base_url=provider.anthropic_url, api_key="test", max_retries=0) as client:
        yield client


def pytest_configure() -> None:
    """Tests press Ctrl+C. A shell lets what it runs in the background ignore that, and Python keeps to it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Keep what the imports made out of garbage collections: the SDKs' modules alone take half a second each time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Keep it out again after the tests of a file that has thawed it."""
    if (nextitem is None or nextitem.path != item.path) and not gc.get_freeze_count():
        pytest_collection_finish()


def pytest_report_header() -> str:
    """Say whether the recorded traffic is there, as many tests are skipped where it is not."""
    directory = os.environ.get("SHEKEL_REPLAY")
    return f"recorded traffic: {directory or 'none (set SHEKEL_REPLAY)'}"
